"""The same bytes twice, labels that arrive later, two ingests at once, and a service that is killed in between."""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cloudseg.errors import BadScene
from cloudseg.ingest import DecodeLimits
from cloudseg.ingest.cpu_deadline import CpuDeadline
from cloudseg.ingest.decoder_session import Session
from cloudseg.ingest.inbox_file import NotRead
from cloudseg.ingest.job import Answer, RasterJob, SceneJob, Task
from cloudseg.ingest.pool import Decoder, DecoderPool
from cloudseg.records import IngestRecord
from tests.ingest.conftest import Service
from tests.ingest.tiles import SIZE, clouds, random_dn, write

_INGEST = """
import sys, os, signal
from pathlib import Path
from cloudseg.catalog import Catalog
from cloudseg.ingest import DecodeLimits
from cloudseg.ingest.pipeline import ingest_source
from cloudseg.storage import LocalStore

class Deadly(LocalStore):
    # dies with the bytes in place and no row written
    def put_file(self, key, path):
        stored = super().put_file(key, path)
        os.kill(os.getpid(), signal.SIGKILL)
        return stored

home, source, deadly = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "deadly"
store = (Deadly if deadly else LocalStore)(home / "store")
catalog = Catalog(f"sqlite:///{home / 'catalog.db'}")
record = ingest_source(store, catalog, source, limits=DecodeLimits(memory_mb=2048), workers=1)
print(record.model_dump_json())
"""


def _start(service: Service, source: Path, deadly: str = "no") -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", _INGEST, str(service.home), str(source), deadly], stdout=subprocess.PIPE
    )


def _pairs(inbox: Path, count: int) -> None:
    for index in range(count):
        write(inbox / "images" / f"{index}.tif", random_dn(seed=index))
        write(inbox / "labels" / f"{index}.tif", clouds(), names=["label"], nodata=255)


def test_again_changes_nothing_and_another_name_is_the_same_scene(service: Service, inbox: Path) -> None:
    first = write(inbox / "first.tif", random_dn())
    added = service.ingest(inbox).added
    (inbox / "second.tif").write_bytes(first.read_bytes())
    record = service.ingest(inbox)
    assert (record.added, record.known) == ([], 2)
    assert list(service.scenes()) == ["first"]
    assert service.scenes()["first"].scene_id == added[0]
    assert len(list(service.store.list_keys("scenes/"))) == 1


def test_a_label_that_arrives_later_is_a_new_version(service: Service, inbox: Path) -> None:
    _pairs(inbox, 1)
    label = inbox / "labels" / "0.tif"
    label.rename(inbox / "kept")
    assert service.ingest(inbox / "images").labelled == []
    (inbox / "kept").rename(label)
    assert len(service.ingest(inbox).labelled) == 1
    corrected = clouds()
    corrected[:, :10] = 255
    write(label, corrected, names=["label"], nodata=255, tags={"LABEL_SOURCE": "analyst:ada"})
    record = service.ingest(inbox)
    assert (record.added, len(record.labelled), record.known) == ([], 1, 1)
    newest, oldest = service.labels(service.scenes()["0"])
    assert (newest.version, newest.source, oldest.version) == (2, "analyst:ada", 1)
    assert newest.labelled_fraction == pytest.approx(1 - 10 / SIZE)
    assert service.ingest(inbox).labelled == []


def test_a_dry_run_writes_nothing(service: Service, inbox: Path) -> None:
    _pairs(inbox, 1)
    write(inbox / "bad.tif", random_dn(), crs=None, transform=None)
    record = service.ingest(inbox, dry_run=True)
    assert (len(record.added), len(record.labelled), len(record.quarantined)) == (1, 1, 1)
    assert service.scenes() == {}
    assert service.quarantine() == {}
    assert list(service.store.list_keys()) == []


