"""The folder for QGIS: what GDAL reads from it, what QGIS must find in it, and that no drawing is ever overwritten."""

import csv
import json
import sqlite3
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from shapely import box, from_wkt, to_wkb

from cloudseg.errors import InputError
from cloudseg.worklist import Worklist, build_worklist, write_folder
from tests.worklist.conftest import World, sure, undecided


@pytest.fixture
def worklist(world: World) -> Worklist:
    for place in "ab":
        world.mask(world.scene(f"block:{place}"), undecided(0.5, window=(256, 0)))
    return build_worklist(world.store, world.catalog, weights_id=world.champion, count=5, megapixels=100)


@pytest.fixture
def folder(world: World, worklist: Worklist, tmp_path: Path) -> Path:
    made = tmp_path / "lists" / "worklist"
    write_folder(world.store, world.catalog, worklist, made)
    return made


def test_everything_is_there_and_nothing_else(folder: Path, worklist: Worklist):
    scenes = [item.scene_id for item in worklist.items]
    expected = {"README.md", "worklist.qgs", "worklist.json", "classes.csv", "labels.qml"}
    expected |= {f"labels/{scene}.gpkg" for scene in scenes}
    expected |= {f"layers/{scene}/{name}.tif" for scene in scenes for name in ("rgb", "mask")}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == expected
    assert list(folder.parent.iterdir()) == [folder]


def test_the_layer_is_empty_and_has_the_scenes_grid_system(folder: Path, worklist: Worklist):
    for item in worklist.items:
        path = folder / "labels" / f"{item.scene_id}.gpkg"
        info = pyogrio.read_info(path, layer="labels")
        assert info["features"] == 0
        assert info["crs"] == "EPSG:32631"
        assert info["geometry_type"] == "MultiPolygon"
        assert list(info["fields"]) == ["class", "note", "scene_id", "mask_id"]
        assert info["layer_metadata"] == {"CLOUDSEG_SCENE_ID": item.scene_id, "CLOUDSEG_MASK_ID": item.mask_id}
        assert pyogrio.list_layers(path)[0].tolist() == ["labels", "MultiPolygon"]


def test_the_style_is_in_the_geopackage(folder: Path, worklist: Worklist):
    item = worklist.items[0]
    with closing(sqlite3.connect(folder / "labels" / f"{item.scene_id}.gpkg")) as db:
        rows = db.execute("SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles").fetchall()
        registered = db.execute("SELECT data_type FROM gpkg_contents WHERE table_name = 'layer_styles'").fetchall()
        geometry = db.execute("SELECT column_name FROM gpkg_geometry_columns WHERE table_name = 'labels'").fetchone()
    assert registered == [("attributes",)]  # without this row QGIS does not find the table
    ((table, column, default, qml),) = rows
    assert (table, column, default) == ("labels", geometry[0], 1)
    check_style(read_document(qml), item.scene_id, item.mask_id)


def read_document(text: str) -> ET.Element:
    """Return the root of a QGIS document that this code wrote; its first line is the document type."""
    first, _, rest = text.partition("\n")
    assert first == "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
    return ET.fromstring(rest)  # noqa: S314 - written by the test itself


def check_style(style: ET.Element, scene_id: str, mask_id: str) -> None:
    """Check what a user of QGIS depends on: colors by class, a list of classes, no polygon without class or scene."""
    renderer = style.find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "class")
    categories = {entry.get("value"): entry.get("symbol") for entry in renderer.iter("category")}
    assert set(categories) == {"cloud", "clear", ""}
    assert set(categories.values()) == {symbol.get("name") for symbol in renderer.iter("symbol")}
    widgets = {field.get("name"): field.find("editWidget") for field in style.iter("field")}
    assert {name: widget.get("type") for name, widget in widgets.items()} == {
        "class": "ValueMap",
        "note": "TextEdit",
        "scene_id": "Hidden",
        "mask_id": "Hidden",
    }
    values = [option.get("value") for option in widgets["class"].findall("config/Option/Option/Option/Option")]
    assert values == ["cloud", "clear"]
    defaults = {entry.get("field"): entry.get("expression") for entry in style.iter("default")}
    assert defaults == {"scene_id": f"'{scene_id}'", "mask_id": f"'{mask_id}'"}
    (constraint,) = style.iter("constraint")
    assert (constraint.get("field"), constraint.get("constraints"), constraint.get("notnull_strength")) == (
        "class",
        "1",
        "1",
    )


def project(folder: Path) -> ET.Element:
    return read_document((folder / "worklist.qgs").read_text("utf-8"))


