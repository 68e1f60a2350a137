"""Everything in a folder labels/ becomes a label, accompanies one, or is named in quarantine; and whole ingests."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pyogrio.raw
import rasterio
import shapely
from PIL import Image

from cloudseg.catalog import model_rows, training_rows
from cloudseg.ingest.candidate import Candidate, UnmatchedFile
from cloudseg.ingest.inbox import FolderInbox
from cloudseg.ingest.layouts import find_candidates
from tests.catalog import rows
from tests.ingest.conftest import Service
from tests.ingest.polygons import AREAS, save
from tests.ingest.tiles import SIZE, clouds, random_dn, write


def _touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def _found(inbox: Path) -> dict[str, Candidate | UnmatchedFile]:
    return {item.path: item for item in find_candidates(FolderInbox(inbox))}


def _states(service: Service) -> dict[str, list[str]]:
    """Return the states of the labels of every scene, in version order."""
    scenes = service.scenes().values()
    return {s.scene_id: [service.life(label)[-1][0] for label in service.labels(s)[::-1]] for s in scenes}


def test_every_form_of_a_label_is_paired(inbox: Path) -> None:
    names = ("a.tif", "b.png", "c.geojson", "d.gpkg", "e.fgb", "f.shp", "g.jp2", "h.TIFF")
    _touch(inbox / "labels", *names, "f.dbf", "f.shx", "f.prj", "f.cpg")
    _touch(inbox / "images", *(f"{name[0]}.tif" for name in names))
    found = _found(inbox)
    assert [item.label.file.name for item in found.values() if isinstance(item, Candidate) and item.label] == list(
        names
    )
    assert len(found) == len(names)
    shapefile = found["images/f.tif"]
    assert isinstance(shapefile, Candidate)
    assert shapefile.label is not None
    assert {file.suffix for file in shapefile.label.sidecars} == {"dbf", "shx", "prj", "cpg"}


def test_sidecars_and_harmless_files_make_no_noise(inbox: Path) -> None:
    labels = inbox / "labels"
    _touch(labels, "a.tif", "a.tif.ovr", "a.tfw", "a.tif.aux.xml", "a.qml", "a.tif.msk", "README", "notes.txt", "x.qgz")
    _touch(labels, "f.shp", "f.dbf", "f.shx", "f.qpj", "f.sbn", "f.shp.xml", "f.qix", "g.gpkg", "g.gpkg-shm")
    _touch(labels, "Thumbs.db", "desktop.ini", "b.png", "b.pgw", "b.png.aux.xml", "SHA256SUMS.sha256")
    found = _found(inbox)
    assert sorted(found) == ["labels/a.tif", "labels/b.png", "labels/f.shp", "labels/g.gpkg"]
    label = found["labels/a.tif"].label
    assert label is not None
    assert [file.name for file in label.sidecars] == ["a.tif.msk"]
    (labels / "a.tif.aux.xml").write_text("<PAMDataset><NoDataValue>7</NoDataValue></PAMDataset>")
    label = _found(inbox)["labels/a.tif"].label
    assert label is not None
    assert [file.name for file in label.sidecars] == ["a.tif.aux.xml", "a.tif.msk"]
    (labels / "a.tif.aux.xml").write_text("<PAMDataset><NoDataValue>7</NoDataValue></PAMDataset>", encoding="utf-16")
    label = _found(inbox)["labels/a.tif"].label
    assert label is not None
    assert [file.name for file in label.sidecars] == ["a.tif.aux.xml", "a.tif.msk"], "in doubt it counts"


def test_other_files_are_one_entry_a_folder(service: Service, inbox: Path) -> None:
    _touch(inbox / "labels", "a.json", "a.csv", "b.jpg", "c.xml", "d.kml", "lonely.dbf", "photo.JPEG")
    _touch(inbox / "labels" / "more", "x.pdf")
    _touch(inbox / "elsewhere", "y.json", "y.csv")
    record = service.ingest(inbox)
    assert len(record.quarantined) == 2
    entry = service.quarantine()["a.csv"]
    assert (entry.error, entry.what) == ("BadLabel", "7 files in a folder labels/ cannot be used as a label")
    assert entry.found == "a.csv, a.json, b.jpg, c.xml, d.kml, lonely.dbf, photo.JPEG"
    assert ".gpkg" in str(entry.expected)
    assert "suffix .geojson" in entry.next_step
    again = service.ingest(inbox)
    assert (again.quarantined, again.still_quarantined) == ([], 2)
    _touch(inbox / "labels", "z.json")
    assert len(service.ingest(inbox).quarantined) == 1


def test_a_link_of_any_suffix_out_of_the_folder_is_an_entry(inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (inbox / "labels").mkdir()
    (inbox / "labels" / "a.geojson").symlink_to(tmp_path / "secret.json")
    assert "symbolic link" in _found(inbox)["labels/a.geojson"].what  # type: ignore[union-attr]


def test_files_that_are_not_complete_say_what_is_missing(inbox: Path) -> None:
    _touch(inbox / "labels", "a.shp", "a.prj", "b.gpkg", "b.gpkg-wal", "b.gpkg-shm")
    found = _found(inbox)
    assert sorted(found) == ["labels/a.shp", "labels/b.gpkg"]
    assert found["labels/a.shp"].what == "the Shapefile lacks .dbf, .shx"  # type: ignore[union-attr]
    assert "close the project" in found["labels/b.gpkg"].next_step  # type: ignore[union-attr]


def test_what_an_open_program_leaves_in_labels_is_named_elsewhere_not(inbox: Path) -> None:
    """Of a GeoPackage that was moved away its log remains, with changes that exist nowhere else."""
    _touch(inbox / "labels", "gone.gpkg-wal", "gone.gpkg-shm", "a.gpkg.lock")
    _touch(inbox / "other", "gone.gpkg-wal", "gone.gpkg-journal")
    assert {path: item.found for path, item in _found(inbox).items()} == {"labels/gone.gpkg-wal": "gone.gpkg-wal"}  # type: ignore[union-attr]


def test_names_in_two_unicode_normal_forms_are_a_pair(inbox: Path) -> None:
    _touch(inbox / "images", unicodedata.normalize("NFC", "été.tif"))
    _touch(inbox / "labels", unicodedata.normalize("NFD", "été.tif"))
    (item,) = _found(inbox).values()
    assert isinstance(item, Candidate)
    assert item.label is not None


def test_a_raster_and_polygons_of_one_image_are_two_labels(inbox: Path) -> None:
    _touch(inbox / "images", "a.tif")
    _touch(inbox / "labels", "a.gpkg", "a.png", "a.tif")
    found = _found(inbox)
    paired = found.pop("images/a.tif")
    assert isinstance(paired, Candidate)
    assert paired.label is not None
    assert (paired.label.file.name, sorted(found)) == ("a.png", ["labels/a.gpkg", "labels/a.tif"])


def test_png_and_polygons_are_ingested(service: Service, inbox: Path) -> None:
    for index, name in enumerate(("a_png", "a_gpkg", "a_shp", "empty")):
        write(inbox / "images" / f"{name}.tif", random_dn(seed=index))
    (inbox / "labels").mkdir()
    Image.fromarray(clouds()[0] * np.uint8(255)).save(inbox / "labels" / "a_png.png")
    save(inbox / "labels" / "a_gpkg.gpkg", AREAS)
    save(inbox / "labels" / "a_shp.shp", AREAS)
    save(inbox / "labels" / "empty.gpkg", [])
    record = service.ingest(inbox)
    assert (len(record.added), len(record.labelled), record.quarantined) == (4, 3, [])
    assert record.empty_layers == ["labels/empty.gpkg"]
    for name, cloud, labeled in (
        ("a_png", 0.5, 1.0),
        ("a_gpkg", 184 / 484, 484 / SIZE**2),
        ("a_shp", 184 / 484, 484 / SIZE**2),
    ):
        (label,) = service.labels(service.scenes()[name])
        assert (label.cloud_fraction, label.labelled_fraction) == (cloud, labeled)
    again = service.ingest(inbox)
    assert (again.labelled, again.quarantined, again.empty_layers) == ([], [], ["labels/empty.gpkg"])
    pyogrio.raw.write(  # only the .dbf differs
        inbox / "labels" / "a_shp.shp",
        np.array([shapely.to_wkb(shape) for shape, _ in AREAS], object),
        [np.array(["cloud", "cloud", "cloud"], object)],
        ["class"],
        geometry_type="Polygon",
        crs="EPSG:32631",
        driver="ESRI Shapefile",
    )
    assert len(service.ingest(inbox).labelled) == 1
    assert service.labels(service.scenes()["a_shp"])[0].cloud_fraction == 1.0


def test_the_answer_to_an_empty_layer_comes_back_by_the_id_of_the_scene(
    service: Service, inbox: Path, tmp_path: Path
) -> None:
    for index, day in enumerate(("2023-05-01", "2023-05-06")):
        tags = {"ACQUIRED_AT": f"{day}T10:50:00Z"}
        write(inbox / day / "images" / "siteA.tif", random_dn(seed=index), tags=tags)
        write(inbox / day / "labels" / "siteA.tif", clouds(), names=["label"])
    first, second = service.ingest(inbox).added
    answers = tmp_path / "answers" / "labels"
    answers.mkdir(parents=True)
    save(answers / f"{first}.gpkg", [], layer="labels")
    assert service.ingest(answers.parent).empty_layers == [f"labels/{first}.gpkg"]
    metadata = {"CLOUDSEG_SCENE_ID": first}
    (answers / f"{first}.gpkg").unlink()
    save(answers / "mine.gpkg", AREAS, layer="labels", layer_metadata=metadata)
    record = service.ingest(answers.parent)
    assert (len(record.labelled), record.proposed, record.quarantined) == (1, record.labelled, [])
    assert _states(service) == {first: ["accepted", "proposed"], second: ["accepted"]}
    assert service.ingest(answers.parent).labelled == []


def test_of_two_dates_the_one_of_the_folder_gets_the_correction_or_the_list_is_shown(
    service: Service, inbox: Path, tmp_path: Path
) -> None:
    for index, day in enumerate(("2023-05-01", "2023-05-06")):
        tags = {"ACQUIRED_AT": f"{day}T10:50:00Z"}
        write(inbox / day / "images" / "siteA.tif", random_dn(seed=index), tags=tags)
        write(inbox / day / "labels" / "siteA.tif", clouds(), names=["label"])
    first, second = service.ingest(inbox).added
    label = clouds()
    label[:, :5] = 0
    write(tmp_path / "in2" / "2023-05-01" / "labels" / "siteA.tif", label, names=["label"])
    service.ingest(tmp_path / "in2")
    assert _states(service) == {first: ["accepted", "proposed"], second: ["accepted"]}
    label[:, :7] = 0
    write(tmp_path / "in3" / "labels" / "siteA.tif", label, names=["label"])
    assert len(service.ingest(tmp_path / "in3").quarantined) == 1
    assert service.ingest(tmp_path / "in3").still_quarantined == 1
    entry = service.quarantine()["siteA.tif"]
    assert (entry.error, entry.what) == ("BadLabel", "2 scenes fit the label")
    assert first in str(entry.found)
    shutil.move(tmp_path / "in3" / "labels" / "siteA.tif", tmp_path / "in3" / "labels" / f"{second}.tif")
    assert len(service.ingest(tmp_path / "in3").labelled) == 1
    assert _states(service) == {first: ["accepted", "proposed"], second: ["accepted", "proposed"]}


def test_a_mask_from_the_store_is_no_label_until_it_is_edited(service: Service, inbox: Path, tmp_path: Path) -> None:
    write(inbox / "a.tif", random_dn())
    service.ingest(inbox)
    scene = service.scenes()["a"]
    tags = {"CLOUDSEG_MASK_ID": "mk-00000000000000000001", "CLOUDSEG_SCENE_ID": scene.scene_id}
    published = write(tmp_path / "published.tif", clouds(), names=["cloud mask"], nodata=255, tags=tags)
    key = "masks/wt-1/sc-1/mask.000000000001.tif"
    stored = service.store.put_file(key, published)
    mask = rows.mask(1, 1, 1).model_copy(
        update={"mask_id": tags["CLOUDSEG_MASK_ID"], "scene_id": scene.scene_id, **stored.as_json()}
    )
    with service.catalog.begin() as db:
        training_rows.add_snapshot(db, rows.snapshot(), {})
        model_rows.add_weights(db, rows.weights(1))
        model_rows.add_mask(db, mask)
    handed_in = tmp_path / "corrections" / "labels" / "mask.000000000001.tif"
    handed_in.parent.mkdir(parents=True)
    shutil.copyfile(published, handed_in)
    record = service.ingest(tmp_path / "corrections")
    assert (record.labelled, len(record.quarantined)) == ([], 1)
    assert "the published mask mk-00000000000000000001 unchanged" in service.quarantine()["a (label)"].what
    with rasterio.open(handed_in, "r+") as dataset:
        pixels = dataset.read(1)
        pixels[:3, :3] = 0
        dataset.write(pixels, 1)
    record = service.ingest(tmp_path / "corrections")
    assert (len(record.labelled), record.quarantined) == (1, [])
    (label,) = service.labels(scene)
    assert label.cloud_fraction == (SIZE * SIZE / 2 - 9) / SIZE**2
