"""The pipeline end to end through Airflow: ingest, retrain, and the predictions that are triggered automatically."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudseg.catalog import Catalog, model_rows, scene_rows
from cloudseg.errors import InputError
from tools.airflow_api import wait_for
from tools.demo.follow import RunFollower
from tools.demo.standalone import Standalone
from tools.terminal import Screen

_INGEST_S: Final = 1800.0
_PREDICT_S: Final = 3600.0
_BESIDES_TRAINING_S: Final = 1800.0
"""For the snapshot, the evaluation, and the check of the weights in a clean process."""
_ASSET_S: Final = 900.0
_FIRST_SCHEDULED_S: Final = 60.0
"""Time after which the scheduler has created the catch-up run of a DAG that was just unpaused, if it creates one."""


@dataclass(frozen=True)
class DemoOptions:
    """What the pipeline runs on, and the params of the retraining."""

    source: Path
    recipe: str
    minutes: float
    approval: str = "auto"


def run_pipeline(service: Standalone, screen: Screen, options: DemoOptions) -> str:
    """Ingest the source, retrain, and wait for the masks of the new champion.

    Args:
        service: A running Airflow.
        screen: Where progress is printed.
        options: Source, recipe, budget and approval.

    Returns:
        The run id of the DAG run that retrained.

    Raises:
        ServiceFailed: A DAG run failed or did not end in time.
        InputError: The source holds no scene.
    """
    pipeline = _Pipeline(service, screen, service.home.catalog())
    pipeline.wait_until_idle("cloudseg_retrain")
    pipeline.ingest(options.source)
    return pipeline.retrain(options)


class _Pipeline:
    """The steps of one pipeline run."""

    def __init__(self, service: Standalone, screen: Screen, catalog: Catalog) -> None:
        self._api = service.api
        self._screen = screen
        self._catalog = catalog
        self._follower = RunFollower(service, screen, catalog)

    def wait_until_idle(self, dag_id: str) -> None:
        """Wait for the end of the scheduled run that Airflow creates when a DAG is unpaused.

        Otherwise that run could start on the labels that are ingested next.
        """
        began = time.monotonic()

        def is_idle() -> bool:
            runs = self._api.runs(dag_id)
            return not _any_active(runs) and (bool(runs) or time.monotonic() - began > _FIRST_SCHEDULED_S)

        wait_for(f"the runs of {dag_id}", is_idle, limit_s=_ASSET_S, every_s=1)

    def ingest(self, source: Path) -> None:
        """Ingest the source, and follow the prediction that new scenes trigger."""
        before = set(self._api.runs("cloudseg_predict"))
        # No number of labels triggers a retraining here: it is triggered below, with this recipe and budget.
        run_id = self._api.trigger("cloudseg_ingest", {"source": str(source), "min_new_labels": None})
        self._follower.follow("cloudseg_ingest", run_id, limit_s=_INGEST_S)
        with self._catalog.read() as db:
            found, quarantined = scene_rows.count_scenes(db), len(scene_rows.list_quarantined(db))
        self._screen.print(f"  {found} scenes in the catalog, {quarantined} files in quarantine")
        if not found:
            raise InputError(
                "no scene was ingested from this folder",
                subject=str(source),
                found=f"{quarantined} files in quarantine",
            )
        self._follow_new("cloudseg_predict", before)

    def retrain(self, options: DemoOptions) -> str:
        """Retrain, follow the prediction that a new champion triggers, and return the retraining's run id."""
        before, champion = set(self._api.runs("cloudseg_predict")), self._champion()
        conf = {"recipe": options.recipe, "minutes": options.minutes, "force": True, "approval": options.approval}
        run_id = self._api.trigger("cloudseg_retrain", conf)
        limit_s = options.minutes * 60 + _BESIDES_TRAINING_S
        self._follower.follow("cloudseg_retrain", run_id, limit_s=limit_s, minutes=options.minutes)
        if self._champion() == champion:
            self._screen.print("[yellow]the new weights were not promoted; the report contains the reasons[/]")
        else:
            self._follow_new("cloudseg_predict", before)
        return run_id

    def _champion(self) -> str | None:
        with self._catalog.read() as db:
            promotion = model_rows.find_champion(db)
        return promotion.weights_id if promotion else None

    def _follow_new(self, dag_id: str, before: set[str]) -> None:
        """Follow the runs of a DAG that an asset triggers."""
        wait_for(f"a run of {dag_id}", lambda: bool(set(self._api.runs(dag_id)) - before), limit_s=_ASSET_S, every_s=1)
        for run_id in reversed([run_id for run_id in self._api.runs(dag_id) if run_id not in before]):
            self._follower.follow(dag_id, run_id, limit_s=_PREDICT_S)


def _any_active(runs: dict[str, str]) -> bool:
    return any(state in ("queued", "running") for state in runs.values())
