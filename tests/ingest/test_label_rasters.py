"""Label rasters: which band is read, what is not labeled, and what is refused. Decoded in this process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from cloudseg.errors import BadLabel, BadScene
from cloudseg.ingest.class_mappings import BINARY, BINARY_255, L8_BIOME
from cloudseg.ingest.decode_label import read_label_tags
from cloudseg.ingest.job import LabelFacts, LabelJob, LabelTagsJob
from cloudseg.ingest.untrusted import open_untrusted
from tests.ingest.decoding import label_facts
from tests.ingest.tiles import SIZE, UTM, clouds, random_dn, write

HALF = SIZE // 2
PIXELS = SIZE * SIZE
SCENE_ID = "sc-0123456789abcdef0123"
Decode = Callable[..., tuple[LabelFacts, np.ndarray]]


@pytest.fixture
def decode(tmp_path: Path) -> Decode:
    """Return a function that decodes a label onto a scene of 48 x 48 pixels whose last column has no data."""
    scene = random_dn()
    scene[:, :, -1] = 0
    write(tmp_path / "scene.tif", scene)

    def run(path: Path, **more: object) -> tuple[LabelFacts, np.ndarray]:
        values = {
            "path": str(path),
            "display_name": f"labels/{path.name}",
            "scene_id": SCENE_ID,
            "source": "pairs",
            "mappings": [list(mapping.values) for mapping in (BINARY, BINARY_255, L8_BIOME)],
            "scene": str(tmp_path / "scene.tif"),
            "needs_georeference": False,
            "out": str(tmp_path / "out.tif"),
            "folder": str(tmp_path),
            "max_pixels": 4_000_000,
            "memory_mb": 2048,
        }
        facts = label_facts(LabelJob.model_validate(values | more))
        with rasterio.open(tmp_path / "out.tif") as out:
            return facts, out.read(1)

    return run


def counts(classes: np.ndarray) -> tuple[int, int, int]:
    """Return the numbers of clear, cloud and unlabeled pixels."""
    return tuple(int((classes == value).sum()) for value in (0, 1, 255))  # type: ignore[return-value]


ALL = (PIXELS - HALF * SIZE - SIZE, HALF * SIZE, SIZE)
"""Counts of `clouds()`: the left half is cloud, the last column has no data."""
TOP = (ALL[0] // 2, ALL[1] // 2, PIXELS - ALL[0] // 2 - ALL[1] // 2)
"""The same where the lower half is not labeled."""


def top_half() -> np.ndarray:
    """Return 255 in the upper half and 0 in the lower one."""
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    alpha[:HALF] = 255
    return alpha


def _with_bands(path: Path, *bands: np.ndarray, colors: list[ColorInterp], names: list[str] | None = None) -> Path:
    write(path, np.stack(bands), names=None, photometric="MINISBLACK")
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = colors
        if names:
            dataset.descriptions = names
    return path


def test_one_band_of_classes(decode: Decode, tmp_path: Path) -> None:
    facts, classes = decode(write(tmp_path / "a.tif", clouds(), names=["label"], nodata=255))
    assert counts(classes) == ALL
    assert (facts.source, facts.mapping, facts.corrects_mask_id) == ("pairs", {"0": 0, "1": 1, "255": 255}, None)


@pytest.mark.parametrize("alphas", [1, 2])
def test_what_alpha_bands_hide_is_not_labeled(decode: Decode, tmp_path: Path, alphas: int) -> None:
    label = _with_bands(
        tmp_path / "a.tif",
        clouds()[0],
        *[top_half()] * alphas,
        colors=[ColorInterp.gray, *[ColorInterp.alpha] * alphas],
    )
    assert counts(decode(label)[1]) == TOP


def test_an_alpha_band_of_that_description_and_one_in_front(decode: Decode, tmp_path: Path) -> None:
    undefined = [ColorInterp.gray, ColorInterp.undefined]
    by_name = _with_bands(tmp_path / "a.tif", clouds()[0], top_half(), colors=undefined, names=["", "Alpha"])
    assert counts(decode(by_name)[1]) == TOP
    colors = [ColorInterp.alpha, ColorInterp.gray]
    assert counts(decode(_with_bands(tmp_path / "b.tif", top_half(), clouds()[0], colors=colors))[1]) == TOP


def test_what_the_internal_mask_hides_is_not_labeled(decode: Decode, tmp_path: Path) -> None:
    label = write(tmp_path / "a.tif", clouds(), names=["label"])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(label, "r+") as dataset:
        dataset.write_mask(top_half() > 0)
    assert not (tmp_path / "a.tif.msk").exists()
    assert counts(decode(label)[1]) == TOP


def test_what_a_mask_file_beside_it_hides_is_not_labeled(decode: Decode, tmp_path: Path) -> None:
    label = write(tmp_path / "a.tif", clouds(), names=["label"])
    write(tmp_path / "a.tif.msk", top_half()[None], names=None)
    assert counts(decode(label)[1]) == TOP
    write(tmp_path / "a.tif.msk", np.zeros((1, 5, 5), np.uint8), names=None)
    with pytest.raises(BadLabel, match="mask file beside the label does not fit"):
        decode(label)


def test_the_nodata_value_of_a_sidecar_counts(decode: Decode, tmp_path: Path) -> None:
    pixels = clouds()
    pixels[:, HALF:] = 7
    label = write(tmp_path / "a.tif", pixels, names=["label"])
    with pytest.raises(BadLabel, match="unknown meaning"):
        decode(label)
    xml = '<PAMDataset><PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
    (tmp_path / "a.tif.aux.xml").write_text(xml)
    assert counts(decode(label)[1]) == TOP


def test_a_sidecar_of_a_label_is_read_like_that_of_a_scene(decode: Decode, tmp_path: Path) -> None:
    """Before, patterns were searched in its text: other bands counted, and what is no such XML counted as nothing."""
    label, sidecar = write(tmp_path / "a.tif", clouds(), names=["label"]), tmp_path / "a.tif.aux.xml"
    band = '<PAMRasterBand band="1"><NoDataValue>1</NoDataValue></PAMRasterBand>'
    sidecar.write_text(f"<PAMDataset><!-- {band} --></PAMDataset>")
    assert counts(decode(label)[1]) == ALL
    sidecar.write_text(f"<PAMDataset>{band}</PAMDataset>", encoding="utf-16")
    with pytest.raises(BadLabel, match="1 means cloud and is also declared as nodata"):
        decode(label)
    for text in ("<PAMDataset><PAMRasterBand", "<!DOCTYPE a><PAMDataset/>", f"<PAMDataset>{band.replace('1', '2')}"):
        sidecar.write_text(text)
        with pytest.raises(BadLabel, match="metadata beside the raster cannot be used"):
            decode(label)


def test_a_label_with_south_up_is_turned(decode: Decode, tmp_path: Path) -> None:
    write(
        tmp_path / "south.tif", clouds(), names=["label"], transform=UTM @ UTM.translation(0, SIZE) @ UTM.scale(1, -1)
    )
    assert counts(decode(tmp_path / "south.tif")[1]) == ALL


def test_pixels_outside_of_a_rotated_label_are_not_labeled(decode: Decode, tmp_path: Path) -> None:
    """Before, they were read as 0, which means clear."""
    side = 33 * 10 / 2**0.5
    rotated = UTM @ UTM.translation(side / 10, 0) @ UTM.rotation(45)
    big = write(tmp_path / "big.tif", random_dn(size=47))
    label = write(tmp_path / "a.tif", np.ones((1, 33, 33), np.uint8), names=["label"], transform=rotated)
    clear, cloud, none = counts(decode(label, scene=str(big))[1])
    assert clear == 0
    assert abs(cloud - 33 * 33) < 40
    assert none == 47 * 47 - cloud


@pytest.mark.parametrize(
    ("colors", "names", "what"),
    [
        ([ColorInterp.gray, ColorInterp.undefined], ["clear", "cloud"], "2 bands of classes"),
        ([ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha], None, "2 bands of classes"),
        ([ColorInterp.red, ColorInterp.green, ColorInterp.blue], None, "picture in colors"),
        ([ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha], None, "picture in colors"),
        ([ColorInterp.alpha], None, "no band of classes"),
    ],
)
def test_more_or_less_than_one_band_of_classes_is_refused(
    decode: Decode, tmp_path: Path, colors: list[ColorInterp], names: list[str] | None, what: str
) -> None:
    label = _with_bands(tmp_path / "a.tif", *[clouds()[0]] * len(colors), colors=colors, names=names)
    with pytest.raises(BadLabel, match=what) as error:
        decode(label)
    assert "one band" in error.value.next_step


@pytest.mark.parametrize("name", ["clear", "Clear sky", "cloud_free", "not cloud", "valid mask"])
def test_a_band_called_clear_is_not_read_as_cloud(decode: Decode, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadLabel, match="may be inverted") as error:
        decode(write(tmp_path / "a.tif", clouds(), names=[name]))
    assert name in str(error.value.found)


@pytest.mark.parametrize("name", ["cloud", "cloud mask", "label", "Band 1", "classes", ""])
def test_other_names_of_a_band_are_fine(decode: Decode, tmp_path: Path, name: str) -> None:
    assert counts(decode(write(tmp_path / "a.tif", clouds(), names=[name]))[1]) == ALL


def test_class_names_and_colors_that_contradict_are_refused(decode: Decode, tmp_path: Path) -> None:
    label = write(tmp_path / "a.tif", clouds(), names=["label"])
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><CategoryNames><Category>cloud</Category><Category>clear</Category>'
        "</CategoryNames></PAMRasterBand></PAMDataset>"
    )
    with pytest.raises(BadLabel, match="may be inverted"):
        decode(label)
    with pytest.raises(BadLabel, match="may be inverted"):
        decode(write(tmp_path / "white.tif", clouds(), names=["label"], photometric="MINISWHITE"))


@pytest.mark.parametrize(
    ("colors", "refused"),
    [
        ({0: (0, 0, 0, 255), 1: (255, 255, 255, 255)}, False),
        ({0: (27, 94, 32, 255), 1: (255, 255, 255, 255), 255: (0, 0, 0, 0)}, False),
        ({0: (255, 255, 255, 255), 1: (0, 0, 0, 255)}, True),
    ],
)
def test_a_palette_has_classes_as_indexes(decode: Decode, tmp_path: Path, colors: dict, refused: bool) -> None:
    label = write(tmp_path / "a.tif", clouds(), names=["label"], photometric="PALETTE")
    with rasterio.open(label, "r+") as dataset:
        dataset.write_colormap(1, colors)
    if refused:
        with pytest.raises(BadLabel, match="may be inverted"):
            decode(label)
    else:
        assert counts(decode(label)[1]) == ALL


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("float32", -3.4028234663852886e38),
        ("float64", -3.4028234663852886e38),
        ("float64", -1.7976931348623157e308),
        ("float32", float("nan")),
        ("float32", -9999),
        ("float32", 0.5),
        ("int32", -2147483648),
        ("int16", -9999),
        ("uint8", 99),
    ],
)
def test_a_declared_nodata_value_is_not_labeled(decode: Decode, tmp_path: Path, dtype: str, nodata: float) -> None:
    pixels = clouds().astype(dtype)
    pixels[:, HALF:] = nodata
    assert counts(decode(write(tmp_path / "a.tif", pixels, names=["label"], nodata=nodata))[1]) == TOP


def test_values_that_are_no_classes(decode: Decode, tmp_path: Path) -> None:
    pixels = clouds().astype("float32")
    pixels[:, HALF:] = np.nan
    assert counts(decode(write(tmp_path / "nan.tif", pixels, names=["label"]))[1]) == TOP
    for value, what in ((np.inf, "not a classification"), (0.5, "not a classification"), (-3.4e38, "unknown meaning")):
        pixels[:, HALF:] = value
        with pytest.raises(BadLabel, match=what) as error:
            decode(write(tmp_path / "a.tif", pixels, names=["label"]))
        assert len(str(error.value.found)) < 100


def test_a_class_that_is_also_nodata_is_refused(decode: Decode, tmp_path: Path) -> None:
    """The default of QGIS's tool to rasterize polygons: nodata 0, whether or not 0 means clear."""
    with pytest.raises(BadLabel, match="0 means clear and is also declared as nodata") as error:
        decode(write(tmp_path / "a.tif", clouds(), names=["label"], nodata=0))
    assert "unsetnodata" in error.value.next_step


