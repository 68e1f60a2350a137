"""Files: the mask is the one that the service publishes, to the pixel, and hostile or unusable files are refused."""

import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rio_cogeo.cogeo import cog_validate

import cloudseg
from cloudseg import stages
from cloudseg.api.file_mask import write_mask
from cloudseg.api.user_file import describe_file
from cloudseg.cli import _run
from cloudseg.errors import BadScene, InputError
from cloudseg.raster.synthetic import make_large_scene
from cloudseg.runtime import read_settings
from tests.api.conftest import Home

Run = Callable[..., tuple[int, str, str]]


def pixels(path: str | Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def published(home: Home) -> dict[str, tuple[Path, Path]]:
    """Return paths of mask and probability by the name of the scene."""
    store = home.folder / "store"
    return {
        entry["scene"]: (store / entry["key"], store / entry["companions"]["probability"]["key"])
        for entry in stages.masks(limit=None)
    }


def write_tif(path: Path, numbers: np.ndarray, names: tuple[str, ...] | None = None, **more: object) -> Path:
    options = {"crs": "EPSG:32631", "transform": from_origin(4e5, 5e6, 30, 30), "nodata": 0} | more
    count, height, width = numbers.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=numbers.dtype, **options
    ) as out:
        out.write(numbers)
        if names:
            out.descriptions = names
    return path


def test_every_mask_is_the_published_one(home: Home, tmp_path: Path) -> None:
    """The champion of the home, in the arithmetic of the service, int8 where the CPU has it."""
    model, masks = cloudseg.load(), published(home)
    tiles = sorted((home.tiles / "images").iterdir())
    assert len(tiles) == len(masks) == 8
    values = set()
    for tile in tiles:
        record = model.predict_file(tile, tmp_path / "mask.tif", probability=tmp_path / "probability.tif")
        mask, probability = masks[tile.stem]
        assert (pixels(record.mask) == pixels(mask)).all(), tile
        assert (pixels(str(record.probability)) == pixels(probability)).all(), tile
        values |= set(np.unique(pixels(record.mask)))
    assert values == {0, 1, 255}, "else it would prove little"
    with rasterio.open(tmp_path / "mask.tif") as found, rasterio.open(masks[tiles[-1].stem][0]) as wanted:
        assert (found.crs, found.transform, found.nodata) == (wanted.crs, wanted.transform, 255)
        assert found.colormap(1) == wanted.colormap(1)
        tags = found.tags()
        for name in ("WEIGHTS_ID", "MODEL_VERSION", "THRESHOLD", "ARITHMETIC", "CLOUD_FRACTION", "CLASSES"):
            assert tags[f"CLOUDSEG_{name}"] == wanted.tags()[f"CLOUDSEG_{name}"]
        assert not {"CLOUDSEG_MASK_ID", "CLOUDSEG_SCENE_ID"} & set(tags)
    assert all(cog_validate(tmp_path / name)[0] for name in ("mask.tif", "probability.tif"))
    assert sorted(path.name for path in tmp_path.glob("*mask*")) == ["mask.tif"], "nothing is left beside it"


def test_array_and_file_agree(home: Home, tmp_path: Path) -> None:
    model = cloudseg.load(home.weights_file)
    tile = sorted((home.tiles / "images").iterdir())[-1]
    with rasterio.open(tile) as dataset:
        numbers, names = dataset.read(), dataset.descriptions
    found = model.predict(numbers, bands=names, resolution_m=30)
    record = model.predict_file(tile, tmp_path / "m.tif", probability=tmp_path / "p.tif")
    steps = pixels(str(record.probability))
    assert (found.mask == pixels(record.mask)).all()
    assert np.array_equal(found.probability, np.where(steps == 255, np.nan, steps / 250).astype("f4"), equal_nan=True)
    assert (record.threshold, record.weights_id) == (found.threshold, home.weights.weights_id)
    assert record.resolution_m == 30.0


