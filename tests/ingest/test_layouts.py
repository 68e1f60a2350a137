"""Every layout: recognized, and read with the right bands, scale, place, time and label."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine, from_origin

from cloudseg.errors import InputError, LayoutUnknown
from cloudseg.grid import Window
from cloudseg.ingest.inbox import StoreInbox
from cloudseg.ingest.inbox_file import NotRead
from cloudseg.raster.read import open_raster, read_label, read_scene
from tests.ingest.conftest import Service
from tests.ingest.tiles import SIZE, clouds, random_dn, write

PRODUCT = "S2A_MSIL1C_20180102T084341_N0206_R064_T36TVP_20180102T110333"
LANDSAT = "LC08_L1TP_002053_20160520_20170324_01_T1"
SOUTH_UP = Affine(10, 0, 500_000, 0, 10, 5_600_000 - SIZE * 10)
MTL = """GROUP = L1_METADATA_FILE
  DATE_ACQUIRED = 2016-05-20
  SCENE_CENTER_TIME = "14:25:33.1234560Z"
  SUN_ELEVATION = 30.0
""" + "".join(
    f"  REFLECTANCE_MULT_BAND_{band} = 2.0000E-05\n  REFLECTANCE_ADD_BAND_{band} = -0.100000\n" for band in range(1, 10)
)


def pixels_of(service: Service, name: str, *bands: str) -> np.ndarray:
    scene = service.scenes()[name]
    with open_raster(service.store.gdal_path(scene.key)) as dataset:
        return read_scene(dataset, Window(0, 0, scene.height, scene.width), bands or scene.bands)[0]


def test_pairs_of_true_color_with_a_product_id(service: Service, inbox: Path) -> None:
    write(inbox / "images" / f"{PRODUCT}.tif", random_dn(low=5, high=255, dtype="uint8"))
    write(inbox / "labels" / f"{PRODUCT}.tif", clouds(), names=["label"], nodata=255)
    record = service.ingest(inbox)
    assert (len(record.added), len(record.labelled), record.quarantined) == (1, 1, [])
    scene = service.scenes()[PRODUCT]
    assert (scene.layout, scene.sensor, scene.place) == ("pairs", "sentinel-2-l1c", "mgrs:36TVP")
    assert scene.acquired_at == datetime(2018, 1, 2, 8, 43, 41, tzinfo=UTC)
    assert scene.publishable
    assert "TCI" in scene.radiometry
    raw = random_dn(low=5, high=255, dtype="uint8")
    assert np.array_equal(pixels_of(service, PRODUCT), np.rint(raw * np.float32(3558 / 255)))
    label = service.labels(scene)[0]
    assert (label.version, label.cloud_fraction, label.labelled_fraction) == (1, 0.5, 1.0)
    with open_raster(service.store.gdal_path(label.key)) as dataset:
        assert np.array_equal(read_label(dataset, Window(0, 0, SIZE, SIZE)), clouds()[0])


def test_the_catalogue_of_cloud_masks_has_its_own_stretch(service: Service, inbox: Path) -> None:
    tags = {"SOURCE": "Sentinel-2 Cloud Mask Catalogue, Francis et al. 2020, Zenodo 4172871"}
    raw = random_dn(low=5, high=256, dtype="uint8")
    write(inbox / "images" / f"{PRODUCT}.tif", raw, tags=tags)
    write(inbox / "labels" / f"{PRODUCT}.tif", clouds(), names=["label"], nodata=255)
    assert service.ingest(inbox).quarantined == []
    assert "4172871" in service.scenes()[PRODUCT].radiometry
    assert np.array_equal(pixels_of(service, PRODUCT), np.rint(raw * np.float32(7000 / 255)))


def test_an_all_white_scene_of_the_catalogue_is_accepted(service: Service, inbox: Path) -> None:
    tags = {"SOURCE": "doi 10.5281/zenodo.4172871"}
    write(inbox / "images" / f"{PRODUCT}.tif", np.full((3, SIZE, SIZE), 255, np.uint8), tags=tags)
    write(inbox / "labels" / f"{PRODUCT}.tif", clouds(), names=["label"], nodata=255)
    assert service.ingest(inbox).quarantined == []


def test_l8_biome_pairs_train_but_are_never_published(service: Service, inbox: Path) -> None:
    values = np.repeat(np.array([[64, 128, 192, 255]], np.uint8), SIZE, 0).repeat(SIZE // 4, 1)[None]
    write(
        inbox / "images" / "Forest_05_0415.tif",
        random_dn(4),
        names=("red", "green", "blue", "nir"),
        crs=None,
        transform=None,
        scale=1e-4,
    )
    write(inbox / "labels" / "Forest_05_0415.tif", values, names=["label"], crs=None, transform=None)
    assert service.ingest(inbox).quarantined == []
    scene = service.scenes()["Forest_05_0415"]
    assert (scene.place, scene.publishable, scene.crs, scene.tags["biome"]) == (
        "block:l8biome-Forest_05",
        False,
        None,
        "forest",
    )
    assert service.labels(scene)[0].cloud_fraction == 0.5
    assert service.labels(scene)[0].class_mapping == {"0": 255, "64": 0, "128": 0, "192": 1, "255": 1}


def test_other_pairs_without_crs_are_quarantined(service: Service, inbox: Path) -> None:
    write(inbox / "images" / "somewhere.tif", random_dn(), crs=None, transform=None)
    write(inbox / "labels" / "somewhere.tif", clouds(), names=["label"], crs=None, transform=None)
    service.ingest(inbox)
    assert "no coordinate reference system" in service.quarantine()["somewhere"].what


@pytest.mark.parametrize("published", [False, True])
def test_on_cloud_n_chip(service: Service, inbox: Path, published: bool) -> None:
    features = inbox / "train_features" if published else inbox
    tags = {"TIFFTAG_DATETIME": "2020-04-24T08:20:39Z"}
    for index, code in enumerate(("B02", "B03", "B04", "B08")):
        write(features / "adwp" / f"{code}.tif", random_dn(1, seed=index), names=None, nodata=0, tags=tags)
    write(inbox / "train_labels" / "adwp.tif" if published else inbox / "adwp" / "label.tif", clouds(), names=None)
    record = service.ingest(inbox)
    assert (len(record.added), len(record.labelled), record.quarantined) == (1, 1, [])
    scene = service.scenes()["adwp"]
    assert (scene.layout, scene.bands) == ("oncloudn", ["red", "green", "blue", "nir"])
    assert scene.acquired_at == datetime(2020, 4, 24, 8, 20, 39, tzinfo=UTC)
    assert scene.place == "mgrs:31UER"
    assert np.array_equal(
        pixels_of(service, "adwp", "blue", "nir"), np.concatenate([random_dn(1, seed=0), random_dn(1, seed=3)])
    )


def test_cloudsen12_folder_counts_shadow_as_clear(service: Service, inbox: Path) -> None:
    classes = np.repeat(np.arange(4, dtype=np.float32), SIZE // 4)[None, None, :].repeat(SIZE, 1)
    write(inbox / "ROI_1" / "S2L1C.tif", random_dn(), names=None)
    write(inbox / "ROI_1" / "manual_hq.tif", classes, names=None, nodata=-3.4e38)
    assert service.ingest(inbox).quarantined == []
    label = service.labels(service.scenes()["ROI_1"])[0]
    assert (label.source, label.cloud_fraction) == ("cloudsen12", 0.5)
    assert label.class_mapping == {"0": 0, "1": 1, "2": 1, "3": 0}


@pytest.mark.parametrize("published", [False, True])
def test_38cloud_patches_flat_and_as_published(service: Service, inbox: Path, published: bool) -> None:
    name = f"patch_27_2_by_6_{LANDSAT}"
    for index, band in enumerate(("red", "green", "blue", "nir")):
        folder = inbox / f"train_{band}" if published else inbox
        write(
            folder / f"{band}_{name}.TIF",
            random_dn(1, seed=index, low=8000, high=30000),
            names=None,
            crs=None,
            transform=None,
        )
    folder = inbox / "train_gt" if published else inbox
    write(folder / f"gt_{name}.TIF", clouds() * 255, names=None, crs=None, transform=None)
    assert service.ingest(inbox).quarantined == []
    scene = service.scenes()[name]
    assert (scene.place, scene.publishable, scene.footprint_wkb) == ("wrs2:002053", False, None)
    assert scene.acquired_at == datetime(2016, 5, 20, tzinfo=UTC)
    assert service.labels(scene)[0].cloud_fraction == 0.5
    expected = random_dn(1, seed=0, low=8000, high=30000) * 0.2 - 1000
    assert np.abs(pixels_of(service, name, "red") - expected).max() <= 0.51


def test_landsat_bands_with_mtl_are_corrected_for_the_sun(service: Service, inbox: Path) -> None:
    for index, code in enumerate(("B2", "B3", "B4", "B5", "B8", "BQA")):
        write(inbox / f"{LANDSAT}_{code}.TIF", random_dn(1, seed=index, low=8000, high=20000), names=None)
    (inbox / f"{LANDSAT}_MTL.txt").write_text(MTL)
    assert service.ingest(inbox).quarantined == []
    scene = service.scenes()[LANDSAT]
    assert scene.bands == ["red", "green", "blue", "nir"]
    assert scene.acquired_at == datetime(2016, 5, 20, 14, 25, 33, tzinfo=UTC)
    assert "sun's elevation 30.0" in scene.radiometry
    expected = (random_dn(1, seed=2, low=8000, high=20000) * 2e-5 - 0.1) / 0.5 * 10_000
    assert np.abs(pixels_of(service, LANDSAT, "red") - expected).max() <= 0.51


def test_landsat_reflectance_as_floats_has_a_margin_of_zeros(service: Service, inbox: Path) -> None:
    for index, code in enumerate(("B2", "B3", "B4")):
        values = random_dn(1, seed=index).astype("float32") / 10_000
        values[:, :12] = 0
        values[0, 20, 20] = np.nan
        write(inbox / f"LC80130312015295LGN00_{code}_toa.tif", values, names=None)
    service.ingest(inbox)
    scene = service.scenes()["LC80130312015295LGN00"]
    assert scene.valid_fraction == pytest.approx(0.75 - 1 / SIZE**2)
    assert scene.acquired_at == datetime(2015, 10, 22, tzinfo=UTC)


@pytest.mark.parametrize(("baseline", "offset"), [("N0206", 0), ("N0400", -1000)])
def test_sentinel2_product_folder_with_jp2_bands(service: Service, inbox: Path, baseline: str, offset: int) -> None:
    product = f"S2A_MSIL1C_20220301T084341_{baseline}_R064_T36TVP_20220301T110333"
    data = inbox / f"{product}.SAFE" / "GRANULE" / "L1C_T36TVP" / "IMG_DATA"
    for index, code in enumerate(("B02", "B03", "B04", "B08", "B11", "TCI")):
        write(
            data / f"T36TVP_20220301T084341_{code}.jp2",
            random_dn(1, 128, seed=index, low=1200),
            names=None,
            driver="JP2OpenJPEG",
            quality=100,
            reversible="YES",
        )
    record = service.ingest(inbox)
    assert (len(record.added), record.quarantined) == (1, [])
    scene = service.scenes()[product]
    assert (scene.bands, scene.place) == (["red", "green", "blue", "nir"], "mgrs:36TVP")
    assert np.array_equal(pixels_of(service, product, "red"), random_dn(1, 128, seed=2, low=1200).astype(int) + offset)


def test_bands_of_another_resolution_are_resampled_and_tagged(service: Service, inbox: Path) -> None:
    for index, code in enumerate(("B02", "B03", "B04")):
        write(inbox / f"T31UDQ_20180301T084341_{code}.tif", random_dn(1, seed=index), names=None)
    write(
        inbox / "T31UDQ_20180301T084341_B11.tif",
        random_dn(1, SIZE // 2),
        names=None,
        transform=from_origin(500_000, 5_600_000, 20, 20),
    )
    assert service.ingest(inbox).quarantined == []
    scene = service.scenes()["T31UDQ_20180301T084341"]
    assert scene.bands == ["red", "green", "blue", "swir16"]
    assert scene.tags["resampled"] == "swir16: 20 m to 10 m, bilinear"
    assert scene.place == "mgrs:31UDQ"
    assert np.array_equal(pixels_of(service, scene.name, "red"), random_dn(1, seed=2))


def test_bands_are_named_on_the_command_line(service: Service, inbox: Path) -> None:
    write(inbox / "four.tif", random_dn(4), names=None)
    service.ingest(inbox)
    assert "band names are unknown" in service.quarantine()["four"].what
    record = service.ingest(inbox, bands=["nir", "red", "green", "blue"])
    assert len(record.added) == 1
    assert service.quarantine() == {}  # released, because the file is good now
    assert np.array_equal(pixels_of(service, "four", "red"), random_dn(4)[1:2])


def test_a_named_layout_is_the_only_one_used(service: Service, inbox: Path) -> None:
    write(inbox / "scene.tif", random_dn())
    assert service.ingest(inbox, layout="38cloud", dry_run=True).quarantined != []
    with pytest.raises(LayoutUnknown, match="multiband"):
        service.ingest(inbox, layout="mosaic")
    with pytest.raises(InputError, match="unknown bands"):
        service.ingest(inbox, bands=["red", "purple"])
    with pytest.raises(InputError, match="no such folder"):
        service.ingest(inbox / "nowhere")


def test_an_inbox_in_the_object_store(service: Service, inbox: Path) -> None:
    service.store.put_file("inbox/scene.tif", write(inbox / "scene.tif", random_dn()))
    record = service.ingest("store://inbox")
    assert len(record.added) == 1
    assert service.scenes()["scene"].source_uri == "store://inbox/scene.tif"
    write(service.store.root / "inbox" / "deep" / f"{PRODUCT}.TIF", random_dn(seed=1))
    record = service.ingest("store://inbox/")
    assert (len(record.added), record.known, record.source) == (1, 1, "store://inbox")
    assert service.scenes()[PRODUCT].source_uri == f"store://inbox/deep/{PRODUCT}.TIF"
    assert service.ingest("store://nothing").known == 0
    for wrong in ("store://", "store://..", "store://../inbox", "store://INBOX"):
        with pytest.raises(InputError, match="not a valid prefix of the store"):
            service.ingest(wrong)


def test_an_inbox_in_a_store_without_folders(service: Service, inbox: Path) -> None:
    service.store.put_file("inbox/scene.tif", write(inbox / "scene.tif", random_dn()))
    found = StoreInbox(service.store, "inbox")
    (file,) = found.list_files()
    assert (file.path, file.uri, found.uri) == ("scene.tif", "store://inbox/scene.tif", "store://inbox")
    with found.open(file) as handle:
        assert handle.read() == (inbox / "scene.tif").read_bytes()
    service.store.delete("inbox/scene.tif")
    with pytest.raises(NotRead), found.open(file):
        pass


def test_south_up_and_antimeridian_and_nodata_edges(service: Service, inbox: Path) -> None:
    pixels = random_dn()
    pixels[:, :, :10] = 0
    write(inbox / "south_up.tif", pixels[:, ::-1], transform=SOUTH_UP, nodata=0)
    write(
        inbox / "dateline.tif",
        random_dn(seed=1),
        crs="EPSG:32601",
        transform=from_origin(300_000, 7_500_000, 2000, 2000),
    )
    assert service.ingest(inbox).quarantined == []
    scenes = service.scenes()
    assert scenes["south_up"].transform == [10, 0, 500_000, 0, -10, 5_600_000]
    assert np.array_equal(pixels_of(service, "south_up"), pixels)
    assert scenes["south_up"].valid_fraction == pytest.approx(38 / 48)
    assert "north-up" in scenes["south_up"].tags["warped"]
    west, east = scenes["dateline"].min_lon, scenes["dateline"].max_lon
    assert west is not None
    assert east is not None
    assert west > 170 > -170 > east