def test_the_project_finds_its_layers_wherever_the_folder_lies(folder: Path, worklist: Worklist, tmp_path: Path):
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    root = project(moved)
    assert root.findtext("properties/Paths/Absolute") == "false"
    layers = {layer.findtext("id"): layer for layer in root.iter("maplayer")}
    assert len(layers) == 3 * len(worklist.items)
    for layer in layers.values():
        source, _, options = (layer.findtext("datasource") or "").partition("|")
        assert source.startswith("./")
        if layer.findtext("provider") == "ogr":
            assert options == "layername=labels"
            assert pyogrio.read_info(moved / source, layer="labels")["features"] == 0
        else:
            with rasterio.open(moved / source) as raster:
                assert raster.crs == "EPSG:32631"
        assert layer.findtext("srs/spatialrefsys/authid") == "EPSG:32631"
    nodes = [node.get("id") for node in root.iter("layer-tree-layer")]
    assert sorted(nodes) == sorted(layers)
    kinds = [node.rpartition("_sc")[0] for node in nodes[:3]]
    assert kinds == ["labels", "mask", "rgb"]  # the first of a group is drawn last: polygons on top


def test_the_project_has_the_style_of_every_layer(folder: Path, worklist: Worklist):
    first = worklist.items[0]
    by_id = {layer.findtext("id"): layer for layer in project(folder).iter("maplayer")}
    check_style(by_id[f"labels_{first.scene_id}"], first.scene_id, first.mask_id)
    entries = by_id[f"mask_{first.scene_id}"].findall("pipe/rasterrenderer/colorPalette/paletteEntry")
    alpha = {entry.get("label"): int(entry.get("alpha") or "") for entry in entries}
    assert alpha["clear"] == 0
    assert 0 < alpha["cloud"] < 255
    renderer = by_id[f"rgb_{first.scene_id}"].find("pipe/rasterrenderer")
    assert renderer is not None
    assert renderer.get("type") == "multibandcolor"


def test_a_bookmark_leads_to_every_window(folder: Path, worklist: Worklist):
    root = project(folder)
    bookmarks = list(root.iter("Bookmark"))
    assert len(bookmarks) == sum(len(item.windows) for item in worklist.items)
    # The window at row 256, column 0 of 30 m pixels from (400000, 5000000).
    expected = box(4e5, 5e6 - 512 * 30, 4e5 + 256 * 30, 5e6 - 256 * 30)

    assert from_wkt(bookmarks[0].get("extent")).equals(expected)
    assert bookmarks[0].findtext("spatialrefsys/authid") == "EPSG:32631"
    extent = [float(root.findtext(f"mapcanvas/extent/{name}") or "") for name in ("xmin", "ymin", "xmax", "ymax")]
    assert tuple(extent) == expected.bounds
    assert len({mark.get("id") for mark in bookmarks}) == len(bookmarks)  # QGIS drops a second one of the same id


def test_the_rasters_lie_on_the_scene(folder: Path, world: World, worklist: Worklist):
    item = worklist.items[0]
    layers = folder / "layers" / item.scene_id
    with rasterio.open(layers / "rgb.tif") as rgb, rasterio.open(layers / "mask.tif") as mask:
        assert (rgb.count, rgb.dtypes[0], rgb.shape) == (3, "uint8", (512, 512))
        assert rgb.transform == mask.transform == rasterio.Affine(30, 0, 4e5, 0, -30, 5e6)
        assert rgb.read().std() > 10  # the pattern of the ground is visible
        assert mask.nodata == 255
        assert mask.tags()["CLOUDSEG_MASK_ID"] == item.mask_id
        assert mask.colormap(1)[1] == (245, 245, 245, 255)
        steps = undecided(0.5, window=(256, 0))
        assert np.array_equal(mask.read(1), (steps >= 100).astype(np.uint8))


def test_large_scenes_are_cut_around_the_windows(world: World, tmp_path: Path):
    scene_id = world.scene("block:large", size=3000)
    steps = sure(size=3000)
    steps[2300:2400, 700:900] = 100
    world.mask(scene_id, steps)
    made = build_worklist(world.store, world.catalog, weights_id=world.champion, count=5, megapixels=100)
    write_folder(world.store, world.catalog, made, tmp_path / "w")
    with rasterio.open(tmp_path / "w" / "layers" / scene_id / "mask.tif") as mask:
        assert max(mask.shape) < 2048
        row, col = mask.index(4e5 + 800 * 30, 5e6 - 2350 * 30)
        assert mask.read(1)[row, col] == 1
        assert mask.read(1).sum() == 100 * 200


def test_a_wide_cut_is_averaged_for_the_picture_only(world: World, tmp_path: Path):
    scene_id = world.scene("block:large", size=3000)
    steps = sure(size=3000)
    steps[10:200, 10:200] = steps[2800:2990, 2800:2990] = 100
    world.mask(scene_id, steps)
    made = build_worklist(world.store, world.catalog, weights_id=world.champion, count=5, megapixels=100)
    write_folder(world.store, world.catalog, made, tmp_path / "w")
    layers = tmp_path / "w" / "layers" / scene_id
    with rasterio.open(layers / "mask.tif") as mask, rasterio.open(layers / "rgb.tif") as rgb:
        assert (mask.shape, rgb.shape) == ((3000, 3000), (1500, 1500))
        assert rgb.bounds == mask.bounds


