"""Fixtures of the pages' tests (`plugin_rows.py` makes the rows)."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
for folder in (TESTS.parent / "plugins", TESTS / "plugin", TESTS / "serve"):  # the first as Airflow does
    sys.path.insert(0, str(folder))

from plugin_rows import client, client_of, filled, runtime  # noqa: E402, F401
