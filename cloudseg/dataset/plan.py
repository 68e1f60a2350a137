"""Which scenes, labels and windows a snapshot holds, decided from rows alone before any pixel is read."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from cloudseg.catalog import label_rows, scene_rows
from cloudseg.catalog.tables import place as place_table
from cloudseg.dataset.split import split_of
from cloudseg.errors import EmptySplit
from cloudseg.grid import Window, decimation, iter_windows
from cloudseg.recipe import Recipe
from cloudseg.records import Label, Scene, Split


@dataclass(frozen=True)
class Source:
    """A labeled scene with its split and the windows of its chips."""

    scene: Scene
    labels: tuple[Label, ...]
    """Its accepted labels, oldest version first; the scene's label is their overlay."""
    split: Split
    factor: int
    """Scene pixels along an axis of one working pixel."""
    windows: tuple[Window, ...]
    """In working pixels, row by row; the last one of a row or column is moved back to end at the edge."""


def list_sources(db: Connection, recipe: Recipe, *, write: bool) -> list[Source]:
    """List every scene with an accepted label that has the recipe's bands, in the order of the scenes' ids.

    The order of ingestion does not matter. A place whose first snapshot has labels of `data.held_out_sources` is held
    out; scenes of these sources at a place that is already trained on are left out.

    Args:
        db: an open transaction, one that may write if `write` is set.
        recipe: its bands, chip size and working resolution.
        write: whether the splits of new places are recorded in the catalog, permanently.

    Raises:
        EmptySplit: no scene fits.
    """
    accepted = label_rows.list_accepted(db)
    pairs = [(scene_rows.get_scene(db, scene_id), labels) for scene_id, labels in accepted.items()]
    needed = set(recipe.model.bands)
    fitting = sorted(((s, n) for s, n in pairs if needed <= set(s.bands)), key=lambda pair: pair[0].scene_id)
    if not fitting:
        raise EmptySplit(
            "no labeled scene has the bands of the recipe",
            subject=f"recipe {recipe.name}",
            found=f"{len(pairs)} labeled scenes with the bands {_band_sets(s for s, _ in pairs)}",
            expected=" ".join(recipe.model.bands),
            next_step="Ingest labeled scenes with these bands, accept what `cloudseg labels list --state proposed` "
            "lists, or choose another recipe.",
        )
    only_held_out = {scene.place for scene, labels in fitting if any(_is_held_out(label, recipe) for label in labels)}
    splits = _splits(db, {scene.place for scene, _ in fitting}, only_held_out, write=write)
    return [
        _source(scene, labels, splits[scene.place], recipe)
        for scene, labels in fitting
        if splits[scene.place] == "held_out" or not any(_is_held_out(label, recipe) for label in labels)
    ]


def _is_held_out(label: Label, recipe: Recipe) -> bool:
    return label.source in recipe.data.held_out_sources


def _band_sets(found: Iterable[Scene]) -> str:
    return "; ".join(sorted({" ".join(scene.bands) for scene in found})) or "none"


def _splits(db: Connection, places: set[str], only_held_out: set[str], *, write: bool) -> dict[str, Split]:
    proposed: dict[str, Split] = {place: "held_out" if place in only_held_out else split_of(place) for place in places}
    if write:
        return scene_rows.decide_places(db, proposed)
    decided: dict[str, Split] = {
        row.place: row.split for row in db.execute(place_table.select()) if row.place in places
    }
    return proposed | decided


def _source(scene: Scene, labels: tuple[Label, ...], split: Split, recipe: Recipe) -> Source:
    factor = decimation(scene.resolution_m, recipe.input.working_resolution_m)
    height, width = -(-scene.height // factor), -(-scene.width // factor)
    return Source(scene, labels, split, factor, tuple(iter_windows(height, width, recipe.data.chip_size)))
