"""Which scene a label without its image belongs to: ids, tags, product ids, folders, dates; never the newest one."""

import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import Connection

from cloudseg.catalog import Catalog
from cloudseg.catalog.scene_rows import add_scene
from cloudseg.errors import BadLabel
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.job import LabelTags
from cloudseg.ingest.label_scene import FoundScene, find_label_scene
from tests.catalog import rows

S2 = "S2A_MSIL1C_20180102T084341_N0206_R064_T36TVP_20180102T110333"
S2_LATER = "S2A_MSIL1C_20180102T084341_N0500_R064_T36TVP_20230102T110333"
LANDSAT = "LC08_L1TP_002053_20160520_20170324_01_T1"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Connection]:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    catalog.upgrade()
    with catalog.begin() as connection:
        yield connection


def add(db: Connection, number: int, name: str, uri: str, day: str | None, **more: object) -> str:
    """Add a scene and return its id; a higher number was ingested later."""
    acquired_at = datetime.fromisoformat(f"{day}T10:50:00").replace(tzinfo=UTC) if day else None
    scene = rows.scene(number, name=name, source_uri=f"file:///{quote(uri)}", **{"acquired_at": acquired_at, **more})
    add_scene(db, scene)
    return scene.scene_id


def find(db: Connection, path: str, **tags: object) -> FoundScene | None:
    return find_label_scene(db, InboxFile(path, f"file:///{quote(path)}"), LabelTags.model_validate(tags))


def found_id(db: Connection, path: str, **tags: object) -> str | None:
    found = find(db, path, **tags)
    return found.scene.scene_id if found else None


def test_one_scene_of_the_name(db: Connection) -> None:
    one = add(db, 1, "a", "in/a.tif", None)
    add(db, 2, "b", "in/b.tif", None)
    assert found_id(db, "corrections/labels/a.tif") == one
    assert find(db, "corrections/labels/c.tif") is None
    assert find(db, "corrections/labels/A.tif") is None


def test_the_correction_of_one_of_two_dates(db: Connection) -> None:
    first = add(db, 1, "siteA", "in1/2023-05-01/images/siteA.tif", "2023-05-01")
    second = add(db, 2, "siteA", "in1/2023-05-06/images/siteA.tif", "2023-05-06")
    for one, day in ((first, "2023-05-01"), (second, "2023-05-06")):
        compact, year, rest = day.replace("-", ""), day[:4], day[5:].replace("-", "/")
        for path in (
            f"in2/{day}/labels/siteA.tif",
            f"in1/{day}/labels/siteA.gpkg",
            f"in2/{compact}/labels/siteA.tif",
            f"in2/{year}/{rest}/labels/siteA.tif",
            f"in2/labels/{day}/siteA.png",
            f"in2/labels/siteA_{compact}.tif",
            f"in2/labels/{day}_siteA.tif",
            f"in2/pass_{compact}T105000/labels/siteA.tif",
            f"labels/{one}.tif",
            f"labels/siteA-{one}-ada.gpkg",
        ):
            assert found_id(db, path) == one, path
        assert found_id(db, "labels/siteA.tif", acquired_at=f"{day}T10:50:00Z") == one
        assert found_id(db, "labels/siteA.tif", scene=one) == one
        assert found_id(db, "labels/mask.48c0ffee0123.tif", scene=one, scene_name="siteA") == one
        assert found_id(db, f"x/{day}/labels/mask.48c0ffee0123.tif", scene_name="siteA") == one
    with pytest.raises(BadLabel, match="2 scenes fit the label") as error:
        find(db, "in2/labels/siteA.tif")
    for part in (first, second, "siteA", "2023-05-01", "2023-05-06", "/in1/2023-05-06/images/siteA.tif"):
        assert part in str(error.value.found)
    assert f"{first}.tif" in error.value.next_step
    with pytest.raises(BadLabel, match="2 scenes fit the label"):
        find(db, "in2/2023-06-30/labels/siteA.tif")


def test_scenes_that_are_called_after_their_folders(db: Connection) -> None:
    first = add(db, 1, "siteA", "in1/2023-05-01/images/siteA.tif", "2023-05-01")
    second = add(db, 2, "2023-05-06_siteA", "in1/2023-05-06/images/siteA.tif", "2023-05-06")
    add(db, 3, "north_siteA", "in1/north_siteA.tif", "2023-05-01")  # another file name
    assert found_id(db, "in2/2023-05-01/labels/siteA.tif") == first
    assert found_id(db, "in2/2023-05-06/labels/siteA.tif") == second
    assert found_id(db, "labels/2023-05-06_siteA.tif") == second
    with pytest.raises(BadLabel, match="2 scenes fit"):
        find(db, "in2/labels/siteA.tif")


