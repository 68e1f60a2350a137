"""Names of bands: translated where sensor and code are known, refused with the line to type where they are not."""

from pathlib import Path

import pytest

from cloudseg.errors import BadScene
from cloudseg.ingest.band_codes import band_names
from tests.ingest.conftest import Service
from tests.ingest.products import medians, times_10000, truth, write_bands
from tests.ingest.tiles import random_dn, write

TM_CODES = ["B1", "B2", "B3", "B4", "B5", "B7"]
TM_BANDS = ["blue", "green", "red", "nir", "swir16", "swir22"]
GRAY = ["gray", *["undefined"] * 15]


def names(*descriptions: str, file: str = "x.tif", colors: list[str] | None = None, **more: object) -> list[str | None]:
    return band_names(descriptions, colors or GRAY[: len(descriptions)], file, path=file, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "tags"),
    [
        ("LT05_044034_20110716.tif", {}),
        ("LE07_044034_20010716_sr.tif", {}),
        ("x/landsat5_site3.tif", {}),
        ("x/LT04_L2SP_044034_19900716_20200916_02_T1/stack.tif", {}),
        ("LE71990262002213EDC00.tif", {}),
        ("x.tif", {"SPACECRAFT_ID": "LANDSAT_7"}),
        ("x.tif", {"SENSOR": "ETM+"}),
        ("x.tif", {"platform": "landsat-5", "instruments": "tm"}),
    ],
)
def test_landsat_4_to_7_by_name_or_tag(file: str, tags: dict[str, str]) -> None:
    assert names(*TM_CODES, file=file, tags=tags) == TM_BANDS


@pytest.mark.parametrize(
    ("file", "tags"),
    [
        ("LC08_044034_20140716.tif", {}),
        ("LC81990262015213LGN00_toa.tif", {}),
        ("x/Landsat-9 site.tif", {}),
        ("x.tif", {"SENSOR": "OLI_TIRS"}),
        ("x.tif", {"eo:platform": "landsat-8"}),
    ],
)
def test_landsat_8_and_9_by_name_or_tag(file: str, tags: dict[str, str]) -> None:
    # With the panchromatic band, which was taken for Sentinel-2's near infrared before.
    found = names("B2", "B3", "B4", "B5", "B8", file=file, tags=tags)
    assert found == ["blue", "green", "red", "nir", "pan"]


@pytest.mark.parametrize(
    ("file", "sensor", "tags"),
    [
        ("S2A_MSIL2A_20230801T105621_N0509_R094_T31UDQ_20230801T125000.tif", "sentinel-2-l2a", {}),
        ("x/s2_site.tif", "unknown", {}),
        ("20230801T105621_20230801T105817_T31UDQ.tif", "unknown", {}),
        ("x.tif", "unknown", {"SPACECRAFT_NAME": "Sentinel-2B"}),
        ("x.tif", "unknown", {"CONSTELLATION": "sentinel-2"}),
    ],
)
def test_sentinel_2_subset_without_b8(file: str, sensor: str, tags: dict[str, str]) -> None:
    found = names("B2", "B3", "B4", "B5", file=file, sensor=sensor, tags=tags)
    assert found == ["blue", "green", "red", "rededge071"]


def test_hls_has_the_codes_of_its_source() -> None:
    codes = ("B02", "B03", "B04", "B05")
    assert names(*codes, file="HLS.L30.T31UDQ.2023213T105621.v2.0.tif")[3] == "nir"
    assert names(*codes, file="HLS.S30.T31UDQ.2023213T105621.v2.0.tif")[3] == "rededge071"


@pytest.mark.parametrize(
    "codes",
    [
        TM_CODES,
        ["B1", "B2", "B3", "B4", "B5", "B6", "B7"],
        ["B2", "B3", "B4"],
        ["B4", "B3", "B2"],
        ["B2", "B3", "B4", "B8"],
        ["B2", "B3", "B4", "B5"],
        ["B02", "B03", "B04", "B05"],
        ["SR_B2", "SR_B3", "SR_B4"],
        ["SR_B4", "SR_B3", "SR_B2", "QA_PIXEL"],
    ],
)
def test_codes_without_a_sensor_are_refused(codes: list[str]) -> None:
    with pytest.raises(BadScene, match="the band codes have several readings") as refused:
        names(*codes)
    assert "--bands" in refused.value.next_step


def test_a_refusal_has_the_line_to_type_for_each_reading() -> None:
    with pytest.raises(BadScene) as refused:
        names(*TM_CODES)
    assert "--bands blue,green,red,nir,-,- if Landsat 4-7" in refused.value.next_step
    assert "--bands -,blue,green,red,nir,- if Landsat 8-9" in refused.value.next_step
    assert "--bands -,blue,green,red,-,- if Sentinel-2" in refused.value.next_step
    with pytest.raises(BadScene) as refused:
        names("SR_B2", "SR_B3", "SR_B4")
    assert (
        refused.value.next_step
        == "Say which: as Landsat 4-7 the file lacks blue; --bands blue,green,red if Landsat 8-9."
    )


