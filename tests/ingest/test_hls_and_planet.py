"""HLS, PlanetScope and RapidEye: bands, scale, place, time and quality layers from names and files."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cloudseg.ingest.candidate import Candidate, UnmatchedFile
from cloudseg.ingest.inbox import open_inbox
from cloudseg.ingest.layouts import find_candidates
from cloudseg.storage import S3Options
from tests.ingest.conftest import Service
from tests.ingest.products import medians, reflectance, times_10000, truth, write_bands
from tests.ingest.tiles import SIZE, clouds, write

L30, S30 = "HLS.L30.T31UDQ.2023213T105621.v2.0", "HLS.S30.T31UDQ.2023213T105621.v2.0"
L30_FILES = {"B02": "blue", "B03": "green", "B04": "red", "B05": "nir", "B06": "swir16", "B10": "lwir11"}
S30_FILES = {"B02": "blue", "B03": "green", "B04": "red", "B05": "rededge071", "B08": "nir", "B8A": "nir08"}
PLANET = "20230801_105621_12_2456"
PS4 = ("blue", "green", "red", "nir")
PS8 = ("coastal", "blue", "green05", "green", "yellow", "red", "rededge", "nir")
RE5 = ("blue", "green", "red", "rededge", "nir")
COEFFICIENTS = (2.0e-5, 2.1e-5, 2.3e-5, 3.4e-5, 2.6e-5, 2.7e-5, 2.9e-5, 3.5e-5)


def candidate(service: Service, inbox: Path) -> Candidate:
    (item,) = find_candidates(open_inbox(str(inbox), service.store, S3Options()))
    assert isinstance(item, Candidate)
    return item


@pytest.mark.parametrize(("granule", "files"), [(L30, L30_FILES), (S30, S30_FILES)])
def test_hls(service: Service, inbox: Path, granule: str, files: dict[str, str]) -> None:
    for code, band in files.items():
        pixels = np.rint(times_10000(np.full((1, SIZE, SIZE), truth(band)[band]))).astype("int16")
        pixels[:, :, 0] = 6000
        pixels[:, :10] = -9999
        write(inbox / f"{granule}.{code}.tif", pixels, names=None, nodata=-9999, scale=1e-4)
    for layer in ("Fmask", "SZA", "VAA"):
        write(inbox / f"{granule}.{layer}.tif", np.full((1, SIZE, SIZE), 64, np.uint8), names=None)
    (inbox / f"{granule}.cmr.xml").write_text("<Granule/>")
    found = candidate(service, inbox)
    assert [(layer.file.name, layer.kind) for layer in found.quality] == [(f"{granule}.Fmask.tif", "hls_fmask")]
    assert service.ingest(inbox).quarantined == []
    scene = service.scenes()[granule]
    assert (scene.layout, scene.sensor, scene.place) == ("hls", f"hls-{granule[4:7].lower()}", "mgrs:31UDQ")
    assert scene.acquired_at == datetime(2023, 8, 1, 10, 56, 21, tzinfo=UTC)
    assert scene.valid_fraction == pytest.approx(38 / 48)
    assert medians(service, granule) == truth(*(band for band in files.values() if band != "lwir11"))
    assert "fill value -9999" in scene.radiometry


def test_hls_without_scale_tags_and_without_red(service: Service, inbox: Path) -> None:
    for code in ("B02", "B03", "B04"):
        write_bands(inbox / f"{L30}.{code}.tif", [L30_FILES[code]], times_10000, dtype="int16")
    for code in ("B02", "B03", "B05"):
        write_bands(inbox / f"{S30}.{code}.tif", [S30_FILES[code]], times_10000, dtype="int16")
    assert len(service.ingest(inbox).quarantined) == 1
    assert medians(service, L30) == truth("red", "green", "blue")
    assert next(iter(service.quarantine().values())).what.startswith("the scene lacks red")


@pytest.mark.parametrize(
    ("name", "bands", "time"),
    [
        (f"{PLANET}_3B_AnalyticMS_SR_8b", PS8, datetime(2023, 8, 1, 10, 56, 21, tzinfo=UTC)),
        ("20180801_105621_1032_3B_AnalyticMS_SR", PS4, datetime(2018, 8, 1, 10, 56, 21, tzinfo=UTC)),
        ("20180801_105621_0f15_3B_AnalyticMS_SR_harmonized_clip", PS4, datetime(2018, 8, 1, 10, 56, 21, tzinfo=UTC)),
        ("3015814_3739119_2019-08-11_0f15_BGRN_SR", PS4, datetime(2019, 8, 11, tzinfo=UTC)),
        ("2459608_2012-06-04_RE3_3A_Analytic_SR", RE5, datetime(2012, 6, 4, tzinfo=UTC)),
        ("20160707_110139_2541916_RapidEye-1_3A_Analytic_SR", RE5, datetime(2016, 7, 7, 11, 1, 39, tzinfo=UTC)),
    ],
)
def test_planet_surface_reflectance(
    service: Service, inbox: Path, name: str, bands: tuple[str, ...], time: datetime
) -> None:
    write_bands(inbox / f"{name}.tif", bands, times_10000, nodata=0)
    assert service.ingest(inbox).quarantined == []
    scene = service.scenes()[name]
    assert (scene.layout, scene.acquired_at) == ("planet", time)
    assert medians(service, name) == truth(*bands)


def test_planet_product_with_quality_layer_metadata_and_true_color(service: Service, inbox: Path) -> None:
    write_bands(inbox / f"{PLANET}_3B_AnalyticMS_SR_8b_clip.tif", PS8, times_10000, nodata=0)
    write_bands(inbox / f"{PLANET}_3B_AnalyticMS_8b_clip.tif", PS8, times_10000, nodata=0)
    for name in ("udm2", "udm2_clip"):
        udm2 = np.zeros((8, SIZE, SIZE), np.uint8)
        udm2[0] = 1
        write(inbox / f"{PLANET}_3B_{name}.tif", udm2, names=None)
    write(inbox / f"{PLANET}_3B_Visual.tif", np.zeros((4, SIZE, SIZE), np.uint8), names=None)
    (inbox / f"{PLANET}_metadata.json").write_text(json.dumps({"properties": {"acquired": "2023-08-01T10:56:21Z"}}))
    found = candidate(service, inbox)
    assert [(each.file.name, each.kind) for each in found.quality] == [(f"{PLANET}_3B_udm2_clip.tif", "planet_udm2")]
    record = service.ingest(inbox)
    assert (len(record.added), record.quarantined) == (1, [])
    assert medians(service, f"{PLANET}_3B_AnalyticMS_SR_8b_clip") == truth(*PS8)


def metadata_xml(count: int) -> str:
    bands = "".join(
        f"<ps:bandSpecificMetadata><ps:bandNumber>{number}</ps:bandNumber>"
        f"<ps:radiometricScaleFactor>0.01</ps:radiometricScaleFactor>"
        f"<ps:reflectanceCoefficient>{value}</ps:reflectanceCoefficient></ps:bandSpecificMetadata>"
        for number, value in enumerate(COEFFICIENTS[:count], 1)
    )
    space = 'xmlns:ps="http://schemas.planet.com/ps/v1/planet_product_metadata_geocorrected_level"'
    return f'<?xml version="1.0" encoding="UTF-8"?><ps:EarthObservation {space}>{bands}</ps:EarthObservation>'


def write_radiance(path: Path, bands: tuple[str, ...]) -> None:
    coefficients = np.array(COEFFICIENTS[: len(bands)])[:, None, None]
    pixels = np.stack([reflectance(band) for band in bands]) / coefficients
    write(path, np.rint(pixels).astype("uint16"), names=None, nodata=0)


@pytest.mark.parametrize(
    ("name", "bands", "beside"),
    [
        ("20180801_105621_1032_3B_AnalyticMS", PS4, "20180801_105621_1032_3B_AnalyticMS_metadata.xml"),
        (f"{PLANET}_3B_AnalyticMS_8b", PS8, f"{PLANET}_3B_AnalyticMS_8b_metadata.xml"),
        ("2459608_2012-06-04_RE3_3A_Analytic", RE5, "2459608_2012-06-04_RE3_3A_Analytic_metadata.xml"),
        (f"{PLANET}_3B_AnalyticMS_8b", PS8, f"{PLANET}_metadata.json"),
    ],
)
def test_planet_radiance_with_coefficients(
    service: Service, inbox: Path, name: str, bands: tuple[str, ...], beside: str
) -> None:
    write_radiance(inbox / f"{name}.tif", bands)
    pairs = [
        {"bandNumber": n, "reflectanceCoefficient": value} for n, value in enumerate(COEFFICIENTS[: len(bands)], 1)
    ]
    text = json.dumps({"properties": {"bands": pairs}}) if beside.endswith("json") else metadata_xml(len(bands))
    (inbox / beside).write_text(text)
    assert service.ingest(inbox).quarantined == []
    assert medians(service, name) == truth(*bands)
    assert service.scenes()[name].radiometry == "Planet metadata: reflectanceCoefficient of each band"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "the digital numbers are radiance, and there are no coefficients to reflectance"),
        (metadata_xml(3), "the digital numbers are radiance, and there are no coefficients to reflectance"),
        (metadata_xml(4)[:200], "the Planet metadata file is damaged"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "the Planet metadata file is damaged"),
        (metadata_xml(4).replace("2e-05", "-2e-05"), "has a reflectance coefficient that is not plausible"),
    ],
)
def test_planet_radiance_without_coefficients_is_refused(
    service: Service, inbox: Path, text: str | None, what: str
) -> None:
    write_radiance(inbox / "20180801_105621_1032_3B_AnalyticMS.tif", PS4)
    write(inbox / "20180801_105621_1032_3B_udm2.tif", np.ones((8, SIZE, SIZE), np.uint8), names=None)
    if text is not None:
        (inbox / "20180801_105621_1032_3B_AnalyticMS_metadata.xml").write_text(text)
    (item,) = find_candidates(open_inbox(str(inbox), service.store, S3Options()))
    assert isinstance(item, UnmatchedFile)
    assert what in item.what
    assert item.next_step


def test_planet_radiance_beside_labels_is_not_taken_for_reflectance(service: Service, inbox: Path) -> None:
    name = "20180801_105621_1032_3B_AnalyticMS"
    write_radiance(inbox / "images" / f"{name}.tif", PS4)
    write(inbox / "labels" / f"{name}.tif", clouds(), names=["label"], nodata=255)
    service.ingest(inbox)
    assert "have no scale without the product's metadata" in service.quarantine()[name].what


def test_quality_layer_alone_is_one_entry(service: Service, inbox: Path) -> None:
    write(inbox / f"{PLANET}_3B_udm2.tif", np.ones((8, SIZE, SIZE), np.uint8), names=None)
    assert len(service.ingest(inbox).quarantined) == 1
    assert next(iter(service.quarantine().values())).what == "a Planet product without its image"
