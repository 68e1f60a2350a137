"""Stage: mask scenes that wait, as one of any number of workers, until none is left or the time is over.

A worker draws one scene at a time, so that at the end no worker has a heap of scenes while others idle. It holds the
scene until the mask is published and the static STAC catalog shows it. Killed anywhere, its scene is free again after
`lease_rows.LEASE_S` seconds, or at once for a worker of the same name.
"""

import logging
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict

from cloudseg.catalog import lease_rows
from cloudseg.catalog.lease_rows import Drawn, Waiting, Wanted
from cloudseg.errors import CloudsegError, InputError
from cloudseg.records import DrainRecord, Json, Mask, Weights
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.signals import StopRequest, listen_for_stop
from cloudseg.stages import log
from cloudseg.stages.compute import open_device
from cloudseg.stages.predict import (
    asked_cleaning,
    check_bands,
    list_wanted,
    mask_scene,
    raise_if_interrupted,
    text_of,
)
from cloudseg.stages.stac import publish_stac
from cloudseg.stages.thresholds import named_threshold

if TYPE_CHECKING:
    from cloudseg.model.predictor import Predictor
    from cloudseg.raster.cleaning import Cleaning
    from cloudseg.raster.thresholds import Threshold

_log = logging.getLogger(__name__)
_MOST_LOST: Final = 3
"""Workers that may end while they hold a scene: then it counts as failed, because it may be what ends them."""
_POLL_S: Final = 2.0
"""Between two looks whether a scene that another worker holds is free."""
_PUBLISH_S: Final = 60.0
"""Between two updates of the static STAC catalog, each of which writes the lists of its months."""
_LONGEST_NAME: Final = 200


class DrainWorker(TypedDict):
    """One of several workers, with a name that the Airflow UI shows."""

    name: str


class _Target(NamedTuple):
    """Weights whose masks are made, of which scenes, and what is done to them."""

    weights: Weights
    wanted: Wanted
    cleaning: "Cleaning"
    exact: bool
    """Whether only masks that are cleaned just so count (`predict_scene`)."""


def plan_drain(
    workers: int,
    *,
    weights_id: str | None = None,
    threshold: "Threshold | None" = None,
    min_area_m2: float | None = None,
    min_hole_m2: float | None = None,
    buffer_m: float | None = None,
) -> list[DrainWorker]:
    """Return as many workers as there are scenes to mask, at most `workers`.

    A scene that failed within its hold does not count.

    Args:
        workers: maximum.
        weights_id: as in `drain`.
        threshold: as in `drain`.
        min_area_m2: as in `drain`.
        min_hole_m2: as in `drain`.
        buffer_m: as in `drain`.

    Raises:
        InputError: `workers` is below 1, a value of the cleaning is out of range, or weights have no threshold of this
            name.
        NotInCatalog: the weights are unknown.
        BadWeights: the weights need a band that no scene can have.
    """
    if workers < 1:
        raise InputError("at least one worker masks scenes", subject="workers", found=workers, expected="1 or more")
    runtime = open_runtime()
    targets = _list_targets(runtime, weights_id, threshold, min_area_m2, min_hole_m2, buffer_m)
    scenes = failed = 0
    with runtime.catalog.read() as db:
        for target in targets:
            waiting = lease_rows.find_waiting(db, target.wanted, most=workers)
            scenes += lease_rows.count_open(db, target.wanted) + len(waiting)
            failed += lease_rows.count_failed(db, target.wanted)
    needed = min(workers, scenes)
    weights_ids = [target.weights.weights_id for target in targets]
    log.ended("plan_drain", {"weights_ids": weights_ids, "workers": needed, "failed_before": failed})
    return [DrainWorker(name=f"worker {number} of {needed}") for number in range(1, needed + 1)]


