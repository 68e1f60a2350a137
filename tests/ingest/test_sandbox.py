"""What the decoder process cannot do: use the network, read or write files outside its folder. Each is attempted."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cloudseg.errors import BadScene
from cloudseg.ingest import DecodeLimits
from cloudseg.ingest.pool import Decoder, _check_output
from cloudseg.ingest.sandbox import FILES, NETWORK
from tests.ingest.test_pipeline import _job
from tests.ingest.tiles import random_dn, write

_ATTEMPTS = """
import json, os, socket, subprocess, sys
from pathlib import Path
from cloudseg.ingest.sandbox import enter_sandbox

inside, outside, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
restrictions, done = enter_sandbox(inside), []

def attempt(name, act):
    try:
        act()
        done.append(name)
    except (OSError, subprocess.CalledProcessError):
        pass

attempt("write inside", lambda: (inside / "new").write_text("x"))
attempt("read inside", lambda: (inside / "new").read_text())
attempt("import a module", lambda: __import__("xml.dom.minidom"))
attempt("read outside", lambda: (outside / "secret").read_text())
attempt("list outside", lambda: os.listdir(outside))
attempt("write outside", lambda: (outside / "new").write_text("x"))
attempt("remove outside", lambda: (outside / "secret").unlink())
attempt("follow a link out", lambda: (inside / "link").read_text())
attempt("read another's environment", lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes())
attempt("read the passwords", lambda: Path("/etc/passwd").read_text())
attempt("connect", lambda: socket.create_connection(("127.0.0.1", port), 2))
attempt("listen", lambda: socket.create_server(("127.0.0.1", 0)))
attempt("run a program", lambda: subprocess.run(["/bin/sh", "-c", ""], check=True))
shell = ["/bin/sh", "-c", f"cat {outside}/secret"]
attempt("run a shell that reads", lambda: subprocess.run(shell, check=True, capture_output=True))
print(json.dumps({"restrictions": restrictions, "done": done}))
"""
HARMLESS = {"write inside", "read inside", "import a module"}
WITH_FILES = {
    "read outside",
    "list outside",
    "write outside",
    "remove outside",
    "follow a link out",
    "read another's environment",
    "read the passwords",
    "run a program",
    "run a shell that reads",
}


@pytest.fixture(scope="module")
def attempted(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """Return the restrictions in force, and what the process could still do."""
    inside, outside = tmp_path_factory.mktemp("inside"), tmp_path_factory.mktemp("outside")
    (outside / "secret").write_text("the catalog")
    (inside / "link").symlink_to(outside / "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", _ATTEMPTS, str(inside), str(outside), str(server.getsockname()[1])]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (outside / "secret").exists()
    found = json.loads(said)
    return set(found["restrictions"]), set(found["done"])


def test_the_decoder_opens_only_its_own_files(attempted: tuple[set[str], set[str]]) -> None:
    restrictions, done = attempted
    assert done >= HARMLESS
    if FILES not in restrictions:
        pytest.skip("this kernel has no Landlock: Linux 5.13 or newer, with `landlock` in the lsm= list")
    assert done & WITH_FILES == set()


def test_the_decoder_reaches_no_network(attempted: tuple[set[str], set[str]]) -> None:
    restrictions, done = attempted
    if NETWORK not in restrictions:
        pytest.skip("this kernel allows no network namespace: sysctl user.max_user_namespaces, or unshare is forbidden")
    assert "connect" not in done


def test_the_decoder_process_is_sandboxed(tmp_path: Path) -> None:
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    own.mkdir()
    decoder = Decoder(DecodeLimits(timeout_s=30, memory_mb=2048), own)
    try:
        assert decoder.decode_scene(_job(write(own / "good.tif", random_dn()), own)).bands == ["red", "green", "blue"]
        assert decoder._process is not None
        status = Path(f"/proc/{decoder._process.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        limits = Path(f"/proc/{decoder._process.pid}/limits").read_text()
        assert [line.split()[3] for line in limits.splitlines() if line.startswith("Max open files")] == ["256"]
        assert [line.split()[3] for line in limits.splitlines() if line.startswith("Max address space")] == [
            str(2048 << 20)
        ]
        environment = Path(f"/proc/{decoder._process.pid}/environ").read_bytes()
        assert b"CLOUDSEG" not in environment
        assert b"AWS_" not in environment
        if FILES in decoder.restrictions:
            with pytest.raises(BadScene, match="cannot be decoded"):
                decoder.decode_scene(_job(write(foreign / "good.tif", random_dn()), own))
        if NETWORK in decoder.restrictions:
            assert Path(f"/proc/{decoder._process.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    finally:
        decoder.close()


@pytest.mark.parametrize("kind", ["missing", "link", "pipe", "folder"])
def test_output_that_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    """A compromised decoder may leave a link to a file of the service where its output should be."""
    out, regular = tmp_path / "out.tif", tmp_path / "regular"
    regular.write_bytes(b"x")
    _check_output(regular, "scene")
    if kind == "link":
        out.symlink_to(regular)
    elif kind == "pipe":
        os.mkfifo(out)
    elif kind == "folder":
        out.mkdir()
    with pytest.raises(BadScene, match="no regular file"):
        _check_output(out, "scene")
