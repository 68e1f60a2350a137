"""What a decoder process cannot do, each attempted: files, network, sockets, other processes, system calls."""

import ctypes
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from cloudseg.errors import BadScene, CloudsegError, SettingsError
from cloudseg.ingest import DecodeLimits, decoder_session
from cloudseg.ingest.decoder_session import DecoderServer
from cloudseg.ingest.job import Started
from cloudseg.ingest.pool import Decoder, DecoderPool, _check_output
from cloudseg.ingest.probe import FILES, NETWORK, PRIVILEGES, PROCESSES, RESTRICTIONS, SIGNALS, SOCKETS, SYSTEM_CALLS
from cloudseg.ingest.seccomp import DENIED, filter_program
from tests.ingest.test_pipeline import _job
from tests.ingest.tiles import random_dn, write

_ATTEMPTS = """
import ctypes, fcntl, json, os, resource, signal, socket, subprocess, sys
from pathlib import Path
from cloudseg.ingest import sandbox
from cloudseg.ingest.sandbox import Limits, enter_sandbox

inside, own, outside, port = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
if "WITHOUT_SECCOMP" in sys.argv:
    sandbox.deny_system_calls = lambda: True
enter_sandbox(read=[inside], write=[own], limits=Limits(memory_mb=2048, cpu_s=60, file_bytes=1_000_000))
done, libc = [], ctypes.CDLL(None, use_errno=True)

def attempt(name, act):
    try:
        act()
        done.append(name)
    except (OSError, ValueError, subprocess.SubprocessError):
        pass

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0 and ctypes.get_errno() in (1, 38):
        raise OSError

def connect(address):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address)

def fork():
    if os.fork() == 0:
        os._exit(0)

attempt("write own", lambda: (own / "new").write_text("x"))
attempt("read own", lambda: (own / "new").read_text())
attempt("other commands of fcntl", lambda: fcntl.fcntl(0, fcntl.F_GETFD))
attempt("read inside", lambda: (inside / "source0").read_text())
attempt("import a module", lambda: __import__("xml.dom.minidom"))
attempt("read outside", lambda: (outside / "secret").read_text())
attempt("list outside", lambda: os.listdir(outside))
attempt("write outside", lambda: (outside / "new").write_text("x"))
attempt("write inside", lambda: (inside / "new").write_text("x"))
attempt("overwrite inside", lambda: (inside / "source0").write_text("x"))
attempt("remove outside", lambda: (outside / "secret").unlink())
attempt("truncate outside", lambda: os.truncate(outside / "secret", 0))
attempt("follow a link out", lambda: (inside / "link").read_text())
attempt("make a link", lambda: (own / "link").symlink_to(outside / "secret"))
attempt("make a pipe", lambda: os.mkfifo(own / "pipe"))
attempt("read another's environment", lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes())
attempt("read the passwords", lambda: Path("/etc/passwd").read_text())
attempt("write a large file", lambda: (own / "large").write_bytes(bytes(2_000_000)))
attempt("change mode outside", lambda: (outside / "secret").chmod(0o777))
attempt("change times outside", lambda: os.utime(outside / "secret"))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", port), 2))
attempt("listen", lambda: socket.create_server(("127.0.0.1", 0)))
attempt("connect to a path", lambda: connect(sys.argv[5]))
attempt("connect to a name", lambda: connect(chr(0) + sys.argv[6]))
attempt("signal another", lambda: os.kill(int(sys.argv[7]), 0))
attempt("signal the parent", lambda: os.kill(os.getppid(), 0))
attempt("own signals of a pipe", lambda: fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, int(sys.argv[7])))
attempt("choose the signal of a pipe", lambda: fcntl.fcntl(os.pipe()[0], 10, 9))
attempt("limit another", lambda: resource.prlimit(int(sys.argv[7]), resource.RLIMIT_CORE, (0, 0)))
attempt("slow another down", lambda: os.setpriority(os.PRIO_PROCESS, int(sys.argv[7]), 19))
attempt("fork", fork)
attempt("run a program", lambda: subprocess.run(["/bin/sh", "-c", ""], check=True))
attempt("raise the CPU limit", lambda: resource.setrlimit(resource.RLIMIT_CPU, (600, 600)))
attempt("io_uring", lambda: call(425, 1, None))
attempt("open_tree", lambda: call(428, -1, None, 0))
attempt("a call of the future", lambda: call(470))
attempt("user namespace", lambda: call(272 if os.uname().machine == "x86_64" else 97, 0x10000000))
attempt("keyring", lambda: call(250 if os.uname().machine == "x86_64" else 219, 0, -2, 0))
print(json.dumps(done))
"""
HARMLESS = {"other commands of fcntl", "write own", "read own", "read inside", "import a module"}
WITH_FILES = {
    "read outside",
    "list outside",
    "write outside",
    "write inside",
    "overwrite inside",
    "remove outside",
    "truncate outside",
    "follow a link out",
    "make a link",
    "make a pipe",
    "read another's environment",
    "read the passwords",
}
WITH_SECCOMP = {
    "change mode outside",
    "change times outside",
    "connect",
    "listen",
    "connect to a path",
    "connect to a name",
    "signal another",
    "signal the parent",
    "own signals of a pipe",
    "choose the signal of a pipe",
    "limit another",
    "slow another down",
    "fork",
    "run a program",
    "io_uring",
    "open_tree",
    "a call of the future",
    "user namespace",
    "keyring",
}
WITH_LIMITS = {"write a large file", "raise the CPU limit"}
WITH_SCOPES = {"connect to a name", "signal another", "signal the parent"}


