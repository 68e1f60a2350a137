"""Files beside a raster (`.msk`, `.aux.xml`) are read in the sandboxed decoder, or the scene is refused."""

from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin

from cloudseg.catalog.scene_rows import list_scenes
from cloudseg.errors import BadScene
from tests.ingest.conftest import Service
from tests.ingest.decoding import decode, valid
from tests.ingest.tiles import SIZE, random_dn, write

STATISTICS = '<Metadata><MDI key="STATISTICS_MEAN">4652.1</MDI></Metadata>'


def _pam(raster: Path, *bands: str) -> Path:
    """Write what GDAL would write beside a raster: the content of each band's element."""
    path = raster.with_name(f"{raster.name}.aux.xml")
    texts = [f'<PAMRasterBand band="{index}">{text}</PAMRasterBand>' for index, text in enumerate(bands, 1)]
    path.write_text(f"<PAMDataset>{''.join(texts)}</PAMDataset>")
    return path


def test_mask_and_metadata_beside_a_raster_are_applied_in_the_sandbox(service: Service, inbox: Path) -> None:
    pixels = random_dn()
    pixels[:, :, :12] = 17_777
    path = write(inbox / "a.tif", pixels)
    _pam(path, *["<NoDataValue>1.77770000000000E+04</NoDataValue>"] * 3)
    mask = np.full((1, SIZE, SIZE), 255, np.uint8)
    mask[:, :24] = 0
    write(inbox / "a.tif.msk", mask, names=None, crs=None, transform=None)
    assert service.ingest(inbox).quarantined == []
    scene = service.scenes()["a"]
    assert scene.valid_fraction == pytest.approx(0.375)
    assert scene.tags["validity"] == "mask beside the file; nodata value beside the file"
    assert service.ingest(inbox).known == 1


def test_statistics_beside_a_raster_change_neither_scene_nor_id(service: Service, inbox: Path) -> None:
    path = write(inbox / "a.tif", random_dn())
    service.ingest(inbox)
    (before,) = service.scenes().values()
    _pam(path, STATISTICS, STATISTICS, STATISTICS)
    assert service.ingest(inbox).known == 1
    _pam(path, STATISTICS, f"<NoDataValue>{random_dn()[1, 0, 0]}</NoDataValue>")
    (added,) = service.ingest(inbox).added
    assert added != before.scene_id
    with service.catalog.read() as db:
        newest = list_scenes(db)[0]
    assert (newest.scene_id, newest.valid_fraction < 1) == (added, True)


def test_metadata_that_cannot_be_used_refuses_the_scene(service: Service, inbox: Path) -> None:
    path = write(inbox / "a.tif", random_dn())
    _pam(path, "<NoDataValue>0</NoDataValue>").write_text("<PAMDataset><PAMRasterBand band='1'><NoDataValue>0")
    service.ingest(inbox)
    entry = service.quarantine()["a"]
    assert entry.what == "the metadata beside the raster cannot be used"
    assert "ParseError" in str(entry.found)
    path.with_name("a.tif.aux.xml").unlink()
    assert len(service.ingest(inbox).added) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><PAMDataset><NoDataValue/></PAMDataset>', "DTDForbidden"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><PAMDataset/>', "DTDForbidden"),
        ("<VRTDataset><Scale/></VRTDataset>", "VRTDataset"),
        ('<PAMDataset><PAMRasterBand band="4"><Scale>1</Scale></PAMRasterBand></PAMDataset>', "band 4"),
        ("<PAMDataset><PAMRasterBand><Scale>1</Scale></PAMRasterBand></PAMDataset>", "band "),
        ('<PAMDataset><PAMRasterBand band="1"><Offset>a</Offset></PAMRasterBand></PAMDataset>', "a"),
        ('<?xml version="1.0" encoding="klingon"?><PAMDataset/>', "unknown encoding"),
        ("", "ParseError"),
    ],
)
def test_hostile_or_broken_metadata_is_refused(tmp_path: Path, text: str, found: str) -> None:
    path = write(tmp_path / "a.tif", random_dn())
    path.with_name("a.tif.aux.xml").write_text(text)
    with pytest.raises(BadScene, match="cannot be used") as error:
        decode(tmp_path, path)
    assert found in str(error.value.found)
    assert error.value.subject == "a.tif.aux.xml"


