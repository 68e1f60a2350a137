"""Find the scene in the catalog that a label without its image belongs to.

Evidence in this order; the first that names scenes chooses the candidates, the following only narrow them down:

1. the scene's id: in a tag (CLOUDSEG_SCENE_ID, SCENE_ID) or in the file name;
2. its name or product id in a tag (CLOUDSEG_SCENE_NAME, PRODUCT_ID);
3. a product id in the file name: same sensor, time and place;
4. the file name without suffix, compared in Unicode normal form C; a date in it may be left out. Scenes of one file
   name that are called after their folders (`2023-05-01_siteA`) count too.

Several candidates: the one on the label's grid, then of the date in a tag, then of exactly that name, then of the same
folder, then of the date in folder or file name, then of a folder of the same name. If more than one is left, the label
is refused with the list: which scene was ingested last says nothing.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from urllib.parse import unquote

from sqlalchemy import Connection

from cloudseg.catalog.scene_search import (
    find_scene,
    find_scenes_by_acquisition,
    find_scenes_by_name,
    find_scenes_by_name_end,
)
from cloudseg.errors import BadLabel
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.job import LabelTags
from cloudseg.ingest.products import Product, find_product
from cloudseg.records import Scene

_SCENE_ID: Final = re.compile(r"(?<![0-9a-z])sc-[0-9a-f]{20}(?![0-9a-f])", re.I | re.A)
_DATE: Final = re.compile(
    r"(?<!\d)((?:19|20)\d\d)([-_./]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?=\D|$|\d{6}(?!\d))", re.A
)
_SEPARATORS: Final = "-_. "
_LISTED: Final = 5
_PIXEL_TOLERANCE: Final = 0.01
"""Fraction of a pixel, as for the grids of a scene's bands."""


@dataclass(frozen=True)
class FoundScene:
    """The scene of a label."""

    scene: Scene
    by_id: bool
    """Whether the file or its name has the scene's id: then it needs no georeference."""


class SceneAmbiguous(BadLabel):
    """The evidence fits no scene or several ones."""

    read_as: list[str]
    """What the decision depended on: another list of candidates is another quarantine entry."""


def find_label_scene(db: Connection, file: InboxFile, tags: LabelTags) -> FoundScene | None:
    """Return the scene of a label, None if nothing in the catalog has its name.

    Args:
        db: The catalog.
        file: The label.
        tags: What it says about itself.

    Raises:
        SceneAmbiguous: The label names a scene that does not exist, several scenes fit, or what it says contradicts
            the only one that fits.
    """
    if ids := _ids_of(file, tags):
        return FoundScene(_scene_of_id(db, file, ids), by_id=True)
    named = _scenes_by_tags(db, file, tags)
    candidates = named or _with_folder_names(db, file, scenes_by_file_name(db, file))
    if not candidates:
        return None
    left = _narrow(candidates, file, tags)
    if len(left) > 1:
        raise _ambiguous(
            f"{len(left)} scenes fit the label",
            file,
            left,
            expected="one scene",
            next_step=f"Name the file after the id of its scene, for example {left[0].scene_id}.{file.suffix}, or set "
            "the tag SCENE_ID in it.",
        )
    if not named and not _same_folder(left[0], file):
        _check_date(left[0], file, tags)
    return FoundScene(left[0], by_id=False)


def scenes_by_file_name(db: Connection, file: InboxFile) -> list[Scene]:
    """Return the scenes that a label's file name suggests: by id, product id or name."""
    if found := _SCENE_ID.search(file.stem):
        scene = find_scene(db, found[0].lower())
        return [scene] if scene else []
    product = find_product(file.stem)
    return (product and _scenes_of_product(db, product)) or _scenes_of_stem(db, file.stem)


def _with_folder_names(db: Connection, file: InboxFile, found: list[Scene]) -> list[Scene]:
    """Return the scenes and those of the same file name in other folders, which have the folder in their name."""
    known = {scene.scene_id for scene in found}
    others = find_scenes_by_name_end(db, _forms(file.stem))
    return [*found, *(scene for scene in others if scene.scene_id not in known and _is_called(scene, file.stem))]