def _attempted(top: Path, *more: str) -> set[str]:
    inside, own, outside = top / "inside", top / "own", top / "outside"
    for folder in (inside, own, outside):
        folder.mkdir()
    (outside / "secret").write_text("the catalog")
    (inside / "source0").write_text("a copy")
    (inside / "link").symlink_to(outside / "secret")
    name = f"cloudseg-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as path,
        socket.socket(socket.AF_UNIX) as abstract,
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other,
    ):
        path.bind(str(top / "s"))
        abstract.bind(f"\0{name}")
        path.listen()
        abstract.listen()
        folders = [str(folder) for folder in (inside, own, outside)]
        address = [str(server.getsockname()[1]), str(top / "s"), name, str(other.pid)]
        command = [sys.executable, "-c", _ATTEMPTS, *folders, *address, *more]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        other.kill()
    assert (outside / "secret").read_text() == "the catalog"
    return set(json.loads(said))


@pytest.fixture(scope="module")
def restrictions() -> list[str]:
    with DecoderServer(DecodeLimits()) as server:
        server.start()
        return server.restrictions


def test_all_that_the_kernel_allows_is_in_force(restrictions: list[str]) -> None:
    """Asked of the kernel, not of the sandbox: one that is not entered would skip the tests below, not fail them."""
    libc = ctypes.CDLL(None, use_errno=True)
    allowed = {PRIVILEGES}
    if libc.syscall(444, None, 0, 1) >= 1:  # landlock_create_ruleset(2): the version
        allowed |= {FILES}
    if platform.machine() in ("x86_64", "aarch64") and libc.prctl(21, 0, 0, 0, 0) >= 0:  # PR_GET_SECCOMP
        allowed |= {NETWORK, SOCKETS, SIGNALS, PROCESSES, SYSTEM_CALLS}
    assert allowed <= set(restrictions)


def _need(restrictions: list[str], *names: str) -> None:
    missing = [name for name in names if name not in restrictions]
    if missing:
        pytest.skip(f"this machine does not allow: {', '.join(f'{name} ({RESTRICTIONS[name]})' for name in missing)}")


