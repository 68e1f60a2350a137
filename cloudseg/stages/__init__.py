"""The steps of the service: ids in, one small JSON-able record out. Airflow and the command line call nothing else.

A stage opens the runtime, logs one start and one end line with its ids, and calls the package that does the work.
Importing this package is cheap: torch and rasterio are imported when a stage that needs them runs.
"""

from cloudseg.stages.backfill import backfill, finish_backfill, list_backfill, plan_backfill, predict_backfill
from cloudseg.stages.backup import backup, restore
from cloudseg.stages.changes import changes
from cloudseg.stages.composite import composite
from cloudseg.stages.doctor import doctor, make_roles, upgrade_catalog
from cloudseg.stages.evaluate import evaluate
from cloudseg.stages.export import export_clouds, export_footprints, export_masks
from cloudseg.stages.import_weights import import_weights
from cloudseg.stages.ingest import ingest
from cloudseg.stages.inspect import lineage, masks, models, quarantine, runs, scenes
from cloudseg.stages.labels import accept_labels, diff_label, label, labels, reject_labels, withdraw_labels
from cloudseg.stages.maintain import maintain
from cloudseg.stages.predict import plan_predict, predict, predict_file
from cloudseg.stages.promote import compare, decline, promote, promote_unattended, request_approval, rollback
from cloudseg.stages.readers import readers, switch_readers, switch_readers_back
from cloudseg.stages.retrain import plan_retrain, retrain
from cloudseg.stages.snapshot import snapshot
from cloudseg.stages.stats import stats
from cloudseg.stages.train import train
from cloudseg.stages.worklist import worklist

__all__ = [
    "accept_labels",
    "backfill",
    "backup",
    "changes",
    "compare",
    "composite",
    "decline",
    "diff_label",
    "doctor",
    "evaluate",
    "export_clouds",
    "export_footprints",
    "export_masks",
    "finish_backfill",
    "import_weights",
    "ingest",
    "label",
    "labels",
    "lineage",
    "list_backfill",
    "maintain",
    "make_roles",
    "masks",
    "models",
    "plan_backfill",
    "plan_predict",
    "plan_retrain",
    "predict",
    "predict_backfill",
    "predict_file",
    "promote",
    "promote_unattended",
    "quarantine",
    "readers",
    "reject_labels",
    "request_approval",
    "restore",
    "retrain",
    "rollback",
    "runs",
    "scenes",
    "snapshot",
    "stats",
    "switch_readers",
    "switch_readers_back",
    "train",
    "upgrade_catalog",
    "withdraw_labels",
    "worklist",
]
