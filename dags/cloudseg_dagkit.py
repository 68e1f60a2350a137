"""What all DAG files share: the DAG factory, the first task, assets, pool, and how results map to Airflow states.

Around every task (`DEFAULT_ARGS`): before it, Airflow's connections become settings; after it, `cloudseg_notify` emits
metrics and notifications. Not a DAG file itself (`.airflowignore`). Imports `airflow.sdk` only: DAG files are parsed
again and again.
"""

import logging
import os
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

from airflow.sdk import Asset, Connection, RetryPolicy, dag, get_current_context, task
from airflow.sdk.definitions.retry_policy import RetryDecision
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
)

Json = dict[str, Any]
log = logging.getLogger(__name__)

SCENES = Asset("cloudseg.scenes", group="cloudseg")
LABELS = Asset("cloudseg.labels", group="cloudseg")
CHAMPION = Asset("cloudseg.champion", group="cloudseg")
MASKS = Asset("cloudseg.masks", group="cloudseg")
MONTHS = Asset("cloudseg.backfilled_months", group="cloudseg")

# One pool slot for each GPU worker: a second training waits in state `scheduled`. Without the pool it would wait in the
# queue, where Airflow fails it after `[scheduler] task_queued_timeout`. A pool that does not exist blocks the task:
# `airflow pools set gpu 1 training`. Celery runs the task on a worker of this queue, Kubernetes in a pod of this
# template; each executor ignores the other's setting.
GPU: Json = {
    "pool": "gpu",
    "queue": "gpu",
    "executor_config": {"pod_template_file": "/opt/cloudseg/docker/gpu_pod.yaml"},
}
APPROVE, REJECT = "Approve", "Reject"
RECIPES = ["baseline", "baseline_4200", "nightly", "smoke"]
TAG = "cloudseg"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)  # noqa: UP017  (the form that Airflow's own documentation uses)


class RetryTransientErrors(RetryPolicy):
    """Retry transient errors: a store, database or network that did not answer. Fail at once for all others.

    Tasks of a worker that died are not covered: the scheduler retries them as often as `retries` allows.
    """

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:
        """Return RETRY if the error has `retry_helps`; of other libraries' errors, for OSError and Airflow's own."""
        helps = getattr(exception, "retry_helps", isinstance(exception, OSError | AirflowException))
        if helps:
            return RetryDecision.retry(reason=f"{type(exception).__name__} may be transient")
        return RetryDecision.fail(reason=f"{type(exception).__name__}: the same call would fail again")


def find_connection(conn_id: str) -> Connection | None:
    """Return an Airflow connection (environment, secrets backend or database), None if it does not exist."""
    try:
        found: Connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        return None
    return found


def use_connections(context: Any) -> None:
    """Before a task: set catalog and store from the connections `cloudseg_catalog` and `cloudseg_store`.

    Environment variables take precedence. `cloudseg_catalog` is a PostgreSQL connection. `cloudseg_store` has type aws,
    with the store's `url` in its extra, and optionally `endpoint_url` and `region_name`. Each task is a separate
    process, so the variables that are set here end with it.
    """
    if "CLOUDSEG_CATALOG_URL" not in os.environ and (catalog := find_connection("cloudseg_catalog")):
        os.environ["CLOUDSEG_CATALOG_URL"] = "postgresql+psycopg://" + catalog.get_uri().split("://", 1)[1]
    if "CLOUDSEG_STORE_URL" not in os.environ and (store := find_connection("cloudseg_store")):
        extra = store.extra_dejson
        settings = {
            "CLOUDSEG_STORE_URL": extra.get("url"),
            "AWS_ACCESS_KEY_ID": store.login,
            "AWS_SECRET_ACCESS_KEY": store.password,
            "AWS_ENDPOINT_URL_S3": extra.get("endpoint_url"),
            "AWS_DEFAULT_REGION": extra.get("region_name"),
        }
        os.environ.update({name: value for name, value in settings.items() if value})


def emit_metrics_and_notify(context: Any, result: Any) -> None:
    """After a task that succeeded: emit metrics and notifications."""
    import cloudseg_notify

    cloudseg_notify.emit_metrics_and_notify(str(context["ti"].task_id), result)


def notify_failure(context: Any) -> None:
    """After the last retry of a task failed: send a notification."""
    from cloudseg_notify import notify

    run_id, error = context["run_id"], context.get("exception")
    text = f"{context['ti'].task_id} of {run_id}: {error or 'its worker sent no heartbeat'}"
    notify("training failed", text, {"run_id": run_id})


