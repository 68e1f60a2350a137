"""The pages with the change map of two models: where their masks differ, of the latest scenes that both have masked.

A comparison is made when somebody opens it, from masks in the store, and stored nowhere: masks never change, so it
would be the same tomorrow. `cloudseg changes` compares all scenes.
"""

import functools
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cloudseg_ui.shell import Values
from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import RedirectResponse
from sqlalchemy import exists, select

from cloudseg.catalog import change_rows, model_rows, names, scene_rows
from cloudseg.catalog import tables as t
from cloudseg.changes.build import MAPS, Comparison, compare_models, figures_of
from cloudseg.changes.measure import read_pictures
from cloudseg.changes.page import picture_png
from cloudseg.errors import DataError, InputError, NotInCatalog
from cloudseg.records import Weights
from cloudseg.runtime import Runtime
from cloudseg.storage import whole_object

SCENES: Final = 8
"""Scenes of a page, at most."""
PIXELS: Final = 150_000_000
"""Pixels of a page, at most, one scene at least: a Sentinel-2 tile has 120 million."""
_MODELS: Final = 20
_FOR_A_DAY: Final = {"Cache-Control": "private, max-age=86400"}
_NAME: Final = r"^(v[0-9]{1,9}|w-[0-9a-z-]{1,60})$"
_Asked = Annotated[str, Query(pattern=_NAME)]
_Model = Annotated[str, InPath(pattern=_NAME)]
_SceneId = Annotated[str, InPath(pattern=r"^sc-[0-9a-z-]{1,60}$")]


def models_with_masks(runtime: Runtime) -> list[Weights]:
    """Return the newest models that have masks, newest first."""
    with runtime.catalog.read() as db:
        every = model_rows.list_weights(db)
        found: list[Weights] = []
        for weights in every:
            mask = exists(t.mask.c.mask_id).where(t.mask.c.weights_id == weights.weights_id)
            if len(found) < _MODELS and db.execute(select(mask)).scalar():
                found.append(weights)
    return found


def pair(runtime: Runtime, before: str, after: str) -> Values:
    """Return two models and the latest scenes that both have masked.

    Raises:
        NotInCatalog: a model is unknown, or no scene has a mask of both.
        InputError: they are the same.
    """
    with runtime.catalog.read() as db:
        old, new = names.get_weights(db, before), names.get_weights(db, after)
        if old.weights_id == new.weights_id:
            raise InputError("a model does not differ from itself", subject=before, next_step="Choose two models.")
        twice = change_rows.list_masked_twice(db, old.weights_id, new.weights_id, limit=SCENES)
        shown: list[change_rows.MaskedTwice] = []
        pixels = 0
        for scene in twice:
            row = scene_rows.get_scene(db, scene.scene_id)
            pixels += row.height * row.width
            if shown and pixels > PIXELS:
                break
            shown.append(scene)
    if not shown:
        raise NotInCatalog(
            "no scene has a mask of both models",
            subject=f"v{old.version}, v{new.version}",
            next_step="`cloudseg backfill` makes the masks of the champion.",
        )
    return {"before": old, "after": new, "scenes": shown}


@dataclass(frozen=True)
class Compared:
    """What a comparison found."""

    figures: Values
    """As in `changes.json`."""
    pictures: dict[str, bytes]
    """By scene id: scene and change map side by side, a PNG."""


class Comparisons:
    """Makes comparisons, one at a time, and keeps the latest ones."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime, self._lock = runtime, threading.Lock()
        self._compared = functools.lru_cache(4)(self._compare)

    def of(self, before: str, after: str) -> Values:
        """Return two models, and how their masks of the latest scenes differ."""
        found = pair(self._runtime(), before, after)
        scene_ids = tuple(scene.scene_id for scene in found["scenes"])
        with self._lock:
            compared = self._compared(found["before"].weights_id, found["after"].weights_id, scene_ids)
        return {**found, "compared": compared}

    def map_of(self, before: str, after: str, scene_id: str) -> bytes:
        """Return the change map of a scene, a Cloud-Optimized GeoTIFF.

        Raises:
            NotInCatalog: the scene has no mask of both models.
        """
        runtime = self._runtime()
        with self._lock, tempfile.TemporaryDirectory(prefix="cloudseg-changes-") as folder:
            comparison = _run(runtime, before, after, (scene_id,), Path(folder) / "out")
            if comparison.failed:
                raise DataError("the scene cannot be compared", subject=scene_id)
            return (Path(folder) / "out" / MAPS / f"{scene_id}.tif").read_bytes()

    def _compare(self, before: str, after: str, scene_ids: tuple[str, ...]) -> Compared:
        runtime = self._runtime()
        with tempfile.TemporaryDirectory(prefix="cloudseg-changes-") as folder:
            comparison = _run(runtime, before, after, scene_ids, Path(folder) / "out")
            pictures = {
                change.scene.scene_id: _picture(runtime, change.scene.scene_id, Path(folder) / "out" / MAPS)
                for change in comparison.scenes
            }
        return Compared(figures_of(comparison), pictures)


def _run(runtime: Runtime, before: str, after: str, scene_ids: tuple[str, ...], folder: Path) -> Comparison:
    with runtime.catalog.read() as db:
        old, new = names.get_weights(db, before), names.get_weights(db, after)
    return compare_models(
        runtime.store,
        runtime.catalog,
        before=old,
        after=new,
        scene_ids=scene_ids,
        limit=len(scene_ids),
        folder=folder,
        on_progress=lambda done, total: None,
    )


def _picture(runtime: Runtime, scene_id: str, maps: Path) -> bytes:
    with runtime.catalog.read() as db:
        row = scene_rows.get_scene(db, scene_id)
    with whole_object(runtime.store, row, f"scene {scene_id}") as pixels:
        return picture_png(*read_pictures(str(pixels), maps / f"{scene_id}.tif"))


def add_changes(app: FastAPI, runtime: Callable[[], Runtime], render: Callable[..., Response]) -> None:
    """Add the pages to an app that has the login as a dependency of every route."""
    comparisons = Comparisons(runtime)

    @app.get("/changes")
    def changes(request: Request) -> Response:
        found = models_with_masks(runtime())
        return render(request, "changes.html", {"models": found, "pairs": list(zip(found[1:], found, strict=False))})

    @app.get("/changes/pair")
    def chosen(request: Request, before: _Asked, after: _Asked) -> Response:
        """Lead from the form to the page of a pair."""
        return RedirectResponse(f"{request.scope.get('root_path', '')}/changes/{before}/{after}")

    @app.get("/changes/{before}/{after}")
    def change(request: Request, before: _Model, after: _Model) -> Response:
        return render(request, "change.html", comparisons.of(before, after))

    @app.get("/changes/{before}/{after}/{scene_id}.png")
    def picture(before: _Model, after: _Model, scene_id: _SceneId) -> Response:
        found = comparisons.of(before, after)["compared"].pictures
        if scene_id not in found:
            raise NotInCatalog("the page of these models does not show this scene", subject=scene_id)
        return Response(found[scene_id], media_type="image/png", headers=_FOR_A_DAY)

    @app.get("/changes/{before}/{after}/{scene_id}.tif")
    def change_map(before: _Model, after: _Model, scene_id: _SceneId) -> Response:
        headers = {"Content-Disposition": f'attachment; filename="{scene_id}_{before}_{after}.tif"'}
        return Response(comparisons.map_of(before, after, scene_id), media_type="image/tiff", headers=headers)