def test_another_crs_and_another_resolution_are_named(decode: Decode, tmp_path: Path) -> None:
    west, south, east, north = transform_bounds(
        "EPSG:32631", "EPSG:4326", 500_000, 5_600_000 - SIZE * 10, 500_000 + SIZE * 10, 5_600_000
    )
    degrees = from_origin(west, north, (east - west) / 60, (north - south) / 40)
    lonlat = np.zeros((1, 40, 60), np.uint8)
    with pytest.raises(BadLabel, match="another coordinate reference system") as error:
        decode(write(tmp_path / "a.tif", lonlat, names=["label"], crs="EPSG:4326", transform=degrees))
    assert (error.value.found, error.value.expected) == ("EPSG:4326", "EPSG:32631")
    assert "-t_srs EPSG:32631 -te 500000.0 5599520.0 500480.0 5600000.0 -ts 48 48" in error.value.next_step
    with pytest.raises(BadLabel, match="pixels have another size") as error:
        decode(write(tmp_path / "b.tif", clouds(8), names=["label"], transform=UTM @ UTM.scale(6)))
    assert (error.value.found, error.value.expected) == (
        "pixels of 60 x 60 in units of EPSG:32631",
        "pixels of 10 x 10",
    )


def _png(path: Path, image: Image.Image) -> Path:
    image.save(path, "PNG")
    return path


