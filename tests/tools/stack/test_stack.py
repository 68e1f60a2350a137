"""`make stack-test`: the pipeline end to end on PostgreSQL, SeaweedFS, Redis and Celery, and each of them killed."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

pytest.importorskip("airflow", reason="the extra `airflow` is not installed")
pytest.importorskip("airflow.providers.celery", reason="the extra `production` is not installed")

from receivers import receivers
from stack_world import QUICK, World, choose_tiles

from cloudseg.catalog import model_rows
from cloudseg.errors import SettingsError
from tools.airflow_api import ENDED
from tools.stack.home import prepare_home
from tools.stack.servers import check_programs
from tools.stack.stack import GPU_WORKER, Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]
_FIRST_PORT = int(os.environ.get("STACK_TEST_PORT", "23200"))
Table = Callable[[str, str, str], None]


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, table: Table) -> Iterator[World]:
    try:
        check_programs()
    except SettingsError as error:
        pytest.skip(str(error))
    folder = Path(tempfile.mkdtemp(prefix="cloudseg-stack-"))
    folder.chmod(0o711)  # PostgreSQL's user may pass through
    tiles, source = choose_tiles(folder / "tiles", Path(__file__).parents[4] / "shared" / "data")
    (folder / "tiles").chmod(0o755)
    before, began = set(psutil.Process().children(recursive=True)), time.monotonic()
    with (
        receivers(_FIRST_PORT + 50) as (heard, settings),
        Stack(prepare_home(folder / "stack", first_port=_FIRST_PORT), settings=QUICK | settings) as stack,
    ):
        stack.start()
        stack.unpause_dags()
        table("services up", ", ".join(stack.services), f"{time.monotonic() - began:.0f} s")
        shared = World(stack, heard, tiles, source)
        shared.wait_for_scheduled_runs()
        yield shared
        started = set(psutil.Process().children(recursive=True)) - before
    left = [process for process in started if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    if request.session.testsfailed:
        table("kept for inspection", f"{folder}/stack/logs", "")
    else:
        shutil.rmtree(folder)
    assert left == []


def test_the_pipeline_runs_end_to_end(world: World, table: Table) -> None:
    began = time.monotonic()
    ingest = world.trigger("cloudseg_ingest", {"source": str(world.tiles), "min_new_labels": None})
    assert world.finish("cloudseg_ingest", ingest) == "success"
    counts = world.api.xcom("cloudseg_ingest", ingest, "ingest", "return_value")["counts"]
    run_id = world.trigger("cloudseg_retrain", {"recipe": "smoke", "force": True})
    assert world.finish("cloudseg_retrain", run_id) == "success"
    record, verdict = world.trained(run_id), world.api.xcom("cloudseg_retrain", run_id, "compare", "outcome")
    world.weights["undisturbed"] = record["weights_id"]
    assert record["resumed_from_step"] is None
    table(
        "ingest, retrain",
        f"{world.source}: {counts['added']} scenes, verdict {verdict}",
        f"{time.monotonic() - began:.0f} s",
    )


def test_training_ran_on_the_gpu_worker(world: World) -> None:
    queues = {
        task["task_id"]: task["queue"]
        for run in world.api.runs("cloudseg_retrain")
        for task in world.api.tasks("cloudseg_retrain", run)
    }
    assert {queues[name] for name in ("train", "evaluate", "compare", "promote")} == {"gpu"}
    assert {queues[name] for name in ("doctor", "plan", "snapshot")} == {"default"}


def _same_weights(world: World, run_id: str) -> dict[str, object]:
    """Check that a disturbed training ended with the weights of the undisturbed one; return its record."""
    import torch

    record = world.trained(run_id)
    expected, found = world.tensors(world.weights["undisturbed"]), world.tensors(record["weights_id"])
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    return record


def test_a_killed_gpu_worker_is_resumed_by_another_one(world: World, table: Table) -> None:
    run_id = world.begin_training()
    began = time.monotonic()
    dead = world.stack.services[GPU_WORKER]
    dead.kill(restart=False)
    assert dead.processes() == []
    world.stack.add(world.stack.copy_spec(GPU_WORKER, "worker-second"))
    assert world.finish_training(run_id)["try_number"] == 2
    record = _same_weights(world, run_id)
    assert record["resumed_from_step"]
    world.weights["killed"] = str(record["weights_id"])
    table(
        "gpu worker: kill -9 in mid-epoch",
        f"resumed at step {record['resumed_from_step']} elsewhere, same weights",
        f"{time.monotonic() - began:.0f} s",
    )


def test_a_gpu_worker_that_gets_sigterm_hands_over(world: World, table: Table) -> None:
    run_id = world.begin_training()
    began = time.monotonic()
    leaving = world.stack.services["worker-second"]
    leaving.signal(signal.SIGTERM)
    leaving.wait_until_ended(300)
    left_after = time.monotonic() - began
    assert world.task("cloudseg_retrain", run_id, "train")["state"] in ("up_for_retry", "scheduled", "queued")
    world.stack.add(world.stack.copy_spec(GPU_WORKER, "worker-third"))
    world.finish_training(run_id)
    record = _same_weights(world, run_id)
    assert record["resumed_from_step"]
    world.weights["stopped"] = str(record["weights_id"])
    words = f"gone after {left_after:.0f} s, resumed at step {record['resumed_from_step']} elsewhere, same weights"
    table("gpu worker: SIGTERM", words, f"{time.monotonic() - began:.0f} s")


def _masks(world: World, weights_id: str) -> dict[str, object]:
    with world.runtime() as runtime, runtime.catalog.read() as db:
        return {mask.scene_id: mask.created_at for mask in model_rows.list_masks(db, weights_id=weights_id)}


@pytest.mark.parametrize(
    ("how", "name", "next_name"),
    [("killed", "worker-third", "worker-fourth"), ("stopped", "worker-fourth", "worker-fifth")],
)
def test_a_prediction_resumes_where_it_ended(world: World, table: Table, how: str, name: str, next_name: str) -> None:
    weights_id, began = world.weights[how], time.monotonic()
    run_id = world.trigger("cloudseg_predict", {"weights_id": weights_id, "workers": 1})
    world.wait("two masks", lambda: len(_masks(world, weights_id)) >= 2, 900, 0.05)
    worker = world.stack.services[name]
    if how == "killed":
        worker.kill(restart=False)
    else:
        worker.signal(signal.SIGTERM)
        worker.wait_until_ended(300)
    before = _masks(world, weights_id)
    world.stack.add(world.stack.copy_spec(GPU_WORKER, next_name))
    assert world.finish("cloudseg_predict", run_id) == "success"
    after = _masks(world, weights_id)
    assert {scene: after[scene] for scene in before} == before, "finished masks are not predicted again"
    record = world.api.xcom("cloudseg_predict", run_id, "predict", "return_value", 0)
    assert record["created"] == len(after) - len(before)
    words = f"{len(before)} masks before, {record['created']} by the retry, none twice"
    table(
        f"prediction: worker {'kill -9' if how == 'killed' else 'SIGTERM'}", words, f"{time.monotonic() - began:.0f} s"
    )


@pytest.mark.parametrize("server", ["seaweedfs", "postgres"])
def test_a_server_that_is_killed_in_a_training_costs_no_weights(world: World, table: Table, server: str) -> None:
    run_id = world.begin_training()
    began = time.monotonic()
    world.stack.services[server].kill(restart=True)
    killed_at = datetime.now(UTC)
    tries = world.finish_training(run_id)["try_number"]
    record = _same_weights(world, run_id)
    assert world.weights_of(str(record["weights_id"])).created_at > killed_at, "it was killed before the training's end"
    world.weights[server] = str(record["weights_id"])
    table(
        f"{server}: kill -9 in a training",
        f"{tries} {'try' if tries == 1 else 'tries'} of the training, same weights",
        f"{time.monotonic() - began:.0f} s",
    )


def test_work_waits_for_a_busy_gpu(world: World, table: Table) -> None:
    """Run several workers through one slot: waiting ones are `scheduled`, as Airflow fails what is queued too long."""
    began, waiting = time.monotonic(), set[int]()
    run_id = world.trigger("cloudseg_predict", {"weights_id": world.weights["seaweedfs"], "workers": 3})

    def batches() -> list[dict[str, object]]:
        tasks = world.retry(lambda: world.api.tasks("cloudseg_predict", run_id))
        return [task for task in tasks if task["task_id"] == "predict" and task["map_index"] >= 0]

    def have_completed() -> bool:
        states = [task["state"] for task in batches()]
        assert sum(state in ("queued", "running") for state in states) <= 1
        if "running" in states:
            waiting.add(states.count("scheduled"))
        return bool(world.api.run_state("cloudseg_predict", run_id) in ENDED)

    world.wait("the batches", have_completed, 900, 0.3)
    assert [(task["state"], task["try_number"]) for task in batches()] == [("success", 1)] * len(batches())
    assert max(waiting) >= 1
    table(
        "a busy GPU",
        f"{max(waiting)} of {len(batches())} workers waited as scheduled, none failed",
        f"{time.monotonic() - began:.0f} s",
    )


def test_masks_are_read_by_gis_users(world: World, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the view as a role without other privileges, and a mask by GDAL from the object store without a copy."""
    import rasterio
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import ProgrammingError

    began = time.monotonic()
    variables = world.home.variables
    engine = create_engine(
        f"postgresql+psycopg://gis_reader:{variables['GIS_READER_PASSWORD']}@{variables['POSTGRES_ADDRESS']}/cloudseg"
    )
    with engine.connect() as db:
        rows = db.execute(
            text("SELECT gdal, cloud_fraction, ST_Area(footprint) AS area FROM gis.masks ORDER BY mask_id")
        ).all()
    with engine.connect() as db, pytest.raises(ProgrammingError, match="permission denied"):
        db.execute(text("SELECT * FROM promotion"))
    engine.dispose()
    assert rows
    assert all(row.area > 0 for row in rows)
    address = variables["S3_ENDPOINT"].removeprefix("http://")
    access = {"AWS_ACCESS_KEY_ID": variables["S3_ACCESS_KEY"], "AWS_SECRET_ACCESS_KEY": variables["S3_SECRET_KEY"]}
    server = {"AWS_S3_ENDPOINT": address, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_REGION": "us-east-1"}
    for name, value in access.items():
        monkeypatch.setenv(name, value)  # rasterio refuses credentials among its options
    with rasterio.Env(**server, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), rasterio.open(rows[0].gdal) as mask:
        assert rows[0].gdal.startswith("/vsis3/")
        assert mask.crs is not None
        assert set(mask.read(1).ravel().tolist()) <= {0, 1, 255}
    table("gis.masks as gis_reader, /vsis3", f"{len(rows)} masks", f"{time.monotonic() - began:.0f} s")


def test_logs_of_tasks_lie_in_the_object_store(world: World, table: Table) -> None:
    import boto3

    variables = world.home.variables
    client = boto3.client(
        "s3",
        endpoint_url=variables["S3_ENDPOINT"],
        region_name="us-east-1",
        aws_access_key_id=variables["S3_ACCESS_KEY"],
        aws_secret_access_key=variables["S3_SECRET_KEY"],
    )
    found = client.list_objects_v2(Bucket="cloudseg", Prefix="airflow-logs/dag_id=cloudseg_retrain/")["Contents"]
    assert any("task_id=train" in entry["Key"] for entry in found)
    run_id = next(iter(world.api.runs("cloudseg_retrain")))
    lines = world.api.log_tail(
        "cloudseg_retrain", run_id, world.task("cloudseg_retrain", run_id, "train") | {"map_index": -1}, 200
    )
    assert any("train ends" in line for line in lines)
    table("task logs in the object store", f"{len(found)} of cloudseg_retrain, read through Airflow's API", "")


def test_metrics_were_sent(world: World, table: Table) -> None:
    names = set(world.heard.metrics)
    for wanted in ("cloudseg.train.images_per_s", "cloudseg.masks_per_hour", "cloudseg.masks", "cloudseg.scenes"):
        assert f"airflow.{wanted}" in names
    assert any(name.startswith("airflow.cloudseg.verdict.") for name in names)
    for wanted in ("task.scheduled_duration", "cloudseg.queue_wait.default", "cloudseg.queue_wait.gpu"):
        assert f"airflow.{wanted}" in names, "how long tasks waited for their pool, and for a worker of their queue"
    table(
        "metrics", f"{len(names)} names, images/s {world.heard.metrics['airflow.cloudseg.train.images_per_s']:.0f}", ""
    )


def test_notifications_were_sent(world: World, table: Table) -> None:
    broken = world.tiles / "images" / "broken.tif"
    broken.write_bytes(b"II*\0 no image")
    run_id = world.trigger("cloudseg_ingest", {"source": str(world.tiles), "min_new_labels": None})
    assert world.finish("cloudseg_ingest", run_id) == "success"
    world.wait("the webhook", lambda: "quarantine grows" in world.heard.events(), 30)
    world.wait("the mail", lambda: "cloudseg: quarantine grows" in world.heard.subjects(), 30)
    table("notifications", ", ".join(sorted(world.heard.events())), "")


def test_nothing_listens_beyond_this_machine(world: World) -> None:
    connections = world.of_every_process(lambda process: process.net_connections("inet"))
    listening = {c.laddr for found in connections for c in found if c.status == psutil.CONN_LISTEN}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} >= {
        world.home.ports[name] for name in ("api", "postgres", "redis", "s3")
    }


def test_secrets_stay_private(world: World) -> None:
    assert world.home.private.stat().st_mode & 0o777 == 0o700
    assert world.home.environment_file.stat().st_mode & 0o777 == 0o600
    # The access key id is no secret: SeaweedFS logs it.
    names = [
        name
        for name in world.home.variables
        if name.endswith(("PASSWORD", "_KEY", "_SECRET")) and name != "S3_ACCESS_KEY"
    ]
    secrets = [world.home.variables[name] for name in names]
    assert len(secrets) == 13
    assert all(secrets)
    logs = "".join(path.read_text(errors="replace") for path in world.home.logs.iterdir())
    arguments = " ".join(" ".join(line) for line in world.of_every_process(lambda process: process.cmdline()))
    assert not [secret for secret in secrets if secret in logs or secret in arguments]
