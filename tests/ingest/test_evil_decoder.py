"""A decoder that a file has taken over: what it writes, claims, tampers with and leaves behind counts for nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio

from cloudseg.ingest import decoder_session
from tests.ingest.conftest import Service
from tests.ingest.tiles import SIZE, random_dn, write

REPO = Path(__file__).parents[2]


@pytest.fixture
def evil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setattr(decoder_session, "_SERVER", "tests.ingest.evil_server")


def _left_over() -> list[psutil.Process]:
    """Return the processes that come from the evil server of these tests."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "tests.ingest.evil_server" in (process.info["cmdline"] or []):
            found.append(process)
    return found


def _wait_for(condition: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize("name", ["noise", "too_few", "too_many", "giant"])
def test_what_is_no_raster_is_refused(service: Service, inbox: Path, name: str) -> None:
    """Noise behind the signature of a TIFF was once a good scene: the output of the decoder is no file any more."""
    write(inbox / f"{name}.tif", random_dn())
    write(inbox / "z_good.tif", random_dn(seed=1))
    service.ingest(inbox)
    assert list(service.scenes()) == ["z_good"]
    assert service.quarantine()[name].what
    assert len(list(service.store.list_keys("scenes/"))) == 1


@pytest.mark.usefixtures("evil")
def test_claims_about_pixels_are_measured_again(service: Service, inbox: Path) -> None:
    write(inbox / "lies.tif", random_dn())
    service.ingest(inbox)
    scene = service.scenes()["lies"]
    assert scene.valid_fraction == 0.5
    assert (scene.height, scene.width, scene.bands) == (SIZE, SIZE, ["red", "green", "blue"])
    assert scene.crs == "EPSG:32631"
    with service.store.local_file(scene.key) as path, rasterio.open(path) as dataset:
        assert (dataset.driver, dataset.dtypes[0], dataset.block_shapes[0]) == ("GTiff", "uint16", (512, 512))
        assert dataset.descriptions == ("red", "green", "blue")
        assert not dataset.read()[:, :24].any()


@pytest.mark.usefixtures("evil")
def test_files_of_other_senders_cannot_be_changed(service: Service, inbox: Path) -> None:
    pixels = [random_dn(seed=seed) for seed in range(3)]
    for name, dn in zip(("a_before", "siblings", "z_after"), pixels, strict=True):
        write(inbox / f"{name}.tif", dn)
    service.ingest(inbox, workers=2)
    scenes = service.scenes()
    assert scenes["siblings"].tags["tampered"] == "0"
    for name, dn in zip(("a_before", "siblings", "z_after"), pixels, strict=True):
        with service.store.local_file(scenes[name].key) as path, rasterio.open(path) as dataset:
            assert np.array_equal(dataset.read(), dn)


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize("without", [(), ("WITHOUT_SECCOMP",), ("WITHOUT_SECCOMP", "WITHOUT_NAMESPACES")])
def test_no_process_outlives_its_job(
    service: Service, inbox: Path, without: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three layers: it cannot fork; what it forked dies with its namespace; what was orphaned is found and killed."""
    original = subprocess.Popen

    def start(command: list[str], **more: object) -> object:
        return original([*command, *without], **more)  # type: ignore[call-overload]

    monkeypatch.setattr(decoder_session.subprocess, "Popen", start)
    write(inbox / "survivor.tif", random_dn())
    service.ingest(inbox)
    forked = service.scenes()["survivor"].tags["forked"]
    if not without:
        assert forked == "no"
    elif os.getuid() == 0:  # RLIMIT_NPROC holds for other users
        assert forked == "yes"
    assert _left_over() == []


_SERVICE = """
import sys
from pathlib import Path
from cloudseg.ingest import decoder_session
from tests.ingest.conftest import Service
decoder_session._SERVER = "tests.ingest.evil_server"
Service(Path(sys.argv[1])).ingest(sys.argv[2])
"""


def test_decoders_end_with_a_service_that_is_killed(tmp_path: Path, inbox: Path) -> None:
    write(inbox / "sleeper.tif", random_dn())
    service = subprocess.Popen(
        [sys.executable, "-c", _SERVICE, str(tmp_path / "home"), str(inbox)], env=os.environ | {"PYTHONPATH": str(REPO)}
    )
    try:
        # The server, a supervisor, a writer and a decoder.
        _wait_for(lambda: len(_left_over()) >= 4, 60)
        time.sleep(0.5)
    finally:
        os.kill(service.pid, signal.SIGKILL)
        service.wait()
    _wait_for(lambda: _left_over() == [])
