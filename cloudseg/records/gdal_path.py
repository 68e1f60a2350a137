"""The name under which GDAL opens an object of the store."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike


@dataclass(frozen=True)
class GdalPath(PathLike[str]):
    """The name under which GDAL opens an object by ranges, with what it needs for that.

    A path for everything that takes one.
    """

    path: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """GDAL's configuration while the object is open. Holds credentials: never to be printed or logged."""
    check: Callable[[], object] = field(default=lambda: None, repr=False, compare=False)
    """Check that raises the store's own error if the object is missing or the store does not serve it.

    GDAL's messages do not distinguish these.
    """

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path
