"""Labels without a scene beside them: corrections of known scenes, and labels that arrive before their scene."""

from pathlib import Path

from cloudseg.catalog.label_rows import list_accepted
from tests.ingest.conftest import Service
from tests.ingest.tiles import SIZE, UTM, clouds, random_dn, write


def _label(inbox: Path, name: str, **more: object) -> Path:
    return write(inbox / "labels" / f"{name}.tif", clouds(), names=["label"], nodata=255, **more)  # type: ignore[arg-type]


def _corrected(path: Path) -> Path:
    pixels = clouds()
    pixels[:, :10] = 0
    return write(path, pixels, names=["label"], nodata=255, tags={"LABEL_SOURCE": "analyst:ada"})


def test_a_correction_alone_waits_and_then_becomes_the_newest_label_of_its_scene(
    service: Service, inbox: Path, tmp_path: Path
) -> None:
    write(inbox / "images" / "a.tif", random_dn())
    _label(inbox, "a")
    service.ingest(inbox)
    corrections = tmp_path / "corrections"
    _corrected(corrections / "labels" / "a.tif")
    progress: list[tuple[object, ...]] = []
    record = service.ingest(corrections, on_progress=lambda *event: progress.append(event))
    assert (record.added, len(record.labelled), record.quarantined, progress) == (
        [],
        1,
        [],
        [(1, 1, "a.tif", "labeled")],
    )
    newest, first = service.labels(service.scenes()["a"])
    assert (newest.version, newest.source, first.version) == (2, "analyst:ada", 1)
    assert newest.cloud_fraction < first.cloud_fraction
    assert record.proposed == record.labelled
    assert service.newest_accepted() == [first.label_id]
    service.decide(newest, "accepted")
    assert service.newest_accepted() == record.labelled
    again = service.ingest(corrections)
    assert (again.labelled, again.quarantined, again.still_quarantined) == ([], [], 0)


def test_a_mask_that_was_exported_and_cleaned_is_no_label(service: Service, inbox: Path, tmp_path: Path) -> None:
    write(inbox / "images" / "a.tif", random_dn())
    service.ingest(inbox)
    cleaned = tmp_path / "cleaned"
    write(cleaned / "labels" / "a.tif", clouds(), names=["label"], nodata=255, tags={"CLOUDSEG_CLEANED": "yes"})
    record = service.ingest(cleaned)
    assert (record.labelled, len(record.quarantined)) == ([], 1)


def test_a_label_whose_image_has_left_the_inbox_is_unchanged(service: Service, inbox: Path) -> None:
    image = write(inbox / "images" / "a.tif", random_dn())
    _label(inbox, "a")
    service.ingest(inbox)
    image.unlink()
    record = service.ingest(inbox)
    assert (record.labelled, record.quarantined, record.still_quarantined) == ([], [], 0)
    assert len(service.labels(service.scenes()["a"])) == 1


def test_a_label_that_arrives_before_its_scene_is_added_with_the_scene(service: Service, inbox: Path) -> None:
    _label(inbox, "a")
    assert len(service.ingest(inbox).quarantined) == 1
    entry = service.quarantine()["a.tif"]
    assert (entry.error, entry.what) == ("BadLabel", "there is no scene for this label")
    assert "cloudseg scenes" in entry.next_step
    assert service.ingest(inbox).still_quarantined == 1
    write(inbox / "images" / "a.tif", random_dn())
    record = service.ingest(inbox)
    assert (len(record.added), len(record.labelled), record.quarantined) == (1, 1, [])
    assert service.quarantine() == {}


def test_a_scene_elsewhere_in_the_same_inbox_is_ingested_before_its_label(service: Service, inbox: Path) -> None:
    _label(inbox / "1_corrections", "a")
    write(inbox / "2_scenes" / "a.tif", random_dn())
    record = service.ingest(inbox)
    assert (len(record.added), len(record.labelled), record.quarantined) == (1, 1, [])


def test_a_correction_that_does_not_fit_is_refused_until_its_scene_arrives(
    service: Service, inbox: Path, tmp_path: Path
) -> None:
    write(inbox / "a.tif", random_dn())
    write(inbox / "b.tif", random_dn(seed=1))
    service.ingest(inbox)
    corrections = tmp_path / "corrections"
    moved = UTM @ UTM.translation(3, 0)
    _label(corrections, "a", transform=moved)
    _label(corrections, "b", crs=None, transform=None)
    service.ingest(corrections)
    entries = service.quarantine()
    assert "extent differs" in entries["a (label)"].what
    assert "needs a georeference" in entries["b (label)"].what
    write(tmp_path / "later" / "a.tif", random_dn(seed=2), transform=moved)
    service.ingest(tmp_path / "later")
    assert len(service.ingest(corrections).labelled) == 1
    assert set(service.quarantine()) == {"b (label)"}


def test_names_are_exact(service: Service, inbox: Path, tmp_path: Path) -> None:
    write(inbox / "scene.tif", random_dn())
    service.ingest(inbox)
    for name in ("Scene", "scene_corrected", "scen%"):
        _label(tmp_path / "corrections", name)
    assert service.ingest(tmp_path / "corrections").labelled == []
    assert len(service.quarantine()) == 3


def test_of_two_scenes_with_one_name_none_gets_the_label(service: Service, inbox: Path, tmp_path: Path) -> None:
    write(inbox / "a.tif", random_dn())
    (older,) = service.ingest(inbox).added
    write(inbox / "a.tif", random_dn(seed=1))
    (newer,) = service.ingest(inbox).added
    _corrected(tmp_path / "corrections" / "labels" / "a.tif")
    assert service.ingest(tmp_path / "corrections").labelled == []
    entry = service.quarantine()["a.tif"]
    assert (entry.error, entry.what) == ("BadLabel", "2 scenes fit the label")
    assert older in str(entry.found)
    assert newer in str(entry.found)
    _corrected(tmp_path / "corrections" / "labels" / f"{older}.tif")
    (tmp_path / "corrections" / "labels" / "a.tif").unlink()
    service.ingest(tmp_path / "corrections")
    with service.catalog.read() as db:
        assert list(list_accepted(db)) == [older]


def test_a_biome_cut_out_has_no_georeference_and_its_label_needs_none(
    service: Service, inbox: Path, tmp_path: Path
) -> None:
    bare = {"crs": None, "transform": None}
    write(
        inbox / "images" / "Forest_05_0415.tif", random_dn(4), names=("red", "green", "blue", "nir"), scale=1e-4, **bare
    )
    (inbox / "labels").mkdir()
    write(inbox / "labels" / "Forest_05_0415.tif", clouds() * 127 + 128, names=["label"], **bare)
    service.ingest(inbox)
    corrections = tmp_path / "corrections" / "labels"
    write(corrections / "Forest_05_0415.tif", clouds(SIZE)[:, ::-1] * 64 + 128, names=["label"], **bare)
    assert len(service.ingest(tmp_path / "corrections").labelled) == 1