def test_a_png_of_the_scenes_pixels(decode: Decode, tmp_path: Path) -> None:
    for name, image in (
        ("a", Image.fromarray(clouds()[0])),
        ("b", Image.fromarray(clouds()[0] * np.uint8(255))),
        ("c", Image.fromarray(clouds()[0] > 0)),
    ):
        assert counts(decode(_png(tmp_path / f"{name}.png", image))[1]) == ALL
    hidden = Image.merge("LA", [Image.fromarray(clouds()[0]), Image.fromarray(top_half())])
    assert counts(decode(_png(tmp_path / "d.png", hidden))[1]) == TOP


def test_a_png_that_is_no_label(decode: Decode, tmp_path: Path) -> None:
    with pytest.raises(BadLabel, match="size differs"):
        decode(_png(tmp_path / "a.png", Image.fromarray(clouds(SIZE + 1)[0])))
    with pytest.raises(BadLabel, match="picture in colors"):
        decode(_png(tmp_path / "b.png", Image.new("RGB", (SIZE, SIZE))))
    with pytest.raises(BadLabel, match="needs a georeference"):
        decode(_png(tmp_path / "c.png", Image.fromarray(clouds()[0])), needs_georeference=True)
    with (
        pytest.raises(BadScene, match="not a supported raster"),
        open_untrusted(str(tmp_path / "c.png"), "c.png", max_pixels=10_000, memory_mb=1024),
    ):
        pass


