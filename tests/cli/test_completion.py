"""Tab completion by click's protocol, as a shell calls it: the environment says what is typed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from cloudseg.cli import root
from cloudseg.runtime import open_runtime
from tests.catalog import rows


@pytest.fixture
def filled(runtime_env: Path) -> Path:
    rows.fill(open_runtime().catalog)
    return runtime_env


def offered(typed: str) -> list[str]:
    """Return what the shell is offered for the last word of a line, after checking that nothing else is printed."""
    words = typed.split(" ")
    code = "from cloudseg.cli import main; main()"
    environment = {
        **os.environ,
        "_CLOUDSEG_COMPLETE": "bash_complete",
        "COMP_WORDS": "cloudseg " + typed,
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_words_of_the_catalog_are_completed(filled: Path):
    assert offered("promote v") == ["v2", "v1"]
    assert offered("rollback ch") == ["champion"]
    assert offered("lineage mk-") == ["mk-1", "mk-2"]
    assert offered("predict synthetic_") == ["synthetic_2", "synthetic_1"]
    assert offered("readers switch n") == ["newest"]
    assert offered("train sn") == ["sn-1"]
    assert offered("retrain --recipe nig") == ["nightly"]


def _completions(*words: str) -> list[tuple[str, str]]:
    """Return type and text of what click offers for the last word, in this process."""
    found = BashComplete(root, {}, "cloudseg", "_CLOUDSEG_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [(item.type, item.value) for item in found]


def test_every_command_that_takes_a_name_completes_it(filled: Path):
    assert _completions("compare", "v1", "v") == [("plain", "v2"), ("plain", "v1")]


@pytest.mark.parametrize("typed", ["ingest", "predict --file", "labels diff lb-1 --out", "ingest --aoi"])
def test_paths_are_left_to_the_shell(filled: Path, typed: str):
    assert _completions(*typed.split(), "ti") == [("file", "ti")]


def test_commands_are_completed_without_a_home(runtime_env: Path):
    assert offered("hist") == ["history"]
    assert offered("lineage ") == []
    assert not runtime_env.exists(), "completion creates nothing"


def test_a_catalog_that_does_not_answer_is_silent_and_soon_over(monkeypatch: pytest.MonkeyPatch, runtime_env: Path):
    # An address of RFC 5737 that no host has: a connection is neither accepted nor refused.
    monkeypatch.setenv("CLOUDSEG_CATALOG_URL", "postgresql+psycopg://nobody@192.0.2.1/none")
    began = time.monotonic()
    assert offered("promote v") == []
    assert time.monotonic() - began < 30, "two seconds, and the start of Python on a busy machine"


@pytest.mark.parametrize("setting", ["CLOUDSEG_TYPO", "CLOUDSEG_CATALOG_URL"])
def test_wrong_settings_are_silent(monkeypatch: pytest.MonkeyPatch, runtime_env: Path, setting: str):
    monkeypatch.setenv(setting, "nonsense")
    assert offered("promote v") == []


def test_the_scripts_of_three_shells_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for shell in ("bash", "zsh", "fish"):
        monkeypatch.setenv("_CLOUDSEG_COMPLETE", f"{shell}_source")
        with pytest.raises(SystemExit):
            root.main(args=[], prog_name="cloudseg")
        assert "_CLOUDSEG_COMPLETE" in capsys.readouterr().out
