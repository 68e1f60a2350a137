"""Where the service of a fault test keeps its things: copied in a moment, so that every kill begins from the same state."""

import shutil
from pathlib import Path
from typing import Protocol


class Home(Protocol):
    """A state of the service: rows and bytes."""

    @property
    def environment(self) -> dict[str, str]:
        """Settings with which a process works on it."""
        ...

    def copy(self, folder: Path) -> "Home":
        """Give a state of its own with the same rows and bytes; nobody may be working on this one. `folder` is free to use."""
        ...

    def drop(self) -> None:
        """Give back what it occupies."""
        ...


class LocalHome:
    """A SQLite file and a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def environment(self) -> dict[str, str]:
        return {"CLOUDSEG_HOME": str(self._folder)}

    def copy(self, folder: Path) -> "LocalHome":
        shutil.copytree(self._folder, folder)
        return LocalHome(folder)

    def drop(self) -> None:
        shutil.rmtree(self._folder)
