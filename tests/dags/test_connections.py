"""Catalog and store reached through Airflow's connections alone, on real servers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import postgres_server
import pytest
from dag_files import DAGS, REPO, airflow_home
from seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, Seaweed
from sqlalchemy import URL

pytest.importorskip("airflow.providers.amazon", reason="the extra `production` is not installed")

_PASSWORD = "a/b@c:d?e%f#g h"  # noqa: S105 valid for the server of this test only
"""Contains every character that must be escaped in a URL."""
_SCRIPT = """
import json, os
import cloudseg_dagkit
cloudseg_dagkit.use_connections({})
from cloudseg import stages
from cloudseg.catalog import Catalog
from cloudseg.raster.read import open_raster
from cloudseg.runtime import open_runtime
Catalog(os.environ["CLOUDSEG_CATALOG_URL"]).upgrade()
runtime = open_runtime()
stages.ingest("tiles")
scene = stages.scenes(limit=1)[0]
with open_raster(runtime.store.gdal_path(scene["key"])) as dataset:
    pixels = int(dataset.read(1).size)
print(json.dumps({"user": runtime.catalog.engine.url.username, "dialect": runtime.catalog.engine.dialect.name,
                  "uri": runtime.store.uri, "pixels": pixels}))
"""


def test_a_task_gets_catalog_and_store_from_connections(
    postgresql: postgres_server.Databases, seaweed: Seaweed, synthetic_folder: Path, tmp_path: Path
) -> None:
    with postgresql.empty() as url:
        user = f"user_{os.getpid()}"
        postgres_server.run_sql(
            url, f"CREATE ROLE {user} LOGIN PASSWORD '{_PASSWORD}'", f"GRANT ALL ON SCHEMA public TO {user}"
        )
        try:
            _run_task(url, user, seaweed, synthetic_folder, tmp_path)
        finally:
            postgres_server.run_sql(url, f"DROP OWNED BY {user}", f"DROP ROLE {user}")


def _run_task(url: URL, user: str, seaweed: Seaweed, synthetic_folder: Path, tmp_path: Path) -> None:
    catalog = {
        "conn_type": "postgres",
        "host": url.host,
        "port": url.port,
        "schema": url.database,
        "login": user,
        "password": _PASSWORD,
    }
    store = {
        "conn_type": "aws",
        "login": ACCESS_KEY,
        "password": SECRET_KEY,
        "extra": {"url": f"s3://{BUCKET}/by-connection", "endpoint_url": seaweed.endpoint, "region_name": "us-east-1"},
    }
    (tmp_path / "tiles").symlink_to(synthetic_folder)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDSEG_", "AWS_"))}
    environment = (
        inherited
        | airflow_home(tmp_path)
        | {
            "PYTHONPATH": f"{DAGS}{os.pathsep}{REPO}",  # the code of this checkout, not of the installed one
            "CLOUDSEG_HOME": str(tmp_path / "home"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AIRFLOW_CONN_CLOUDSEG_CATALOG": json.dumps(catalog),
            "AIRFLOW_CONN_CLOUDSEG_STORE": json.dumps(store),
        }
    )
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["dialect"] == "postgresql"
    assert found["user"] == user
    assert found["uri"] == f"s3://{BUCKET}/by-connection"
    assert found["pixels"] == 128 * 128
    output = done.stdout + done.stderr
    assert _PASSWORD not in output
    assert SECRET_KEY not in output
