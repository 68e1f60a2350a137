"""The examples run as a user runs them, and README shows them as they are."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

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


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder in which the whole loop ran, and what it printed."""
    folder = tmp_path_factory.mktemp("loop")
    return folder, run("whole_loop.py", folder, str(folder))


def test_the_whole_loop_prints_every_step_and_makes_masks(loop: tuple[Path, str]):
    _, printed = loop
    steps = [line.split()[0] for line in printed.splitlines() if not line.startswith(" ")]
    assert steps == ["ingest", "snapshot", "train", "evaluate", "promote", "predict"]
    assert "14 scenes, 12 labels" in printed
    assert len(printed_masks(printed)) == 3
    assert all(mask.is_file() for mask in printed_masks(printed))


def test_clients_that_know_nothing_of_cloudseg_read_the_masks(loop: tuple[Path, str]):
    folder, _ = loop
    (catalog,) = folder.rglob("catalog.db")
    printed = run("gis_tour.py", folder, str(catalog.parent))
    found = {line[:14].strip(): line[15:] for line in printed.splitlines()}
    assert found["pystac-client"] == "collections scenes, masks, models, snapshots; 14 masks in use"
    assert found["DuckDB"].startswith("14 masks, ")
    assert "EPSG" in found["GDAL STACIT"]
    assert found["GDAL STACIT"].endswith(("[0, 1]", "[0, 1, 255]"))
    assert re.search(r"\d% cloud, mean red where clear \d+ x 0\.0001$", found["odc-stac"])
    assert int(found["STAC API"].split()[0]) >= 1
    assert re.match(r"image/png, \d{3,} bytes", found["XYZ tiles"])


def test_the_quickstart_prints_its_masks(tmp_path: Path):
    printed = run("quickstart.py", tmp_path)
    assert re.match(r"(PROMOTE|HOLD|REJECT) held-out IoU 0\.\d+\n", printed)
    assert len(printed_masks(printed)) == 3
    assert all(mask.is_file() for mask in printed_masks(printed))


def test_a_partial_correction_enters_the_next_snapshot_when_it_is_accepted(tmp_path: Path):
    printed = run("partial_correction.py", tmp_path, str(tmp_path))
    steps = {line[:10].strip(): line[10:] for line in printed.splitlines()}
    assert list(steps) == ["see", "open", "draw", "hand in", "look", "wait", "accept"]
    assert re.fullmatch(r"lb-\w{20} is proposed: corrects mask mk-\w{20}", steps["hand in"])
    assert re.match(r"\{'cloud to clear': \d{4}\} in ", steps["look"])  # only that change, and only in the polygons
    assert (tmp_path / "diff.png").stat().st_size > 10_000
    before = re.fullmatch(r"the snapshot is still (sn-\w{20}), created: False", steps["wait"])
    after = re.fullmatch(r"in use: True; snapshot (sn-\w{20}), created: True, holds it: True", steps["accept"])
    assert before
    assert after
    assert before[1] != after[1]


def test_the_walk_through_uses_the_commands_of_its_script():
    page = (REPO / "docs" / "how-to" / "partial_correction.md").read_text("utf-8")
    script = (EXAMPLES / "partial_correction.py").read_text("utf-8")
    commands = [command.split()[:2] for command in re.findall(r"# cloudseg (.*)", script)]
    assert commands == [["worklist", "--scene"], ["ingest", "FOLDER/correct"], ["labels", "diff"], ["labels", "accept"]]
    for first, second in commands:
        assert f"cloudseg {first} {second.removeprefix('FOLDER/')}" in page


def test_the_readme_shows_the_quickstart():
    [shown] = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text("utf-8"), re.DOTALL)
    assert shown == (EXAMPLES / "quickstart.py").read_text("utf-8")


def run_notebook(name: str, folder: Path) -> str:
    """Run the code cells of a notebook in a folder, in a process of its own, and return what they print."""
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code"), "outputs are not committed"
    script = folder / f"{name}.py"
    script.write_text("\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code"), "utf-8")
    return run(str(script), folder)


def test_the_notebooks_run_in_one_folder(tmp_path: Path):
    printed = run_notebook("mask_a_file.ipynb", tmp_path)
    assert re.search(r"<cloudseg\.Model w-\w{20} v1: .*\d+% cloud, probability up to 0\.\d\d", printed, re.DOTALL)
    assert (tmp_path / "mask.tif").is_file()
    printed = run_notebook("masks_over_time.ipynb", tmp_path)
    assert len(re.findall(r"^\d{4}-\d\d-\d\d \d+% cloud$", printed, re.MULTILINE)) == 2
    assert "clear observations of a pixel: 0 to " in printed
