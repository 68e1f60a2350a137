"""Write `requirements-3.11.lock`: every pin of the constraints with the checksum of its wheel, for `--require-hashes`.

    python -m tools.lock            ask the package registry, through pip, for the wheels of this platform (minutes)
    python -m tools.lock --check    compare the two files, without network

pip resolves and downloads nothing more than what it needs to name each wheel. The checksums are those of the wheels for
Linux on x86-64 and Python 3.11; other platforms install with `-c constraints-3.11.txt`. Without torch: `make setup`
installs it first, so that each machine gets its own build.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tools.checkout import CHECKOUT
from tools.errors import ServiceFailed

CONSTRAINTS: Final = CHECKOUT / "constraints-3.11.txt"
LOCK: Final = CHECKOUT / "requirements-3.11.lock"
_HEAD: Final = """\
# Every pin of constraints-3.11.txt with the SHA-256 of its wheel for Linux on x86-64 and Python 3.11, without torch.
#   pip install --require-hashes --no-deps -r requirements-3.11.lock
# Made by `make lock`; a test compares the two files.
"""
_LINE: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)(?: --hash=sha256:([0-9a-f]{64}))?$")


def normalized(name: str) -> str:
    """Return the name of a package as registries compare it (packaging.python.org, "Name normalization")."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(path: Path) -> dict[str, tuple[str, str | None]]:
    """Return version and checksum, if the file has any, by normalized name.

    Raises:
        ServiceFailed: a line is no pin.
    """
    found: dict[str, tuple[str, str | None]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise ServiceFailed("not a pin", subject=path.name, found=line, expected="name==version")
        found[normalized(match[1])] = (match[2], match[3])
    return found


def lock_text(report: dict[str, Any]) -> str:
    """Return the file for the report of `pip install --report` (pip.pypa.io, "Installation Report")."""
    lines = []
    for item in report["install"]:
        sha256 = item["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{normalized(item['metadata']['name'])}=={item['metadata']['version']} --hash=sha256:{sha256}")
    return _HEAD + "\n".join(sorted(lines)) + "\n"


def differences(constraints: Path = CONSTRAINTS, lock: Path = LOCK) -> list[str]:
    """Return what the two files disagree about, in words."""
    wanted, locked = read_pins(constraints), read_pins(lock)
    found = [f"{name} is in one of the files only" for name in sorted(wanted.keys() ^ locked.keys())]
    for name in sorted(wanted.keys() & locked.keys()):
        if wanted[name][0] != locked[name][0]:
            found.append(f"{name}: {wanted[name][0]} is pinned, {locked[name][0]} is locked")
        if locked[name][1] is None:
            found.append(f"{name} has no checksum")
    return found


def _ask_pip() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps"]
        command += ["--only-binary", ":all:", "--report", str(report), "-r", str(CONSTRAINTS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceFailed(
                "pip cannot name the wheels",
                subject=CONSTRAINTS.name,
                found=done.stderr.strip()[-500:],
                next_step="Run it on Linux x86-64 with Python 3.11 where the package registry is reached.",
            )
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return found


def main(arguments: list[str] | None = None) -> int:
    """Write the file, or compare it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    if not parser.parse_args(arguments).check:
        LOCK.write_text(lock_text(_ask_pip()), encoding="utf-8")
    found = differences()
    sys.stderr.writelines(f"lock: {line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
