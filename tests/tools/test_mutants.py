"""The mutants fit the code as it is, and the runner tells a failed test from one that could not run."""

import re
from pathlib import Path

import pytest

from tools.mutants import MUTANTS, REPO, Mutant, MutantError, apply_mutant, check_unmutated, is_killed, main

TEST = "from double import double\n\ndef test_double():\n    assert double(3) == 6\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A module of one function with its test, in a folder of the test."""
    (tmp_path / "double.py").write_text("def double(x):\n    return x + x\n")
    (tmp_path / "test_double.py").write_text(TEST)
    return tmp_path


def mutant(new: str, *, old: str = "x + x", tests: str = "test_double.py") -> Mutant:
    return Mutant("toy", "double.py", old, new, (tests,))


@pytest.mark.parametrize("one", MUTANTS, ids=lambda one: one.name)
def test_every_mutant_fits_the_code_and_names_tests_that_exist(one: Mutant) -> None:
    assert (REPO / one.file).read_text(encoding="utf-8").count(one.old) == 1
    assert one.new != one.old
    for test in one.tests:
        file, _, name = test.partition("::")
        text = (REPO / file).read_text(encoding="utf-8")
        assert not name or re.search(rf"^def {re.escape(name)}\(", text, re.MULTILINE), test


def test_names_are_unique() -> None:
    names = [one.name for one in MUTANTS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(("new", "killed"), [("x * 3", True), ("2 * x", False)])
def test_a_mutant_is_killed_by_a_failing_test_only_and_taken_back(checkout: Path, new: str, killed: bool) -> None:
    before = (checkout / "double.py").read_text()
    check_unmutated(checkout, [mutant(new)])
    assert is_killed(checkout, mutant(new)) is killed
    assert (checkout / "double.py").read_text() == before


@pytest.mark.parametrize(
    "broken", [mutant("x +"), mutant("x * 3", tests="test_double.py::test_gone")], ids=["syntax error", "no such test"]
)
def test_tests_that_cannot_run_kill_nothing(checkout: Path, broken: Mutant) -> None:
    with pytest.raises(MutantError, match="not with a failed test"):
        is_killed(checkout, broken)


def test_a_setup_that_breaks_kills_nothing(checkout: Path) -> None:
    text = "import pytest\n\n@pytest.fixture\ndef broken():\n    raise RuntimeError\n\ndef test_it(broken):\n    pass\n"
    (checkout / "test_double.py").write_text(text)
    with pytest.raises(MutantError, match="no test failed"):
        is_killed(checkout, mutant("x * 3"))


def test_failing_tests_of_the_unchanged_code_stop_the_run(checkout: Path) -> None:
    (checkout / "test_double.py").write_text(TEST.replace("6", "7"))
    with pytest.raises(MutantError, match="do not pass on the unchanged code"):
        check_unmutated(checkout, [mutant("x * 3")])


@pytest.mark.parametrize(("old", "count"), [("x - x", 0), ("x", 3)])
def test_a_text_that_is_not_there_once_is_named(checkout: Path, old: str, count: int) -> None:
    with pytest.raises(MutantError, match=f"toy: the old text occurs {count} times in double.py"):
        apply_mutant(checkout, mutant("y", old=old))


def test_an_unknown_name_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "nothing"]) == 2
    assert "no such mutant: nothing" in capsys.readouterr().err
    assert main(["--list"]) == 0
    assert MUTANTS[0].name in capsys.readouterr().out
