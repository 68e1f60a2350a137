"""Airflow reads its environment on import, so each test process sets an empty AIRFLOW_HOME before importing it."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dag_files import airflow_home, load_dags


@pytest.fixture(scope="session")
def dags() -> Iterator[dict[str, Any]]:
    """The DAGs by id."""
    pytest.importorskip("airflow", reason="the extra `airflow` is not installed")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(airflow_home(Path(folder)))
        yield load_dags()