def test_the_command_needs_no_catalog_and_makes_none(home: Home, no_home: Path, capfd: pytest.CaptureFixture) -> None:
    tile = sorted((home.tiles / "images").iterdir())[0]
    arguments = ["predict", "--file", str(tile), "--out", "mask.tif", "--weights", str(home.weights_file), "--json"]
    assert _run([*arguments, "--probability", "p.tif"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert (record["weights_id"], record["mask"]) == (home.weights.weights_id, "mask.tif")
    assert sorted(path.name for path in no_home.iterdir()) == ["mask.tif", "p.tif"]
    without = [*arguments[:5], "--json"]
    assert _run(without) == 2
    answer = capfd.readouterr()
    assert "no catalog to look up weights in" in answer.err
    assert "--weights FILE or URL" in answer.err
    assert sorted(path.name for path in no_home.iterdir()) == ["mask.tif", "p.tif"]


def test_the_commands_mask_is_that_of_the_champion(home: Home, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    tile = sorted((home.tiles / "images").iterdir())[0]
    for weights in ([], ["--weights", home.weights.weights_id], ["--weights", "v1"]):
        assert _run(["predict", "--file", str(tile), "--out", str(tmp_path / "mask.tif"), *weights]) == 0
        assert (pixels(tmp_path / "mask.tif") == pixels(published(home)[tile.stem][0])).all()
    assert home.weights.weights_id in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--file", "a.tif"],
        ["--file", "a.tif", "--out", "b.tif", "--new"],
        ["--file", "a.tif", "--out", "b.tif", "sc-1"],
        ["--file", "a.tif", "--out", "b.tif", "--dry-run"],
        ["--out", "b.tif", "--new"],
        ["--bands", "red", "sc-1"],
    ],
)
def test_options_that_do_not_fit_are_refused(no_home: Path, arguments: list[str]) -> None:
    assert _run(["predict", *arguments]) == 2
    assert list(no_home.iterdir()) == []


@pytest.fixture
def model(home: Home) -> cloudseg.Model:
    return cloudseg.load(home.weights_file)


def test_a_missing_band_says_what_to_type(model: cloudseg.Model, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(500, 6000, (3, 40, 40)).astype(np.uint16)
    plain = write_tif(tmp_path / "plain.tif", numbers)
    with pytest.raises(BadScene, match=r"band names are unknown.*--bands"):
        model.predict_file(plain, tmp_path / "m.tif")
    named = write_tif(tmp_path / "named.tif", numbers, ("red", "green", "blue"))
    with pytest.raises(InputError, match=r"the model reads nir \(found red, green, blue.*--bands nir,red,green"):
        model.predict_file(named, tmp_path / "m.tif")
    with pytest.raises(InputError, match=r"unknown bands.*B08"):
        model.predict_file(plain, tmp_path / "m.tif", bands=["red", "green", "B08"])
    assert not (tmp_path / "m.tif").exists()
    record = model.predict_file(plain, tmp_path / "m.tif", bands=["red", "green", "nir"])
    assert record.bands == ["red", "green", "nir"]


def test_a_file_without_crs_needs_a_resolution(model: cloudseg.Model, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(500, 6000, (3, 40, 40)).astype(np.uint16)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write_tif(tmp_path / "in.tif", numbers, ("red", "green", "nir"), crs=None, transform=None)
    names = ["red", "green", "nir"]
    with pytest.raises(InputError, match=r"size of a pixel is unknown.*--resolution 10"):
        model.predict_file(path, tmp_path / "m.tif", bands=names)
    model.predict_file(path, tmp_path / "m.tif", bands=names, resolution_m=30)
    assert (pixels(tmp_path / "m.tif") == model.predict(numbers, bands=names, resolution_m=30).mask).all()


def test_virtual_and_other_formats_are_refused(model: cloudseg.Model, home: Home, tmp_path: Path) -> None:
    tile = sorted((home.tiles / "images").iterdir())[0]
    (tmp_path / "virtual.tif").write_text(
        f'<VRTDataset rasterXSize="150" rasterYSize="150"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{tile}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "grid.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (tmp_path / "text.tif").write_text("no raster")
    for name, message in (
        ("virtual.tif", "the file is a virtual raster, which refers to other files"),
        ("grid.png", "the file is not a supported raster"),
        ("text.tif", "the file is not a supported raster"),
        ("absent.tif", "no such file"),
        ("/vsicurl/http://127.0.0.1:9/a.tif", "no such file"),
        (f"GTIFF_DIR:1:{tile}", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            model.predict_file(tmp_path / name if "/" not in name else name, tmp_path / "m.tif")
    assert not (tmp_path / "m.tif").exists()


def test_values_that_are_no_reflectance_are_refused(model: cloudseg.Model, tmp_path: Path) -> None:
    """Digital numbers of Landsat Level-1, read as reflectance x 10 000."""
    numbers = np.random.default_rng(0).integers(8_000, 40_000, (3, 64, 64)).astype(np.uint16)
    path = write_tif(tmp_path / "in.tif", numbers, ("red", "green", "blue"))
    with pytest.raises(BadScene, match="cannot be reflectance with this scale"):
        model.predict_file(path, tmp_path / "m.tif", bands=["red", "green", "nir"])


def test_outputs_that_cannot_be_written_are_named_before_anything_is_computed(
    model: cloudseg.Model, home: Home, tmp_path: Path
) -> None:
    tile = sorted((home.tiles / "images").iterdir())[0]
    before = tile.read_bytes()
    for out, probability, message in (
        (tmp_path / "no" / "m.tif", None, "no such folder"),
        (tile, None, "the file that is masked"),
        (tmp_path, None, "a folder"),
        (tmp_path / "m.tif", tmp_path / "m.tif", "the same path"),
    ):
        with pytest.raises(InputError, match=message):
            model.predict_file(tile, out, probability=probability)
    assert tile.read_bytes() == before


def test_memory_does_not_grow_with_the_file(
    model: cloudseg.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second file is nine times as large; its windows are not. Its mask alone is 8 MB more, its bands are 64 MB.

    Both are wider than the parts that are read at once, which have 512 instead of 16 384 columns here.
    """
    monkeypatch.setattr("cloudseg.predict.window_pixels.MOST_COLS", 512)
    peaks, seen = [], []
    for size in (1000, 3000):
        path = make_large_scene(tmp_path / f"{size}.tif", size=size)
        raster = describe_file(path, model.bands, read_settings(), resolution_m=30.0)
        seen.clear()
        gc.collect()
        tracemalloc.start()
        # A core of 128 working pixels at least, that is 256 pixels of the file.
        write_mask(
            model._predictor,
            raster,
            tmp_path / "m.tif",
            None,
            version=None,
            budget_bytes=1 << 20,
            on_progress=lambda step: seen.append((step.done, step.total)),
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert seen == [(number, len(seen)) for number in range(1, len(seen) + 1)]
        assert len(seen) > 9
    assert peaks[1] < peaks[0] + 2_000_000, peaks


def test_three_lines_in_a_new_process(home: Home, tmp_path: Path) -> None:
    tile = sorted((home.tiles / "images").iterdir())[0]
    code = f"import cloudseg\nmodel = cloudseg.load()\nmodel.predict_file({str(tile)!r}, 'mask.tif')"
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "CLOUDSEG_HOME": str(home.folder)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (pixels(tmp_path / "mask.tif") == pixels(published(home)[tile.stem][0])).all()
