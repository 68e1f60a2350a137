"""Pairs: `images/<name>.tif` beside `labels/<name>.tif`; an image without a label is an unlabelled scene.

A label without an image is one more label of the newest scene of that name: that is how corrected masks come in.

Holds the Sentinel-2 Cloud Mask Catalogue, cut-outs of L8 Biome (known by their names) and the synthetic tiles.
"""

import re
from dataclasses import dataclass, replace

from cloudseg.ingest.candidate import BINARY, BINARY_255, L8_BIOME, Candidate, InboxFile, LabelFile, Stray
from cloudseg.ingest.layouts.multiband import scene_of_one_file
from cloudseg.ingest.layouts.view import View

_IMAGES, _LABELS = "images", "labels"
# L8 Biome (Foga et al. 2017): 8 biomes, 12 scenes each; the cut-outs are called <biome>_<scene>_<chip>.
_BIOME = re.compile(
    r"(Barren|Forest|Grass|GrassCrops|Shrubland|Snow|SnowIce|Urban|Water|Wetlands)_(\d{2})_\d{4}", re.I | re.A
)

_Key = tuple[str, str]


@dataclass(frozen=True)
class Pairs:
    """Two folders side by side; the same name in both is a pair."""

    name: str = "pairs"

    def find(self, view: View) -> list[Candidate | Stray]:
        """See Layout.find. Folders called `images` count only where a folder `labels` lies beside them."""
        images, labels = _below(view.rasters, _IMAGES), _below(view.rasters, _LABELS)
        tops = {top for top, _ in labels}
        found: list[Candidate | Stray] = []
        for key, file in images.items():
            if key[0] in tops:
                found.append(self._scene(file, labels.get(key), view.bands))
        return found + [_label_alone(key, file) for key, file in labels.items() if key not in images]

    def _scene(self, file: InboxFile, label: InboxFile | None, bands: tuple[str | None, ...] | None) -> Candidate:
        scene = replace(scene_of_one_file(file, self.name, bands), time_in_tags=True)
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


def _label_alone(key: _Key, file: InboxFile) -> Stray:
    """A correction of a scene that came earlier, or a label whose scene is missing: the catalog knows."""
    return Stray(
        file,
        "a label without its scene",
        expected=f"{key[0]}{_IMAGES}/{key[1]}.tif, or a scene called {file.stem} in the catalog",
        next_step="Put the scene beside it, or give the label the name that `cloudseg scenes` shows for its scene.",
        label=_label_file(file),
        scene_name=file.stem,
    )


def _below(files: list[InboxFile], word: str) -> dict[_Key, InboxFile]:
    """Return the files below folders of this name by (folder above it, path below it without suffix)."""
    found: dict[_Key, InboxFile] = {}
    for file in files:
        parts = file.path.split("/")
        at = next((i for i in range(len(parts) - 2, -1, -1) if parts[i].lower() == word), None)
        if at is not None:
            top = "".join(f"{part}/" for part in parts[:at])
            found.setdefault((top, "/".join([*parts[at + 1 : -1], file.stem])), file)
    return found