def test_two_ingests_at_once_add_everything_exactly_once(service: Service, inbox: Path) -> None:
    _pairs(inbox, 4)
    both = [_start(service, inbox) for _ in range(2)]
    records = [IngestRecord.model_validate(json.loads(process.communicate(timeout=120)[0])) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(len(service.labels(scene)) for scene in service.scenes().values()) == [1, 1, 1, 1]
    assert sum(len(record.added) for record in records) == 4
    assert sum(len(record.labelled) for record in records) == 4
    assert service.quarantine() == {}


def test_killed_between_bytes_and_row_the_next_ingest_finishes(service: Service, inbox: Path) -> None:
    _pairs(inbox, 1)
    process = _start(service, inbox, "deadly")
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert service.scenes() == {}
    assert len(list(service.store.list_keys("scenes/"))) == 1  # an orphan, until the row comes
    record = service.ingest(inbox)
    assert (len(record.added), len(record.labelled)) == (1, 1)
    assert list(service.store.list_keys("scenes/")) == [service.scenes()["0"].key]


def test_progress_is_reported_for_every_scene(service: Service, inbox: Path) -> None:
    write(inbox / "good.tif", random_dn())
    (inbox / "bad.tif").write_bytes(b"")
    events: list[tuple[int, int, str, str]] = []
    service.ingest(inbox, on_progress=lambda *event: events.append(event))
    assert [event[:2] for event in events] == [(1, 2), (2, 2)]
    assert {event[2:] for event in events} == {("good", "added"), ("bad", "quarantined")}


def _job(path: Path, folder: Path) -> SceneJob:
    return SceneJob(
        name="scene",
        files=[RasterJob(path=str(path), display_name="scene.tif", bands=None)],
        needs_georeference=True,
        time_in_tags=False,
        is_product=False,
        out=str(folder / "out.tif"),
        folder=str(folder),
        max_pixels=10**9,
        memory_mb=2048,
    )


def test_a_decoder_that_hangs_or_crashes_affects_one_scene_only(tmp_path: Path) -> None:
    good = write(tmp_path / "good.tif", random_dn())
    endless = write(
        tmp_path / "endless.tif", random_dn(size=2500), compress="deflate"
    )  # far more work than the limit allows
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it waits for a writer that never comes, and uses no CPU: as on a machine that gives none
    with DecoderPool(DecodeLimits(timeout_s=0.3, memory_mb=2048), 1) as pool, pool.acquire() as decoder:
        decoder.decode_scene(_job(good, tmp_path))
        with pytest.raises(NotRead, match="too busy"):
            decoder.decode_scene(_job(pipe, tmp_path))
        with pytest.raises(BadScene, match="took too long") as caught:
            decoder.decode_scene(_job(endless, tmp_path))
        assert not isinstance(caught.value, NotRead)
        assert decoder.decode_scene(_job(good, tmp_path)).bands == ["red", "green", "blue"]
        assert pool.server._process is not None
        pool.server._process.kill()
        pool.server._process.wait()
        assert decoder.decode_scene(_job(good, tmp_path)).height == SIZE


def test_a_good_tile_on_a_busy_machine_is_added_by_the_next_ingest(
    service: Service, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(inbox / "good.tif", random_dn())

    def starve(session: Session, role: str, deadline: CpuDeadline) -> Answer:
        if isinstance(job := sessions[session].job, SceneJob):
            assert job.name == "good"
            for pid in session.pids:
                os.kill(pid, signal.SIGSTOP)
            original(session, "writer", deadline)
            raise AssertionError("a stopped process has answered")
        return original(session, role, deadline)

    def begin(session: Session, task: Task) -> None:
        sessions[session] = task
        original_begin(session, task)

    sessions: dict[Session, Task] = {}
    original, original_begin = Session.read, Session.begin
    service.limits = DecodeLimits(timeout_s=0.2, memory_mb=2048)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "begin", begin)
        patch.setattr(Session, "read", starve)
        assert len(service.ingest(inbox).quarantined) == 1
    assert "too busy" in service.quarantine()["good"].what
    service.limits = DecodeLimits(memory_mb=2048)
    assert len(service.ingest(inbox).added) == 1
    assert service.quarantine() == {}


def test_memory_beyond_the_limit_is_a_bad_scene(tmp_path: Path) -> None:
    large = write(tmp_path / "large.tif", random_dn(size=3000, high=4000), tiled=True)
    with DecoderPool(DecodeLimits(timeout_s=60, memory_mb=2048), 1) as pool:
        pool.server.start()
        assert pool.server._process is not None
        used = int(Path(f"/proc/{pool.server._process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        limits = DecodeLimits(timeout_s=60, memory_mb=(used >> 20) + 4)
        with closing(Decoder(limits, pool.server)) as decoder, pytest.raises(BadScene, match=r"memory|crashed|cannot"):
            decoder.decode_scene(_job(large, tmp_path))