def test_the_other_files_say_what_to_do(folder: Path, worklist: Worklist):
    readme = (folder / "README.md").read_text("utf-8")
    assert [line[0] for line in readme.splitlines() if line[:2] in {f"{n}." for n in range(1, 10)}] == list("12345")
    assert "cloudseg ingest" in readme
    assert worklist.items[0].words in readme
    with (folder / "classes.csv").open() as file:
        assert list(csv.reader(file)) == [["class", "value"], ["cloud", "1"], ["clear", "0"]]
    facts = json.loads((folder / "worklist.json").read_text("utf-8"))
    assert facts["worklist_id"] == worklist.worklist_id
    assert [item["scene_id"] for item in facts["items"]] == [item.scene_id for item in worklist.items]
    assert read_document((folder / "labels.qml").read_text("utf-8")).tag == "qgis"


def test_a_drawing_is_never_overwritten(world: World, worklist: Worklist, folder: Path):
    item = worklist.items[0]
    path = folder / "labels" / f"{item.scene_id}.gpkg"
    draw(path, box(4e5, 4.99e6, 4.01e5, 4.995e6), "clear")
    before = path.read_bytes()
    with pytest.raises(InputError, match="must be new"):
        write_folder(world.store, world.catalog, worklist, folder)
    assert path.read_bytes() == before


def draw(path: Path, polygon: object, name: str) -> None:
    """Append a polygon to the layer, as a GIS does."""
    pyogrio.raw.write(
        path,
        np.array([to_wkb(polygon)], object),
        [np.array([name], object)],
        np.array(["class"], object),
        layer="labels",
        driver="GPKG",
        geometry_type="Polygon",
        crs="EPSG:32631",
        append=True,
        promote_to_multi=True,
    )


def test_a_polygon_can_be_added_and_the_style_stays(folder: Path, worklist: Worklist):
    path = folder / "labels" / f"{worklist.items[0].scene_id}.gpkg"
    draw(path, box(4e5, 4.99e6, 4.01e5, 4.995e6), "clear")
    _, _, geometry, fields = pyogrio.raw.read(path, layer="labels")
    assert len(geometry) == 1
    assert fields[0].tolist() == ["clear"]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM layer_styles").fetchone() == (1,)


def test_the_same_worklist_makes_the_same_files(world: World, worklist: Worklist, folder: Path, tmp_path: Path):
    again = tmp_path / "again"
    again.mkdir()  # an empty folder may exist
    write_folder(world.store, world.catalog, worklist, again)
    for path in sorted(folder.rglob("*.*")):
        other = again / path.relative_to(folder)
        if path.suffix == ".gpkg":
            assert dump(path) == dump(other)
        elif path.is_file():
            assert path.read_bytes() == other.read_bytes(), path


def dump(path: Path) -> list[str]:
    """Return the content of a GeoPackage as SQL; the tables of its spatial index hold binary pages."""
    with closing(sqlite3.connect(path)) as db:
        return [line for line in db.iterdump() if "rtree_labels" not in line]


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3031"])
def test_other_grid_systems_keep_theirs(world: World, tmp_path: Path, crs: str):
    scene_id = world.scene("block:a", crs=crs)
    world.mask(scene_id, undecided(0.5))
    made = build_worklist(world.store, world.catalog, weights_id=world.champion, count=5, megapixels=100)
    write_folder(world.store, world.catalog, made, tmp_path / "w")
    assert pyogrio.read_info(tmp_path / "w" / "labels" / f"{scene_id}.gpkg", layer="labels")["crs"] == crs
    units = project(tmp_path / "w").findtext("mapcanvas/units")
    assert units == ("degrees" if crs == "EPSG:4326" else "meters")


def test_a_crs_without_a_code_is_kept_as_wkt(world: World, tmp_path: Path):
    wkt = rasterio.crs.CRS.from_string("+proj=laea +lat_0=10 +lon_0=-81 +datum=WGS84 +units=m").to_wkt()
    scene_id = world.scene("block:a", crs=wkt)
    world.mask(scene_id, undecided(0.5))
    made = build_worklist(world.store, world.catalog, weights_id=world.champion, count=5, megapixels=100)
    write_folder(world.store, world.catalog, made, tmp_path / "w")
    found = pyogrio.read_info(tmp_path / "w" / "labels" / f"{scene_id}.gpkg", layer="labels")["crs"]
    assert rasterio.crs.CRS.from_user_input(found) == rasterio.crs.CRS.from_wkt(wkt)
    stated = project(tmp_path / "w").findtext("projectCrs/spatialrefsys/wkt") or ""
    assert rasterio.crs.CRS.from_user_input(stated) == rasterio.crs.CRS.from_wkt(wkt)


def test_an_empty_worklist_is_a_folder_without_a_project(world: World, tmp_path: Path):
    write_folder(world.store, world.catalog, Worklist.empty(), tmp_path / "w")
    assert not (tmp_path / "w" / "worklist.qgs").exists()
    assert (tmp_path / "w" / "README.md").is_file()


def test_a_file_in_its_place_is_an_error(world: World, worklist: Worklist, tmp_path: Path):
    (tmp_path / "w").write_text("mine")
    with pytest.raises(InputError, match="must be new"):
        write_folder(world.store, world.catalog, worklist, tmp_path / "w")
    assert (tmp_path / "w").read_text() == "mine"
