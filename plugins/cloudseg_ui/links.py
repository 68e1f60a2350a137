"""Addresses of Airflow's own pages, relative to the base address of its UI, and of the page that decides.

Nothing here asks Airflow.

Templates make links of them with the macro `airflow_link`. The paths are the routes of Airflow 3.3
(`airflow/ui/src/router.tsx`); ids are percent-encoded, since a run id contains a colon and a plus sign.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlencode

PREFIX: Final = "/cloudseg"
"""Where the plugin mounts the pages, below the base address of Airflow's UI."""
_OF_AIRFLOW: Final = "airflow-"
"""Begin of the id of a training that a DAG run started (`cloudseg_dagkit.training_id`)."""
RETRAIN: Final = "cloudseg_retrain"
DECIDE: Final = "cloudseg_decide"


def dag(dag_id: str) -> str:
    """Return the address of a DAG."""
    return f"dags/{_part(dag_id)}"


def trigger_form(dag_id: str) -> str:
    """Return the address from where a DAG is triggered: Airflow's form has no address of its own."""
    return dag(dag_id)


def decide_address(
    decision: str | None = None, about: Sequence[str] | str = (), *, hold: bool = False, force: bool = False
) -> str:
    """Return the address of the page that shows what a decision would change; it belongs after `base`.

    Args:
        decision: as in the form of the DAG `cloudseg_decide`; None: the page asks.
        about: what it is about, by the names that people see: one, or several.
        hold: as in the form.
        force: as in the form.
    """
    names = [about] if isinstance(about, str) else list(about)
    values = [("decision", decision), *(("about", name) for name in names)] if decision else []
    values += [(name, "true") for name, given in (("hold", hold), ("force", force)) if given]
    return f"/decide?{urlencode(values)}" if values else "/decide"


def dag_run(dag_id: str, run_id: str) -> str:
    """Return the address of a DAG run."""
    return f"{dag(dag_id)}/runs/{_part(run_id)}"


def task_log(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """Return the address of the log of a task, which is live while the task runs.

    Args:
        dag_id: of the DAG.
        run_id: of the DAG run.
        task_id: of the task, with its task groups: 'group.task'.
        map_index: of a mapped task; -1: it is not mapped.
    """
    log = f"{dag_run(dag_id, run_id)}/tasks/{_part(task_id)}"
    return log if map_index < 0 else f"{log}/mapped/{map_index}"


def required_actions() -> str:
    """Return the address of all open requests for an approval."""
    return "required_actions"


def required_actions_of(dag_id: str, run_id: str) -> str:
    """Return the address of the requests of one DAG run."""
    return f"{dag_run(dag_id, run_id)}/required_actions"


def dag_run_of_training(run_id: str | None) -> str | None:
    """Return the DAG run id that started a training, None if it was not Airflow that did."""
    return run_id.removeprefix(_OF_AIRFLOW) if run_id is not None and run_id.startswith(_OF_AIRFLOW) else None


def training_of_dag_run(run_id: str) -> str:
    """Return the id of the training that a DAG run of `cloudseg_retrain` started."""
    return _OF_AIRFLOW + run_id


def base_of(root_path: str) -> str:
    """Return the path of Airflow's UI, with a slash at its end.

    Args:
        root_path: where the pages are mounted, e.g. '/airflow/cloudseg'.
    """
    return root_path.removesuffix(PREFIX) + "/"


def _part(text: str) -> str:
    return quote(text, safe="")