@pytest.fixture(scope="module")
def attempted(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return what a process in the sandbox could do."""
    return _attempted(tmp_path_factory.mktemp("s"))


def test_the_decoder_opens_only_its_own_files(attempted: set[str], restrictions: list[str]) -> None:
    assert attempted >= HARMLESS
    _need(restrictions, FILES)
    assert attempted & WITH_FILES == set()


def test_the_decoder_reaches_no_network(attempted: set[str], restrictions: list[str]) -> None:
    _need(restrictions, NETWORK)
    assert "connect" not in attempted


def test_the_decoder_reaches_no_socket_and_no_process(attempted: set[str], restrictions: list[str]) -> None:
    _need(restrictions, SOCKETS, SIGNALS, PROCESSES, SYSTEM_CALLS)
    assert attempted & WITH_SECCOMP == set()


def test_the_decoder_cannot_exceed_its_limits(attempted: set[str]) -> None:
    assert attempted & WITH_LIMITS == set()


def test_landlock_alone_denies_abstract_sockets_and_signals(tmp_path: Path, restrictions: list[str]) -> None:
    """A second layer below seccomp, from Linux 6.12 on."""
    _need(restrictions, FILES)
    if tuple(int(part) for part in platform.release().split(".")[:2]) < (6, 12):
        pytest.skip("Landlock has scopes from Linux 6.12 on")
    attempted = _attempted(tmp_path, "WITHOUT_SECCOMP")
    assert attempted & (WITH_SCOPES | WITH_FILES | WITH_LIMITS) == set()
    assert "connect to a path" in attempted, "what only seccomp denies; the attempt itself works"


def test_system_call_numbers_are_those_of_the_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no kernel headers on this machine")
    numbers = dict(line.split()[1:3] for line in header.read_text().splitlines() if line.startswith("#define __NR_"))
    known = {name: pair[0] for name, pair in DENIED.items() if f"__NR_{name}" in numbers}
    assert len(known) > 120
    assert known == {name: int(numbers[f"__NR_{name}"]) for name in known}
    assert [len(filter_program(machine)) % 8 for machine in ("x86_64", "aarch64")] == [0, 0]


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[psutil.Process]:
    """Collect the decoder and writer processes of the sessions of a test while they run."""
    found: list[psutil.Process] = []
    original = decoder_session.Session.begin

    def begin(session: decoder_session.Session, task: object) -> None:
        original(session, task)  # type: ignore[arg-type]
        found.extend(psutil.Process(pid) for pid in session.pids)

    monkeypatch.setattr(decoder_session.Session, "begin", begin)
    return found


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Started]:
    """Collect the ids of the processes of every job that follows."""
    found: list[Started] = []
    original = decoder_session.Session.begin

    def begin(session: decoder_session.Session, task: object) -> None:
        original(session, task)  # type: ignore[arg-type]
        found.append(session.started)

    monkeypatch.setattr(decoder_session.Session, "begin", begin)
    return found


def test_the_decoder_process_is_sandboxed(tmp_path: Path, stopped: list[psutil.Process]) -> None:
    """On processes that ingest starts: a pipe that nobody writes to keeps the decoder waiting."""
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    own.mkdir()
    os.mkfifo(own / "pipe")
    seen: dict[str, str] = {}

    with DecoderPool(DecodeLimits(timeout_s=0.3, memory_mb=2048), 1) as pool, pool.acquire() as decoder:
        pool.server.start()
        stopped.clear()
        read = decoder_session.Session.read

        def look(session: decoder_session.Session, role: str, deadline: object) -> object:
            pid = session.pids[0]
            try:
                return read(session, role, deadline)  # type: ignore[arg-type]
            finally:
                for name in ("status", "limits", "environ"):
                    seen[name] = Path(f"/proc/{pid}/{name}").read_text()
                seen["net"] = str(Path(f"/proc/{pid}/ns/net").readlink())
                seen["open"] = " ".join(str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir())

        decoder_session.Session.read = look  # type: ignore[method-assign, assignment]
        try:
            with pytest.raises(BadScene, match="too busy"):
                decoder.decode_scene(_job(own / "pipe", own))
        finally:
            decoder_session.Session.read = read  # type: ignore[method-assign]
        restrictions = pool.server.restrictions
        assert not any(process.is_running() for process in stopped)
    with DecoderPool(DecodeLimits(timeout_s=30, memory_mb=2048), 1) as pool, pool.acquire() as decoder:
        assert decoder.decode_scene(_job(write(own / "good.tif", random_dn()), own)).bands == ["red", "green", "blue"]
        if FILES in restrictions:
            with pytest.raises(BadScene, match="cannot be decoded"):
                decoder.decode_scene(_job(write(foreign / "good.tif", random_dn()), own))
    assert "NoNewPrivs:\t1" in seen["status"]
    if SYSTEM_CALLS in restrictions:
        assert "Seccomp:\t2" in seen["status"]
    if PRIVILEGES in restrictions:
        assert "CapEff:\t0000000000000000" in seen["status"]
    limits = {line[:25].strip(): line[25:].split()[:2] for line in seen["limits"].splitlines()[1:]}
    assert limits["Max open files"] == ["256", "256"]
    assert limits["Max address space"] == [str(2048 << 20)] * 2
    assert limits["Max file size"] == ["0", "0"]
    assert limits["Max processes"] == ["0", "0"]
    assert limits["Max cpu time"] == ["16", "16"]
    assert "CLOUDSEG" not in seen["environ"]
    assert "AWS_" not in seen["environ"]
    assert seen["net"] != str(Path("/proc/self/ns/net").readlink()) or NETWORK not in restrictions
    others = [name for name in seen["open"].split() if not name.startswith(("pipe:", "/dev/null", str(own)))]
    assert [name for name in others if not name.endswith(("proj.db", "/pixels"))] == []


def test_each_job_has_a_new_decoder(tmp_path: Path, begun: list[Started], stopped: list[psutil.Process]) -> None:
    with DecoderPool(DecodeLimits(memory_mb=2048), 1, tmp_path) as pool, pool.acquire() as decoder:
        for _ in range(2):
            decoder.decode_scene(_job(write(tmp_path / "good.tif", random_dn()), tmp_path))
        decoders = [each.decoder for each in begun]
        assert len(set(decoders)) == len(decoders) == 3  # the first one is the probe
        assert psutil.wait_procs([process for process in stopped if process.pid in decoders], timeout=30)[1] == []
        assert pool.server._process is not None
        assert psutil.Process(pool.server._process.pid).num_threads() == 1
    assert not any(process.is_running() for process in stopped)
    assert [path.name for path in tmp_path.iterdir()] == ["good.tif", "out.tif"]


def _writers(begun: list[Started]) -> list[int]:
    """Return the writers of the jobs after the probe, numbered in the order in which they came."""
    pids = [each.writer for each in begun][1:]
    return [list(dict.fromkeys(pids)).index(pid) for pid in pids]


SINUSOIDAL = "+proj=sinu +lon_0=0 +R=6371007.181 +units=m"


def test_a_writer_takes_the_next_job_only_where_nothing_can_have_taken_it_over(
    tmp_path: Path, begun: list[Started], restrictions: list[str]
) -> None:
    """It stays after scenes whose CRS is a number, and ends with one that fails or whose CRS it has to parse."""
    assert PROCESSES in restrictions
    good = _job(write(tmp_path / "good.tif", random_dn()), tmp_path)
    bad = _job(write(tmp_path / "bad.tif", random_dn() * 0), tmp_path)
    text = _job(write(tmp_path / "text.tif", random_dn(), crs=SINUSOIDAL), tmp_path)
    with DecoderPool(DecodeLimits(memory_mb=2048), 1, tmp_path) as pool, pool.acquire() as decoder:
        decoder.decode_scene(good)
        decoder.decode_scene(good)
        assert _writers(begun) == [0, 0]
        with pytest.raises(BadScene, match="no valid pixels"):
            decoder.decode_scene(bad)
        decoder.decode_scene(good)
        assert _writers(begun) == [0, 0, 0, 1]
        assert "sinusoidal" in str(decoder.decode_scene(text).crs).lower()
        assert _writers(begun)[4:] == [1, 2]  # refused by the writer that had other jobs
        decoder.decode_scene(text)
        decoder.decode_scene(good)
        assert _writers(begun)[6:] == [3, 4]
    assert len(list(tmp_path.glob("writer-*"))) == 0


def test_without_proof_that_no_process_can_be_started_each_job_has_a_new_writer(
    tmp_path: Path, begun: list[Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_session, "_probe", lambda *_: [name for name in RESTRICTIONS if name != PROCESSES])
    good = _job(write(tmp_path / "good.tif", random_dn()), tmp_path)
    with DecoderPool(DecodeLimits(memory_mb=2048), 1, tmp_path) as pool, pool.acquire() as decoder:
        decoder.decode_scene(good)
        decoder.decode_scene(good)
    assert len({each.writer for each in begun}) == len(begun) == 2


def test_a_writer_that_ended_between_two_jobs_is_replaced(tmp_path: Path, begun: list[Started]) -> None:
    """By the system that ran out of memory, for example."""
    good = _job(write(tmp_path / "good.tif", random_dn()), tmp_path)
    with DecoderPool(DecodeLimits(memory_mb=2048), 1, tmp_path) as pool, pool.acquire() as decoder:
        decoder.decode_scene(good)
        writer = begun[-1].writer
        os.kill(writer, signal.SIGKILL)
        while psutil.pid_exists(writer) and psutil.Process(writer).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert decoder.decode_scene(good).bands == ["red", "green", "blue"]
        assert begun[-1].writer != writer


def test_a_required_sandbox_that_is_not_whole_stops_ingest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(decoder_session, "_probe", lambda *_: [name for name in RESTRICTIONS if name != SOCKETS])
    with pytest.raises(SettingsError, match=r"CLOUDSEG_REQUIRE_SANDBOX.*no restriction of sockets.*seccomp"):
        DecoderServer(DecodeLimits(require_sandbox=True)).start()
    with DecoderServer(DecodeLimits()) as server:
        server.start()
        with closing(Decoder(DecodeLimits(), server)) as decoder:
            assert decoder.decode_scene(_job(write(tmp_path / "good.tif", random_dn()), tmp_path)).height > 0


def test_the_probe_notices_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the system call filter the attempts succeed, so the list is not a matter of belief."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(decoder_session, "_SERVER", "tests.ingest.evil_server")
    original = subprocess.Popen
    without = ["WITHOUT_SECCOMP", "WITHOUT_NAMESPACES"]
    monkeypatch.setattr(
        decoder_session.subprocess, "Popen", lambda command, **more: original([*command, *without], **more)
    )
    with DecoderServer(DecodeLimits()) as server:
        server.start()
        assert set(server.restrictions) & {SOCKETS, SYSTEM_CALLS} == set()


@pytest.mark.parametrize("kind", ["missing", "link", "pipe", "folder"])
def test_output_that_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    """A compromised process may leave a link to a file of the service where its output should be."""
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


def test_a_server_that_does_not_start_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch):
    """The line becomes an alert; a traceback of the child, or its last words after it was given up, must not."""
    monkeypatch.setattr(decoder_session, "_SERVER", "no_such_module")
    with pytest.raises(CloudsegError, match=r"does not start \(found .*No module named no_such_module\)"):
        DecoderServer(DecodeLimits()).start()
    monkeypatch.undo()
    monkeypatch.setattr(decoder_session, "_IMPORT_S", 0.001)
    with pytest.raises(CloudsegError, match=r"found no answer in time\). The machine may be too busy") as caught:
        DecoderServer(DecodeLimits()).start()
    assert "\n" not in str(caught.value)
