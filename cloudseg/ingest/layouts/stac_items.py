"""The STAC items of an inbox, by the files that they describe."""

from collections import defaultdict
from functools import cached_property
from typing import Final

from cloudseg.ingest.inbox_file import Inbox, InboxFile, NotRead, read_metadata
from cloudseg.ingest.stac_item import MAX_ITEM_BYTES, StacAsset, StacItem, parse_item

_OTHER_JSON: Final = ("_mtl.json", "tileinfo.json", "productinfo.json", "tileinfo_metadata.json")
"""Names of JSON files that are metadata of products, not items."""


class StacItems:
    """Reads the items on first use; every layout of one ingest shares them."""

    def __init__(self, inbox: Inbox, files: list[InboxFile]) -> None:
        self._inbox = inbox
        self._files = files

    def all(self) -> list[StacItem]:
        """Return every item that can be read."""
        return self._read[0]

    def of(self, file: InboxFile) -> list[tuple[StacItem, StacAsset]]:
        """Return the items that name a file, each with its asset."""
        return self._by_path.get(file.path, [])

    def damaged(self, folder: str) -> list[str]:
        """Return the damaged items of a folder, each with the reason."""
        return self._read[1].get(folder, [])

    @cached_property
    def _read(self) -> tuple[list[StacItem], dict[str, list[str]]]:
        found: list[StacItem] = []
        damaged: dict[str, list[str]] = defaultdict(list)
        for file in self._files:
            if file.suffix == "json" and not file.name.lower().endswith(_OTHER_JSON):
                try:
                    item = parse_item(file, read_metadata(self._inbox, file, MAX_ITEM_BYTES))
                except NotRead as error:
                    damaged[file.folder].append(f"{file.name}: {error.what}")
                except ValueError as error:
                    # Large JSON files beside rasters are no items; only what says that it is one counts as damaged.
                    if not str(error).startswith("larger"):
                        damaged[file.folder].append(f"{file.name}: {error}")
                else:
                    found += [item] if item else []
        return found, damaged

    @cached_property
    def _by_path(self) -> dict[str, list[tuple[StacItem, StacAsset]]]:
        by_path: dict[str, list[tuple[StacItem, StacAsset]]] = defaultdict(list)
        for item in self.all():
            for path, asset in item.paths().items():
                by_path[path].append((item, asset))
        return by_path