@pytest.mark.parametrize(
    ("file", "tags", "descriptions"),
    [
        ("LT05_044034_20110716.tif", {"SPACECRAFT_ID": "LANDSAT_8"}, TM_CODES),  # name and tag contradict
        ("LT05_044034_20110716.tif", {}, ["B2", "B3", "B4", "B8A"]),  # Landsat 5 has no B8A
        ("LT05_044034_20110716.tif", {}, ["B02", "B03 (Green)", "B04 (Red)"]),  # red is B3
    ],
)
def test_codes_that_contradict_the_sensor_are_refused(file: str, tags: dict[str, str], descriptions: list[str]) -> None:
    with pytest.raises(BadScene, match="the band codes do not fit the sensor"):
        names(*descriptions, file=file, tags=tags)


@pytest.mark.parametrize(
    ("descriptions", "expected"),
    [
        (["B04 (Red)", "B03 (Green)", "B02 (Blue)"], ["red", "green", "blue"]),
        (["Red", "Green", "Blue", "Near-Infrared"], ["red", "green", "blue", "nir"]),
        (["Band 4: Red", "Band 3: Green", "Band 2: Blue", "Band 8: NIR"], ["red", "green", "blue", "nir"]),
        (["red_band", "Surface Reflectance Green", "BLUE"], ["red", "green", "blue"]),
        (["665 nm", "0.56 um", "490nm", "842 nm"], ["red", "green", "blue", "nir"]),
        (["Red", "Green", "Blue", "Red Edge", "NIR"], ["red", "green", "blue", "rededge", "nir"]),
        (["B02", "B03", "B04", "B08"], ["blue", "green", "red", "nir"]),  # only Sentinel-2 and HLS write zeros
        (["B2", "B3", "B4", "B8", "B11", "B12"], ["blue", "green", "red", "nir", "swir16", "swir22"]),
        (["B2", "B3", "B4", "B8", "QA60"], ["blue", "green", "red", "nir", None]),
        (["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"], TM_BANDS),
        (["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7", "ST_B6", "QA_PIXEL"], [*TM_BANDS, None, None]),
        (["SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6"], ["blue", "green", "red", "nir", "swir16"]),
        (["SR_B2", "SR_B3", "SR_B4", "ST_B10"], ["blue", "green", "red", None]),
        ([f"B{n}" for n in (1, 2, 3, 4, 5)] + ["B6_VCID_1", "B6_VCID_2", "B7", "B8"], None),
        (
            ["LC08_L2SP_199026_20230115_20230315_02_T1_SR_B4", "SR_B3", "SR_B2"],
            ["red", "green", "blue"],
        ),
        (["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"], None),
    ],
)
def test_descriptions_that_say_the_band(descriptions: list[str], expected: list[str | None] | None) -> None:
    special = {
        9: ["blue", "green", "red", "nir", "swir16", None, None, "swir22", "pan"],
        8: ["coastal", "blue", "green05", "green", "yellow", "red", "rededge", "nir"],
    }
    assert names(*descriptions) == (expected or special[len(descriptions)])


@pytest.mark.parametrize("texts", [["Band 1", "Band 2", "Band 3"], ["", "", ""], ["1", "2", "3"], ["band_1", "b", ""]])
def test_descriptions_that_say_nothing_leave_it_to_the_colors(texts: list[str]) -> None:
    colors = ["red", "green", "blue"]
    assert names(*texts[:1], "Band 2", "Band 3", colors=colors) == colors
    with pytest.raises(BadScene, match="the band names are unknown"):
        names("Band 1", "Band 2", "Band 3")


def test_other_sensors_codes_are_not_taken_for_these() -> None:
    with pytest.raises(BadScene, match="the band names are unknown"):
        names("sur_refl_b01", "sur_refl_b02", "sur_refl_b03", "sur_refl_b04")  # MODIS: red, nir, blue, green
    with pytest.raises(BadScene, match="the band names are unknown"):
        names("NDVI", "B8-B4", "B4/B3", colors=["red", "green", "blue"])


def test_the_short_name_of_a_landsat_counts_beside_its_own_codes_only() -> None:
    assert names("SR_B2", "SR_B3", "SR_B4", file="gee_l8_sr.tif") == ["blue", "green", "red"]
    assert names("SR_B1", "SR_B2", "SR_B3", file="l5.tif") == ["blue", "green", "red"]
    with pytest.raises(BadScene, match="several readings"):
        names("B1", "B2", "B3", file="l5.tif")


