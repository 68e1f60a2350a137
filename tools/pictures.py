"""Make the pictures of docs/assets/ from a real run; those of the Airflow UI: `tools.page_pictures`.

A scene with its mask, an evaluation report, the correction of a mask.

    python -m tools.pictures --home var/demo
    python examples/partial_correction.py FOLDER && python -m tools.pictures --correction FOLDER

`--home` is a home with masks, such as the demo's. Needs Chromium. Check every picture before it is committed.
"""

import argparse
import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import pyogrio.raw
import rasterio
import rasterio.features
import shapely
from PIL import Image, ImageColor
from playwright.sync_api import Page, sync_playwright

from cloudseg.worklist.style import COLORS, FILL_ALPHA, MASK_ALPHA, MASK_COLOR

ASSETS: Final = Path(__file__).parents[1] / "docs" / "assets"
LARGEST: Final = 150_000
"""Bytes of a picture, at most: the repository keeps every version."""
SMALL: Final = 40_000
OUTLINE: Final = (255, 0, 170)
_CLOUD, _NO_DATA = 1, 255
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")

UInt8 = npt.NDArray[np.uint8]


def scene_and_mask(scene: Path, mask: Path, side: int = 512) -> Image.Image:
    """Return a scene in true color with its clouds outlined, next to its mask, each `side` pixels square.

    Args:
        scene: canonical COG: uint16, reflectance x 10 000 with bands red, green, blue first, 0 = no data.
        mask: uint8 on the same grid: 0 clear, 1 cloud, 255 no data.
        side: pixels.
    """
    with rasterio.open(scene) as source:
        order = [source.descriptions.index(band) + 1 for band in ("red", "green", "blue")]
        reflectance = source.read(order).astype(np.float32) / 10_000
    with rasterio.open(mask) as source:
        classes: UInt8 = source.read(1)
    low, high = np.percentile(reflectance[:, classes != _NO_DATA], (1, 98))
    stretched = np.clip((reflectance - low) / max(high - low, 0.08), 0, 1) ** 0.6
    size, near = (side, side), Image.Resampling.NEAREST
    left = Image.fromarray(np.rint(stretched * 255).astype(np.uint8).transpose(1, 2, 0)).resize(size)
    large = np.asarray(Image.fromarray(classes).resize(size, near))
    picture = np.array(left)
    picture[_edges(large == _CLOUD)] = OUTLINE
    palette = np.full((256, 3), 128, np.uint8)
    palette[0], palette[_CLOUD], palette[_NO_DATA] = (46, 74, 98), (255, 255, 255), (128, 128, 128)
    gap = np.full((side, 12, 3), 255, np.uint8)
    return Image.fromarray(np.concatenate([picture, gap, palette[large]], axis=1))


