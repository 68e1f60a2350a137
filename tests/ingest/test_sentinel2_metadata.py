"""Sentinel-2: metadata beside the bands decides the offset; names and dates only guess, and the numbers check them."""

import json
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine, from_origin

from cloudseg.ingest.candidate import Candidate, UnmatchedFile
from cloudseg.ingest.inbox import FolderInbox
from cloudseg.ingest.layouts import find_candidates
from cloudseg.raster.read import open_raster
from tests.ingest.conftest import Service
from tests.ingest.sentinel2_files import NAMES, TRUTH, dn, product_xml, stac_band, stac_item, tile_xml, write_bands
from tests.ingest.tiles import random_dn, write

ALL_OFFSETS = dict.fromkeys(range(13), -1000)
C1 = "T31UDQ_20190501T105031_{}.tif"
N9999 = "S2A_MSIL2A_20180501T105031_N9999_R051_T31UDQ_20211005T101500"
OLD = "S2A_OPER_PRD_MSIL1C_PDMC_20160726T114548_R122_V20160725T100301_20160725T100301.SAFE"
BUCKET = "tiles/31/U/DQ/2019/5/1/0"
TILE_INFO = {
    "path": BUCKET,
    "timestamp": "2019-05-01T10:58:01.024Z",
    "utmZone": 31,
    "latitudeBand": "U",
    "gridSquare": "DQ",
    "datastrip": {"id": "S2A_OPER_MSI_L1C_DS_S2RP_20230701T120000_S20190501T105029_N05.00", "path": "products/x"},
}


def median_reflectance(service: Service, name: str) -> dict[str, float]:
    scene = service.scenes()[name]
    with open_raster(service.store.gdal_path(scene.key)) as dataset:
        pixels = dataset.read()
    return {band: float(np.median(pixels[i])) / 10_000 for i, band in enumerate(scene.bands)}


def check_truth(service: Service, name: str) -> None:
    found = median_reflectance(service, name)
    assert found == pytest.approx({NAMES[code]: value for code, value in TRUTH.items()}, abs=5e-4)


def found_in(inbox: Path) -> list[Candidate | UnmatchedFile]:
    return find_candidates(FolderInbox(inbox))


def only_scene(inbox: Path) -> Candidate:
    (found,) = found_in(inbox)
    assert isinstance(found, Candidate), found
    return found


def refusal(inbox: Path) -> UnmatchedFile:
    (found,) = found_in(inbox)
    assert isinstance(found, UnmatchedFile), found
    return found


def offset_of(scene: Candidate) -> float:
    offsets = {source.radiometry.offset for source in scene.files if source.radiometry}
    assert len(offsets) == 1
    return offsets.pop()


def is_guessed(scene: Candidate) -> bool:
    return all(source.radiometry is not None and source.radiometry.guessed for source in scene.files)


def test_reprocessed_product_of_2019_has_the_offset_of_its_metadata(service: Service, inbox: Path) -> None:
    write_bands(inbox, C1, 1000)
    (inbox / "MTD_MSIL1C.xml").write_text(product_xml(offsets=ALL_OFFSETS))
    assert service.ingest(inbox).quarantined == []
    check_truth(service, "T31UDQ_20190501T105031")
    scene = service.scenes()["T31UDQ_20190501T105031"]
    assert scene.radiometry == "MTD_MSIL1C.xml: QUANTIFICATION_VALUE 10000, offset -1000"
    assert (scene.sensor, scene.tags) == ("sentinel-2-l1c", {})


@pytest.mark.parametrize("offset", [0, 1000])
def test_a_local_baseline_asks_the_metadata(service: Service, inbox: Path, offset: int) -> None:
    data = inbox / f"{N9999}.SAFE" / "GRANULE" / "L2A_T31UDQ_A014924_20180501T105935" / "IMG_DATA" / "R10m"
    write_bands(data, "T31UDQ_20180501T105031_{}_10m.tif", offset)
    offsets = ALL_OFFSETS if offset else {}
    (inbox / f"{N9999}.SAFE" / "MTD_MSIL2A.xml").write_text(product_xml("2A", "99.99", offsets))
    assert service.ingest(inbox).quarantined == []
    check_truth(service, N9999)
    assert "radiometry_guess" not in service.scenes()[N9999].tags


