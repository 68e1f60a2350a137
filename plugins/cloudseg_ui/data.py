"""The pages of the data: labeled scenes and the life of their labels, places with their split, and differences."""

from collections.abc import Callable
from typing import Annotated, Final, Literal

from cloudseg_ui.land_map import draw_places
from cloudseg_ui.mask_filter import interval_of
from cloudseg_ui.paging import PageNumber, Paging
from cloudseg_ui.shell import Render, Values
from fastapi import FastAPI, Query, Request, Response

from cloudseg.catalog import data_rows, label_rows, scene_rows, training_rows
from cloudseg.catalog.data_rows import DataFilter
from cloudseg.catalog.label_rows import ALLOWED
from cloudseg.runtime import Runtime

_BOXES: Final = 2000
"""Places that are drawn on the map."""
_SNAPSHOTS: Final = 50
"""Snapshots that can be chosen."""
_SPLITS: Final = ("train", "validation", "held_out", "undecided")
Text = Annotated[str, Query(max_length=100)]
SplitName = Literal["", "train", "validation", "held_out", "undecided"]
StateName = Literal["", "proposed", "accepted", "rejected", "withdrawn"]


def data(runtime: Runtime, filters: dict[str, str], wanted: DataFilter, page: int) -> Values:
    """Return counts, the map, and one page of the labeled scenes.

    Args:
        runtime: catalog and store.
        filters: the filter as it was typed.
        wanted: the filter.
        page: number of the page.
    """
    with runtime.catalog.read() as db:
        paging = Paging(page, data_rows.count_scenes(db, wanted), filters=filters)
        places = data_rows.list_place_boxes(db, limit=_BOXES + 1)
        counts = data_rows.count_by_sensor(db)
        return {
            "total": scene_rows.count_scenes(db),
            "labeled": scene_rows.count_labeled_scenes(db),
            "states": data_rows.count_by_state(db),
            "counts": counts,
            "sensor_options": [("", "all"), *((name, name) for name in sorted({entry.sensor for entry in counts}))],
            "splits": _SPLITS,
            "all_states": list(ALLOWED),
            "map": draw_places(places[:_BOXES]),
            "places_left_out": len(places) > _BOXES,
            "paging": paging,
            "filters": filters,
            "scenes": data_rows.list_scenes(db, wanted, limit=paging.size, offset=paging.offset),
            "snapshots": training_rows.list_snapshots(db, limit=_SNAPSHOTS),
        }


def life(runtime: Runtime, label_id: str) -> Values:
    """Return a label, its scene, every event of its life, and the snapshots that hold it.

    Raises:
        NotInCatalog: there is no such label.
    """
    with runtime.catalog.read() as db:
        label = scene_rows.get_label(db, label_id)
        return {
            "label": label,
            "scene": scene_rows.get_scene(db, label.scene_id),
            "events": label_rows.list_events(db, label_id),
            "snapshots": training_rows.list_snapshots_of_label(db, label_id),
        }


def difference(runtime: Runtime, before: str, after: str) -> Values:
    """Return what changed between two snapshots, by place.

    Raises:
        NotInCatalog: there is no such snapshot.
    """
    with runtime.catalog.read() as db:
        old, new = training_rows.get_snapshot(db, before), training_rows.get_snapshot(db, after)
        places = data_rows.list_difference_by_place(db, before, after)
        snapshots = training_rows.list_snapshots(db, limit=_SNAPSHOTS)
    return {
        "old": old,
        "new": new,
        "places": places,
        "added": sum(len(place.added) for place in places),
        "removed": sum(len(place.removed) for place in places),
        "changed": sum(place.changed for place in places),
        "splits": _SPLITS[:3],
        "snapshots": snapshots,
    }


def add_data(app: FastAPI, runtime: Callable[[], Runtime], render: Render) -> None:
    """Add the pages to an app that has the login as a dependency of every route."""

    @app.get("/data")
    def data_page(
        request: Request,
        page: PageNumber = 1,
        text: Text = "",
        sensor: Text = "",
        split: SplitName = "",
        state: StateName = "",
        since: Text = "",
        until: Text = "",
    ) -> Response:
        first, last = interval_of(since, until)
        wanted = DataFilter(text.strip() or None, sensor or None, split or None, state or None, first, last)
        typed = {"text": text.strip(), "sensor": sensor, "split": split, "state": state, "since": since, "until": until}
        return render(request, "data.html", data(runtime(), typed, wanted, page))

    @app.get("/data/difference")
    def difference_page(request: Request, before: Text, after: Text) -> Response:
        return render(request, "difference.html", difference(runtime(), before, after))

    @app.get("/data/labels/{label_id}")
    def label_page(request: Request, label_id: str) -> Response:
        return render(request, "label.html", life(runtime(), label_id))