def _edges(cloud: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the cloud pixels within two pixels of anything else."""
    inner = cloud.copy()
    for _ in range(2):
        padded = np.pad(inner, 1, constant_values=True)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & inner
    return cloud & ~inner


def layers_of(folder: Path, *, drawn: bool, scale: int = 2) -> Image.Image:
    """Return what QGIS shows of the first scene of a worklist folder: picture, mask, and polygons on top.

    Args:
        folder: from `cloudseg worklist --out`.
        drawn: whether the polygons are shown.
        scale: pixels of the result per pixel of the scene, along an axis.
    """
    (labels,) = (folder / "labels").glob("*.gpkg")
    layers = folder / "layers" / labels.stem
    with rasterio.open(layers / "rgb.tif") as rgb, rasterio.open(layers / "mask.tif") as mask:
        picture: npt.NDArray[np.float32] = rgb.read().transpose(1, 2, 0).astype(np.float32)
        cloud, transform = mask.read(1) == _CLOUD, mask.transform
    picture, cloud = (np.repeat(np.repeat(array, scale, 0), scale, 1) for array in (picture, cloud))
    _blend(picture, cloud, ImageColor.getrgb(MASK_COLOR), MASK_ALPHA)
    if drawn:
        _, _, wkb, (classes, *_) = pyogrio.raw.read(labels, layer="labels")
        fine = transform @ rasterio.Affine.scale(1 / scale)
        for geometry, name in zip(shapely.from_wkb(wkb), classes, strict=True):
            inside = rasterio.features.geometry_mask([geometry], cloud.shape, fine, invert=True)
            _blend(picture, inside, COLORS[name], FILL_ALPHA)
            _blend(picture, _edges(inside), COLORS[name], 255)
    return Image.fromarray(np.rint(picture).astype(np.uint8))


def _blend(picture: npt.NDArray[np.float32], where: npt.NDArray[np.bool_], color: tuple[int, ...], alpha: int) -> None:
    """Lay a color with an opacity of 0 to 255 over a part of a picture."""
    share = alpha / 255
    picture[where] = (1 - share) * picture[where] + share * np.array(color, np.float32)


def beside(*pictures: Image.Image) -> Image.Image:
    """Return pictures of one height side by side."""
    gap = np.full((pictures[0].height, 12, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (np.asarray(picture), gap)][:-1]
    return Image.fromarray(np.concatenate(parts, axis=1))


def from_correction(folder: Path) -> None:
    """Make the pictures of docs/how-to/partial_correction.md from a run of examples/partial_correction.py."""
    seen, drawn = (layers_of(folder / "correct", drawn=drawn) for drawn in (False, True))
    save(beside(seen, drawn), "correction_drawn.webp", SMALL)
    save(Image.open(folder / "diff.png").convert("RGB"), "correction_diff.webp", SMALL)


def save(picture: Image.Image, name: str, largest: int = LARGEST) -> None:
    """Write a WebP into docs/assets/, in the best quality that stays below the limit."""
    for quality in range(92, 30, -6):
        out = io.BytesIO()
        picture.save(out, "WEBP", quality=quality, method=6)
        if out.tell() <= largest:
            (ASSETS / name).write_bytes(out.getvalue())
            print(f"{name}: {picture.width} x {picture.height}, {out.tell() / 1000:.0f} kB, quality {quality}")
            return
    sys.exit(f"{name} does not fit into {largest} bytes")


@contextmanager
def browser(width: int, height: int) -> Iterator[Page]:
    """Yield a page of a headless Chromium."""
    found = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        sys.exit("no Chromium on the PATH: apt install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        chromium.close()


def shot(page: Page) -> Image.Image:
    """Return what a page shows now."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def from_home(home: Path) -> None:
    """Make the pictures that follow from a home: a scene with its mask, and the newest champion's report."""
    os.environ["CLOUDSEG_HOME"] = str(home)
    from cloudseg import stages
    from cloudseg.runtime import open_runtime

    runtime = open_runtime()
    scenes = {scene["scene_id"]: scene for scene in stages.scenes(limit=None)}
    masks = stages.masks(limit=None)
    if not masks:
        sys.exit(f"{home} has no masks")
    # A scene with half cloud shows most; ties are broken by the id.
    chosen = min(masks, key=lambda mask: (abs(mask["cloud_fraction"] - 0.4), mask["mask_id"]))
    scene, mask = (_path(runtime.store.uri_of(key)) for key in (scenes[chosen["scene_id"]]["key"], chosen["key"]))
    print(f"scene {chosen['scene']}, {chosen['cloud_fraction']:.0%} cloud")
    save(scene_and_mask(scene, mask), "scene_and_mask.webp")
    evaluation = stages.evaluate(chosen["weights_id"])
    with browser(1100, 760) as page:
        page.goto(_path(evaluation.report_uri).absolute().as_uri())
        save(shot(page), "report.webp")


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def main() -> None:
    """Read the arguments and make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="home with masks")
    parser.add_argument("--correction", type=Path, help="folder of examples/partial_correction.py")
    given = parser.parse_args()
    ASSETS.mkdir(exist_ok=True)
    if given.home:
        from_home(given.home)
    if given.correction:
        from_correction(given.correction)


if __name__ == "__main__":
    main()
