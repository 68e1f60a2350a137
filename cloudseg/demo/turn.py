"""One turn of the circle through Airflow: ingest, retrain, and the masks that follow by themselves."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudseg.catalog import Catalog, model_rows, scene_rows
from cloudseg.demo.api import wait_for
from cloudseg.demo.service import Standalone
from cloudseg.demo.watch import Follower, Screen
from cloudseg.errors import InputError

_INGEST_S: Final = 1800.0
_PREDICT_S: Final = 3600.0
_AROUND_TRAINING_S: Final = 1800.0
"""Snapshot, evaluation, and a clean process that loads the weights."""
_ASSET_S: Final = 180.0
_TICK_S: Final = 60.0
"""By then the scheduler has made that run, if it makes one."""


@dataclass(frozen=True)
class Wishes:
    """What the turn works on and with."""

    source: Path
    recipe: str
    minutes: float
    approval: str = "auto"


def turn_once(service: Standalone, screen: Screen, wishes: Wishes) -> str:
    """Ingest the source, retrain, and wait for the masks of the new champion.

    Return the id of the retraining's DAG run.

    Raises ServiceFailed where a run fails or does not end, InputError where the source holds no scene.
    """
    turn = _Turn(service, screen, service.home.catalog())
    turn.let_rest("cloudseg_retrain")
    turn.ingest(wishes.source)
    return turn.retrain(wishes)


class _Turn:
    def __init__(self, service: Standalone, screen: Screen, catalog: Catalog) -> None:
        self._api = service.api
        self._screen = screen
        self._catalog = catalog
        self._follower = Follower(service, screen, catalog)

    def let_rest(self, dag_id: str) -> None:
        """Wait for the end of the run by which a DAG that was just let run makes up for its last tick.

        It must not see what comes now.
        """
        began = time.monotonic()

        def rests() -> bool:
            runs = self._api.runs(dag_id)
            return not _active(runs) and (bool(runs) or time.monotonic() - began > _TICK_S)

        wait_for(f"the runs of {dag_id}", rests, limit_s=_ASSET_S, every_s=1)

    def ingest(self, source: Path) -> None:
        """Take in the source, and follow the run that the new scenes start."""
        before = set(self._api.runs("cloudseg_predict"))
        # No number of labels starts a retraining here: it is started from its form, with this recipe and these minutes.
        run_id = self._api.trigger("cloudseg_ingest", {"source": str(source), "min_new_labels": None})
        self._follower.follow("cloudseg_ingest", run_id, limit_s=_INGEST_S)
        with self._catalog.read() as db:
            found, refused = scene_rows.count_scenes(db), len(scene_rows.list_quarantined(db))
        self._screen.say(f"  {found} scenes in the catalog, {refused} files in quarantine")
        if not found:
            raise InputError(
                "no scene came out of this folder", subject=str(source), found=f"{refused} files in quarantine"
            )
        self._follow_new("cloudseg_predict", before)

    def retrain(self, wishes: Wishes) -> str:
        """Retrain, and follow the run that a new champion starts; return the id of the retraining's run."""
        before, champion = set(self._api.runs("cloudseg_predict")), self._champion()
        conf = {"recipe": wishes.recipe, "minutes": wishes.minutes, "force": True, "approval": wishes.approval}
        run_id = self._api.trigger("cloudseg_retrain", conf)
        self._follower.follow(
            "cloudseg_retrain", run_id, limit_s=wishes.minutes * 60 + _AROUND_TRAINING_S, minutes=wishes.minutes
        )
        if self._champion() == champion:
            self._screen.say("[yellow]the challenger did not become champion; the report says why[/]")
        else:
            self._follow_new("cloudseg_predict", before)
        return run_id

    def _champion(self) -> str | None:
        with self._catalog.read() as db:
            promotion = model_rows.find_champion(db)
        return promotion.weights_id if promotion else None

    def _follow_new(self, dag_id: str, before: set[str]) -> None:
        """Follow the run that an asset starts."""
        wait_for(f"a run of {dag_id}", lambda: bool(set(self._api.runs(dag_id)) - before), limit_s=_ASSET_S, every_s=1)
        for run_id in reversed([run_id for run_id in self._api.runs(dag_id) if run_id not in before]):
            self._follower.follow(dag_id, run_id, limit_s=_PREDICT_S)


def _active(runs: dict[str, str]) -> bool:
    return any(state in ("queued", "running") for state in runs.values())