def test_a_local_baseline_without_metadata_is_a_guess_from_the_date(inbox: Path) -> None:
    write(inbox / f"{N9999}.tif", random_dn(4), names=("red", "green", "blue", "nir"))
    scene = only_scene(inbox)
    assert (offset_of(scene), is_guessed(scene)) == (0.0, True)
    assert "guessed from the date 2018-05-01" in scene.files[0].radiometry.source  # type: ignore[union-attr]


def test_metadata_wins_over_the_baseline_in_the_product_id(inbox: Path) -> None:
    name = "S2A_MSIL1C_20190501T105031_N0207_R051_T31UDQ_20190501T130000"
    write_bands(inbox / f"{name}.SAFE" / "GRANULE" / "L1C_T31UDQ_A020140" / "IMG_DATA", C1, 1000)
    assert (offset_of(only_scene(inbox)), is_guessed(only_scene(inbox))) == (0.0, False)
    (inbox / f"{name}.SAFE" / "MTD_MSIL1C.xml").write_text(product_xml(offsets=ALL_OFFSETS))
    assert (offset_of(only_scene(inbox)), is_guessed(only_scene(inbox))) == (-0.1, False)


def test_metadata_beside_a_stack_of_one_file_decides(inbox: Path) -> None:
    write(inbox / f"{N9999}.tif", random_dn(4), names=("red", "green", "blue", "nir"))
    (inbox / "MTD_MSIL2A.xml").write_text(product_xml("2A", "99.99", ALL_OFFSETS))
    assert (offset_of(only_scene(inbox)), is_guessed(only_scene(inbox))) == (-0.1, False)


def test_bands_have_offsets_of_their_own_and_another_quantification(inbox: Path) -> None:
    write_bands(inbox, C1)
    (inbox / "MTD_MSIL1C.xml").write_text(
        product_xml(offsets={1: -500, 2: -1000, 3: -2000, 7: 0}, quantification="20000")
    )
    found = {source.bands: source.radiometry for source in only_scene(inbox).files}
    offsets = {key: value.offset for key, value in found.items() if value}
    assert offsets == {("blue",): -0.025, ("green",): -0.05, ("red",): -0.1, ("nir",): 0.0}
    assert {value.scale for value in found.values() if value} == {5e-5}


@pytest.mark.parametrize(
    ("files", "offset"),
    [
        ({"metadata.xml": tile_xml()}, -0.1),
        ({"metadata.xml": tile_xml(baseline="02.07")}, 0.0),
        ({"tileInfo.json": json.dumps(TILE_INFO)}, -0.1),
        (
            {"productInfo.json": json.dumps({"name": "S2A_MSIL1C_20190501T105031_N0500_R051_T31UDQ_20230701T120000"})},
            -0.1,
        ),
        ({"MTD_TL.xml": tile_xml()}, -0.1),
    ],
)
def test_folders_of_the_buckets(inbox: Path, files: dict[str, str], offset: float) -> None:
    write_bands(inbox / BUCKET, "{}.tif", 1000)
    write(inbox / BUCKET / "preview" / "B02.tif", random_dn(1), names=None)
    for name, text in files.items():
        (inbox / BUCKET / name).write_text(text)
    scene = only_scene(inbox)
    assert (scene.name, scene.place, scene.layout) == ("T31UDQ_20190501_0", "mgrs:31UDQ", "sentinel2")
    assert (offset_of(scene), is_guessed(scene)) == (offset, False)
    assert f"{scene.acquired_at:%Y-%m-%d}" == "2019-05-01"


def test_resolution_folders_are_one_scene(inbox: Path) -> None:
    write_bands(inbox / BUCKET / "R10m", "{}.jp2", driver="JP2OpenJPEG", quality=100, reversible="YES")
    for code in ("B02", "B03", "B04", "B11", "SCL", "AOT"):
        write(inbox / BUCKET / "R20m" / f"{code}.jp2", random_dn(1), names=None, driver="JP2OpenJPEG")
    (inbox / BUCKET / "tileInfo.json").write_text(json.dumps(TILE_INFO))
    scene = only_scene(inbox)
    assert [source.bands for source in scene.files] == [("red",), ("green",), ("blue",), ("nir",)]
    assert {source.file.folder for source in scene.files} == {f"{BUCKET}/R10m"}
    assert [(layer.file.name, layer.kind) for layer in scene.quality] == [("SCL.jp2", "sentinel2_scl")]


