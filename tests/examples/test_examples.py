"""The examples run as a user runs them, and README shows them as they are."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]
EXAMPLES = REPO / "examples"


def run(example: str, folder: Path, *arguments: str) -> str:
    """Run an example in a folder with settings of its own and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDSEG_")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(REPO), "CLOUDSEG_LOG_LEVEL": "WARNING"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def printed_masks(printed: str) -> list[Path]:
    return [Path(path) for path in re.findall(r"file://(\S+mask\.\w+\.tif)", printed)]


def test_the_whole_loop_prints_every_step_and_makes_masks(tmp_path: Path):
    printed = run("whole_loop.py", tmp_path, str(tmp_path))
    steps = [line.split()[0] for line in printed.splitlines() if not line.startswith(" ")]
    assert steps == ["ingest", "snapshot", "train", "evaluate", "promote", "predict"]
    assert "14 scenes, 12 labels" in printed
    assert len(printed_masks(printed)) == 3
    assert all(mask.is_file() for mask in printed_masks(printed))


def test_the_quickstart_prints_its_masks(tmp_path: Path):
    printed = run("quickstart.py", tmp_path)
    assert re.match(r"(PROMOTE|HOLD|REJECT) held-out IoU 0\.\d+\n", printed)
    assert len(printed_masks(printed)) == 3
    assert all(mask.is_file() for mask in printed_masks(printed))


def test_the_readme_shows_the_quickstart():
    [shown] = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text("utf-8"), re.DOTALL)
    assert shown == (EXAMPLES / "quickstart.py").read_text("utf-8")
