"""Bytes under keys: immutable objects, verified by checksum, behind one small protocol."""

from cloudseg.storage.local import LocalStore
from cloudseg.storage.store import S3Options, Store, open_store

__all__ = ["LocalStore", "S3Options", "Store", "open_store"]