def test_a_folder_of_band_files_without_label_is_no_chip_of_on_cloud_n(inbox: Path) -> None:
    write_bands(inbox / "site", "{}.tif")
    scene = only_scene(inbox)
    assert (scene.layout, scene.name, is_guessed(scene)) == ("sentinel2", "site", True)
    write(inbox / "site" / "label.tif", random_dn(1), names=None)
    scene = only_scene(inbox)
    assert (scene.layout, offset_of(scene), is_guessed(scene)) == ("oncloudn", 0.0, False)
    (inbox / "site" / "MTD_MSIL2A.xml").write_text(product_xml("2A", "05.09", ALL_OFFSETS))
    scene = only_scene(inbox)
    assert (scene.layout, offset_of(scene), scene.label is not None) == ("oncloudn", -0.1, True)


@pytest.mark.parametrize(
    ("name", "offset"),
    [("T31UDQ_20230801T105621_{}.tif", 0), ("T31UDQ_20190501T105031_{}.tif", 1000)],
)
def test_a_wrong_guess_is_refused_with_both_readings(service: Service, inbox: Path, name: str, offset: int) -> None:
    write_bands(inbox, name, offset)
    service.ingest(inbox)
    assert service.scenes() == {}
    (entry,) = service.quarantine().values()
    assert "contradict the offset that was guessed" in entry.what
    without = 0.05 + offset / 10_000
    assert f"with offset -0.1: red median {without - 0.1:.3f}" in str(entry.found)
    assert f"without: red median {without:.3f}" in str(entry.found)
    assert "guessed from the date" in str(entry.found)
    assert "MTD_MSIL" in str(entry.next_step)
    # Metadata that states the other reading mends it; the entry is released.
    (inbox / "MTD_MSIL2A.xml").write_text(product_xml("2A", "99.99", ALL_OFFSETS if offset else {}))
    assert len(service.ingest(inbox).added) == 1
    check_truth(service, name[:22])
    assert service.quarantine() == {}


def test_a_refused_guess_that_metadata_confirms_is_read(service: Service, inbox: Path) -> None:
    """Hazy ground that never falls below 0.1: doubted as a guess, accepted as a statement."""
    write_bands(inbox, C1, 1000)
    service.ingest(inbox)
    assert len(service.quarantine()) == 1
    (inbox / "MTD_MSIL1C.xml").write_text(product_xml(baseline="02.07"))
    assert len(service.ingest(inbox).added) == 1
    assert median_reflectance(service, "T31UDQ_20190501T105031")["red"] == pytest.approx(0.15, abs=1e-3)


def test_impossible_metadata_is_refused_too(service: Service, inbox: Path) -> None:
    """As in items that state an offset which the producer has already applied to the pixels."""
    write_bands(inbox, "T31UDQ_20230801T105621_{}.tif")
    (inbox / "MTD_MSIL2A.xml").write_text(product_xml("2A", "05.09", ALL_OFFSETS))
    service.ingest(inbox)
    (entry,) = service.quarantine().values()
    assert "contradict the offset that the metadata states" in entry.what
    assert "not above 0" in entry.what


@pytest.mark.parametrize("low", [2500, 6500])
def test_solid_cloud_and_snow_pass_with_a_guess(service: Service, inbox: Path, low: int) -> None:
    for index, code in enumerate(TRUTH):
        write(inbox / C1.format(code), random_dn(1, seed=index, low=low, high=low + 2000), names=None)
    assert service.ingest(inbox).quarantined == []
    scene = service.scenes()["T31UDQ_20190501T105031"]
    assert "guessed from the date 2019-05-01" in scene.tags["radiometry_guess"]
    assert "guessed from the date 2019-05-01" in scene.radiometry


BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]>' + product_xml().partition("?>")[2].replace(
    "05.00", "&y;"
)
EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + product_xml().partition("?>")[2].replace(
    "05.00", "&x;"
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 6,
        "<a/>",
        product_xml()[:300],
        BOMB,
        EXTERNAL,
        product_xml(offsets={1: -999_999}),
        product_xml(quantification="nan"),
        product_xml(offsets={77: -1000}),
        "<n1:Level-1C_User_Product xmlns:n1='x'>" + "<a>" * 200 + "</a>" * 200 + "</n1:Level-1C_User_Product>",
        "<Level-1C_User_Product>" + "<PRODUCT_URI/>" * 3000 + "</Level-1C_User_Product>",
    ],
)
def test_damaged_metadata_is_never_passed_over_without_a_word(inbox: Path, text: str) -> None:
    write_bands(inbox / "loose", C1)
    (inbox / "loose" / "MTD_MSIL1C.xml").write_text(text)
    found = refusal(inbox)
    assert "the metadata beside the bands cannot be read" in found.what
    assert str(found.found).startswith("MTD_MSIL1C.xml: ")
    # Where the product id states the baseline, that decides, is recorded as a guess, and the scene says so.
    name = "S2A_MSIL1C_20190501T105031_N0207_R051_T31UDQ_20190501T130000.SAFE"
    (inbox / "loose").rename(inbox / name)
    scene = only_scene(inbox)
    assert is_guessed(scene)
    assert dict(scene.tags)["metadata"].startswith("MTD_MSIL1C.xml: ")