def test_tags_say_who_made_a_label_and_for_which_scene(decode: Decode, tmp_path: Path) -> None:
    tags = {"LABEL_SOURCE": "analyst:ada", "SCENE_ID": SCENE_ID, "MASK_ID": "17"}
    label = write(tmp_path / "a.tif", clouds(), names=["label"], tags=tags)
    assert decode(label)[0].source == "analyst:ada"
    job = LabelTagsJob(path=str(label), display_name="a", folder=str(tmp_path), max_pixels=10_000, memory_mb=1024)
    found = read_label_tags(job)
    assert (found.scene, found.source, found.mask_id, found.shape) == (SCENE_ID, "analyst:ada", None, (SIZE, SIZE))
    other = write(tmp_path / "b.tif", clouds(), names=["label"], tags={"CLOUDSEG_SCENE_ID": "sc-" + "f" * 20})
    with pytest.raises(BadLabel, match="names another scene"):
        decode(other)


def test_a_published_mask_unchanged_is_refused(decode: Decode, tmp_path: Path) -> None:
    pixels = clouds()
    pixels[:, :, -1] = 255
    mask = write(tmp_path / "mask.tif", pixels, names=["cloud mask"], nodata=255)
    masks = {"masks": [{"mask_id": "mk-1", "path": str(mask)}]}
    with pytest.raises(BadLabel, match="the published mask mk-1 unchanged"):
        decode(write(tmp_path / "copy.tif", clouds(), names=["label"]), **masks)
    tags = {"CLOUDSEG_MASK_ID": "mk-1"}
    pixels[:, :3, :3] = 0
    facts, classes = decode(write(tmp_path / "edited.tif", pixels, names=["cloud mask"], tags=tags), **masks)
    assert (facts.corrects_mask_id, counts(classes)) == ("mk-1", (ALL[0] + 9, ALL[1] - 9, ALL[2]))
    pixels[:] = clouds()
    pixels[:, :, 5:] = 255
    facts, classes = decode(write(tmp_path / "part.tif", pixels, names=["label"]), **masks)
    assert (facts.corrects_mask_id, counts(classes)) == (None, (0, 5 * SIZE, PIXELS - 5 * SIZE))
    pixels[:] = np.where(clouds() == 1, 1, 255)
    with pytest.raises(BadLabel, match="the published mask mk-1 unchanged"):  # its cloud alone, as from polygons of it
        decode(write(tmp_path / "cloud.tif", pixels, names=["label"]), **masks)
    confirmed = write(tmp_path / "ok.tif", clouds(), names=["label"], tags={"LABEL_CONFIRMS": "mk-1"})
    assert counts(decode(confirmed, **masks)[1]) == ALL
    with pytest.raises(BadLabel, match="not known for its scene"):
        decode(write(tmp_path / "old.tif", clouds(), names=["label"], tags={"CLOUDSEG_MASK_ID": "mk-0"}), **masks)


