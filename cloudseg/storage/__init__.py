"""Immutable objects under keys, verified by checksum, behind one small protocol."""

from cloudseg.storage.factory import open_store
from cloudseg.storage.local import LocalStore
from cloudseg.storage.protocol import S3Options, Store
from cloudseg.storage.whole import whole_object

__all__ = ["LocalStore", "S3Options", "Store", "open_store", "whole_object"]
