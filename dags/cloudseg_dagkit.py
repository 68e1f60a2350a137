"""What all DAG files share: the DAG factory, the first task, assets, pool, and how results map to Airflow states.

Around every task (`DEFAULT_ARGS`): before it, Airflow's connections become settings; after it, `cloudseg_notify` emits
metrics and notifications. Not a DAG file itself (`.airflowignore`). Imports `airflow.sdk` only: DAG files are parsed
again and again.
"""

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

from airflow.sdk import (
    Asset,
    BaseNotifier,
    Connection,
    RetryPolicy,
    Variable,
    dag,
    get_current_context,
    task,
)
from airflow.sdk.definitions.retry_policy import RetryDecision
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    DagRunTriggerException,
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
RECIPES = ["baseline", "baseline_4200", "nightly", "smoke"]
TAG = "cloudseg"
WORKERS = "cloudseg_predict_workers"
"""Airflow variable: how many tasks of a run of `cloudseg_predict` draw scenes at the same time."""
_WORKERS = 2
_PART = "__part_"
_MOST_WORKERS = 1000  # Airflow maps a task over at most 1024 (its setting `core.max_map_length`)
VERDICT = timedelta(hours=4)
"""From the beginning of a night to its verdict: 06:00 UTC, before people begin to work."""
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
    """After a task that succeeded: emit metrics and notifications, and end the alert of an earlier failure."""
    import cloudseg_notify

    ti = context["ti"]
    cloudseg_notify.emit_metrics_and_notify(str(ti.task_id), result)
    name = "question-waits" if ti.task_id == "approve" else "task-failed"
    cloudseg_notify.end(name, f"{ti.dag_id}/{ti.task_id}", run_id=context["run_id"], map_index=_map_index(ti))


def notify_failure(context: Any) -> None:
    """After a task failed for good: raise an alert. Tasks that were not run because of it raise none.

    Runs in the task's process, and where that died in the DAG processor.
    """
    use_connections(context)
    from cloudseg_notify import notify

    ti, run_id, error = context["ti"], str(context["run_id"]), context.get("exception")
    named = getattr(error, "alert", None)
    if named is not None:
        notify(*named, link=run_url(ti))
        return
    facts = {
        "dag": ti.dag_id,
        "task": ti.task_id,
        "run_id": run_id,
        "map_index": _map_index(ti),
        "error": "its worker sent no heartbeat" if error is None else str(error) or type(error).__name__,
    }
    notify("task-failed", f"{ti.dag_id}/{ti.task_id}", facts, link=run_url(ti))


def run_url(ti: Any, page: str = "") -> str:
    """Return the address of a task's log in the Airflow UI, made from Airflow's setting `[api] base_url`.

    Args:
        ti: the task instance.
        page: another tab of the task.
    """
    mapped = f"/mapped/{ti.map_index}" if _map_index(ti) >= 0 else ""
    address = f"{_dag_run_url(ti.dag_id, ti.run_id)}/tasks/{ti.task_id}{mapped}"
    return f"{address}/{page}" if page else address


def _dag_run_url(dag_id: str, run_id: str) -> str:
    from urllib.parse import quote

    from airflow.sdk.configuration import conf

    base = conf.get("api", "base_url", fallback="http://localhost:8080").rstrip("/")
    return f"{base}/dags/{dag_id}/runs/{quote(run_id, safe='')}"


def _map_index(ti: Any) -> int:
    return -1 if ti.map_index is None else int(ti.map_index)


class WaitingQuestion(BaseNotifier):
    """Raise an alert when a task begins to wait for a person; for `HITLOperator(notifiers=...)`."""

    def notify(self, context: Any) -> None:
        """Raise the alert; the task's success ends it."""
        from cloudseg_notify import notify

        ti, operator = context["ti"], context["task"]
        until = operator.hitl_summary.get("timeout_datetime") or "the end of time"
        facts = {"question": operator.subject, "until": until[:16], "run_id": context["run_id"], "map_index": -1}
        notify("question-waits", f"{ti.dag_id}/{ti.task_id}", facts, link=run_url(ti, "required_actions"))


