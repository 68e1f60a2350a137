"""Open an object that a row names, after comparing its bytes with the checksum of the row."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from cloudseg.errors import ObjectCorrupt, ObjectMissing
from cloudseg.storage.protocol import Store


class Named(Protocol):
    """A row that names an object: a scene, a label, a mask."""

    @property
    def key(self) -> str:
        """Of the object."""
        ...

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        ...


@contextmanager
def whole_object(store: Store, row: Named, owner: str) -> Iterator[Path]:
    """Yield a local file with the object of a row, once all its bytes are known to be those that were stored.

    A raster may decode without an error after one bit of it has changed, because its tiles carry no checksum, and the
    result is wrong. So the whole object is read first: 0.2 s for 60 MiB in a local store (measured on a busy core of a
    server), and one download from S3 into the temporary directory instead of reads by range.

    Args:
        store: holds the object.
        row: its row.
        owner: names the row in errors, such as `scene sc_...`.

    Raises:
        ObjectMissing: there is no such object.
        ObjectCorrupt: its bytes are not those of the row.
    """
    with ExitStack() as stack:
        try:
            path = stack.enter_context(store.local_file(row.key, row.sha256))
        except (ObjectCorrupt, ObjectMissing) as error:
            raise type(error)(
                error.what,
                subject=f"{owner} ({row.key})",
                found=error.found,
                expected=error.expected,
                next_step=error.next_step,
            ) from error
        yield path