DEFAULT_ARGS: Json = {
    "owner": "cloudseg",
    "pre_execute": use_connections,
    "post_execute": emit_metrics_and_notify,
    "retries": 2,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=15),
    "retry_policy": RetryTransientErrors(),
    "execution_timeout": timedelta(hours=2),
}


def cloudseg_dag(*, description: str, schedule: Any, params: Json | None = None) -> Callable[[Callable[[], None]], Any]:
    """Return the `@dag` of this project.

    The rest follows from the function that it decorates: the DAG's id is its name, the manual (`doc_md`) is the
    docstring of its file, the tags are `cloudseg` and the part of its name after `cloudseg_`.

    Args:
        description: one line for the list of DAGs.
        schedule: cron expression, asset expression or timetable.
        params: the form of a manual run.
    """

    def decorate(function: Callable[[], None]) -> Any:
        name = function.__name__
        verb = name.removeprefix(f"{TAG}_")
        return dag(
            dag_id=name,
            dag_display_name=f"{TAG}: {verb}",
            description=description,
            doc_md=function.__globals__["__doc__"],
            schedule=schedule,
            start_date=START,
            catchup=False,
            max_active_runs=1,
            default_args=DEFAULT_ARGS,
            tags=[TAG, verb],
            params=params,
        )(function)

    return decorate


@task
def doctor() -> None:
    """Fail with the first problem if the service is not operational; the first task of every DAG."""
    from cloudseg import stages

    for check in stages.doctor(device=False).as_json()["checks"]:
        if not check["ok"]:
            raise AirflowException(f"cloudseg is not operational, {check['name']}: {check['detail']}")


def form() -> Json:
    """Return the params of this DAG run, as validated by Airflow."""
    return dict(get_current_context()["params"])


def cleaning() -> Json:
    """Return the params of a form that say how masks are cleaned, as arguments of the stage `predict`."""
    return {name: form()[name] for name in ("threshold", "min_area_m2", "min_hole_m2", "buffer_m")}


def stac_search() -> Json:
    """Return the params of a STAC form as arguments of the stage `ingest`; what was left empty is left out."""
    values = form()
    box = values.pop("bbox")
    found = values | {"bbox": [float(part) for part in box.split(",")] if box else None}
    return {name: value for name, value in found.items() if value not in (None, [], "")}


def training_id() -> str:
    """Return the training's run id: the same for every try of this DAG run, so that a retry resumes."""
    return f"airflow-{get_current_context()['run_id']}"


def began_at() -> str:
    """Return the logical time of this DAG run (ISO 8601): unlike the clock, the same for every try."""
    return str(get_current_context()["dag_run"].run_after.isoformat())


def night() -> str:
    """Return the date of this DAG run: the same for every try, and for a second run on that date."""
    return began_at()[:10]


def planned(plan: Mapping[str, Any]) -> Json:
    """Return the plan, or skip this task and those downstream with the plan's reason."""
    if plan["skip"]:
        skip(plan["skip"])
    return dict(plan)


def skip(reason: str) -> NoReturn:
    """Skip this task; the reason is in its log and in its XCom `reason`."""
    get_current_context()["ti"].xcom_push(key="reason", value=reason)
    raise AirflowSkipException(reason)


def shortened(record: Json) -> Json:
    """Return a record that is small enough for XCom: the first 20 items of every list, and their number in `counts`."""
    lists = {name: value for name, value in record.items() if isinstance(value, list)}
    return (
        record
        | {name: value[:20] for name, value in lists.items()}
        | {"counts": {name: len(value) for name, value in lists.items()}}
    )


def worklist_lines(record: Json) -> Json:
    """Return the worklist as lines for XCom, and print them to the task's log: one for each scene, best first."""
    lines = [f"{item['rank']}. {item['scene']} ({item['scene_id']}): {item['words']}" for item in record["items"]]
    for line in lines:
        log.info("%s", line)
    return {name: record[name] for name in ("worklist_id", "weights_id", "masked", "examined")} | {"items": lines}


def may_retrain(labelled: list[str], least: int | None) -> int:
    """Return how many new labels start a retraining; skip if there are none, or if `least` is empty."""
    if not labelled:
        skip("no label is new")
    return least or skip("retraining after new labels is disabled for this run")


def announce(asset: Asset, count: int, first: list[str], reason: str) -> None:
    """Write the number of ids and the first five into the asset's event; skip, without an event, if there are none."""
    if not count:
        skip(reason)
    get_current_context()["outlet_events"][asset].extra = {"count": count, "first": list(first[:5])}


