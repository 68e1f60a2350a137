"""Ids that catalogs hold: if one of these changes, files that are known today are ingested or quarantined twice."""

from cloudseg.bands import LANDSAT_L1, SENTINEL2, SENTINEL2_OFFSET, Radiometry
from cloudseg.ingest.candidate import Candidate, QualityFile, SourceFile
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.ingest_scene import source_hash
from cloudseg.ingest.quarantine import quarantine_id, unread_hash

FILE = InboxFile("images/a.tif", "file:///inbox/images/a.tif")
HASHES = ["0" * 64, "f" * 64]


def _file(index: int) -> InboxFile:
    return InboxFile(f"images/{index}.tif", f"file:///inbox/images/{index}.tif")


def _hash(*sources: tuple[tuple[str | None, ...] | None, Radiometry | None]) -> str:
    files = tuple(
        SourceFile(_file(index), bands, radiometry=radiometry) for index, (bands, radiometry) in enumerate(sources)
    )
    hashes = {source.file.path: sha256 for source, sha256 in zip(files, HASHES, strict=False)}
    return source_hash(Candidate("a", "pairs", files), hashes)


def test_sidecars_and_quality_layers_change_the_id_of_a_scene() -> None:
    plain = SourceFile(_file(0), None)
    mask, layer = InboxFile("images/0.tif.msk", "file:///m"), InboxFile("images/udm2.tif", "file:///q")
    hashes = {plain.file.path: HASHES[0], mask.path: HASHES[1], layer.path: HASHES[1]}
    with_sidecar = Candidate("a", "pairs", (SourceFile(_file(0), None, sidecars=(mask,)),))
    with_quality = Candidate("a", "pairs", (plain,), quality=(QualityFile(layer, "planet_udm2"),))
    ids = {source_hash(each, hashes) for each in (Candidate("a", "pairs", (plain,)), with_sidecar, with_quality)}
    assert len(ids) == 3


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
