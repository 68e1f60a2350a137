"""The commands of analysts: table, JSON, exit codes, what they say where an extra is missing."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import rasterio

from cloudseg.cli import _run
from tests.gis.conftest import DAY, GisWorld, classes

POLYGONS = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "properties": {"name": name},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[lon, 45.14], [lon + 0.002, 45.14], [lon + 0.002, 45.15], [lon, 45.15], [lon, 45.14]]],
            },
        }
        for name, lon in (("meadow", 3.001), ("lake", 3.005))
    ],
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = _run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def aoi(tmp_path: Path) -> str:
    path = tmp_path / "fields.geojson"
    path.write_text(json.dumps(POLYGONS))
    return str(path)


def test_stats(world: GisWorld, run: Run, aoi: str, tmp_path: Path):
    world.add(classes(cloud=[(slice(0, 100), slice(0, 100))]))
    world.add(classes(), when=DAY + timedelta(days=9))
    code, out, _ = run("stats", "--aoi", aoi, "--datetime", "2024-06-01/2024-06-05")
    assert code == 0
    header, meadow, lake, *_ = out.splitlines()
    assert header.split()[:3] == ["area", "date", "cloud_fraction"]
    assert (meadow.split()[:3], lake.split()[:3]) == (["meadow", "2024-06-01", "1"], ["lake", "2024-06-01", "1"])
    code, out, _ = run("stats", "--aoi", aoi, "--json")
    assert [row["cloud_fraction"] for row in json.loads(out)["rows"]] == [1, 1, 0, 0]
    code, out, _ = run("stats", "--aoi", aoi, "--by", "date")
    assert (code, out.splitlines()[0].split()[-1], out.splitlines()[1].split()[0]) == (0, "mask_ids", "meadow")
    table = tmp_path / "t.csv"
    code, out, _ = run("stats", "--aoi", aoi, "--out", str(table))
    assert "count 4" in " ".join(out.split())
    assert [row["area"] for row in csv.DictReader(table.read_text("utf-8").splitlines())] == ["meadow", "lake"] * 2
    assert run("stats", "--aoi", aoi, "--out", str(tmp_path / "t.xlsx"))[0] == 2


def test_stats_with_a_bad_mask(world: GisWorld, run: Run, aoi: str):
    good, bad = world.add(classes()), world.add(classes(), when=DAY + timedelta(days=1))
    Path(world.runtime.store.gdal_path(bad.key)).unlink()
    code, out, _ = run("stats", "--aoi", aoi, "--json")
    assert code == 3
    assert list(json.loads(out)["failed"]) == [bad.mask_id]
    assert {row["mask_id"] for row in json.loads(out)["rows"]} == {good.mask_id}


def test_composite(world: GisWorld, run: Run, tmp_path: Path):
    world.add(classes(cloud=[(slice(0, 100), slice(0, 50))]), values=1000)
    world.add(classes(cloud=[(slice(0, 100), slice(50, 100))]), values=2000, when=DAY + timedelta(days=9))
    out = tmp_path / "june.tif"
    arguments = ("composite", "--bbox", "3.002,45.14,3.02,45.15", "--datetime", "2024-06", "--out", str(out))
    code, printed, error = run(*arguments, "--bands", "red", "--meters-per-day", "0", "--json")
    assert (code, error) == (0, error)
    assert json.loads(printed)["bands"] == ["red"]
    with rasterio.open(out) as dataset:
        assert dataset.count == 1
        (west,), (east,) = dataset.sample([(500_400, 4_999_000), (501_500, 4_999_000)])
    assert (west, east) == (2000, 1000)
    code, _, error = run(*arguments)
    assert (code, "--overwrite" in error) == (2, True)
    assert run(*arguments, "--overwrite", "--method", "median")[0] == 0
    assert run(*arguments[:2], "3,45,4", *arguments[3:])[0] == 2
    code, _, error = run(*arguments[:2], "-70 -34 -69 -33", *arguments[3:], "--overwrite")
    assert (code, "lon -70.000 to -69.000" in error) == (3, True)


@pytest.mark.parametrize(("module", "command"), [("exactextract", "stats"), ("scipy", "composite")])
def test_a_missing_extra_is_named(world: GisWorld, aoi: str, tmp_path: Path, module: str, command: str):
    """In a process that cannot import the module; the command line itself starts without it."""
    world.add(classes())
    hidden = f"import sys; sys.modules[{module!r}] = None; from cloudseg.cli import main; main()"
    options = [
        "--aoi",
        aoi,
        "--datetime",
        "2024",
        "--out",
        str(tmp_path / ("o.csv" if command == "stats" else "o.tif")),
    ]
    done = subprocess.run(
        [sys.executable, "-c", hidden, command, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert f"{module} is not installed" in done.stderr
    assert "pip install 'cloudseg[gis]'" in done.stderr
    assert [path.name for path in tmp_path.glob("*o.*")] == []


def test_the_core_imports_no_extra():
    """`cloudseg --help` and every stage module import without exactextract, scipy and pyarrow."""
    found = "[name for name in ('scipy', 'exactextract', 'pyarrow') if name in sys.modules]"
    code = f"import sys; import cloudseg.cli, cloudseg.stages; print({found})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
