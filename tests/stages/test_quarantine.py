"""Release from quarantine: the next ingest tries the file again, once, and who asked for it is kept."""

import json
from pathlib import Path

import pytest

from cloudseg import stages
from cloudseg.catalog import quarantine_rows
from cloudseg.errors import InputError, NotInCatalog
from cloudseg.runtime import open_runtime


@pytest.fixture
def inbox(runtime_env: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    for name in ("a.tif", "b.tif"):
        (folder / name).write_bytes(b"no raster " + name.encode())
    return folder


def test_the_next_ingest_tries_a_released_file_again(inbox: Path):
    first = stages.ingest(str(inbox)).quarantined
    assert stages.ingest(str(inbox)).still_quarantined == 2
    record = stages.release_from_quarantine([first[0]], actor="airflow:ada", reason=" the copy was cut ")
    assert (record.released, record.unchanged, record.left) == ([first[0]], [], 1)
    again = stages.release_from_quarantine([first[0]], actor="airflow:ada", reason="the copy was cut")
    assert (again.released, again.unchanged, again.left) == ([], [first[0]], 1)
    with open_runtime().catalog.read() as db:
        (kept,) = quarantine_rows.list_releases(db)
    assert (kept.actor, kept.reason) == ("airflow:ada", "the copy was cut")
    tried = stages.ingest(str(inbox))
    assert (tried.quarantined, tried.still_quarantined) == ([first[0]], 1)


def test_one_of_a_reason_releases_all_of_it(inbox: Path):
    ids = stages.ingest(str(inbox)).quarantined
    (inbox / "note.docx").write_bytes(b"no raster either")
    other = stages.ingest(str(inbox)).quarantined
    planned = stages.release_from_quarantine(ids[:1], same_reason=True, dry_run=True)
    assert (sorted(planned.released), planned.left) == (sorted(ids), 3)
    record = stages.release_from_quarantine(ids[:1], same_reason=True)
    assert (sorted(record.released), record.left) == (sorted(ids), 1)
    assert [entry["quarantine_id"] for entry in stages.quarantine()] == other
    assert json.loads(json.dumps(record.as_json())) == record.as_json()


def test_nothing_is_released_where_an_id_is_unknown(inbox: Path):
    ids = stages.ingest(str(inbox)).quarantined
    with pytest.raises(NotInCatalog, match=r"qu-unknown: no such entry.*cloudseg quarantine"):
        stages.release_from_quarantine([ids[0], "qu-unknown"])
    with pytest.raises(InputError, match="no entry was named"):
        stages.release_from_quarantine([])
    assert len(stages.quarantine()) == 2


def test_entries_are_named_by_their_file_or_how_their_id_begins(inbox: Path):
    ids = stages.ingest(str(inbox)).quarantined
    names = {str(entry["quarantine_id"]): str(entry["name"]) for entry in stages.quarantine()}
    assert stages.release_from_quarantine([names[ids[0]]], dry_run=True).released == [ids[0]]
    assert stages.release_from_quarantine([ids[1][:12]]).released == [ids[1]]
    with pytest.raises(NotInCatalog, match=f"Did you mean {names[ids[0]]}"):
        stages.release_from_quarantine([f"{names[ids[0]]}f"])