def test_metadata_larger_than_any_product_has_is_damaged(inbox: Path) -> None:
    write_bands(inbox, C1)
    (inbox / "MTD_MSIL1C.xml").write_text(product_xml() + "<!--" + "x" * (9 << 20) + "-->")
    assert refusal(inbox).found == "MTD_MSIL1C.xml: larger than 8 MB"


def test_metadata_of_another_acquisition_is_refused(inbox: Path) -> None:
    write_bands(inbox, C1)
    uri = "S2B_MSIL1C_20230801T105629_N0509_R051_T31UDQ_20230801T130000.SAFE"
    (inbox / "MTD_MSIL1C.xml").write_text(product_xml(offsets=ALL_OFFSETS, uri=uri))
    found = refusal(inbox)
    assert "belongs to another acquisition" in found.what
    assert "2023-08-01" in str(found.found)
    assert "2019-05-01" in str(found.expected)


def test_two_acquisitions_in_one_folder_take_their_own_metadata(inbox: Path) -> None:
    write_bands(inbox, C1, 1000)
    write_bands(inbox, "T31UDQ_20180501T105031_{}.tif")
    uri = "S2A_MSIL1C_20190501T105031_N0500_R051_T31UDQ_20230701T120000.SAFE"
    (inbox / "MTD_MSIL1C.xml").write_text(product_xml(offsets=ALL_OFFSETS, uri=uri))
    scenes = {scene.name: scene for scene in found_in(inbox) if isinstance(scene, Candidate)}
    reprocessed, other = scenes["T31UDQ_20190501T105031"], scenes["T31UDQ_20180501T105031"]
    assert (offset_of(reprocessed), is_guessed(reprocessed)) == (-0.1, False)
    assert (offset_of(other), is_guessed(other)) == (0.0, True)


def test_a_product_and_an_item_that_differ_are_refused(inbox: Path) -> None:
    write_bands(inbox, C1)
    (inbox / "MTD_MSIL1C.xml").write_text(product_xml(offsets=ALL_OFFSETS))
    assets = {code: stac_band(f"./{C1.format(code)}", NAMES[code], offset=0.0) for code in TRUTH}
    stac_item(inbox, "item", assets, platform="sentinel-2a", datetime="2019-05-01T10:50:31Z")
    found = refusal(inbox)
    assert "two statements about scale and offset differ" in found.what
    assert "item.json" in str(found.found)
    assert "MTD_MSIL1C.xml" in str(found.found)


def test_metadata_of_the_other_level_in_the_same_folder_is_not_used(inbox: Path) -> None:
    write_bands(inbox, "T31UDQ_20190501T105031_{}_10m.tif", 1000)
    (inbox / "MTD_MSIL1C.xml").write_text(product_xml(baseline="02.07"))
    (inbox / "MTD_MSIL2A.xml").write_text(product_xml("2A", "99.99", ALL_OFFSETS))
    assert (offset_of(only_scene(inbox)), is_guessed(only_scene(inbox))) == (-0.1, False)


