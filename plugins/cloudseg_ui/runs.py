"""Airflow's part in decisions: permission, audit log, triggering the DAG, the state of a run."""

from typing import Any
from urllib.parse import urlsplit

from cloudseg_ui.decide import Run, Runs
from cloudseg_ui.links import DECIDE

from cloudseg.errors import StateError


def airflow_runs() -> Runs:
    """Return how the pages trigger the DAG `cloudseg_decide`, as this user and with Airflow's own checks."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
    from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
    from airflow.api_fastapi.logging.decorators import action_logging
    from airflow.configuration import conf
    from fastapi import Depends

    def allowed(user: GetUserDep) -> bool:
        return bool(
            get_auth_manager().is_authorized_dag(
                method="POST", access_entity=DagAccessEntity.RUN, details=DagDetails(id=DECIDE), user=user
            )
        )

    def person(user: GetUserDep) -> str:
        return str(user.get_name())

    return Runs(
        # The same two that Airflow's own route has; both take `dag_id` from the path.
        guards=[
            Depends(requires_access_dag("POST", DagAccessEntity.RUN)),
            Depends(action_logging("trigger_dag_run")),
        ],
        allowed=allowed,
        person=person,
        trigger=_trigger,
        find=_find,
        own_hosts=[host] if (host := urlsplit(conf.get("api", "base_url", fallback="") or "").netloc) else [],
    )


def _trigger(person: str, conf: dict[str, Any]) -> str:
    """Trigger the DAG and return the id of the run.

    Raises:
        StateError: Airflow does not have the DAG, or it is paused: the run would wait without an end.
    """
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.models.dag import DagModel
    from airflow.utils.types import DagRunTriggeredByType

    model = DagModel.get_current(DECIDE)
    if model is None or model.is_stale or model.is_paused:
        raise StateError(
            f"the DAG {DECIDE} {'is paused' if model and not model.is_stale else 'is not there'}",
            subject=DECIDE,
            next_step="Unpause it (menu Dags), then send the form again.",
        )
    run = trigger_dag(DECIDE, triggered_by=DagRunTriggeredByType.UI, triggering_user_name=person, conf=conf)
    assert run is not None  # noqa: S101  (only if there is no such DAG)
    return str(run.run_id)


def _find(run_id: str) -> Run | None:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    wanted = select(DagRun.state, DagRun.conf).where(DagRun.dag_id == DECIDE, DagRun.run_id == run_id)
    with create_session() as session:
        found = session.execute(wanted).first()
    return None if found is None else Run(str(found.state), dict(found.conf or {}))