def test_planet_without_descriptions_goes_by_position() -> None:
    assert names("", "", "", "", sensor="planetscope-sr") == ["blue", "green", "red", "nir"]
    assert names(*[""] * 5, sensor="rapideye-sr") == ["blue", "green", "red", "rededge", "nir"]
    assert names(*[""] * 8, sensor="planetscope-sr")[5] == "red"
    other = ["red", "green", "blue", "undefined"]
    assert names("", "", "", "", sensor="planetscope-sr", colors=other) == ["red", "green", "blue", None]


@pytest.mark.parametrize(("file", "dtype"), [("LT05_044034_20110716", "float32"), ("LE07_044034_20010716", "uint16")])
def test_a_landsat_5_or_7_stack_never_has_nir_as_red(service: Service, inbox: Path, file: str, dtype: str) -> None:
    to_dn = times_10000 if dtype == "uint16" else lambda values: values
    write_bands(inbox / f"{file}.tif", TM_BANDS, to_dn, dtype=dtype, descriptions=TM_CODES)
    other = [*TM_BANDS[:4], "cirrus", "swir22"]  # the same bytes would be the same scene
    write_bands(inbox / "unknown.tif", other, to_dn, dtype=dtype, descriptions=TM_CODES)
    service.ingest(inbox)
    assert medians(service, file) == truth(*TM_BANDS)
    assert service.scenes()[file].acquired_at is not None
    assert list(service.scenes()) == [file]
    assert "--bands blue,green,red,nir,-,- if Landsat 4-7" in (service.quarantine()["unknown"].next_step or "")
    service.ingest(inbox, bands=["blue", "green", "red", "nir", "-", "-"])
    assert medians(service, "unknown") == truth("blue", "green", "red", "nir")


def test_landsat_8_with_pan_and_sentinel_2_without_b8(service: Service, inbox: Path) -> None:
    bands = ["blue", "green", "red", "nir", "pan"]
    codes = ["B2", "B3", "B4", "B5", "B8"]
    write_bands(inbox / "LC08_044034_20140716.tif", bands, times_10000, descriptions=codes)
    tags = {"SPACECRAFT_ID": "LANDSAT_8"}
    other = ["blue", "green", "red", "nir", "yellow"]
    write_bands(inbox / "tagged.tif", other, times_10000, descriptions=codes, tags=tags)
    bands = ["blue", "green", "red", "rededge071"]
    write_bands(inbox / "s2_subset.tif", bands, times_10000, descriptions=["B2", "B3", "B4", "B5"])
    assert service.ingest(inbox).quarantined == []
    assert medians(service, "LC08_044034_20140716") == truth("blue", "green", "red", "nir", "pan")
    assert service.scenes()["tagged"].bands == ["blue", "green", "red", "nir", "pan"]
    assert medians(service, "s2_subset") == truth(*bands)


@pytest.mark.parametrize("native", [True, False])
def test_surface_reflectance_of_earth_engine_in_either_scale(service: Service, inbox: Path, native: bool) -> None:
    bands, codes = ["blue", "green", "red", "nir"], ["SR_B2", "SR_B3", "SR_B4", "SR_B5"]
    to_dn = (lambda values: (values + 0.2) / 2.75e-5) if native else times_10000
    write_bands(inbox / "gee_l8_sr.tif", bands, to_dn, descriptions=codes)
    assert service.ingest(inbox).quarantined == []
    assert medians(service, "gee_l8_sr") == truth(*bands)
    assert ("assumed from band names SR_B" in service.scenes()["gee_l8_sr"].radiometry) == native


def test_four_bands_of_8_bits_with_colors_are_a_true_color_image(service: Service, inbox: Path) -> None:
    pixels = random_dn(4, low=5, high=255, dtype="uint8")
    write(inbox / "m_3807708_se_18_1_20130924.tif", pixels, names=None, photometric="RGB", alpha="NO")
    assert service.ingest(inbox).quarantined == []
    assert service.scenes()["m_3807708_se_18_1_20130924"].bands == ["red", "green", "blue"]


def test_8_bit_numbers_of_landsat_5_are_no_true_color_image(service: Service, inbox: Path) -> None:
    pixels = random_dn(4, low=5, high=255, dtype="uint8")
    write(inbox / "LT05_044034_20110716.tif", pixels[:3], names=["B1", "B2", "B3"])
    service.ingest(inbox)
    assert "have no scale without the product's metadata" in service.quarantine()["LT05_044034_20110716"].what


@pytest.mark.parametrize("name", ["LT05_044034_20110716", "landsat5_site", "HLS.L30.T31UDQ.2023213T105621.v2.0"])
def test_files_of_other_sensors_are_no_sentinel_2_bands(service: Service, inbox: Path, name: str) -> None:
    for code, band in {"B02": "green", "B03": "red", "B04": "nir"}.items():
        write_bands(inbox / f"{name}_{code}.tif", [band], times_10000)
    service.ingest(inbox)
    assert service.scenes() == {}
    assert len(service.quarantine()) == 3
