"""The DAG files and how to import them with this version of Airflow; the only module that knows both."""

import ast
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[2]
DAGS = REPO / "dags"
FILES = {
    "cloudseg_ingest.py": "cloudseg_ingest",
    "cloudseg_ingest_stac.py": "cloudseg_ingest_stac",
    "cloudseg_retrain.py": "cloudseg_retrain",
    "cloudseg_predict.py": "cloudseg_predict",
    "cloudseg_maintain.py": "cloudseg_maintain",
    "cloudseg_backfill.py": "cloudseg_backfill",
    "cloudseg_decide.py": "cloudseg_decide",
    "cloudseg_watch.py": "cloudseg_watch",
    "cloudseg_backup.py": "cloudseg_backup",
}
SHARED = {
    "__init__.py",
    "cloudseg_dagkit.py",
    "cloudseg_decisions.py",
    "cloudseg_notify.py",
}


def airflow_home(folder: Path) -> dict[str, str]:
    """Return the environment of an Airflow that writes nothing outside `folder`."""
    return {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPO / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }


def load_dags() -> dict[str, Any]:
    """Import the DAG files and return the DAGs by id."""
    import importlib
    import sys

    if str(DAGS) not in sys.path:
        sys.path.insert(0, str(DAGS))
    dags = [importlib.import_module(Path(name).stem).DAG for name in FILES]
    return {dag.dag_id: dag for dag in dags}


def task_functions(path: Path) -> list[ast.FunctionDef]:
    """Return the functions with a `task` decorator."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [function for function in functions if any(_is_task(decorator) for decorator in function.decorator_list)]


def _is_task(decorator: ast.expr) -> bool:
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id == "task"
