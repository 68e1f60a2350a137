"""Pairs: `images/<name>.tif` next to `labels/<name>.tif`; an image without a label is an unlabeled scene.

A label may also be a PNG of the image's pixels, or polygons. Without an image it is a new version of the label of a
scene in the catalog (`cloudseg.ingest.label_scene`): use it to correct masks.

Covers the Sentinel-2 Cloud Mask Catalogue, cut-outs of L8 Biome (recognized by their names) and the synthetic tiles.
"""

import re
from dataclasses import dataclass, replace

from cloudseg.errors import BadLabel
from cloudseg.ingest.candidate import Candidate, LabelFile, UnmatchedFile
from cloudseg.ingest.class_mappings import BINARY, BINARY_255, L8_BIOME
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import FileListing
from cloudseg.ingest.layouts.label_folder import FoundLabel, Key, files_below, find_labels
from cloudseg.ingest.layouts.multiband import single_file_scene
from cloudseg.ingest.layouts.sentinel2_beside import MetadataFiles, with_metadata
from cloudseg.ingest.layouts.stac import with_item

_IMAGES = "images"
# L8 Biome (Foga et al. 2017): 8 biomes, 12 scenes each; the cut-outs are called <biome>_<scene>_<chip>.
_BIOME = re.compile(
    r"(Barren|Forest|Grass|GrassCrops|Shrubland|Snow|SnowIce|Urban|Water|Wetlands)_(\d{2})_\d{4}", re.I | re.A
)


@dataclass(frozen=True)
class Pairs:
    """Folders `images` and `labels` side by side; the same name in both is a pair."""

    name: str = "pairs"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`. A folder `images` needs a folder `labels` next to it.

        Of several labels of one image the raster is paired; the others are corrections of it.
        """
        images: dict[Key, InboxFile] = {}
        for key, file in files_below(listing.rasters, _IMAGES):
            images.setdefault(key, file)
        folder = find_labels(listing)
        alone = [(key, label) for key, found in folder.labels.items() for label in found[1 if key in images else 0 :]]
        found: list[Candidate | UnmatchedFile] = []
        metadata = MetadataFiles(listing)
        for key, file in images.items():
            if key[0] in folder.tops:
                scene = self._scene(file, folder.labels.get(key, [None])[0], listing.bands)
                known = with_metadata(scene, listing, metadata)
                found.append(with_item(known, listing) if isinstance(known, Candidate) else known)
        return [*found, *(_label_without_image(key, label) for key, label in alone), *folder.refused]

    def _scene(self, file: InboxFile, label: FoundLabel | None, bands: tuple[str | None, ...] | None) -> Candidate:
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


def _label_file(label: FoundLabel) -> LabelFile:
    if _BIOME.fullmatch(label.file.stem):
        return LabelFile(label.file, "l8-biome", (L8_BIOME,), label.sidecars)
    return LabelFile(label.file, "pairs", (BINARY, BINARY_255, L8_BIOME), label.sidecars)


def _label_without_image(key: Key, label: FoundLabel) -> UnmatchedFile:
    """Return a label of a scene that was ingested earlier, or whose scene is missing; that depends on the catalog."""
    file = label.file
    return UnmatchedFile(
        file,
        "there is no scene for this label",
        expected=f"{key[0]}{_IMAGES}/{key[1]}.tif, or a scene called {file.stem} in the catalog",
        next_step="Add the scene, or name the label as `cloudseg scenes` names its scene, or by the id of the scene.",
        error=BadLabel,
        label=_label_file(label),
    )
