"""The steps of the service: ids in, one small JSON-able record out. Airflow and the command line call nothing else.

A stage opens the runtime, logs one start and one end line with its ids, and calls the package that does the work.
Importing this package is cheap: torch and rasterio are imported when a stage that needs them runs.
"""

from cloudseg.stages.alerts import alerts, end_alert, raise_alert, raise_missing_verdict, record_sent, watch
from cloudseg.stages.backfill import backfill, finish_backfill, list_backfill, plan_backfill, predict_backfill
from cloudseg.stages.backup import backup, restore
from cloudseg.stages.champion import champion, history
from cloudseg.stages.changes import changes
from cloudseg.stages.composite import composite
from cloudseg.stages.dated_backup import dated_backup, rehearse_restore
from cloudseg.stages.decide import plan_decision
from cloudseg.stages.doctor import doctor, make_roles, upgrade_catalog
from cloudseg.stages.drain import drain, plan_drain
from cloudseg.stages.drift import drift
from cloudseg.stages.evaluate import evaluate
from cloudseg.stages.export import export_clouds, export_footprints, export_masks
from cloudseg.stages.import_weights import import_weights
from cloudseg.stages.ingest import ingest
from cloudseg.stages.inspect import lineage, masks, models, runs, scenes
from cloudseg.stages.labels import accept_labels, diff_label, label, labels, reject_labels, withdraw_labels
from cloudseg.stages.maintain import maintain
from cloudseg.stages.metrics import metrics
from cloudseg.stages.model_comparison import compare_models
from cloudseg.stages.predict import predict, predict_file
from cloudseg.stages.promote import compare, decline, promote, promote_unattended, request_approval, rollback
from cloudseg.stages.quarantine import quarantine, release_from_quarantine
from cloudseg.stages.readers import readers, switch_readers, switch_readers_back
from cloudseg.stages.remove import lift_removal, list_removals, remove_scene
from cloudseg.stages.retrain import plan_retrain, retrain
from cloudseg.stages.snapshot import snapshot
from cloudseg.stages.stats import stats
from cloudseg.stages.train import train
from cloudseg.stages.worklist import worklist

__all__ = [
    "accept_labels",
    "alerts",
    "backfill",
    "backup",
    "champion",
    "changes",
    "compare",
    "compare_models",
    "composite",
    "dated_backup",
    "decline",
    "diff_label",
    "doctor",
    "drain",
    "drift",
    "end_alert",
    "evaluate",
    "export_clouds",
    "export_footprints",
    "export_masks",
    "finish_backfill",
    "history",
    "import_weights",
    "ingest",
    "label",
    "labels",
    "lift_removal",
    "lineage",
    "list_backfill",
    "list_removals",
    "maintain",
    "make_roles",
    "masks",
    "metrics",
    "models",
    "plan_backfill",
    "plan_decision",
    "plan_drain",
    "plan_retrain",
    "predict",
    "predict_backfill",
    "predict_file",
    "promote",
    "promote_unattended",
    "quarantine",
    "raise_alert",
    "raise_missing_verdict",
    "readers",
    "record_sent",
    "rehearse_restore",
    "reject_labels",
    "release_from_quarantine",
    "remove_scene",
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
    "watch",
    "withdraw_labels",
    "worklist",
]
