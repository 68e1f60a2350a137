"""What tasks log: the sentence of a failure as one line, and no whole records."""

from typing import Any

import pytest

from cloudseg.errors import BadScene


@pytest.fixture
def kit(dags: dict[str, Any]) -> Any:
    import cloudseg_dagkit

    return cloudseg_dagkit


def failing(error: Exception) -> Any:
    class Operator:
        @staticmethod
        def python_callable() -> None:
            raise error

    return Operator()


def test_a_failure_is_one_line_before_the_traceback(kit: Any, caplog: pytest.LogCaptureFixture):
    error = BadScene("no such folder", subject="/nowhere", next_step="Name a folder with tiles.")
    operator = failing(error)
    kit.log_for_people(operator)
    with pytest.raises(BadScene), caplog.at_level("INFO"):
        operator.python_callable()
    (line,) = caplog.records
    assert operator.show_return_value_in_logs is False, "Airflow logs no record"
    assert (line.levelname, line.getMessage(), line.exc_info) == ("ERROR", str(error), None)


def test_a_failure_without_words_is_named_by_its_class(kit: Any, caplog: pytest.LogCaptureFixture):
    operator = failing(KeyError())
    kit.log_for_people(operator)
    with pytest.raises(KeyError), caplog.at_level("INFO"):
        operator.python_callable()
    assert [line.getMessage() for line in caplog.records] == ["KeyError"]


def test_a_skipped_task_logs_no_error(kit: Any, caplog: pytest.LogCaptureFixture):
    from airflow.sdk.exceptions import AirflowSkipException

    operator = failing(AirflowSkipException("nothing is new"))
    kit.log_for_people(operator)
    with pytest.raises(AirflowSkipException), caplog.at_level("INFO"):
        operator.python_callable()
    assert caplog.records == []


def test_every_task_has_a_log_for_people(kit: Any, dags: dict[str, Any]):
    tasks = [task for dag in dags.values() for task in dag.tasks]
    hooks = [task.partial_kwargs if hasattr(task, "partial_kwargs") else vars(task) for task in tasks]
    assert len(tasks) > 20
    assert {hook.get("pre_execute") or hook["_pre_execute_hook"] for hook in hooks} == {kit.before_task}
