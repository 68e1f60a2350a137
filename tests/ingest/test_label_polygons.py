"""Labels as polygons: burnt onto the scene's grid with exact counts, or refused with the feature. In this process."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.warp import transform_geom
from shapely.geometry import LineString, Point, Polygon, box

from cloudseg.errors import BadLabel, BadScene
from cloudseg.ingest import polygon_file
from cloudseg.ingest.decode_label import read_label_tags
from cloudseg.ingest.job import DecodeLimits, LabelFacts, LabelJob, LabelTagsJob
from cloudseg.ingest.label_errors import NothingDrawn
from cloudseg.ingest.pool import DecoderPool
from tests.ingest.decoding import label_facts
from tests.ingest.polygons import AREAS, NORTH, WEST, geojson, save
from tests.ingest.tiles import SIZE, random_dn, write

PIXELS = SIZE * SIZE
SCENE_ID = "sc-0123456789abcdef0123"
Decode = Callable[..., tuple[LabelFacts, np.ndarray]]


@pytest.fixture
def decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decode:
    """Return a function that burns a label onto a scene of 48 x 48 pixels.

    This process may have imported pyogrio with every driver; the last tests use a decoder process.
    """
    monkeypatch.setattr(polygon_file, "_load", lambda: pyogrio)
    write(tmp_path / "scene.tif", random_dn())

    def run(path: Path, **more: object) -> tuple[LabelFacts, np.ndarray]:
        facts = label_facts(_job(tmp_path, path, **more))
        with rasterio.open(tmp_path / "out.tif") as out:
            return facts, out.read(1)

    return run


def _job(folder: Path, path: Path, **more: object) -> LabelJob:
    values = {
        "path": str(path),
        "display_name": f"labels/{path.name}",
        "scene_id": SCENE_ID,
        "source": "pairs",
        "mappings": [],
        "scene": str(folder / "scene.tif"),
        "needs_georeference": True,
        "out": str(folder / "out.tif"),
        "folder": str(folder),
        "max_pixels": 4_000_000,
        "memory_mb": 2048,
    }
    return LabelJob.model_validate(values | more)


def counts(classes: np.ndarray) -> tuple[int, int, int]:
    """Return the numbers of clear, cloud and unlabeled pixels."""
    return tuple(int((classes == value).sum()) for value in (0, 1, 255))  # type: ignore[return-value]


EXPECTED = (300, 100 + 100 - 16, PIXELS - 400 - 84)


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "fgb", "shp"])
def test_each_format_with_holes_and_cloud_on_clear(decode: Decode, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    label = geojson(path, AREAS) if suffix == "geojson" else save(path, AREAS)
    facts, classes = decode(label)
    assert counts(classes) == EXPECTED
    assert (facts.mapping, facts.labelled_fraction) == ({"clear": 0, "cloud": 1}, (300 + 184) / PIXELS)
    assert (classes[34, 34], classes[31, 31], classes[12, 12], classes[0, 0], classes[47, 0]) == (255, 1, 1, 0, 255)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3035", "EPSG:4326", "EPSG:3857"])
def test_polygons_in_another_crs(decode: Decode, tmp_path: Path, crs: str) -> None:
    moved = [
        (shapely.geometry.shape(transform_geom("EPSG:32631", crs, shapely.geometry.mapping(shape))), values)
        for shape, values in AREAS
    ]
    assert counts(decode(save(tmp_path / "a.gpkg", moved, crs=crs))[1]) == EXPECTED


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("class", ["1", "0", "1"]),
        ("class", [1, 0, 1]),
        ("class", [1.0, 0.0, 1.0]),
        ("CLASS", ["CLOUD", " clear ", "cloud"]),
        ("Class", ["cloud", "Clear", "Cloud"]),
    ],
)
def test_names_and_values_of_the_attribute(decode: Decode, tmp_path: Path, name: str, values: list) -> None:
    features = [(shape, {name: value}) for (shape, _), value in zip(AREAS, values, strict=True)]
    assert counts(decode(geojson(tmp_path / "a.geojson", features))[1]) == EXPECTED


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["cloud", None, None], "empty in feature 1, 2"),
        (["cloud", "", "shadow"], "empty, shadow in feature 1, 2"),
        ([1, 2, 0], "2 in feature 1"),
        ([1, 255, 0], "255 in feature 1"),
        ([0.5, 1.0, 0.0], "0.5 in feature 0"),
        ([True, False, True], "False, True in feature 0, 1, 2"),
        ([["cloud"], ["clear"], ["cloud"]], "in feature 0, 1, 2"),
    ],
)
def test_an_empty_or_unknown_class_names_the_features(decode: Decode, tmp_path: Path, values: list, found: str) -> None:
    features = [(shape, {"class": value}) for (shape, _), value in zip(AREAS, values, strict=True)]
    with pytest.raises(BadLabel, match="class is empty or unknown") as error:
        decode(geojson(tmp_path / "a.geojson", features))
    assert found in str(error.value.found)


def test_no_attribute_class(decode: Decode, tmp_path: Path) -> None:
    for index, values in enumerate(({"label": "cloud"}, {})):
        with pytest.raises(BadLabel, match="no attribute class") as error:
            decode(geojson(tmp_path / f"{index}.geojson", [(AREAS[0][0], values)]))
        assert "Add the attribute class" in error.value.next_step
    with pytest.raises(BadLabel, match="exists twice"):
        decode(geojson(tmp_path / "c.geojson", [(AREAS[0][0], {"Class": "cloud", "CLASS": "clear"})]))


@pytest.mark.parametrize(
    ("shape", "what", "found"),
    [
        (Point(WEST + 5, NORTH - 5), "not a polygon", "feature 1: Point"),
        (LineString([(WEST, NORTH), (WEST + 50, NORTH - 50)]), "not a polygon", "feature 1: LineString"),
        (None, "not a polygon", "feature 1: no geometry"),
        (
            Polygon([(WEST, NORTH), (WEST + 90, NORTH - 90), (WEST + 90, NORTH), (WEST, NORTH - 90)]),
            "a polygon is invalid",
            "feature 1: Self-intersection",
        ),
    ],
)
def test_a_feature_that_is_no_valid_polygon(
    decode: Decode, tmp_path: Path, shape: object, what: str, found: str
) -> None:
    with pytest.raises(BadLabel, match=what) as error:
        decode(geojson(tmp_path / "a.geojson", [AREAS[0], (shape, {"class": "cloud"})]))
    assert found in str(error.value.found)


def test_polygons_elsewhere_or_without_crs(decode: Decode, tmp_path: Path) -> None:
    far = [(box(WEST + 9000, NORTH, WEST + 9100, NORTH + 100), {"class": "cloud"})]
    with pytest.raises(BadLabel, match="no polygon covers"):
        decode(geojson(tmp_path / "far.geojson", far))
    with pytest.raises(BadLabel, match="no longitudes and latitudes"):
        decode(geojson(tmp_path / "meters.geojson", AREAS, crs=None))
    named = geojson(tmp_path / "urn.geojson", AREAS, crs=None)
    named.write_text(
        named.read_text().replace(
            '"features"',
            '"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}, "features"',
            1,
        )
    )
    assert counts(decode(named)[1]) == EXPECTED
    shapefile = save(tmp_path / "a.shp", AREAS)
    shapefile.with_suffix(".prj").unlink()
    with pytest.raises(BadLabel, match="need a coordinate reference system"):
        decode(shapefile)
    write(tmp_path / "bare.tif", random_dn(), crs=None, transform=None)
    with pytest.raises(BadLabel, match="need a coordinate reference system") as error:
        decode(geojson(tmp_path / "a.geojson", AREAS), scene=str(tmp_path / "bare.tif"))
    assert "raster" in error.value.next_step


def test_an_empty_layer_is_not_a_bad_label(decode: Decode, tmp_path: Path) -> None:
    for suffix in ("gpkg", "geojson", "fgb", "shp"):
        path = tmp_path / f"a.{suffix}"
        label = geojson(path, []) if suffix == "geojson" else save(path, [])
        with pytest.raises(NothingDrawn):
            decode(label)


def test_the_layer_called_labels_is_read(decode: Decode, tmp_path: Path) -> None:
    label = save(tmp_path / "a.gpkg", AREAS[:1], layer="drawing")
    assert counts(decode(label)[1])[1] == 100
    save(label, AREAS[1:2], layer="notes", append=True)
    with pytest.raises(BadLabel, match="2 layers with geometries") as error:
        decode(label)
    assert error.value.found == "drawing, notes"
    save(label, AREAS, layer="labels", append=True)
    assert counts(decode(label)[1]) == EXPECTED


def test_a_geopackage_that_was_written_with_a_journal(decode: Decode, tmp_path: Path) -> None:
    label = save(tmp_path / "a.gpkg", AREAS)
    with sqlite3.connect(label) as db:
        db.execute("PRAGMA journal_mode=WAL")
    db.close()
    assert label.read_bytes()[18] == 2
    assert counts(decode(label)[1]) == EXPECTED


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.geojson", b'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>/etc/passwd</SrcDataSource>'),
        ("b.gpkg", b"SQLite format 3\0" + bytes(4096)),
        ("c.fgb", b'{"type": "FeatureCollection", "features": []}'),
        ("d.shp", b"\0\0\x27\x0a" + bytes(28) + b"\x01\0\0\0" + bytes(96)),
        ("e.geojson", b""),
        ("f.geojson", b'{"type": "Topology", "objects": {}, "arcs": []}'),
        ("g.geojson", b'{"type": "FeatureCollection", "features": [{"type": "Fea'),
        ("h.gpkg", b"SQLite format 3\0" + bytes(52) + b"GPKG" + bytes(4096)),
    ],
)
def test_other_content_is_refused(decode: Decode, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadLabel):
        decode(tmp_path / name)


def test_a_decoder_process_has_four_drivers_and_reads_each_format(tmp_path: Path) -> None:
    code = "from cloudseg.ingest import polygon_file; print(*sorted(polygon_file._load().list_drivers()), sep=',')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ESRI Shapefile,FlatGeobuf,GPKG,GeoJSON"
    write(tmp_path / "scene.tif", random_dn())
    with DecoderPool(DecodeLimits(), 1) as pool, pool.acquire() as decoder:
        for path in (*(save(tmp_path / f"a.{suffix}", AREAS) for suffix in ("gpkg", "fgb", "shp")),):
            assert decoder.decode_label(_job(tmp_path, path)).labelled_fraction == (300 + 184) / PIXELS
        moved = geojson(tmp_path / "a.geojson", AREAS)
        assert decoder.decode_label(_job(tmp_path, moved)).labelled_fraction == (300 + 184) / PIXELS
        with pytest.raises(NothingDrawn):
            decoder.decode_label(_job(tmp_path, geojson(tmp_path / "b.geojson", [])))
        (tmp_path / "c.geojson").write_bytes(b'{"type": "Topology", "objects": {}, "arcs": []}')
        with pytest.raises(BadLabel, match="cannot be read"):
            decoder.decode_label(_job(tmp_path, tmp_path / "c.geojson"))


def test_limits(decode: Decode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = geojson(tmp_path / "a.geojson", AREAS)
    for name, value, what in (
        ("MAX_FEATURES", 2, "more features"),
        ("MAX_VERTICES", 19, "more vertices"),
        ("MAX_BYTES", 100, "larger than allowed"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(polygon_file, name, value)
            with pytest.raises(BadLabel, match=what):
                decode(label)


def test_polygons_keep_the_link_to_the_mask_that_they_correct(decode: Decode, tmp_path: Path) -> None:
    mask = np.zeros((1, SIZE, SIZE), np.uint8)
    mask[:, :9] = 1
    masks = {"masks": [{"mask_id": "mk-1", "path": str(write(tmp_path / "mask.tif", mask, names=["cloud mask"]))}]}
    label = save(tmp_path / "a.gpkg", AREAS, layer_metadata={"CLOUDSEG_MASK_ID": "mk-1"})
    assert decode(label, **masks)[0].corrects_mask_id == "mk-1"
    assert decode(label)[0].corrects_mask_id is None  # the mask is not known any more
    assert decode(save(tmp_path / "b.gpkg", AREAS), **masks)[0].corrects_mask_id is None


def test_polygons_that_agree_with_a_part_of_the_mask_are_a_label(decode: Decode, tmp_path: Path) -> None:
    mask = np.zeros((1, SIZE, SIZE), np.uint8)
    mask[:, :20] = 1
    masks = {"masks": [{"mask_id": "mk-1", "path": str(write(tmp_path / "mask.tif", mask, names=["cloud mask"]))}]}
    drawn = geojson(tmp_path / "a.geojson", [AREAS[0]])
    assert counts(decode(drawn, **masks)[1]) == (0, 100, PIXELS - 100)


def test_attributes_are_tags(decode: Decode, tmp_path: Path) -> None:
    tags = {"scene_id": SCENE_ID, "label_source": "analyst:ada"}
    label = geojson(tmp_path / "a.geojson", [(shape, {**values, **tags}) for shape, values in AREAS])
    assert decode(label)[0].source == "analyst:ada"
    job = LabelTagsJob(path=str(label), display_name="a", folder=str(tmp_path), max_pixels=10_000, memory_mb=1024)
    assert (read_label_tags(job).scene, read_label_tags(job).shape) == (SCENE_ID, None)
    two = [(AREAS[0][0], {"class": "cloud", "scene_id": f"sc-{letter * 20}"}) for letter in "ab"]
    with pytest.raises(BadLabel, match="different values of scene_id"):
        decode(geojson(tmp_path / "b.geojson", two))


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "fgb", "shp"])
def test_damaged_polygons_become_a_label_or_a_reason(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "scene.tif", random_dn())
    path = tmp_path / f"a.{suffix}"
    whole = (geojson(path, AREAS) if suffix == "geojson" else save(path, AREAS)).read_bytes()
    random = np.random.default_rng(7)
    reasons = []
    with DecoderPool(DecodeLimits(), 1) as pool, pool.acquire() as decoder:
        for round_ in range(12):
            damaged = bytearray(whole[: len(whole) if round_ % 3 else int(random.integers(1, len(whole)))])
            for at in random.integers(0, len(damaged), 20):
                damaged[at] = int(random.integers(0, 256))
            path.write_bytes(damaged)
            try:
                decoder.decode_label(_job(tmp_path, path))
            except (BadLabel, BadScene) as error:
                reasons.append(str(error))
    assert len(reasons) > 3
    assert str(tmp_path) not in " ".join(reasons)
