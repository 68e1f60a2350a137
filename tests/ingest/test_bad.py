"""Bad input is quarantined with a reason, and never crashes, hangs, or makes ingest read other files."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine, from_origin

from cloudseg.ingest import DecodeLimits
from tests.ingest.conftest import Service
from tests.ingest.tiles import SIZE, UTM, clouds, random_dn, write


def _rasters(folder: Path) -> dict[str, str]:
    """Write bad rasters; return a part of the reason by file stem."""
    noise = random_dn()
    whole = write(folder / "whole.tif", random_dn(size=256), compress="deflate").read_bytes()
    (folder / "whole.tif").unlink()
    (folder / "truncated.tif").write_bytes(whole[: len(whole) // 2])
    for code in ("B02", "B03", "B04"):
        path = write(folder / f"short_{code}.jp2", random_dn(1, 256), names=None, driver="JP2OpenJPEG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / "empty.tif").write_bytes(b"")
    (folder / "text.tif").write_text("not a raster")
    (folder / "page.tif").write_text("<!DOCTYPE html><html>404</html>")
    (folder / "virtual.tif").write_text('<VRTDataset rasterXSize="9" rasterYSize="9"><SRS>EPSG:4326</SRS></VRTDataset>')
    (folder / "tileindex.tif").write_text(
        "<GDALTileIndexDataset><IndexDataset>/vsicurl/http://127.0.0.1/</IndexDataset></GDALTileIndexDataset>"
    )
    (folder / "archive.zip").write_bytes(b"PK\x03\x04")
    write(folder / "no_crs.tif", noise, crs=None, transform=None)
    write(folder / "identity.tif", noise, transform=None)
    write(folder / "nan_transform.tif", noise, transform=Affine(10, 0, float("nan"), 0, -10, 5_600_000))
    write(folder / "zero_pixel.tif", noise, transform=Affine(10, 0, 5e5, 0, 1e-300, 5.6e6))
    write(folder / "degrees_as_meters.tif", noise, transform=from_origin(3.0, 50.0, 1e-4, 1e-4))
    write(folder / "meters_as_degrees.tif", noise, crs="EPSG:4326")
    write(folder / "constant.tif", np.full((3, SIZE, SIZE), 10_000, np.uint16))
    write(folder / "white.tif", np.full((3, SIZE, SIZE), 255, np.uint8))
    write(folder / "all_nodata.tif", np.zeros((3, SIZE, SIZE), np.uint16), nodata=0)
    write(folder / "all_nan.tif", np.full((3, SIZE, SIZE), np.nan, np.float32))
    write(folder / "one_band.tif", noise[:1], names=None)
    write(folder / "gray.tif", random_dn(16), names=None)
    write(folder / "floats_of_what.tif", noise.astype("float32"))
    write(folder / "complex.tif", noise.astype("complex64"))
    write(folder / "uint32.tif", noise.astype("uint32"))
    write(folder / "counts.tif", random_dn(low=3, high=90))
    write(folder / "landsat_dn.tif", random_dn(low=8000, high=40000))
    write(folder / "scale_of_what.tif", noise, scale=50.0)
    write(folder / "twice.tif", noise, names=("red", "red", "green"))
    with rasterio.open(
        write(folder / "palette.tif", random_dn(1, low=0, high=9, dtype="uint8"), names=None), "r+"
    ) as dataset:
        dataset.write_colormap(1, {value: (value, 0, 0, 255) for value in range(256)})
    write(folder / "<b>ünï.tif", noise, crs=None, transform=None)
    write(folder / "bomb.tif", np.zeros((3, 2100, 2100), np.uint8), compress="deflate", photometric="RGB")
    for index, code in enumerate(("B02", "B03", "B04")):
        write(
            folder / f"shifted_{code}.tif",
            noise[:1],
            names=None,
            transform=from_origin(500_000 + 40 * index, 5_600_000, 10, 10),
        )
    write(folder / "lonely_B02.tif", noise[:1], names=None)
    return {
        "truncated": "cannot be read",
        "short": "cannot be read",
        "empty": "is empty",
        "text": "not a supported raster",
        "page": "web page",
        "virtual": "virtual raster",
        "tileindex": "virtual raster",
        "archive.zip": "unpack it first",
        "no_crs": "no coordinate reference",
        "identity": "no geotransform",
        "nan_transform": "",
        "zero_pixel": "",
        "degrees_as_meters": "pixel size",
        "meters_as_degrees": "not on the Earth",
        "constant": "same value",
        "white": "same value",
        "all_nodata": "no valid pixels",
        "all_nan": "no valid pixels",
        "one_band": "band names are unknown",
        "gray": "band names are unknown",
        "floats_of_what": "cannot be reflectance",
        "complex": "unsupported data type",
        "uint32": "unsupported data type",
        "counts": "cannot be reflectance",
        "landsat_dn": "cannot be reflectance",
        "scale_of_what": "not plausible",
        "twice": "lacks blue",
        "palette": "palette",
        "<b>ünï": "no coordinate reference",
        "bomb": "larger than allowed",
        "shifted": "different extents",
        "lonely_B02.tif": "lacks red, green",
    }


def test_every_bad_raster_is_quarantined_and_the_good_one_is_ingested(service: Service, inbox: Path) -> None:
    reasons = _rasters(inbox)
    write(inbox / "good.tif", random_dn(seed=5))
    record = service.ingest(inbox, workers=2)
    entries = service.quarantine()
    assert set(service.scenes()) == {"good"}
    assert set(entries) == set(reasons)
    wrong = {
        name: (entries[name].what, entries[name].found)
        for name, part in reasons.items()
        if part not in entries[name].what
    }
    assert wrong == {}
    assert len(record.quarantined) == len(reasons)
    assert {entries[name].error for name in reasons if name != "archive.zip"} == {"BadScene"}
    assert entries["archive.zip"].error == "LayoutUnknown"
    again = service.ingest(inbox, workers=2)
    assert (again.added, again.quarantined, again.known, again.still_quarantined) == ([], [], 1, len(reasons))


def test_links_and_pipes_are_listed_but_never_opened(service: Service, inbox: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.tif", random_dn())
    (inbox / "link_out.tif").symlink_to(outside)
    (inbox / "link_nowhere.tif").symlink_to(inbox / "gone.tif")
    (inbox / "folder_out").symlink_to(tmp_path)
    os.mkfifo(inbox / "pipe.tif")
    write(inbox / "folder.tif" / "inside.tif", random_dn(seed=2))
    (inbox / "README.md").write_text("hello")
    (inbox / ".hidden.tif").write_bytes(b"x")
    (inbox / "upload.tif.part").write_bytes(b"x")
    (inbox / "link_in.tif").symlink_to(inbox / "folder.tif" / "inside.tif")
    service.ingest(inbox)
    entries = service.quarantine()
    assert set(service.scenes()) == {"inside"}
    assert set(entries) == {"link_out.tif", "link_nowhere.tif", "folder_out", "pipe.tif"}
    assert "points outside" in entries["link_out.tif"].what


def test_the_georeference_is_read_from_the_raster_only(service: Service, inbox: Path) -> None:
    path = write(inbox / "scene.tif", random_dn(), crs=None, transform=None)
    path.with_suffix(".tfw").write_text("10\n0\n0\n-10\n500005\n5599995\n")
    (inbox / "scene.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:32631</SRS></PAMDataset>")
    service.ingest(inbox)
    entry = service.quarantine()["scene"]
    assert "no coordinate reference" in entry.what
    assert entry.found == "no CRS; not read for a georeference: scene.tfw, scene.tif.aux.xml"


@pytest.mark.parametrize(
    ("label", "part"),
    [
        (clouds(SIZE + 8), "size differs"),
        (clouds() * 7, "values with unknown meaning"),
        (np.full((1, SIZE, SIZE), 255, np.uint8), "no clear or cloud pixel"),
        (random_dn(1), "not a classification"),
    ],
)
def test_a_bad_label_is_quarantined_and_its_scene_stays(
    service: Service, inbox: Path, label: np.ndarray, part: str
) -> None:
    write(inbox / "images" / "a.tif", random_dn())
    write(inbox / "labels" / "a.tif", label, names=["label"], nodata=255 if label.dtype == np.uint8 else None)
    record = service.ingest(inbox)
    assert (len(record.added), record.labelled, len(record.quarantined)) == (1, [], 1)
    entry = service.quarantine()["a (label)"]
    assert entry.error == "BadLabel"
    assert part in entry.what


def test_a_label_of_another_place_and_an_orphan_label(service: Service, inbox: Path) -> None:
    write(inbox / "images" / "a.tif", random_dn())
    write(inbox / "labels" / "a.tif", clouds(), names=["label"], transform=UTM @ Affine.translation(3, 0))
    write(inbox / "labels" / "b.tif", clouds(), names=["label"])
    service.ingest(inbox)
    entries = service.quarantine()
    assert "extent differs" in entries["a (label)"].what
    assert "no scene for this label" in entries["b.tif"].what


@pytest.mark.parametrize(("size", "refused"), [(1500, False), (2700, True)])
def test_blocks_too_large_for_the_memory_are_refused_before_they_are_read(
    service: Service, inbox: Path, size: int, refused: bool
) -> None:
    pixels = np.zeros((3, size, size), np.uint16)
    pixels[:, :500] = random_dn(size=size)[:, :500]
    write(
        inbox / "one_strip.tif", pixels, blockysize=size, compress="deflate"
    )  # 8 bytes x 3 bands a pixel: 54 MB, 175 MB
    service.limits = DecodeLimits(memory_mb=1024)  # 128 MB a block
    service.ingest(inbox)
    if refused:
        assert "blocks of the raster are too large" in service.quarantine()["one_strip"].what
    else:
        assert set(service.scenes()) == {"one_strip"}