@pytest.mark.parametrize("metadata", [False, True])
def test_a_product_from_before_december_2016(service: Service, inbox: Path, metadata: bool) -> None:
    for tile in ("T34UCC", "T34UDC"):
        granule = f"S2A_OPER_MSI_L1C_TL_MPS__20160725T134133_A005696_{tile}"
        folder = inbox / OLD / "GRANULE" / f"{granule}_N02.04"
        write_bands(folder / "IMG_DATA", f"{granule}_{{}}.tif", transform=_utm(tile), crs="EPSG:32634")
        write(folder / "QI_DATA" / f"S2A_OPER_PVI_L1C_TL_MPS__20160725T134133_A005696_{tile}.tif", random_dn(3))
    if metadata:
        name = "S2A_OPER_MTD_SAFL1C_PDMC_20160726T114548_R122_V20160725T100301_20160725T100301.xml"
        (inbox / OLD / name).write_text(product_xml(baseline="02.04", uri=OLD))
    record = service.ingest(inbox)
    assert (len(record.added), record.quarantined) == (2, [])
    scenes = service.scenes()
    assert set(scenes) == {f"{OLD[:-5]}_T34UCC", f"{OLD[:-5]}_T34UDC"}
    for name, scene in scenes.items():
        assert scene.place == f"mgrs:{name[-5:]}"
        assert str(scene.acquired_at) == "2016-07-25 10:03:01+00:00"
        check_truth(service, name)


def _utm(tile: str) -> Affine:
    return from_origin(300_000 if tile == "T34UCC" else 400_000, 5_700_000, 10, 10)


@pytest.mark.parametrize("prefix", ["T31UDQ_20180501T105031", "L2A_T31UDQ_20180501T105031"])
def test_other_layers_beside_the_bands_belong_to_the_scene(inbox: Path, prefix: str) -> None:
    write_bands(inbox, f"{prefix}_{{}}_10m.tif")
    write(inbox / f"{prefix}_TCI_10m.tif", random_dn(3, dtype="uint8", low=1, high=255))
    for code in ("SCL_20m", "SCL_60m", "AOT_10m", "WVP_10m", "CLD_20m", "SNW_20m", "PVI"):
        write(inbox / f"{prefix}_{code}.tif", random_dn(1), names=None)
    write(inbox / "MSK_CLDPRB_20m.tif", random_dn(1), names=None)
    scene = only_scene(inbox)
    assert [layer.file.name for layer in scene.quality] == [f"{prefix}_SCL_20m.tif"]
    assert len(scene.claimed_paths()) == 13


def test_true_color_alone_is_a_scene(inbox: Path) -> None:
    write(inbox / "T31UDQ_20180501T105031_TCI_10m.tif", random_dn(3, dtype="uint8", low=1, high=255))
    assert only_scene(inbox).layout == "multiband"


def test_a_whole_safe_is_one_scene_without_noise(inbox: Path) -> None:
    name = "S2A_MSIL1C_20230801T105621_N0509_R094_T31UDQ_20230801T125000"
    safe = inbox / f"{name}.SAFE"
    granule = safe / "GRANULE" / "L1C_T31UDQ_A042343_20230801T105937"
    write_bands(granule / "IMG_DATA", "T31UDQ_20230801T105621_{}.tif", 1000)
    for code in ("B02", "B03", "B04", "B08"):  # since processing baseline 04.00 masks have the names of bands
        write(granule / "QI_DATA" / f"MSK_QUALIT_{code}.jp2", random_dn(1), names=None, driver="JP2OpenJPEG")
    for extra in (
        *(
            "HTML/UserProduct_index.html",
            "HTML/UserProduct_index.xsl",
            "HTML/star_bg.jpg",
            "INSPIRE.xml",
            "manifest.safe",
        ),
        *("rep_info/S2_User_Product_Level-1C_Metadata.xsd", "DATASTRIP/DS_2BPS/MTD_DS.xml"),
    ):
        (safe / extra).parent.mkdir(parents=True, exist_ok=True)
        (safe / extra).write_text("x")
    (granule / "AUX_DATA").mkdir()
    (granule / "AUX_DATA" / "AUX_ECMWFT").write_text("x")
    scene = only_scene(inbox)
    assert (scene.name, offset_of(scene), is_guessed(scene)) == (name, -0.1, False)


def test_an_incomplete_product_is_one_entry(inbox: Path) -> None:
    data = inbox / f"{N9999}.SAFE" / "GRANULE" / "L2A_T31UDQ" / "IMG_DATA" / "R10m"
    for code in ("B03", "B04", "TCI"):
        write(data / f"T31UDQ_20180501T105031_{code}_10m.tif", dn(0.1), names=None)
    assert refusal(inbox).what.startswith("the scene lacks blue")


def test_a_dated_stack_of_one_file_is_a_guess(inbox: Path) -> None:
    write(inbox / "T31UDQ_20230801T105621_stack.tif", random_dn())
    assert (offset_of(only_scene(inbox)), is_guessed(only_scene(inbox))) == (-0.1, True)
