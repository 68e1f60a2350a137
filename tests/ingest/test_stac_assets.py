"""STAC items beside their assets, of any sensor."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloudseg.ingest.candidate import Candidate
from tests.ingest.conftest import Service
from tests.ingest.sentinel2_files import NAMES, TRUTH, dn, stac_band, stac_item, write_bands
from tests.ingest.test_sentinel2_metadata import (
    check_truth,
    found_in,
    is_guessed,
    median_reflectance,
    offset_of,
    only_scene,
    refusal,
)
from tests.ingest.tiles import random_dn, write

ITEM = "S2A_31UDQ_20230801_0_L2A"
S2 = {"platform": "sentinel-2a", "constellation": "sentinel-2", "grid:code": "MGRS-31UDQ", "s2:product_type": "S2MSI2A"}


def item_of(folder: Path, name: str = "{}.tif", *, offset: float | None = None, **properties: Any) -> Path:
    assets = {
        NAMES[code]: stac_band(f"https://example.org/31/U/DQ/{name.format(code)}?sig=x", NAMES[code], offset=offset)
        for code in TRUTH
    }
    return stac_item(folder, ITEM, assets, **{**S2, **properties})


@pytest.mark.parametrize("name", ["{}.tif", "red-{}.tif"])
def test_the_item_says_that_the_offset_is_already_applied(service: Service, inbox: Path, name: str) -> None:
    write_bands(inbox / ITEM, name)
    properties = {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}
    item_of(inbox / ITEM, name, offset=-0.1, **properties)
    assert service.ingest(inbox).quarantined == []
    (scene,) = service.scenes().values()
    check_truth(service, scene.name)
    assert "already applied" in scene.radiometry
    assert (scene.place, scene.sensor) == ("mgrs:31UDQ", "sentinel-2-l2a")
    assert str(scene.acquired_at) == "2023-08-01 10:56:21+00:00"


@pytest.mark.parametrize(
    ("offset", "properties", "expected"),
    [
        (-0.1, {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False}, -0.1),
        (-0.1, {}, -0.1),
        (0.0, {}, 0.0),
        (None, {"s2:processing_baseline": "05.09"}, -0.1),
        (None, {"s2:processing_baseline": "03.01"}, 0.0),
        (None, {"sentinel:boa_offset_applied": True, "sentinel:processing_baseline": "04.00"}, 0.0),
    ],
)
def test_what_an_item_states(inbox: Path, offset: float | None, properties: dict[str, Any], expected: float) -> None:
    write_bands(inbox, "{}.tif")
    item_of(inbox, offset=offset, **properties)
    scene = only_scene(inbox)
    assert (offset_of(scene), is_guessed(scene)) == (expected, False)


def test_an_item_that_contradicts_itself_is_refused(inbox: Path) -> None:
    write_bands(inbox, "{}.tif")
    item_of(inbox, offset=0.0, **{"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False})
    assert "two statements" in refusal(inbox).what


def test_an_item_whose_flag_is_wrong_is_found_by_the_numbers(service: Service, inbox: Path) -> None:
    write_bands(inbox, "{}.tif")
    item_of(inbox, offset=-0.1, **{"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False})
    service.ingest(inbox)
    (entry,) = service.quarantine().values()
    assert "contradict the offset that the metadata states" in entry.what
    assert "already" in str(entry.next_step)


def test_an_item_of_another_date_is_refused(inbox: Path) -> None:
    write_bands(inbox, "T31UDQ_20180501T105031_{}.tif")
    item_of(inbox, "T31UDQ_20180501T105031_{}.tif", offset=0.0)
    assert "belongs to another acquisition" in refusal(inbox).what


def test_bands_of_an_item_are_named_by_it(service: Service, inbox: Path) -> None:
    """Files called by the keys of the assets: only the item knows which band each is."""
    for code, reflectance in TRUTH.items():
        write(inbox / "data" / f"{NAMES[code]}-10m.tif", dn(reflectance, 1000), names=None)
    write(inbox / "data" / "scl.tif", random_dn(1, dn(0.1).shape[-1], low=4, high=6, dtype="uint8"), names=None)
    write(inbox / "data" / "visual.tif", random_dn(3, low=1, high=255, dtype="uint8"))
    assets = {band: stac_band(f"./data/{band}-10m.tif", band, offset=-0.1) for band in NAMES.values()}
    assets["scl"] = {"href": "./data/scl.tif", "roles": ["data"]}
    bands = [{"name": band, "common_name": band} for band in ("red", "green", "blue")]
    assets["visual"] = {"href": "./data/visual.tif", "roles": ["visual"], "eo:bands": bands}
    stac_item(inbox, "scene_7", assets, **S2)
    scene = only_scene(inbox)
    assert (scene.layout, [layer.kind for layer in scene.quality]) == ("stac", ["sentinel2_scl"])
    assert service.ingest(inbox).quarantined == []
    check_truth(service, "scene_7")
    assert service.scenes()["scene_7"].place == "mgrs:31UDQ"


def test_another_sensor_with_scale_in_the_newer_form(service: Service, inbox: Path) -> None:
    pixels = random_dn(4, low=8000, high=20_000)
    write(inbox / "analytic.tif", pixels, names=None)
    names = ("blue", "green", "red", "nir")
    bands = [
        {"name": f"b{index}", "eo:common_name": name, "raster:scale": 2.75e-5, "raster:offset": -0.2}
        for index, name in enumerate(names)
    ]
    asset = {"href": "analytic.tif", "roles": ["data"], "bands": bands}
    stac_item(inbox, "some_sensor_1", {"analytic": asset}, platform="Dove-1", datetime="2021-03-04T05:06:07Z")
    assert service.ingest(inbox).quarantined == []
    scene = service.scenes()["some_sensor_1"]
    assert (scene.layout, scene.sensor, scene.bands) == ("stac", "dove-1", list(names))
    assert str(scene.acquired_at) == "2021-03-04 05:06:07+00:00"
    red = median_reflectance(service, "some_sensor_1")["red"]
    assert red == pytest.approx(float(np.median(pixels[2])) * 2.75e-5 - 0.2, abs=1e-4)


def test_other_json_is_no_item(inbox: Path) -> None:
    write_bands(inbox, "T31UDQ_20180501T105031_{}.tif")
    for name, text in (
        ("a.json", "[1, 2"),
        ("b.json", '{"stac_version": "1.0.0", "type": "Collection"}'),
        ("c.json", "[" * 9999),
    ):
        (inbox / name).write_text(text)
    assert is_guessed(only_scene(inbox))


def test_an_item_without_band_names_states_the_scale_of_one_file(inbox: Path) -> None:
    """Before, it was passed over, and the numbers were assumed to be reflectance x 10000."""
    write(inbox / "a.tif", random_dn())
    assets = {"data": {"href": "a.tif", "raster:bands": [{"scale": 0.0002, "offset": -0.1}] * 3}}
    item = {"stac_version": "1.0.0", "type": "Feature", "id": "a", "properties": {}, "assets": assets}
    (inbox / "a.json").write_text(json.dumps(item))
    (source,) = only_scene(inbox).files
    assert source.radiometry is not None
    assert (source.radiometry.scale, source.radiometry.offset) == (0.0002, -0.1)
    (inbox / "a.json").write_text(json.dumps(item)[:-40])
    assert "a.json: a damaged STAC item" in dict(only_scene(inbox).tags)["metadata"]


def test_a_damaged_item_is_never_passed_over(inbox: Path) -> None:
    write_bands(inbox, "T31UDQ_20180501T105031_{}.tif")
    path = item_of(inbox, "T31UDQ_20180501T105031_{}.tif", datetime="2018-05-01T10:50:31Z")
    path.write_text(path.read_text()[:400])
    found = refusal(inbox)
    assert "cannot be read" in found.what
    assert "damaged STAC item" in str(found.found)


@pytest.mark.parametrize("href", ["../../etc/passwd", "file:///etc/passwd", "http://[::1", "", "./" * 500, 5])
def test_hostile_references_name_no_file(inbox: Path, href: Any) -> None:
    write(inbox / "image.tif", random_dn())
    stac_item(inbox, "x", {"a": {"href": href, "eo:bands": [{"common_name": "red"}]}}, platform=["x"], datetime=7)
    assert [item.layout for item in found_in(inbox) if isinstance(item, Candidate)] == ["multiband"]


def test_numbers_of_an_item_are_checked(inbox: Path) -> None:
    names = ("red", "green", "blue")
    for band in names:
        write(inbox / f"{band}.tif", random_dn(1), names=None)
    path = stac_item(inbox, "x", {band: stac_band(f"{band}.tif", band, scale=70.0, offset=0.0) for band in names})
    assert "scale and offset of the STAC item are not plausible" in refusal(inbox).what
    content = json.loads(path.read_text())
    for band in names:
        content["assets"][band]["raster:bands"] = [{"scale": float("nan"), "offset": 1e400}]
    path.write_text(json.dumps(content))
    assert all(source.radiometry is None for source in only_scene(inbox).files)


def test_an_item_beside_the_image_of_a_pair(inbox: Path) -> None:
    write(inbox / "images" / "a.tif", random_dn(3, low=8000, high=20_000), names=None)
    write(inbox / "labels" / "a.tif", random_dn(1), names=None)
    bands = [{"common_name": band, "raster:scale": 2e-5, "raster:offset": -0.1} for band in ("blue", "green", "red")]
    stac_item(inbox / "images", "a", {"data": {"href": "a.tif", "bands": bands}}, platform="x-1")
    scene = only_scene(inbox)
    assert (scene.layout, scene.sensor, scene.files[0].bands) == ("pairs", "x-1", ("blue", "green", "red"))
    assert (offset_of(scene), scene.label is not None) == (-0.1, True)


def test_bands_from_the_command_line_win_over_the_item(service: Service, inbox: Path) -> None:
    write(inbox / "a.tif", random_dn(3), names=None)
    bands = [{"common_name": band, "raster:scale": 1e-4} for band in ("blue", "green", "red")]
    stac_item(inbox, "a", {"data": {"href": "a.tif", "bands": bands}}, platform="x-1")
    assert service.ingest(inbox, bands=["red", "green", "blue"]).quarantined == []
    assert service.scenes()["a"].bands == ["red", "green", "blue"]