def with_alert(error: AirflowException, name: str, subject: str, facts: Json) -> AirflowException:
    """Return the error that ends a task as an alert of its own instead of `task-failed`."""
    error.alert = (name, subject, facts)  # type: ignore[attr-defined]
    return error


def before_task(context: Any) -> None:
    """Before a task: set catalog and store, and make its log one for people."""
    use_connections(context)
    log_for_people(context["ti"].task)


def log_for_people(operator: Any) -> None:
    """Let a task log the sentence of its failure as one ERROR line, before Airflow logs the traceback, and no record.

    What a task returns is in its XCom; its stages log what they made in one line.
    """
    call = getattr(operator, "python_callable", None)
    if call is None:
        return
    operator.show_return_value_in_logs = False

    @functools.wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except (AirflowSkipException, DagRunTriggerException):
            raise
        except Exception as error:
            log.error("%s", str(error) or type(error).__name__)
            raise

    operator.python_callable = run


DEFAULT_ARGS: Json = {
    "owner": "cloudseg",
    "pre_execute": before_task,
    "post_execute": emit_metrics_and_notify,
    "on_failure_callback": notify_failure,
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
            error = AirflowException(f"cloudseg is not operational, {check['name']}: {check['detail']}")
            facts = {"check": check["name"], "detail": check["detail"]}
            raise with_alert(error, "not-operational", check["name"], facts)


def form() -> Json:
    """Return the params of this DAG run, as validated by Airflow."""
    return dict(get_current_context()["params"])


def due_form() -> Json:
    """Return the params of a retraining that say whether it is due; what was left empty is the default."""
    values = form()
    return {
        "recipe": values["recipe"],
        "force": bool(values["force"]),
        "min_new_labels": values["min_new_labels"] or 1,
    }


def cleaning() -> Json:
    """Return the params of a form that say how masks are cleaned, as arguments of the stage `drain`."""
    values = {name: form()[name] for name in ("threshold", "min_area_m2", "min_hole_m2", "buffer_m")}
    threshold = values["threshold"]
    if isinstance(threshold, str) and not threshold.isalpha():  # typed into the form, which has text for both
        values["threshold"] = float(threshold)
    return values


def workers() -> int:
    """Return how many workers predict: of the form, else of the Airflow variable, else 2.

    Raises:
        AirflowFailException: The variable is no such number.
    """
    text = str(form()["workers"] or Variable.get(WORKERS, default=_WORKERS)).strip()
    if not (text.isdecimal() and 1 <= int(text) <= _MOST_WORKERS):
        raise AirflowFailException(
            f"the variable {WORKERS} is {text!r}, not a number from 1 to {_MOST_WORKERS}. "
            "Change it in Admin > Variables, then clear this task."
        )
    return int(text)


def worker_name() -> str:
    """Return the name of a mapped task: the same for every try, so that a retry takes up what the first one held."""
    context = get_current_context()
    ti = context["ti"]
    return f"{ti.dag_id}/{context['run_id']}/{_map_index(ti)}"


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
        skip(f"{why}: the champion stays. " + "; ".join(record["reasons"]))
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


def announce_drained(record: Json) -> Json:
    """Write the number of a worker's masks into the asset's event, and return its record for XCom.

    Of the scenes without a mask the first 20, and their number in `counts`.
    """
    get_current_context()["outlet_events"][MASKS].extra = {
        "count": len(record["masks"]),
        "weights_ids": record["weights_ids"],
    }
    short = shortened(record)
    short["counts"]["failed"] = len(record["failed"])
    return short | {"failed": dict(list(record["failed"].items())[:20])}


def drained(records: list[Json]) -> Json:
    """Return the total counts of all workers.

    Raises:
        AirflowFailException: Scenes have no mask; the message lists them.
    """
    failed = {scene_id: what for record in records for scene_id, what in record["failed"].items()}
    if failed:
        count = sum(record["counts"]["failed"] for record in records)
        raise AirflowFailException(f"{count} scenes have no mask: " + _named(failed))
    return {
        "masks": sum(record["counts"]["masks"] for record in records),
        "created": sum(record["created"] for record in records),
    }


def go_on(records: list[Json]) -> NoReturn:
    """Trigger the next run of this DAG with the same params if a worker's time was over; else skip.

    The id of that run follows from this one's: a second try triggers no second run.
    """
    if not any(record["time_is_over"] for record in records):
        skip("no scene is left")
    context = get_current_context()
    first, _, part = str(context["run_id"]).partition(_PART)
    raise DagRunTriggerException(
        trigger_dag_id=context["ti"].dag_id,
        dag_run_id=f"{first}{_PART}{int(part or 1) + 1}",
        conf=form(),
        reset_dag_run=False,
        skip_when_already_exists=True,
        wait_for_completion=False,
        allowed_states=[],
        failed_states=[],
        poke_interval=60,
        deferrable=False,
    )


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


def where_to_look() -> Json:
    """Return the arguments of the stage `watch`."""
    from cloudseg_notify import page_url, unrecorded

    return {"pages_url": page_url(), "as_of": began_at(), "unrecorded": unrecorded()}


def late_night() -> Json:
    """Return the newest night whose verdict is due, as arguments of the stage `raise_missing_verdict`.

    Skip if its run of `cloudseg_retrain` is over, or there was none: one that failed, was skipped or waits for a person
    told that itself.
    """
    context = get_current_context()
    due = context["dag_run"].run_after.astimezone(timezone.utc) - VERDICT  # noqa: UP017
    night = due.replace(hour=2, minute=0, second=0, microsecond=0)
    night -= timedelta(days=1) if night > due else timedelta(0)
    run_id, waiting = f"scheduled__{night.isoformat()}", ["queued", "running"]
    if not context["ti"].get_dr_count("cloudseg_retrain", run_ids=[run_id], states=waiting):
        skip(f"the retraining of {night:%Y-%m-%d} is over")
    facts = {"night": f"{night:%Y-%m-%d}", "hours": round(VERDICT / timedelta(hours=1)), "run_id": run_id}
    return {"run_id": f"airflow-{run_id}", "facts": facts, "link": _dag_run_url("cloudseg_retrain", run_id)}


def send_alert(messages: list[Json]) -> None:
    """Send the messages about one alert."""
    from cloudseg_notify import deliver

    deliver(messages)


def send_messages(record: Json, unrecorded: Sequence[Json] = ()) -> Json:
    """Send the messages of a look at the service, and return what it found for XCom.

    Args:
        record: of the stage `watch`.
        unrecorded: the messages that the stage was given, which the catalog has now if it answered.
    """
    from cloudseg_notify import deliver, forget_unrecorded

    messages = record.pop("messages")
    deliver(messages)
    if all(message["recorded"] for message in messages):
        forget_unrecorded(unrecorded)
    return shortened(record)


def _named(failed: Json) -> str:
    return "; ".join(f"{scene_id}: {error['what']}" for scene_id, error in failed.items())


def nothing_missing(count: int, first: list[str]) -> None:
    """Check the result of maintenance.

    Raises:
        AirflowFailException: Rows name objects that are missing from the store or damaged.
    """
    if count:
        more = f" and {count - len(first)} more (`cloudseg maintain --json`)" if count > len(first) else ""
        error = AirflowFailException(f"{count} objects are missing or damaged, restore them: {', '.join(first)}{more}")
        raise with_alert(error, "damaged-objects", "", {"objects": count, "first": ", ".join(first[:3])})
