"""Test folders mirror the packages, and modules that every process imports are light."""

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
# Test folders without a package of cloudseg.
OTHER_FOLDERS = {"dags", "plugin", "e2e", "docs", "examples", "benchmarks", "data", "faults", "fuzz", "tools"}


def test_every_test_folder_has_a_package():
    folders = {path.name for path in (REPO / "tests").iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    packages = {path.name for path in (REPO / "cloudseg").iterdir() if path.is_dir()}
    assert folders - packages - OTHER_FOLDERS == set()


def test_every_package_has_tests():
    packages = {path.parent.name for path in (REPO / "cloudseg").glob("*/*.py")} - {"recipes", "records"}
    tested = {path.parent.name for path in (REPO / "tests").glob("*/test_*.py")}
    assert packages - tested == set()


def test_every_package_of_tools_has_tests():
    packages = {path.parent.name for path in (REPO / "tools").glob("*/__init__.py")}
    tested = {path.parent.name for path in (REPO / "tests" / "tools").glob("*/test_*.py")}
    assert packages == tested


@pytest.mark.parametrize(
    "name",
    ["cloudseg.cli", "cloudseg.stages", "cloudseg.runtime", "cloudseg.ingest", "cloudseg.registry", "cloudseg.publish"],
)
def test_the_core_does_not_import_torch_or_airflow(name: str):
    code = f"import sys, {name}; print(*sorted({{'torch', 'airflow', 'onnxruntime'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_the_command_line_does_not_import_gdal_for_its_help():
    heavy = "{'rasterio', 'torch', 'numpy', 'sqlalchemy', 'pystac'}"
    code = f"import sys, cloudseg.cli; print(*sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_no_catch_all_modules():
    found = [
        path
        for package in ("cloudseg", "tools")
        for path in (REPO / package).rglob("*.py")
        if path.stem in {"utils", "util", "helpers", "common", "misc", "manager"}
    ]
    assert found == []


def test_no_two_test_files_have_one_name():
    """Test folders are not packages: two files of the same name cannot be collected together."""
    names = [path.stem for path in (REPO / "tests").rglob("*.py") if path.stem not in {"conftest", "__init__"}]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_every_pin_supports_the_oldest_python_of_the_readme():
    """Debian 12 has Python 3.11.2; a pin that requires a later 3.11 would make `make setup` fail only there."""
    from importlib.metadata import distributions

    from packaging.specifiers import SpecifierSet

    pins = {
        line.partition("==")[0].lower()
        for line in (REPO / "constraints-3.11.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = {
        d.name: python
        for d in distributions()
        if d.name.lower() in pins and (python := d.metadata.get("Requires-Python"))
    }
    assert len(wanted) > 100
    assert {name: python for name, python in wanted.items() if not SpecifierSet(python).contains("3.11.2")} == {}
