"""Ids that catalogs hold: if one of these changes, files that are known today are ingested or quarantined twice."""

from cloudseg.bands import LANDSAT_L1, SENTINEL2, SENTINEL2_OFFSET, Radiometry
from cloudseg.ingest.candidate import Candidate, SourceFile
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.ingest_scene import source_hash
from cloudseg.ingest.quarantine import quarantine_id, unread_hash

FILE = InboxFile("images/a.tif", "file:///inbox/images/a.tif")
HASHES = ["0" * 64, "f" * 64]


def _hash(*sources: tuple[tuple[str | None, ...] | None, Radiometry | None]) -> str:
    files = tuple(SourceFile(FILE, bands, radiometry=radiometry) for bands, radiometry in sources)
    return source_hash(Candidate("a", "pairs", files), HASHES[: len(files)])


def test_ids_of_scenes_are_those_of_earlier_versions() -> None:
    plain = _hash((None, None))
    assert plain == "97d3a1f38997ebb13314779318d13f3b45e4807bf422857fc53991a8f1b9f57f"
    assert _hash((None, SENTINEL2)) == plain
    assert _hash((None, SENTINEL2_OFFSET)) == "6bb95f1ed9aeeec7e9d6097630bcc78a95657c763a56637e795fceffafb66049"
    assert (
        _hash((("red",), LANDSAT_L1), (("green", None), None))
        == "6799527741693df99e14f48ce64debe130e2ad108970fe8de7501beedd2efc76"
    )


def test_ids_of_quarantine_entries_are_those_of_earlier_versions() -> None:
    assert unread_hash(FILE) == "896b6eb2c02b0c7a06b2ff89e4a2bbd8f6bbaaf526482d5a63f66de12dec7c89"
    assert quarantine_id(FILE.uri, HASHES[0]) == "qu-769d2e54aa6e78490ec9"
    assert quarantine_id(FILE.uri, HASHES[0], "pairs") == "qu-c69047e46aefd0ddf276"