def drain(
    *,
    minutes: float | None = None,
    weights_id: str | None = None,
    worker: str | None = None,
    threshold: "Threshold | None" = None,
    min_area_m2: float | None = None,
    min_hole_m2: float | None = None,
    buffer_m: float | None = None,
) -> DrainRecord:
    """Draw scenes that lack a mask and publish one for each, until none is left or the time is over.

    Any number of workers may do so at the same time, on any machines; no scene is drawn by two of them. None is left
    when each scene has its mask or failed: a worker also waits for scenes that others hold, and takes over those of a
    worker that ended.

    A scene that fails is listed under `failed`, and the others are masked. It is drawn again an hour later at the
    earliest, by whichever worker runs then; after each further failure twice as long, at most a day. `predict` tries it
    at once. A scene whose worker ended without a word three times counts as failed. Errors that a retry can fix are
    raised, and the scene is free again. After SIGTERM or SIGINT the current scene is completed, then Interrupted is
    raised.

    Args:
        minutes: after these no further scene is drawn; None: no limit.
        weights_id: an id or a version; None: those whose masks readers see, and the champion for scenes newer than it.
        worker: name of this worker, which no other that runs has; a new process of the same name first takes up what
            the former one held. None: one that is new.
        threshold: as in `predict`: with one of these, the scenes that lack a mask that is cleaned just so. Of a name,
            each of the weights has its own number.
        min_area_m2: the same.
        min_hole_m2: the same.
        buffer_m: the same.

    Raises:
        InputError: `minutes`, `worker` or a value of the cleaning is out of range, or weights have no threshold of this
            name.
        NotInCatalog: the weights are unknown, or there is no champion yet.
        BadWeights: the weights need a band that no scene can have.
        Interrupted: a signal arrived; published masks are kept.
    """
    began = time.monotonic()
    name = _check(minutes, worker)
    runtime = open_runtime()
    targets = _list_targets(runtime, weights_id, threshold, min_area_m2, min_hole_m2, buffer_m, needed=True)
    weights_ids = [target.weights.weights_id for target in targets]
    log.started("drain", worker=name, minutes=minutes, weights_ids=weights_ids)
    masks: list[str] = []
    failed: Json = {}
    created = 0
    is_over = False
    with listen_for_stop() as request:
        for target in targets:
            work = _Work(runtime, target, name)
            try:
                is_over = work.run(request, None if minutes is None else began + 60 * minutes)
            except (OSError, MemoryError):  # of the machine, or because of this scene: it counts as a lost worker
                work.is_lost = True
                raise
            finally:
                masks, failed, created = masks + work.masks, failed | work.failed, created + work.created
                work.end()
            if is_over:
                break
    record = DrainRecord(
        worker=name,
        weights_ids=weights_ids,
        masks=masks,
        created=created,
        failed=failed,
        time_is_over=is_over,
        seconds=round(time.monotonic() - began, 3),
    )
    log.ended("drain", record)
    return record