def announce_champion(record: Json) -> Json:
    """Write the champion into the asset's event and return the promotion; skip if the champion is unchanged."""
    if not record["promoted"]:
        why = "PROMOTE, not approved" if record["outcome"] == "PROMOTE" else record["outcome"]
        skip(f"{why}: the champion stays. " + " ".join(record["reasons"]))
    get_current_context()["outlet_events"][CHAMPION].extra = {
        "champion_id": record["champion_id"],
        "verdict_id": record["verdict_id"],
    }
    return record


def announce_months(record: Json) -> None:
    """Write an event for every month whose scenes this night masked, as a partition of the asset; skip without any.

    A DAG with `schedule=PartitionedAssetTimetable(assets=Asset("cloudseg.backfilled_months"))` runs once for each.
    """
    if not record["touched"]:
        skip("nothing was planned this night")
    event = get_current_context()["outlet_events"][MONTHS]
    event.extra = {"weights_id": record["weights_id"], "done": record["done"], "total": record["total"]}
    event.add_partitions(record["touched"])


def progress_lines(record: Json) -> Json:
    """Print to the task's log how far each month is, and return the record for XCom."""
    for month in record["months"]:
        log.info("%s: %d of %d", month["month"], month["done"], month["total"])
    return shortened(record)


def announce_masks(record: Json) -> Json:
    """Write the number of masks into the asset's event and return the batch's record.

    Raises:
        AirflowFailException: The batch has no mask.
    """
    if not record["masks"]:
        raise AirflowFailException("no scene of this batch could be masked: " + _named(record["failed"]))
    get_current_context()["outlet_events"][MASKS].extra = {
        "count": len(record["masks"]),
        "weights_id": record["weights_id"],
    }
    return record


def next_after_verdict(outcome: str) -> str:
    """Return the id of the next task: `approve` only if the run requires approval and the verdict is PROMOTE."""
    return "approve" if form()["approval"] == "ask" and outcome == "PROMOTE" else "promote"


def answer(approval: Json | None) -> Json:
    """Return how to promote: the name of the stage (`stage`), and its `actor` and `reason` for the history.

    Args:
        approval: result of the task `approve`; None if it did not run. Airflow closes an unanswered request with its
            default option and without a user: that is not a decision, so the request stays open in the catalog.
    """
    person = (approval or {}).get("responded_by_user")
    if approval is None or person is None:
        return {"stage": "promote_unattended", "actor": "airflow", "reason": training_id()}
    stage, default = ("promote", "approved") if approval["chosen_options"] == [APPROVE] else ("decline", "rejected")
    why = (approval.get("params_input") or {}).get("reason") or f"{default} in Airflow"
    return {"stage": stage, "actor": f"airflow:{person['name']}", "reason": f"{why} ({training_id()})"}


def reader_decision() -> Json:
    """Return the params of a switch of readers as arguments of `switch_readers`, or of `switch_readers_back`.

    The actor is who triggered this DAG run, as Airflow knows it.
    """
    values = form()
    person = get_current_context()["dag_run"].triggering_user_name
    who = {"actor": f"airflow:{person}" if person else "airflow", "reason": values["reason"]}
    if values["target"] == "back":
        return who | {"sequence": values["sequence"]}
    return who | {name: values[name] for name in ("target", "hold", "incomplete")}


def show_as(name: str) -> None:
    """Display this mapped task by name instead of number (`map_index_template="{{ shown_as }}"`)."""
    get_current_context()["shown_as"] = name  # type: ignore[typeddict-unknown-key]


def all_done(records: list[Json]) -> Json:
    """Return the total counts of all batches.

    Raises:
        AirflowFailException: Scenes have no mask; the message lists them.
    """
    failed = {scene_id: what for record in records for scene_id, what in record["failed"].items()}
    if failed:
        raise AirflowFailException(f"{len(failed)} scenes have no mask: " + _named(failed))
    return {
        "masks": sum(len(record["masks"]) for record in records),
        "created": sum(record["created"] for record in records),
    }


def _named(failed: Json) -> str:
    return "; ".join(f"{scene_id}: {error['what']}" for scene_id, error in failed.items())


def nothing_missing(count: int, first: list[str]) -> None:
    """Check the result of maintenance.

    Raises:
        AirflowFailException: Rows name objects that are missing from the store or damaged.
    """
    if count:
        more = f" and {count - len(first)} more (`cloudseg maintain --json`)" if count > len(first) else ""
        raise AirflowFailException(f"{count} objects are missing or damaged, restore them: " + ", ".join(first) + more)
