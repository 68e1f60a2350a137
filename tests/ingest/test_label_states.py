"""What a label is when it arrives: the first of its scene is accepted, a correction waits, and known files say so."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from cloudseg.catalog import model_rows, tables
from cloudseg.ingest.label_life import find_corrected_mask, is_trusted
from cloudseg.records import IngestRecord, Label
from tests.catalog import rows
from tests.ingest.conftest import Service
from tests.ingest.tiles import clouds, random_dn, write


def save_label(folder: Path, name: str, cloud_rows: int) -> Path:
    """Write a label whose first rows are cloud."""
    classes = np.zeros((1, 48, 48), np.uint8)
    classes[:, :cloud_rows] = 1
    return write(folder / "labels" / f"{name}.tif", classes, names=["label"], nodata=255)


@pytest.fixture
def first(service: Service, inbox: Path) -> Label:
    """Return the first label of a scene `a`."""
    write(inbox / "images" / "a.tif", random_dn())
    save_label(inbox, "a", 10)
    service.ingest(inbox)
    (label,) = service.labels(service.scenes()["a"])
    return label


def correct(service: Service, folder: Path, cloud_rows: int) -> tuple[IngestRecord, Label]:
    save_label(folder, "a", cloud_rows)
    record = service.ingest(folder)
    return record, service.labels(service.scenes()["a"])[0]


def publish_mask(service: Service, scene_id: str) -> str:
    with service.catalog.begin() as db:
        model_rows.add_weights(db, rows.weights(1))
        mask = rows.mask(1, of=1, by=1).model_copy(update={"scene_id": scene_id})
        model_rows.add_mask(db, mask)
    return mask.mask_id


def test_the_first_label_of_a_scene_is_accepted_at_once(service: Service, inbox: Path, first: Label) -> None:
    assert service.life(first) == [("accepted", f"ingest {inbox.resolve().as_uri()}", "first label of its scene")]


def test_a_damaged_scene_in_the_store_stops_only_its_own_labels(service: Service, first: Label, tmp_path: Path) -> None:
    """Before, the ingest ended with the error of the store, and so did every later one."""
    folder = tmp_path / "again"
    write(folder / "images" / "b.tif", random_dn(seed=5))
    with service.store.local_file(service.scenes()["a"].key) as path:
        whole = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    record, known = correct(service, folder, 20)
    assert (record.labelled, known.label_id) == ([], first.label_id)
    assert set(service.scenes()) == {"a", "b"}
    (entry,) = service.quarantine().values()
    assert entry.what == "the object's bytes do not match its checksum"
    path.write_bytes(whole)
    assert len(service.ingest(folder).labelled) == 1
    assert service.quarantine() == {}


def test_a_correction_waits_and_the_ingest_says_so(service: Service, first: Label, tmp_path: Path) -> None:
    record, second = correct(service, tmp_path / "again", 20)
    assert (record.labelled, record.proposed) == ([second.label_id], [second.label_id])
    ((state, _, reason),) = service.life(second)
    assert (state, reason) == ("proposed", f"changes version 1 (accepted), {first.label_id}")
    (note,) = record.notes
    assert note.startswith(f"label {second.label_id}, version 2 of a, waits: changes version 1")
    assert f"cloudseg labels accept {second.label_id}" in note
    assert service.newest_accepted() == [first.label_id]
    (note,) = service.ingest(tmp_path / "again").notes
    assert "is known: version 2 of a, which waits for a decision" in note


def test_a_correction_of_a_proposal_waits_too(service: Service, first: Label, tmp_path: Path) -> None:
    service.decide(first, "withdrawn")
    _, second = correct(service, tmp_path / "one", 20)
    assert service.life(second)[0][0] == "accepted", "no other label of the scene is in use or waits"
    service.decide(second, "withdrawn")
    _, third = correct(service, tmp_path / "two", 30)
    assert service.life(third)[0][0] == "accepted"
    _, fourth = correct(service, tmp_path / "three", 40)
    service.decide(third, "withdrawn")
    _, fifth = correct(service, tmp_path / "four", 45)
    assert service.life(fifth)[0] == (
        "proposed",
        f"ingest {(tmp_path / 'four').resolve().as_uri()}",
        f"changes version 4 (proposed), {fourth.label_id}",
    )


def test_the_first_label_of_a_scene_with_a_published_mask_waits(service: Service, inbox: Path) -> None:
    write(inbox / "images" / "a.tif", random_dn())
    (scene_id,) = service.ingest(inbox).added
    mask_id = publish_mask(service, scene_id)
    save_label(inbox, "a", 10)
    record = service.ingest(inbox)
    (label,) = service.labels(service.scenes()["a"])
    assert record.proposed == [label.label_id]
    assert service.life(label)[0][2] == f"its scene has a published mask, {mask_id}"
    with service.catalog.read() as db:
        assert model_rows.find_disputed(db, [mask_id]) == {mask_id}


def test_an_untrusted_inbox_only_proposes(service: Service, inbox: Path, tmp_path: Path) -> None:
    write(inbox / "images" / "a.tif", random_dn())
    save_label(inbox, "a", 10)
    record = service.ingest(inbox, trusted_inboxes=[str(tmp_path / "other"), "s3://bucket"])
    (label,) = service.labels(service.scenes()["a"])
    assert record.proposed == [label.label_id]
    assert service.life(label)[0][2] == "its inbox is not in CLOUDSEG_TRUSTED_INBOXES"


def test_a_trusted_inbox_is_a_whole_folder(tmp_path: Path) -> None:
    uri = (tmp_path / "in" / "labels" / "a.tif").as_uri()
    assert is_trusted(uri, ["*"])
    assert is_trusted(uri, ["s3://x", str(tmp_path / "in")])
    assert is_trusted(uri, [(tmp_path / "in").as_uri() + "/"])
    assert not is_trusted(uri, [str(tmp_path / "i")])
    assert not is_trusted((tmp_path / "in-public" / "a.tif").as_uri(), [str(tmp_path / "in")])
    assert not is_trusted(uri, [])
    assert is_trusted("s3://bucket/inbox/a.tif", ["s3://bucket/inbox"])
    assert not is_trusted("s3://bucket/inbox2/a.tif", ["s3://bucket/inbox"])


def test_an_older_file_says_what_covers_it(service: Service, inbox: Path, first: Label, tmp_path: Path) -> None:
    assert service.ingest(inbox).notes == [], "the label in use needs no note"
    _, second = correct(service, tmp_path / "again", 20)
    assert service.ingest(inbox).notes == [], "nothing has covered it yet"
    service.decide(second, "accepted")
    record = service.ingest(inbox)
    (note,) = record.notes
    assert (record.labelled, record.known) == ([], 1)
    assert note.startswith(
        f"label {first.label_id} is known: version 1 of a, covered by version 2 ({second.label_id}, accepted "
    )
    assert note.endswith(f"by ada); to return to it: cloudseg labels withdraw {second.label_id} --reason …")


@pytest.mark.parametrize("state", ["rejected", "withdrawn"])
def test_a_rejected_or_withdrawn_file_does_not_come_back(
    service: Service, first: Label, tmp_path: Path, state: str
) -> None:
    _, second = correct(service, tmp_path / "again", 20)
    if state == "withdrawn":
        service.decide(second, "accepted")
    service.decide(second, state, "the snow is no cloud")  # type: ignore[arg-type]
    record = service.ingest(tmp_path / "again")
    assert (record.labelled, service.newest_accepted()) == ([], [first.label_id])
    (note,) = record.notes
    assert f"version 2 of a, {state} by ada on " in note
    assert "the snow is no cloud; it does not come back by itself, cloudseg labels accept" in note


def test_of_two_first_labels_at_the_same_time_one_waits(service: Service, inbox: Path, tmp_path: Path) -> None:
    write(inbox / "images" / "a.tif", random_dn())
    service.ingest(inbox)
    folders = [tmp_path / name for name in ("one", "two")]
    for number, folder in enumerate(folders):
        save_label(folder, "a", 10 + number)
    with ThreadPoolExecutor(2) as pool:
        records = list(pool.map(service.ingest, folders))
    assert sorted(len(record.proposed) for record in records) == [0, 1]
    newest, oldest = service.labels(service.scenes()["a"])
    assert (service.life(oldest)[0][0], service.life(newest)[0][0]) == ("accepted", "proposed")


def test_only_a_mask_of_the_scene_counts_as_corrected(service: Service, inbox: Path) -> None:
    """A decoder reads the mask's id from a file, which may claim anything."""
    write(inbox / "a.tif", random_dn())
    write(inbox / "b.tif", random_dn(seed=1))
    service.ingest(inbox)
    scenes = service.scenes()
    mask_id = publish_mask(service, scenes["a"].scene_id)
    with service.catalog.read() as db:
        assert find_corrected_mask(db, scenes["a"].scene_id, mask_id) == mask_id
        assert find_corrected_mask(db, scenes["b"].scene_id, mask_id) is None
        assert find_corrected_mask(db, scenes["a"].scene_id, "mk-'; DROP TABLE mask") is None
        assert find_corrected_mask(db, scenes["a"].scene_id, None) is None


def test_a_dry_run_says_what_would_wait_and_writes_no_state(service: Service, inbox: Path, tmp_path: Path) -> None:
    write(inbox / "images" / "a.tif", random_dn())
    write(inbox / "labels" / "a.tif", clouds(), names=["label"], nodata=255)
    record = service.ingest(inbox, dry_run=True)
    assert (len(record.labelled), record.proposed, record.notes) == (1, [], [])
    with service.catalog.read() as db:
        assert db.execute(select(tables.label_event)).all() == []
    service.ingest(inbox)
    save_label(tmp_path / "again", "a", 20)
    record = service.ingest(tmp_path / "again", dry_run=True)
    assert len(record.proposed) == 1
    assert record.notes[0].startswith("the label of a would wait: changes version 1 (accepted), lb-")
    assert len(service.labels(service.scenes()["a"])) == 1
