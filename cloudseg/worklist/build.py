"""Build a worklist from the catalog and the published rasters."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final

from sqlalchemy import Connection

from cloudseg.catalog import Catalog, label_rows, scene_rows, worklist_rows
from cloudseg.catalog.worklist_rows import MaskedScene
from cloudseg.errors import CloudsegError, NotInCatalog
from cloudseg.keys import canonical_json, make_id
from cloudseg.metrics import share
from cloudseg.raster.read import UInt8, open_raster
from cloudseg.records import GdalPath, Json, WorklistItem, WorklistWindow
from cloudseg.storage import Store
from cloudseg.teacher import Teacher
from cloudseg.worklist.measure import SecondOpinion, count_always_cloud, count_scene
from cloudseg.worklist.propose import Proposal, propose, propose_always_cloud
from cloudseg.worklist.select import select

log = logging.getLogger(__name__)
LEAST_DATES: Final = 5
"""Dates from which "cloud on nearly every date" means something: with fewer, chance alone explains it."""
_MOST_DATES: Final = 12
_CLEAR_DATE: Final = 0.5
"""Largest cloud fraction of a date that counts for pixels that are always cloud: an overcast date tells nothing."""

OnProgress = Callable[[int, int, str], object]
"""Called with done, total and what is counted: 'scenes', then 'places'."""


@dataclass(frozen=True)
class Worklist:
    """What to label next."""

    worklist_id: str
    items: list[WorklistItem]
    masked: int
    """Scenes with a mask of the weights."""
    examined: int
    """Scenes that were read."""
    failed: Json
    """Scene id to the error of its rasters."""
    second_opinion: Json | None = None
    """What the model of others agrees with; None: it was not asked."""

    @classmethod
    def of(
        cls,
        weights_id: str,
        items: list[WorklistItem],
        *,
        masked: int,
        examined: int,
        failed: Json,
        second_opinion: Json | None = None,
    ) -> "Worklist":
        """Return a worklist with the id that follows from its content."""
        content = canonical_json([item.as_json() for item in items]).decode()
        return cls(make_id("wl", weights_id, content), items, masked, examined, failed, second_opinion)

    @classmethod
    def empty(cls) -> "Worklist":
        """Return the worklist of a service without a champion."""
        return cls.of("", [], masked=0, examined=0, failed={})


def build_worklist(
    store: Store,
    catalog: Catalog,
    *,
    weights_id: str,
    count: int,
    megapixels: int,
    teacher: Teacher | None = None,
    on_progress: OnProgress | None = None,
) -> Worklist:
    """Return the scenes and windows whose label would teach most.

    Only published rasters are read: probability, mask by other weights, accepted labels. A scene with a label that
    waits for a decision is not listed. The same catalog gives the same list.

    Args:
        store: of the rasters.
        catalog: of the rows.
        weights_id: whose masks are examined.
        count: scenes on the list, at most.
        megapixels: millions of pixels to examine: half for single scenes, the newest of every place first, half for
            places with several dates. Scenes beyond that are left out.
        teacher: a model of others that masks every labeled scene, too; the pixels of those scenes are read.
        on_progress: called after every scene and every place.

    Raises:
        StoreUnreachable: the store does not answer.
    """
    pixels = megapixels * 1_000_000 // 2
    work = _Work(store, catalog, weights_id, pixels, teacher, on_progress or (lambda *_: None))
    with catalog.read() as db:
        waiting = {stated.label.scene_id for stated in label_rows.list_stated(db, state="proposed")}
    found = (*work.single_scenes(), *work.repeated_places())
    proposals = [proposal for proposal in found if proposal.scene.scene_id not in waiting]
    items = [_item(rank, proposal) for rank, proposal in enumerate(select(proposals, count), start=1)]
    with catalog.read() as db:
        masked = worklist_rows.count_masked(db, weights_id)
    return Worklist.of(
        weights_id,
        items,
        masked=masked,
        examined=len(work.examined),
        failed=work.failed,
        second_opinion=work.second_opinion(),
    )


def list_requested(catalog: Catalog, *, weights_id: str, scene_ids: Sequence[str]) -> Worklist:
    """Return the worklist of certain scenes, in their order, each as one window: for a mask that someone found wrong.

    Raises:
        NotInCatalog: a scene is unknown, or has no mask by these weights.
    """
    with catalog.read() as db:
        scenes = [_requested(db, scene_id, weights_id) for scene_id in dict.fromkeys(scene_ids)]
        masked = worklist_rows.count_masked(db, weights_id)
    items = [_item(rank, proposal) for rank, proposal in enumerate(scenes, start=1)]
    return Worklist.of(weights_id, items, masked=masked, examined=0, failed={})


def _requested(db: Connection, scene_id: str, weights_id: str) -> Proposal:
    scene = worklist_rows.find_masked_scene(db, scene_rows.get_scene(db, scene_id).scene_id, weights_id)
    if scene is None:
        raise NotInCatalog(
            "the scene has no mask to correct",
            subject=scene_id,
            expected=f"a mask by {weights_id}",
            next_step="Run `cloudseg predict` with this scene first.",
        )
    whole = WorklistWindow(row_off=0, col_off=0, height=scene.height, width=scene.width, score=0.0)
    return Proposal(scene, "requested", 0.0, "asked for by its id", (whole,))


def _item(rank: int, proposal: Proposal) -> WorklistItem:
    scene = proposal.scene
    return WorklistItem(
        rank=rank,
        scene_id=scene.scene_id,
        scene=scene.name,
        place=scene.place,
        sensor=scene.sensor,
        mask_id=scene.mask_id,
        reason=proposal.reason,
        score=proposal.score,
        words=proposal.words,
        windows=list(proposal.windows),
    )


class _Work:
    """The examination of a catalog's scenes."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        weights_id: str,
        pixels: int,
        teacher: Teacher | None,
        on_progress: OnProgress,
    ) -> None:
        self._store, self._catalog, self._weights_id = store, catalog, weights_id
        self._pixels, self._teacher, self._on_progress = pixels, teacher, on_progress
        self._second: list[SecondOpinion] = []
        self.examined = set[str]()
        self.examined_places = 0
        self.failed: Json = {}

    def single_scenes(self) -> Iterator[Proposal]:
        """Yield what follows from one scene alone."""
        scenes = self._scenes_to_read()
        for done, scene in enumerate(scenes, start=1):
            yield from self._of_scene(scene)
            self._on_progress(done, len(scenes), "scenes")

    def _of_scene(self, scene: MaskedScene) -> list[Proposal]:
        with self._catalog.read() as db:
            labels = label_rows.list_accepted_of(db, scene.scene_id)
            other = worklist_rows.find_other_mask(db, scene.scene_id, self._weights_id)
        try:
            counted = count_scene(
                self._probability(scene),
                scene.threshold,
                labels=[self._path(label.key) for label in labels],
                other=self._path(other.key) if other else None,
                second=partial(self._ask, self._teacher, scene.scene_id) if self._teacher is not None else None,
            )
        except CloudsegError as error:
            self._fail(scene, error)
            return []
        self.examined.add(scene.scene_id)
        if opinions := [found.second for found in counted if found.second is not None]:
            self._second.append(sum(opinions, SecondOpinion()))
        name = self._teacher.name if self._teacher is not None else None
        return propose(scene, counted, labels=labels, other=other, second_opinion=name)

    def _ask(self, teacher: Teacher, scene_id: str) -> UInt8:
        """Return the second opinion's mask of a scene."""
        with self._catalog.read() as db:
            scene = scene_rows.get_scene(db, scene_id)
        with open_raster(self._path(scene.key)) as dataset:
            return teacher.mask(dataset, scene.bands, scene.resolution_m)

    def second_opinion(self) -> Json | None:
        """Return what the model of others agrees with, pooled over the labeled scenes; None: it was not asked."""
        if self._teacher is None:
            return None
        total = sum(self._second, SecondOpinion())
        return {
            "model": self._teacher.name,
            "scenes": len(self._second),
            "iou_with_masks": round(share(total.mask_both, total.mask_either), 4),
            "iou_with_labels": round(share(total.label_both, total.label_either), 4),
        }

    def repeated_places(self) -> Iterator[Proposal]:
        """Yield places with pixels that are cloud on nearly every date."""
        with self._catalog.read() as db:
            places = worklist_rows.list_repeated_places(db, self._weights_id, least=LEAST_DATES)
        used = 0
        for done, place in enumerate(places, start=1):
            with self._catalog.read() as db:
                scenes = worklist_rows.list_masked_of_place(db, self._weights_id, place)
            for stack in _stacks(scenes):
                used += sum(scene.pixels for scene in stack)
                if self.examined_places and used > self._pixels:
                    return
                self.examined_places += 1
                if (proposal := self._always_cloud(stack)) is not None:
                    yield proposal
            self._on_progress(done, len(places), "places")

    def _always_cloud(self, stack: Sequence[MaskedScene]) -> Proposal | None:
        try:
            counted = count_always_cloud(
                [(self._probability(scene), scene.threshold) for scene in stack], least=LEAST_DATES
            )
        except CloudsegError as error:
            self._fail(stack[0], error)
            return None
        self.examined.update(scene.scene_id for scene in stack)
        return propose_always_cloud(stack, counted)

    def _scenes_to_read(self) -> list[MaskedScene]:
        """Return the scenes within the budget, and at least one; the query is over before the first is read."""
        chosen: list[MaskedScene] = []
        pixels = 0
        with self._catalog.read() as db:
            for scene in worklist_rows.iter_masked_scenes(db, self._weights_id):
                pixels += scene.pixels
                if chosen and pixels > self._pixels:
                    break
                chosen.append(scene)
        return chosen

    def _fail(self, scene: MaskedScene, error: CloudsegError) -> None:
        """Record an error of one scene.

        Raises:
            CloudsegError: it is no error of this scene; the next one would fail, too.
        """
        if error.retry_helps:
            raise error
        log.warning("scene %s is left out of the worklist: %s", scene.scene_id, error)
        self.failed[scene.scene_id] = error.as_record()

    def _probability(self, scene: MaskedScene) -> GdalPath:
        return self._path(scene.probability["key"])

    def _path(self, key: str) -> GdalPath:
        return self._store.gdal_path(key)


def _stacks(scenes: Sequence[MaskedScene]) -> Iterator[list[MaskedScene]]:
    """Yield the scenes of a place that lie on one grid: one for each mostly clear day, the latest days.

    Args:
        scenes: of the place, latest first.
    """
    for _, same in groupby(sorted(scenes, key=lambda scene: scene.grid), key=lambda scene: scene.grid):
        days: dict[str, MaskedScene] = {}
        for scene in same:  # sorted() is stable: still latest first
            if scene.acquired_at is not None and scene.cloud_fraction <= _CLEAR_DATE:
                days.setdefault(scene.acquired_at.date().isoformat(), scene)
        if len(days) >= LEAST_DATES:
            yield list(days.values())[:_MOST_DATES]