def _is_called(scene: Scene, stem: str) -> bool:
    """Return whether a scene has this name, or the name of its file is this and its own has folders in front."""
    name, wanted = unicodedata.normalize("NFC", scene.name), unicodedata.normalize("NFC", stem)
    own = unicodedata.normalize("NFC", unquote(scene.source_uri).rpartition("/")[2].rpartition(".")[0])
    return name == wanted or (own == wanted and name.endswith(f"_{wanted}"))


def _ids_of(file: InboxFile, tags: LabelTags) -> list[str]:
    """Return the scene ids in the tags and in the file name."""
    texts = (tags.scene or "", file.stem)
    return list(dict.fromkeys(found[0].lower() for text in texts if (found := _SCENE_ID.search(text))))


def _scene_of_id(db: Connection, file: InboxFile, ids: Sequence[str]) -> Scene:
    if len(ids) > 1:
        raise _ambiguous(
            "the label's tag and its file name have the ids of two scenes",
            file,
            [],
            found=f"{ids[0]} in the tag, {ids[1]} in the name",
            expected="the same scene",
            next_step="Correct the file name or the tag SCENE_ID.",
        )
    scene = find_scene(db, ids[0])
    if scene is None:
        raise _ambiguous(
            "the catalog has no scene of the id that the label names",
            file,
            [],
            found=ids[0],
            expected="a scene id that `cloudseg scenes` shows",
            next_step="Add the scene, or correct the file name or the tag SCENE_ID.",
        )
    return scene


def _scenes_by_tags(db: Connection, file: InboxFile, tags: LabelTags) -> list[Scene]:
    """Return the scenes that the tags name, empty if they name none.

    Raises:
        SceneAmbiguous: They name one that the catalog does not have.
    """
    for text in (tags.scene, tags.scene_name, tags.product_id):
        product = find_product(text) if text else None
        if text is None or (product is None and text == tags.product_id):
            continue  # a product id of a family that is not known here says nothing
        found = find_scenes_by_name(db, _forms(text)) or (_scenes_of_product(db, product) if product else [])
        if not found:
            raise _ambiguous(
                "the catalog has no scene of the name in the label's tags",
                file,
                [],
                found=text,
                expected="a scene that `cloudseg scenes` shows",
                next_step="Add the scene, or correct the tags SCENE_ID, CLOUDSEG_SCENE_NAME and PRODUCT_ID.",
            )
        return found
    return []


def _scenes_of_product(db: Connection, product: Product) -> list[Scene]:
    """Return the scenes of the same sensor, time and place. The time of some product ids is a day."""
    if product.acquired_at is None:
        return []
    day = datetime.combine(product.acquired_at.date(), time(), UTC)
    found = find_scenes_by_acquisition(db, product.sensor, day, day + timedelta(days=1))
    return [scene for scene in found if _is_of_product(scene, product)]


def _is_of_product(scene: Scene, product: Product) -> bool:
    for text in (scene.name, unquote(scene.source_uri)):
        if own := find_product(text):
            return (own.sensor, own.acquired_at, own.place) == (product.sensor, product.acquired_at, product.place)
    return scene.acquired_at == product.acquired_at and scene.place == product.place


def _scenes_of_stem(db: Connection, stem: str) -> list[Scene]:
    """Return the scenes called like the file, or like the file without the date of the scene."""
    if found := find_scenes_by_name(db, _forms(stem)):
        return found
    for match in _DATE.finditer(stem):
        rest = (stem[: match.start()].rstrip(_SEPARATORS), stem[match.end() :].lstrip(_SEPARATORS))
        if name := "_".join(part for part in rest if part):
            dated = [scene for scene in find_scenes_by_name(db, _forms(name)) if _day(scene) in _dates(stem)]
            if dated:
                return dated
    return []


def _forms(name: str) -> set[str]:
    """Return a name in the Unicode normal forms in which file systems and archives deliver it."""
    return {name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)}


def _narrow(candidates: Sequence[Scene], file: InboxFile, tags: LabelTags) -> list[Scene]:
    """Return the candidates that the weaker evidence leaves; evidence that fits none of them is ignored."""
    dates = _stated_dates(file, tags)
    tests: tuple[Callable[[Scene], bool], ...] = (
        lambda scene: _is_on_grid(scene, tags),
        lambda scene: _day(scene) in _dates(tags.acquired_at or ""),
        lambda scene: _is_called(scene, file.stem),
        lambda scene: _same_folder(scene, file),
        lambda scene: _day(scene) in dates,
        lambda scene: _day(scene) is None and not dates.isdisjoint(_dates(unquote(scene.source_uri))),
        lambda scene: _shared_folders(scene, file) > 0,
    )
    left = list(candidates)
    for fits in tests:
        if len(left) > 1:
            left = [scene for scene in left if fits(scene)] or left
    return left