def test_folders_without_a_date(db: Connection) -> None:
    north = add(db, 1, "a", "in/north/images/a.tif", None)
    south = add(db, 2, "a", "in/south/images/a.tif", None)
    assert found_id(db, "corrections/north/labels/a.tif") == north
    assert found_id(db, "corrections/south/labels/a.tif") == south
    assert found_id(db, "in/south/labels/a.tif") == south
    with pytest.raises(BadLabel, match="2 scenes fit"):
        find(db, "corrections/east/labels/a.tif")


def test_the_date_of_another_acquisition_contradicts_the_only_scene_of_the_name(db: Connection) -> None:
    scene = add(db, 1, "siteA", "in1/2023-05-06/images/siteA.tif", "2023-05-06")
    with pytest.raises(BadLabel, match="states another date") as error:
        find(db, "in2/2023-05-01/labels/siteA.tif")
    assert (error.value.expected, scene in error.value.next_step) == ("a scene of 2023-05-01", True)
    with pytest.raises(BadLabel, match="states another date"):
        find(db, "in2/labels/siteA.tif", acquired_at="2023-05-01")
    assert found_id(db, f"in2/2023-05-01/labels/{scene}.tif") == scene


def test_the_date_of_an_upload_is_no_contradiction(db: Connection) -> None:
    scene = add(db, 1, "siteA", "uploads/2024-01-10/images/siteA.tif", "2023-05-06")
    assert found_id(db, "uploads/2024-02-01/labels/siteA.tif") == scene
    other = add(db, 2, "siteB", "images/siteB.tif", "2023-05-06")
    assert found_id(db, "corrections 2024-02-01/labels/siteB.tif") == other


def test_two_scenes_from_one_address_are_never_told_apart_by_their_age(db: Connection) -> None:
    add(db, 1, "a", "in/a.tif", None)
    add(db, 2, "a", "in/a.tif", None)
    with pytest.raises(BadLabel, match="2 scenes fit"):
        find(db, "labels/a.tif")


def test_the_grid_tells_scenes_of_one_name_apart(db: Connection) -> None:
    add(db, 1, "a", "in/a.tif", None)
    moved = [30.0, 0.0, 500_000.0, 0.0, -30.0, 5_000_000.0]
    second = add(db, 2, "a", "in/a.tif", None, transform=moved)
    assert found_id(db, "labels/a.tif", shape=(512, 500), transform=moved) == second


def test_a_product_id_in_the_name(db: Connection) -> None:
    when = datetime(2018, 1, 2, 8, 43, 41, tzinfo=UTC)
    scene = add(db, 1, S2, f"in/{S2}.tif", None, acquired_at=when, sensor="sentinel-2-l1c", place="mgrs:36TVP")
    add(db, 2, "x", "in/x.tif", None, acquired_at=when, sensor="sentinel-2-l1c", place="mgrs:36TVQ")
    landsat_time = datetime(2016, 5, 20, 14, 25, 33, tzinfo=UTC)
    landsat = add(
        db,
        3,
        LANDSAT,
        f"in/{LANDSAT}_B4.TIF",
        None,
        acquired_at=landsat_time,
        sensor="landsat-8-l1",
        place="mgrs:20PRT",
    )
    assert found_id(db, f"labels/{S2}.tif") == scene
    assert found_id(db, f"labels/{S2}_clouds.gpkg") == scene
    assert found_id(db, f"labels/{LANDSAT}_label.tif") == landsat
    assert found_id(db, "labels/whatever.tif", product_id=S2) == scene
    assert find(db, f"labels/{S2.replace('T36TVP', 'T36TVR')}.tif") is None
    again = add(db, 4, S2_LATER, "in/y.tif", None, acquired_at=when, sensor="sentinel-2-l1c", place="mgrs:36TVP")
    assert (found_id(db, f"labels/{S2}.tif"), found_id(db, f"labels/{S2_LATER}.tif")) == (scene, again)
    with pytest.raises(BadLabel, match="2 scenes fit"):
        find(db, f"labels/{S2}_clouds.gpkg")


def test_what_a_label_names_must_exist(db: Connection) -> None:
    add(db, 1, "a", "in/a.tif", None)
    missing = "sc-" + "e" * 20
    for path, tags in (
        (f"labels/{missing}.tif", {}),
        ("labels/a.tif", {"scene": missing}),
        ("labels/a.tif", {"scene": "b"}),
        ("labels/a.tif", {"scene_name": "b"}),
        ("labels/a.tif", {"product_id": S2}),
    ):
        with pytest.raises(BadLabel, match="the catalog has no scene of the"):
            find(db, path, **tags)
    assert found_id(db, "labels/a.tif", product_id="another family") is not None
    with pytest.raises(BadLabel, match="ids of two scenes"):
        find(db, f"labels/{missing}.tif", scene="sc-" + "d" * 20)


def test_names_are_compared_in_one_unicode_normal_form(db: Connection) -> None:
    forms = [unicodedata.normalize(form, "Orléans_été") for form in ("NFC", "NFD")]
    for number, name in enumerate(forms):
        add(db, number, f"{name}{number}", f"in/{name}.tif", None)
        for label in forms:
            assert found_id(db, f"labels/{label}{number}.tif") is not None