def test_255_means_not_labeled_in_a_file_made_from_a_published_mask(decode: Decode, tmp_path: Path) -> None:
    mask = write(tmp_path / "mask.tif", clouds(), names=["cloud mask"], nodata=255)
    masks = {"masks": [{"mask_id": "mk-1", "path": str(mask)}]}
    pixels = np.full((1, SIZE, SIZE), 255, np.uint8)
    pixels[:, :, :10] = 0  # false clouds, corrected; saved without a nodata value
    label = write(tmp_path / "a.tif", pixels, names=["label"], tags={"CLOUDSEG_MASK_ID": "mk-1"})
    assert counts(decode(label, **masks)[1]) == (10 * SIZE, 0, PIXELS - 10 * SIZE)
    with pytest.raises(BadLabel, match="also declared as nodata"):
        decode(write(tmp_path / "b.tif", pixels, names=["label"], tags={"CLOUDSEG_MASK_ID": "mk-1"}, nodata=0), **masks)


def test_a_clear_scene_has_an_equal_mask_and_an_honest_label(decode: Decode, tmp_path: Path) -> None:
    pixels = np.zeros((1, SIZE, SIZE), np.uint8)
    mask_pixels = pixels.copy()
    mask_pixels[:, :, -1] = 255
    mask = write(tmp_path / "mask.tif", mask_pixels, names=["cloud mask"], nodata=255)
    masks = {"masks": [{"mask_id": "mk-1", "path": str(mask)}]}
    label = write(tmp_path / "a.tif", pixels, names=["label"])
    assert counts(decode(label, **masks)[1]) == (PIXELS - SIZE, 0, SIZE)
    tagged = write(tmp_path / "b.tif", pixels, names=["label"], tags={"CLOUDSEG_MASK_ID": "mk-1"})
    with pytest.raises(BadLabel, match="unchanged"):
        decode(tagged, **masks)