def test_scale_offset_and_names_beside_a_raster(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", random_dn(high=30_000), names=None)
    bands = [
        f"<Description>{name}</Description><Scale>2.0E-05</Scale><Offset>-1.0E-01</Offset>"
        for name in ("blue", "green", "red")
    ]
    _pam(path, *bands)
    facts, canonical = decode(tmp_path, path)
    assert facts.bands == ["blue", "green", "red"]
    assert facts.radiometry == "scale 2e-05 and offset -0.1 of the file's tags"
    expected = np.clip(np.rint(random_dn(high=30_000) * 0.2 - 1000), 1, None)
    assert np.abs(canonical - expected).max() <= 1


def test_colors_beside_a_raster(tmp_path: Path) -> None:
    pixels = np.concatenate([random_dn(), random_dn(1, low=0, high=2) * 65535])
    path = write(tmp_path / "a.tif", pixels, names=None)
    colors = [f"<ColorInterp>{color}</ColorInterp>" for color in ("Red", "Green", "Blue", "Alpha")]
    _pam(path, *colors)
    facts, canonical = decode(tmp_path, path)
    assert facts.bands == ["red", "green", "blue"]
    assert np.array_equal(valid(canonical), pixels[3] > 0)


@pytest.mark.parametrize("text", ["nan", "-1.#IND", "1.#QNAN"])
def test_nodata_of_not_a_number(tmp_path: Path, text: str) -> None:
    pixels = random_dn().astype("float32") / 10_000
    pixels[:, :12] = np.nan
    pixels[:, 12:24] = 0  # an observation, because the sidecar declares another value
    path = write(tmp_path / "a.tif", pixels)
    _pam(path, *[f"<NoDataValue>{text}</NoDataValue>"] * 3)
    assert decode(tmp_path, path)[0].valid_fraction == pytest.approx(0.75)


def test_nodata_beside_a_coarse_band_does_not_shine_into_its_neighbors(tmp_path: Path) -> None:
    fine = [write(tmp_path / f"{band}.tif", random_dn(1, seed=band), names=None) for band in range(2)]
    pixels = random_dn(1, SIZE // 2)
    pixels[:, :6] = 60_000
    coarse = write(tmp_path / "coarse.tif", pixels, names=None, transform=from_origin(500_000, 5_600_000, 20, 20))
    _pam(coarse, "<NoDataValue>60000</NoDataValue>")
    _, canonical = decode(tmp_path, *fine, coarse, bands=[["red"], ["green"], ["blue"]])
    assert not valid(canonical)[:11].any()
    assert canonical[2].max() < 10_000


def test_a_sidecar_belongs_to_the_file_whose_name_it_has(service: Service, inbox: Path) -> None:
    for index, name in enumerate(("a.tif", "b.tif", "c.tif", "sub/a.tif")):
        pixels = random_dn(seed=index)
        pixels[:, :12] = 17_777
        write(inbox / name, pixels)
    nodata = ["<NoDataValue>17777</NoDataValue>"] * 3
    _pam(inbox / "a.tif", *nodata).rename(inbox / "A.TIF.aux.xml")
    _pam(inbox / "b.tif", *nodata).rename(inbox / "b.aux.xml")
    (inbox / "c.txt").write_text("another file called c")
    _pam(inbox / "c.tif", *nodata).rename(inbox / "c.aux.xml")
    assert service.ingest(inbox).quarantined == []
    fractions = {name: scene.valid_fraction for name, scene in service.scenes().items()}
    assert fractions == {"a": 0.75, "b": 0.75, "c": 1.0, "sub_a": 1.0}


def test_a_sidecar_that_may_not_be_opened_refuses_the_scene(service: Service, inbox: Path, tmp_path: Path) -> None:
    path = write(inbox / "a.tif", random_dn())
    (inbox / "a.tif.msk").symlink_to(write(tmp_path / "outside.tif", random_dn(1)))
    service.ingest(inbox)
    assert "points outside" in service.quarantine()["a"].what
    assert service.scenes() == {}
    (inbox / "a.tif.msk").unlink()
    assert len(service.ingest(path).added) == 1