def _check_date(scene: Scene, file: InboxFile, tags: LabelTags) -> None:
    """Refuse the only scene of a name if the label states another date.

    A date in a folder is that of the acquisition only where the scene's own folders are dated so; elsewhere it may be
    the day of the upload.

    Raises:
        SceneAmbiguous: The label states another date.
    """
    tagged, stated = _dates(tags.acquired_at or ""), _stated_dates(file, tags)
    day, own = _day(scene), _dates(unquote(scene.source_uri))
    if not stated or day in stated:
        return
    folders_contradict = day in own if day else bool(own) and own.isdisjoint(stated)
    if folders_contradict or (tagged and day):
        raise _ambiguous(
            "the label states another date than the only scene of its name",
            file,
            [scene],
            expected=f"a scene of {', '.join(sorted(map(str, stated)))}",
            next_step="Add the scene of that date. If the label belongs to the scene that was found, name the file "
            f"{scene.scene_id}.{file.suffix}.",
        )


def _stated_dates(file: InboxFile, tags: LabelTags) -> set[date]:
    """Return the dates in the label's tag, in its name and in the folders above it."""
    return _dates(tags.acquired_at or "") or _dates(unquote(file.uri))


def _dates(text: str) -> set[date]:
    found = set()
    for match in _DATE.finditer(text):
        try:
            found.add(date(int(match[1]), int(match[3]), int(match[4])))
        except ValueError:  # February 30
            continue
    return found


def _day(scene: Scene) -> date | None:
    return scene.acquired_at.astimezone(UTC).date() if scene.acquired_at else None


def _is_on_grid(scene: Scene, tags: LabelTags) -> bool:
    """Return whether a label raster has the scene's size and geotransform; the decoder compares the CRS."""
    if tags.shape is None or tags.transform is None:
        return False
    tolerance = _PIXEL_TOLERANCE * max(abs(scene.transform[0]), abs(scene.transform[4]))
    same = all(abs(a - b) <= tolerance for a, b in zip(tags.transform, scene.transform, strict=True))
    return same and tags.shape == (scene.height, scene.width)


def _same_folder(scene: Scene, file: InboxFile) -> bool:
    return _folders(scene.source_uri, "images") == _folders(file.uri, "labels")


def _shared_folders(scene: Scene, file: InboxFile) -> int:
    """Return how many folders above scene and label have the same names, from the innermost on."""
    pairs = zip(reversed(_folders(scene.source_uri, "images")), reversed(_folders(file.uri, "labels")), strict=False)
    count = 0
    for one, other in pairs:
        if one != other:
            break
        count += 1
    return count


def _folders(uri: str, without: str) -> list[str]:
    """Return the folders above a file, without the last one of a certain name."""
    parts = unicodedata.normalize("NFC", unquote(uri)).split("/")[:-1]
    at = next((index for index in range(len(parts) - 1, -1, -1) if parts[index].lower() == without), None)
    return parts if at is None else parts[:at] + parts[at + 1 :]


def _ambiguous(
    what: str,
    file: InboxFile,
    scenes: Collection[Scene],
    *,
    expected: str,
    next_step: str,
    found: str | None = None,
) -> SceneAmbiguous:
    error = SceneAmbiguous(
        what, subject=file.path, found=found or _listing(scenes), expected=expected, next_step=next_step
    )
    error.read_as = [what, *sorted(scene.scene_id for scene in scenes)]
    return error


def _listing(scenes: Collection[Scene]) -> str:
    """Return id, name, day and source of scenes."""
    shown = [
        f"{scene.scene_id} ({scene.name}, {_day(scene) or 'no date'}, {unquote(scene.source_uri)})"
        for scene in list(scenes)[:_LISTED]
    ]
    return "; ".join(shown) + (f" and {len(scenes) - _LISTED} more" if len(scenes) > _LISTED else "")
