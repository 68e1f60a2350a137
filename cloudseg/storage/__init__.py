"""Bytes under keys: immutable objects, verified by checksum, behind one small protocol."""

from cloudseg.storage.local import LocalStore
from cloudseg.storage.store import Store, open_store

__all__ = ["LocalStore", "Store", "open_store"]
