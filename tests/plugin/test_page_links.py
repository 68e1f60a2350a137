"""From pages to Airflow and back, banners, and homes that are not there; in a browser: test_standalone.py."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cloudseg_ui import links
from cloudseg_ui.formats import code_spans, duration
from cloudseg_ui.probe import SLOW, Probe, check
from fastapi.testclient import TestClient
from plugin_rows import EVIL, NOON

from cloudseg.catalog import model_rows, training_rows
from cloudseg.errors import StoreUnreachable
from cloudseg.records import Run
from cloudseg.runtime import Runtime
from cloudseg.storage import LocalStore

RUN_ID = "scheduled__2026-03-01T02:00:00+00:00"
ENCODED = "scheduled__2026-03-01T02%3A00%3A00%2B00%3A00"


def test_addresses_of_airflow() -> None:
    assert "/" + links.dag_run("cloudseg_retrain", RUN_ID) == f"/dags/cloudseg_retrain/runs/{ENCODED}"
    assert "/" + links.task_log("d", "r", "group.train") == "/dags/d/runs/r/tasks/group.train"
    assert "/" + links.task_log("d", "r", "predict", 3) == "/dags/d/runs/r/tasks/predict/mapped/3"
    assert links.dag("../x?y#z") == "dags/..%2Fx%3Fy%23z"
    assert links.base_of("/airflow/cloudseg") == "/airflow/"
    assert links.base_of("/cloudseg") == "/"
    assert links.dag_run_of_training(links.training_of_dag_run(RUN_ID)) == RUN_ID
    assert links.dag_run_of_training("run-of-the-cli") is None


def training(status: str = "finished") -> Run:
    return Run(
        run_id=f"airflow-{RUN_ID}",
        snapshot_id="sn-1",
        recipe_name="nightly",
        recipe_hash="0" * 64,
        recipe={},
        parent_weights_id=None,
        seed=0,
        status=status,  # type: ignore[arg-type]
        device="cpu",
        device_reason="",
        error=f"it broke {EVIL}" if status == "failed" else None,
        created_at=NOON,
        finished_at=None,
    )


def of_run(client: TestClient, dag_id: str = "cloudseg_retrain", run_id: str = RUN_ID) -> str:
    answer = client.get("/of-run", params={"dag_id": dag_id, "run_id": run_id, "task_id": "{TASK_ID}"})
    assert answer.status_code == 200
    return answer.text


def test_a_dag_run_shows_what_it_made(client: TestClient, filled: Runtime) -> None:
    assert "This run has not trained" in of_run(client)
    assert "Only runs of <b>cloudseg_retrain</b> make a model" in of_run(client, dag_id="somebody_elses")
    with filled.catalog.begin() as db:
        training_rows.add_run(db, training())
        db.exec_driver_sql("UPDATE weights SET run_id = ? WHERE weights_id = 'w-1'", (f"airflow-{RUN_ID}",))
    page = of_run(client)
    for text in ('<a href="/weights/w-1">v1</a>', "champion", "0.710", "PROMOTE", "better than the trivial masks"):
        assert text in page
    assert "<dt>Masks</dt><dd>2</dd>" in page
    assert f'"/{links.dag_run("cloudseg_retrain", RUN_ID)}" data-airflow' in page
    assert "has not trained" in of_run(client, run_id="manual__other")
    # Scheduled runs of two DAGs have one id if they were due at the same time.
    assert "Only runs of <b>cloudseg_retrain</b> make a model" in of_run(client, dag_id="cloudseg_watch")


def test_a_dag_run_that_failed_says_why_and_links_to_its_log(client: TestClient, filled: Runtime) -> None:
    with filled.catalog.begin() as db:
        training_rows.add_run(db, training("failed"))
    page = of_run(client)
    assert "it broke" in page
    assert EVIL not in page
    assert f"/runs/{ENCODED}/tasks/train" in page


def shown_in_time(client: TestClient, path: str, text: str) -> bool:
    """Return whether a page shows a text within a minute: on a busy machine a page does not wait for the check."""
    ends = time.monotonic() + 60
    while text not in client.get(path).text:
        if time.monotonic() > ends:
            return False
        time.sleep(0.2)
    return True


def test_a_store_without_the_newest_weights_is_a_banner_on_every_page(client: TestClient, filled: Runtime) -> None:
    assert check(lambda: filled) == []
    with filled.catalog.read() as db:
        key = model_rows.list_weights(db, limit=1)[0].key
    filled.store.delete(key)
    for path in ("/", "/models", "/masks", "/history"):
        assert shown_in_time(client, path, "The store lacks the weights of the newest model."), path


def test_a_store_that_does_not_answer_delays_no_page(filled: Runtime) -> None:
    slept = 3.0

    class Slow(LocalStore):
        def stat(self, key: str) -> tuple[int, object]:  # type: ignore[override]
            time.sleep(slept)
            raise StoreUnreachable("the store does not answer", subject=key)

    store = Slow(filled.store.root)  # type: ignore[attr-defined]
    slow = Runtime(settings=filled.settings, store=store, catalog=filled.catalog, inbox="", home=filled.home)
    probe = Probe(lambda: slow, wait_s=0.05)
    began = time.monotonic()
    assert probe.banners() == [SLOW]
    assert time.monotonic() - began < slept
    patient = Probe(lambda: slow, wait_s=120)
    (found,) = patient.banners()
    assert found.what == "The store cannot be read: the store does not answer."
    assert patient.banners() == [found], "kept for half a minute"


def test_a_catalog_of_an_older_version_is_a_banner(client: TestClient, filled: Runtime) -> None:
    with filled.catalog.begin() as db:
        db.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    assert shown_in_time(client, "/models", "The catalog does not fit this version.")


def test_looking_at_a_page_makes_no_home(
    client_of: Callable[[Callable[[], Runtime]], TestClient], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("airflow", reason="the extra `airflow` is not installed")
    from cloudseg_plugin import _open_what_is_there

    monkeypatch.setenv("CLOUDSEG_HOME", str(tmp_path / "none"))
    client = client_of(_open_what_is_there)
    for path in ("/", "/models", "/masks", "/data"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "Nothing here yet" in answer.text
    assert not (tmp_path / "none").exists()


def test_every_page_works_where_airflow_has_no_prefix_of_its_own(client: TestClient, filled: Runtime) -> None:
    assert 'href="/dags/cloudseg_retrain/' in of_run(client)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5 s"), (720, "12 min"), (3600, "1 h"), (5400, "1 h 30 min"), (273_600, "3 d 4 h"), (None, "–")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_backticks_are_code_and_everything_else_is_escaped() -> None:
    assert code_spans(f"Run `cloudseg db upgrade` {EVIL}") == (
        "Run <code>cloudseg db upgrade</code> &lt;script&gt;alert(1)&lt;/script&gt;"
    )
    assert "<img" not in code_spans("`<img>`")


def test_scripts_are_valid_javascript(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    import subprocess

    folder = Path(__file__).parents[2] / "plugins" / "cloudseg_ui" / "static"
    for script in folder.glob("*.js"):
        subprocess.run([node, "--check", str(script)], check=True)