class _Work:
    """What one worker does for one set of weights."""

    def __init__(self, runtime: Runtime, target: _Target, name: str) -> None:
        self.masks: list[str] = []
        self.failed: Json = {}
        self.created = 0
        self.is_lost = False
        self._runtime, self._target, self._wanted, self._name = runtime, target, target.wanted, name
        self._predictor: Predictor | None = None
        self._finished: list[str] = []
        """Scenes whose mask is published, and which the static STAC catalog may not show yet."""
        self._after: Waiting | None = None
        self._is_searched = False
        self._renewed_at = self._published_at = time.monotonic()

    def run(self, request: StopRequest, until: float | None) -> bool:
        """Mask scenes; return True if the time is over, False if none is left.

        Raises:
            Interrupted: a signal arrived.
        """
        with self._runtime.catalog.begin() as db:
            lease_rows.give_up(db, self._wanted, self._name, is_lost=True)
        while True:
            raise_if_interrupted(request.signal_name, f"{len(self.masks)} masks")
            if until is not None and time.monotonic() >= until:
                return True
            with self._runtime.catalog.begin() as db:
                drawn = lease_rows.draw(db, self._wanted, self._name)
            if drawn is not None:
                self._mask(drawn)
            elif not self._is_searched:
                self._add_page()
            elif not self._wait_for_others():
                return False

    def end(self) -> None:
        """Show the masks in the static STAC catalog, and free what this worker still holds."""
        self._publish()
        with self._runtime.catalog.begin() as db:
            lease_rows.give_up(db, self._wanted, self._name, is_lost=self.is_lost)

    def _add_page(self) -> None:
        """Add the next scenes that wait; behind the last one, search from the beginning again.

        What was added to the catalog behind this worker's place meanwhile is found by that.
        """
        with self._runtime.catalog.read() as db:
            page = lease_rows.find_waiting(db, self._wanted, after=self._after)
        if page:
            with self._runtime.catalog.begin() as db:
                lease_rows.add_waiting(db, self._wanted, page)
        self._is_searched = not page and self._after is None
        self._after = page[-1] if page else None

    def _wait_for_others(self) -> bool:
        """Wait a moment if other workers hold scenes, which they may not finish; return whether one does."""
        self._publish()
        with self._runtime.catalog.read() as db:
            held = lease_rows.count_open(db, self._wanted, self._name)
        if held:
            _log.info("no scene is free; other workers hold %d", held)
            time.sleep(_POLL_S)
        return held > 0

    def _mask(self, drawn: Drawn) -> None:
        if drawn.is_lost and drawn.failures >= _MOST_LOST:
            self._fail(drawn, _lost(drawn).as_record(), failures=drawn.failures)
            return
        made = mask_scene(
            self._runtime,
            self._open_predictor(),
            drawn.scene_id,
            cleaning=self._target.cleaning,
            exact=self._target.exact,
            on_progress=lambda _: self._renew(),
        )
        if isinstance(made, Mask):
            self.masks.append(made.mask_id)
            self.created += not drawn.has_mask
            self._finished.append(drawn.scene_id)
            self._renew()
            if time.monotonic() - self._published_at >= _PUBLISH_S:
                self._publish()
        else:
            self._fail(drawn, made, failures=drawn.failures + 1)

    def _fail(self, drawn: Drawn, error: Json, *, failures: int) -> None:
        self.failed[drawn.scene_id] = error
        with self._runtime.catalog.begin() as db:
            lease_rows.fail(db, self._wanted, self._name, drawn.scene_id, error, failures=failures)

    def _open_predictor(self) -> "Predictor":
        if self._predictor is None:  # the first scene: a worker that draws none does not load torch
            from cloudseg.model.predictor import open_predictor

            device = open_device(self._runtime, predicts=True)
            self._predictor = open_predictor(self._runtime.store, self._target.weights, device)
        return self._predictor

    def _renew(self) -> None:
        if time.monotonic() - self._renewed_at < lease_rows.LEASE_S / 4:
            return
        with self._runtime.catalog.begin() as db:
            lease_rows.renew(db, self._wanted, self._name)
        self._renewed_at = time.monotonic()

    def _publish(self) -> None:
        """Show finished masks in the static STAC catalog; only then their scenes are done."""
        if self._finished:
            publish_stac(self._runtime, scene_ids=self._finished)
            with self._runtime.catalog.begin() as db:
                lease_rows.release(db, self._wanted, self._name, self._finished)
            _log.info("%d masks, %d scenes without one so far", len(self.masks), len(self.failed))
        self._finished = []
        self._published_at = time.monotonic()


def _lost(drawn: Drawn) -> CloudsegError:
    return CloudsegError(
        "the workers that drew this scene ended without a result",
        subject=drawn.scene_id,
        found=f"{drawn.failures} times",
        expected="a mask or an error",
        next_step=f"Look for what ended them (memory?), then try it alone: `cloudseg predict {drawn.scene_id}`.",
    )


def _list_targets(
    runtime: Runtime,
    weights_id: str | None,
    threshold: "Threshold | None",
    *areas: float | None,
    needed: bool = False,
) -> list[_Target]:
    """List whose masks are made, of which scenes, and how they are cleaned.

    Args:
        runtime: of this process.
        weights_id: as in `drain`.
        threshold: as in `drain`.
        areas: the other three settings of the cleaning, in the order of `drain`.
        needed: raise NotInCatalog if there is no champion.
    """
    asked_cleaning(runtime, None if isinstance(threshold, str) else threshold, *areas)  # also where nothing is wanted
    with runtime.catalog.read() as db:
        wanted = list_wanted(db, weights_id, needed=needed)
    targets = []
    for weights, since in wanted:
        check_bands(weights)
        number = named_threshold(runtime, threshold, weights.weights_id)
        cleaning, exact = asked_cleaning(runtime, number, *areas)
        text = text_of(cleaning if exact else None, weights)
        bands = weights.required_bands
        targets.append(
            _Target(weights, Wanted(weights.weights_id, bands=bands, since=since, cleaning=text), cleaning, exact)
        )
    return targets


def _check(minutes: float | None, worker: str | None) -> str:
    """Return the name of the worker.

    Raises:
        InputError: an argument is out of range.
    """
    if minutes is not None and not minutes > 0:
        raise InputError("a worker needs time", subject="minutes", found=minutes, expected="more than 0")
    if worker is None:
        return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    if not worker.strip() or len(worker) > _LONGEST_NAME or not worker.isprintable():
        raise InputError(
            "not a name of a worker",
            subject="worker",
            found=worker[:_LONGEST_NAME],
            expected=f"1 to {_LONGEST_NAME} printable characters, such as the id of the job",
        )
    return worker
