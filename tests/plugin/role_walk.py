"""Ask a real Airflow API server for every route and action as each role: a program of test_page_roles.py.

It prints one line of JSON: `routes` of the pages as their application lists them, `decisions` as the form of
`cloudseg_decide` lists them, and `answers`, the statuses by row of `roles.toml` and by role. Nothing is changed: what a
role may do is asked for with values that make no sense, which is answered with 400 or 422 then, and with 401 or 403 to
who may not.
"""

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi.testclient import TestClient

HERE = Path(__file__).parent
ROLES = ("logged_out", "viewer", "user", "op", "admin")
RUN_ID = "manual__roles"


def _prepare() -> None:
    """Make the database, with the DAGs and a run of `cloudseg_retrain` whose question waits."""
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.hitl import HITLDetail
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils import timezone
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    from cloudseg.runtime import open_runtime

    open_runtime()  # makes the catalog
    initdb()
    folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
    with create_session() as session:
        session.merge(DagBundleModel(name="dags-folder"))
    with create_session() as session:
        bag = BundleDagBag(dag_folder=folder, bundle_path=Path(folder), bundle_name="dags-folder")
        sync_bag_to_db(bag, "dags-folder", bundle_version=None, session=session)
    with create_session() as session:
        dag: Any = SerializedDagModel.get_dag("cloudseg_retrain", session=session)
        moment = timezone.utcnow()
        run = dag.create_dagrun(
            run_id=RUN_ID,
            logical_date=moment,
            data_interval=(moment, moment),
            run_after=moment,
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            session=session,
        )
        task = run.get_task_instance("approve", session=session)
        task.id = task.id or uuid4()
        session.add(HITLDetail(ti_id=task.id, options=["Approve", "Reject"], subject="?", multiple=False, params={}))


def _routes() -> list[str]:
    """Return method and path of every route of the pages."""
    from cloudseg_ui.app import create_app
    from cloudseg_ui.runs import airflow_runs

    from cloudseg.runtime import open_runtime

    app = create_app(open_runtime, guards=[], runs=airflow_runs())
    return sorted(f"{method} {route.path}" for route in app.routes for method in route.methods - {"HEAD"})  # type: ignore[attr-defined]


def _decisions() -> list[str]:
    """Return what the DAG `cloudseg_decide` can decide, as Airflow has it."""
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        dag: Any = SerializedDagModel.get_dag("cloudseg_decide", session=session)
        return sorted(dag.params.get_param("decision").schema["enum"])


def _decide(client: TestClient, decision: str) -> list[int]:
    """Ask for a decision without a reason: for the page, by its form, and by Airflow's API."""
    form = {"decision": decision, "about": "v1", "reason": " "}
    page = client.get(f"/cloudseg/decide?decision={decision}&about=v1")
    sent = client.post("/cloudseg/runs/cloudseg_decide", data=form, headers={"Origin": "http://airflow.test"})
    conf = {"logical_date": None, "conf": form | {"about": ["v1"]}}
    run = client.post("/api/v2/dags/cloudseg_decide/dagRuns", json=conf)
    return [page.status_code, sent.status_code, run.status_code]


def _ask(client: TestClient, row: str, address: str) -> int:
    method = row.split(" ", 1)[0]
    body: dict[str, Any] = {"json": {}} if method in ("POST", "PATCH") else {}
    if address.endswith("/dagRuns"):
        body = {"json": {"logical_date": None, "conf": {"no_such": 1}, "run_after": "never"}}
    elif address.endswith("/hitlDetails"):
        body = {"json": {"chosen_options": ["Neither"], "params_input": {}}}
    elif address.startswith("/cloudseg/runs/"):
        body = {"data": {}, "headers": {"Origin": "http://airflow.test"}}
    return client.request(method, address, **body).status_code


def main() -> None:
    """Walk."""
    _prepare()
    from airflow.api_fastapi.app import create_app

    table = tomllib.loads((HERE / "roles.toml").read_text(encoding="utf-8"))
    routes, decisions = _routes(), _decisions()
    answers: dict[str, dict[str, list[int]]] = {}
    with TestClient(create_app(), base_url="http://airflow.test", follow_redirects=False) as client:
        for role in ROLES:
            client.headers.pop("Authorization", None)
            if role != "logged_out":
                token = client.post("/auth/token", json={"username": role, "password": role}).json()["access_token"]
                client.headers["Authorization"] = f"Bearer {token}"
            for part, prefix in (("pages", "/cloudseg"), ("map", "/cloudseg/browse"), ("airflow", "/api/v2")):
                for row in table[part]:
                    path = row.split(" ", 1)[1].replace("{path:path}", "no/such/page").replace("{run_id}", RUN_ID)
                    address = prefix + path.replace("{dag_id}", "cloudseg_decide").replace("{", "").replace("}", "")
                    answers.setdefault(f"{part} {row}", {})[role] = [_ask(client, row, address)]
            for decision in table["decisions"]:
                answers.setdefault(f"decisions {decision}", {})[role] = _decide(client, decision)
    sys.stdout.write("\n" + json.dumps({"routes": routes, "decisions": decisions, "answers": answers}) + "\n")


if __name__ == "__main__":
    main()
