"""The page that compares any two models by their evaluations, with pictures of the scenes that differ most.

A comparison reads what evaluations stored (`cloudseg.evaluate.model_comparison`); `cloudseg compare` prints the same.
Pictures are made when somebody opens the page, one at a time, and kept in memory.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Final

from cloudseg_ui.shell import Render, Values
from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import RedirectResponse
from sqlalchemy import select

from cloudseg.catalog import change_rows, model_rows
from cloudseg.catalog import tables as t
from cloudseg.errors import InputError, NotInCatalog
from cloudseg.evaluate.model_comparison import Sides, compare_two, find_sides
from cloudseg.evaluate.pair_pictures import draw_pair
from cloudseg.evaluate.small_masks import ASSET
from cloudseg.records import Json, Weights
from cloudseg.runtime import Runtime

NAME: Final = r"^(champion|v[0-9]{1,9}|w-[0-9a-z-]{1,60})$"
"""A model in an address: the champion, its version, or its id."""
MODELS: Final = 200
"""Models of the form, newest first; any other can be named in the address."""
WIDTH: Final = 140
"""Of the drawing of a difference with its bounds, in pixels."""
_FOR_A_DAY: Final = {"Cache-Control": "private, max-age=86400"}
"""Of pictures: their address on the page names both evaluations, so a new one is a new address."""
_Asked = Annotated[str | None, Query(pattern=NAME)]
_Model = Annotated[str, InPath(pattern=NAME)]
_SceneId = Annotated[str, InPath(pattern=r"^sc-[0-9a-z-]{1,60}$")]


def evaluated_models(runtime: Runtime) -> list[Weights]:
    """Return the newest models that were evaluated on held-out places, newest first."""
    held_out = select(t.evaluation.c.weights_id).where(t.evaluation.c.split == "held_out")
    with runtime.catalog.read() as db:
        evaluated = set(db.execute(held_out).scalars())
        return [found for found in model_rows.list_weights(db) if found.weights_id in evaluated][:MODELS]


class ModelComparisons:
    """Makes comparisons and pictures, one at a time, and keeps the latest ones."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime, self._lock = runtime, threading.Lock()
        self._compared = functools.lru_cache(8)(self._compare)
        self._drawn = functools.lru_cache(64)(self._draw)

    def of(self, a: str, b: str) -> Json:
        """Return the comparison of two models (`compare_two`)."""
        sides = find_sides(self._runtime().catalog, a, b)
        with self._lock:
            return self._compared(sides.a.weights_id, sides.b.weights_id, self._state(sides))

    def picture(self, a: str, b: str, scene_id: str) -> bytes:
        """Return the picture of one of the scenes that the page of two models shows.

        Raises:
            NotInCatalog: the page does not show it, or an evaluation kept no mask of it.
        """
        compared = self.of(a, b)
        if scene_id not in {scene["scene_id"] for scene in compared["scenes"]}:
            raise NotInCatalog("the page of these models does not show this scene", subject=scene_id)
        ids = compared["a"]["weights_id"], compared["b"]["weights_id"]
        with self._lock:
            png = self._drawn(*ids, self._state(find_sides(self._runtime().catalog, *ids)), scene_id)
        if png is None:
            raise NotInCatalog("the evaluation kept no mask of this scene", subject=scene_id)
        return png

    def _state(self, sides: Sides) -> tuple[str | None, ...]:
        """Return what a comparison depends on besides the two models; each of it never changes."""
        with self._runtime().catalog.read() as db:
            champion = model_rows.find_champion(db)
        verdict = sides.verdict.verdict_id if sides.verdict else None
        champion_id = champion.weights_id if champion else None
        return sides.of_a.evaluation_id, sides.of_b.evaluation_id, verdict, champion_id

    def _compare(self, a: str, b: str, state: tuple[str | None, ...]) -> Json:
        runtime = self._runtime()
        return compare_two(runtime.store, runtime.catalog, a, b)

    def _draw(self, a: str, b: str, state: tuple[str | None, ...], scene_id: str) -> bytes | None:
        runtime = self._runtime()
        return draw_pair(runtime.store, runtime.catalog, find_sides(runtime.catalog, a, b), scene_id)


def forest(lines: Sequence[Json]) -> list[Json]:
    """Return the lines of a table, each with the positions of its difference and bounds in a drawing (forest plot).

    All drawings of a table have one scale, with 0 in the middle.
    """
    values = [abs(line[name]) for line in lines for name in ("difference", "lower", "upper") if line[name] is not None]
    most = max([*values, 1e-6])

    def at(value: float | None) -> float | None:
        return None if value is None else round(WIDTH / 2 + value / most * (WIDTH / 2 - 4), 1)

    return [{**line, "x": {name: at(line[name]) for name in ("difference", "lower", "upper")}} for line in lines]


def add_compare(app: FastAPI, runtime: Callable[[], Runtime], render: Render) -> None:
    """Add the pages to an app that has the login as a dependency of every route."""
    comparisons = ModelComparisons(runtime)

    @app.get("/compare")
    def compare(request: Request, a: _Asked = None, b: _Asked = None) -> Response:
        models = evaluated_models(runtime())
        if a is None or b is None:
            return render(request, "compare.html", {"models": models, "found": None, "asked": (a, b)})
        if a == b:
            raise InputError("a model does not differ from itself", subject=a, next_step="Go back and choose two.")
        return render(request, "compare.html", {"models": models, **_page_of(runtime(), comparisons.of(a, b))})

    @app.get("/compare/{a}/{b}")
    def pair(request: Request, a: _Model, b: _Model) -> Response:
        """Lead from an address that can be typed to the page of a pair."""
        return RedirectResponse(f"{request.scope.get('root_path', '')}/compare?a={a}&b={b}")

    @app.get("/compare/{a}/{b}/{scene_id}.png")
    def picture(a: _Model, b: _Model, scene_id: _SceneId) -> Response:
        return Response(comparisons.picture(a, b, scene_id), media_type="image/png", headers=_FOR_A_DAY)


def _page_of(runtime: Runtime, found: Json) -> Values:
    """Return the values of the page of a comparison."""
    ids = found["a"]["weights_id"], found["b"]["weights_id"]
    with runtime.catalog.read() as db:
        masked_twice = bool(change_rows.list_masked_twice(db, *ids, limit=1))
    names = [f"v{found[side]['version']}" for side in ("a", "b")]
    return {
        "found": found,
        "asked": tuple(names),
        "names": names,
        "slices": forest(found["slices"]),
        "places": forest(found["by_place"]),
        "whole": forest([_whole(found, "pooled"), _whole(found, "scene_mean")]),
        "masked_twice": masked_twice,
        "has_pictures": _have_masks(runtime, found),
    }


def _whole(found: Json, name: str) -> Json:
    difference = found["difference"][name]
    return {"name": name, **difference, "difference": difference["observed"]}


def _have_masks(runtime: Runtime, found: Json) -> bool:
    with runtime.catalog.read() as db:
        evaluations = [model_rows.get_evaluation(db, found[side]["evaluation_id"]) for side in ("a", "b")]
    return all(ASSET in evaluation.report for evaluation in evaluations)
