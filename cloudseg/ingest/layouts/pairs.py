"""Pairs: `images/<name>.tif` next to `labels/<name>.tif`; an image without a label is an unlabeled scene.

A label without an image is a new version of the label of the newest scene of that name: use it to correct masks.

Covers the Sentinel-2 Cloud Mask Catalogue, cut-outs of L8 Biome (recognized by their names) and the synthetic tiles.
"""

import re
from dataclasses import dataclass, replace

from cloudseg.errors import BadLabel
from cloudseg.ingest.candidate import Candidate, LabelFile, UnmatchedFile
from cloudseg.ingest.class_mappings import BINARY, BINARY_255, L8_BIOME
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import FileListing
from cloudseg.ingest.layouts.multiband import single_file_scene
from cloudseg.ingest.layouts.sentinel2_beside import MetadataFiles, with_metadata
from cloudseg.ingest.layouts.stac import with_item

_IMAGES, _LABELS = "images", "labels"
# L8 Biome (Foga et al. 2017): 8 biomes, 12 scenes each; the cut-outs are called <biome>_<scene>_<chip>.
_BIOME = re.compile(
    r"(Barren|Forest|Grass|GrassCrops|Shrubland|Snow|SnowIce|Urban|Water|Wetlands)_(\d{2})_\d{4}", re.I | re.A
)

_Key = tuple[str, str]


@dataclass(frozen=True)
class Pairs:
    """Folders `images` and `labels` side by side; the same name in both is a pair."""

    name: str = "pairs"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`. A folder `images` needs a folder `labels` next to it."""
        images, labels = _files_below(listing.rasters, _IMAGES), _files_below(listing.rasters, _LABELS)
        tops = {top for top, _ in labels}
        found: list[Candidate | UnmatchedFile] = []
        metadata = MetadataFiles(listing)
        for key, file in images.items():
            if key[0] in tops:
                scene = self._scene(file, labels.get(key), listing.bands)
                known = with_metadata(scene, listing, metadata)
                found.append(with_item(known, listing) if isinstance(known, Candidate) else known)
        return found + [_label_without_image(key, file) for key, file in labels.items() if key not in images]

    def _scene(self, file: InboxFile, label: InboxFile | None, bands: tuple[str | None, ...] | None) -> Candidate:
        scene = replace(single_file_scene(file, self.name, bands), time_in_tags=True)
        if biome := _BIOME.fullmatch(file.stem):
            return replace(
                scene,
                sensor="landsat-8-l1",
                place=f"block:l8biome-{biome[1]}_{biome[2]}",
                needs_georeference=False,
                tags=(("biome", biome[1].lower()),),
                label=_label_file(label) if label else None,
            )
        return replace(scene, label=_label_file(label) if label else None)


def _label_file(file: InboxFile) -> LabelFile:
    if _BIOME.fullmatch(file.stem):
        return LabelFile(file, "l8-biome", (L8_BIOME,))
    return LabelFile(file, "pairs", (BINARY, BINARY_255, L8_BIOME))


def _label_without_image(key: _Key, file: InboxFile) -> UnmatchedFile:
    """Return a label of a scene that was ingested earlier, or whose scene is missing; that depends on the catalog."""
    return UnmatchedFile(
        file,
        "there is no scene for this label",
        expected=f"{key[0]}{_IMAGES}/{key[1]}.tif, or a scene called {file.stem} in the catalog",
        next_step="Add the scene, or name the label as `cloudseg scenes` names its scene.",
        error=BadLabel,
        label=_label_file(file),
        scene_name=file.stem,
    )


def _files_below(files: list[InboxFile], folder: str) -> dict[_Key, InboxFile]:
    """Return the files below folders of this name by (parent of the folder, path below the folder without suffix)."""
    found: dict[_Key, InboxFile] = {}
    for file in files:
        parts = file.path.split("/")
        at = next((i for i in range(len(parts) - 2, -1, -1) if parts[i].lower() == folder), None)
        if at is not None:
            top = "".join(f"{part}/" for part in parts[:at])
            found.setdefault((top, "/".join([*parts[at + 1 : -1], file.stem])), file)
    return found
