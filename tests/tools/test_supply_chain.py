"""The lock names what the constraints pin, and the bill of materials what is installed."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import lock, sbom


def test_lock_and_constraints_agree() -> None:
    assert lock.differences() == []
    assert len(lock.read_pins(lock.LOCK)) > 200


@pytest.mark.parametrize(
    ("locked", "words"),
    [
        ("a==1 --hash=sha256:" + "0" * 64, "b is in one of the files only"),
        ("a==2 --hash=sha256:" + "0" * 64 + "\nb==1 --hash=sha256:" + "0" * 64, "a: 1 is pinned, 2 is locked"),
        ("a==1\nb==1 --hash=sha256:" + "0" * 64, "a has no checksum"),
    ],
)
def test_a_disagreement_is_named(tmp_path: Path, locked: str, words: str) -> None:
    (tmp_path / "constraints").write_text("# pins\nA==1\nb==1\n")
    (tmp_path / "lock").write_text(locked + "\n")
    assert lock.differences(tmp_path / "constraints", tmp_path / "lock") == [words]


def _wheel(folder: Path, content: str) -> Path:
    """Write a wheel with one module, the least that pip installs."""
    path = folder / "tiny_pkg-1.0-py3-none-any.whl"
    info = "tiny_pkg-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_pkg.py", content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-pkg\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"tiny_pkg.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def test_pip_accepts_the_form_of_the_lock_and_refuses_another_wheel(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, "x = 1")
    report = {
        "install": [
            {
                "metadata": {"name": "Tiny_Pkg", "version": "1.0"},
                "download_info": {
                    "archive_info": {"hashes": {"sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}}
                },
            }
        ]
    }
    (tmp_path / "lock").write_text(lock.lock_text(report))
    command = [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--no-index", "--require-hashes"]
    command += [
        "--no-deps",
        "--find-links",
        str(tmp_path),
        "--target",
        str(tmp_path / "to"),
        "-r",
        str(tmp_path / "lock"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "to" / "tiny_pkg.py").read_text() == "x = 1"
    _wheel(tmp_path, "x = 2")
    done = subprocess.run([*command, "--upgrade"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_the_bill_of_materials_names_every_package_with_version_and_license(tmp_path: Path) -> None:
    assert sbom.main([str(tmp_path)]) == 0
    document = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    components = {component["name"]: component for component in document["components"]}
    assert {"numpy", "rasterio", "torch", "sqlalchemy"} <= components.keys()
    assert all(component["purl"] == f"pkg:pypi/{name}@{component['version']}" for name, component in components.items())
    assert len(components["sqlalchemy"]["hashes"][0]["content"]) == 64
    licenses = dict(line.split("\t")[::2] for line in (tmp_path / "licenses.txt").read_text().splitlines())
    assert licenses.keys() == components.keys()
    assert "MIT" in licenses["sqlalchemy"]
    before = (tmp_path / "sbom.cdx.json").read_bytes()
    sbom.main([str(tmp_path)])
    assert (tmp_path / "sbom.cdx.json").read_bytes() == before
