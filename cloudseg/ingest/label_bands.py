"""Which band of a label raster holds the classes, and which pixels the file itself states as not labeled.

A label has exactly one band of classes. Alpha bands, an internal mask and a mask file (`.msk`) beside it state what is
not labeled. Runs in the sandboxed decoder process.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp, MaskFlags

from cloudseg.errors import BadLabel
from cloudseg.grid import Window
from cloudseg.ingest.pam import PamBand, read_pam
from cloudseg.ingest.untrusted import rasterio_window, read_window

_COLORS: Final = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_CLEAR_NAMES: Final = re.compile(
    r"(clear|cloud[ _-]?free|cloudless|no[ _-]?clouds?|non?t?[ _-]?cloud(y)?|valid|ground|land|surface)"
    r"([ _-]?(sky|mask|pixels?|land|prob(ability)?))?",
    re.I | re.A,
)
"""Names of a band, or of the class 1, in which 1 means clear."""
_CLOUD_NAMES: Final = re.compile(r"(thick |thin |opaque )?cloud(s|y)?( mask)?", re.I | re.A)


@dataclass(frozen=True)
class LabelBands:
    """How a label raster is read."""

    classes: int
    """Index of the band of classes, from 1."""
    alphas: tuple[int, ...]
    """Indexes of the alpha bands: 0 there means not labeled."""
    has_mask: bool
    """Whether the file has an internal mask."""
    nodata: float | None
    """Declared by the `.aux.xml` beside the file, else by the file, as in GDAL."""

    def labeled(self, view: Any, dataset: Any, window: Window, display_name: str) -> npt.NDArray[np.bool_]:
        """Return which pixels the file does not state as unlabeled; the nodata value is left to the class mapping.

        Args:
            view: The label on its scene's grid.
            dataset: The file itself; the same object if it is not warped.
            window: The pixels.
            display_name: The file's name, for messages.
        """
        if view is not dataset:  # a warped VRT keeps alpha, mask and what lies outside of the file in one mask
            return np.asarray(view.read_masks(self.classes, window=rasterio_window(window)) != 0)
        found = np.ones((window.height, window.width), bool)
        for alpha in self.alphas:
            found &= read_window(view, alpha, window, display_name) != 0
        if self.has_mask:
            found &= view.read_masks(self.classes, window=rasterio_window(window)) != 0
        return found


def find_class_band(dataset: Any, path: str, display_name: str) -> LabelBands:
    """Return which band holds the classes.

    Args:
        dataset: The open label.
        path: Its private copy; `<path>.aux.xml` may lie beside it.
        display_name: The file's name, for messages.

    Raises:
        BadLabel: There is not exactly one band of classes, or what the file says about it suggests that 1 means clear.
        BadScene: The `.aux.xml` beside it cannot be read.
    """
    alphas = tuple(index for index in dataset.indexes if _is_alpha(dataset, index))
    bands = [index for index in dataset.indexes if index not in alphas]
    if len(bands) != 1:
        raise _wrong_bands(dataset, bands, display_name)
    band = bands[0]
    pam = read_pam(Path(f"{path}.aux.xml"), f"{display_name}.aux.xml", dataset.count).get(band, PamBand())
    _check_not_inverted(dataset, band, pam, display_name)
    flags = dataset.mask_flag_enums[band - 1]
    has_mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    nodata = dataset.nodatavals[band - 1] if pam.nodata is None else pam.nodata
    return LabelBands(band, alphas, has_mask, nodata)


def _is_alpha(dataset: Any, index: int) -> bool:
    description = (dataset.descriptions[index - 1] or "").strip().lower()
    return dataset.colorinterp[index - 1] == ColorInterp.alpha or (description == "alpha" and dataset.count > 1)


def _wrong_bands(dataset: Any, bands: Sequence[int], display_name: str) -> BadLabel:
    """Return the error of a label with none or several bands of classes."""
    colors = [dataset.colorinterp[index - 1] for index in bands]
    names = [dataset.descriptions[index - 1] or color.name for index, color in zip(bands, colors, strict=True)]
    found = f"{len(bands)} bands besides alpha: {', '.join(names)}"[:200]
    one_band = "Save one band: 0 clear, 1 cloud, 255 not labeled"
    if not bands:
        return BadLabel(
            "the label has no band of classes", subject=display_name, found="alpha only", next_step=f"{one_band}."
        )
    if set(_COLORS) <= set(colors):
        return BadLabel(
            "the label is a picture in colors, not classes",
            subject=display_name,
            found=found,
            expected="one band of classes",
            next_step=f"{one_band} (in QGIS: Export > Save As > Raw data, not Rendered image).",
        )
    return BadLabel(
        f"the label has {len(bands)} bands of classes: which one is meant is unknown",
        subject=display_name,
        found=found,
        expected="one band of classes; further bands only as alpha",
        next_step=f"{one_band}. From one-hot bands take the one of cloud (GDAL: gdal_translate -b); an alpha band must "
        "be declared as one (gdal_edit.py -colorinterp_2 alpha).",
    )


def _check_not_inverted(dataset: Any, band: int, pam: PamBand, display_name: str) -> None:
    """Refuse a label whose own description suggests that its cloud is 0: inverted, it would teach the opposite.

    Raises:
        BadLabel: The band is called like clear, the names of its classes are the other way round, or 0 is drawn
            white and the other value black.
    """
    reason = _named_clear(dataset, band, pam) or _categories_inverted(pam) or _drawn_inverted(dataset, band)
    if reason:
        raise BadLabel(
            "the label may be inverted",
            subject=display_name,
            found=reason,
            expected="0 clear, 1 cloud, 255 not labeled",
            next_step="Save it with 1 for cloud, without that description (GDAL: gdal_calc.py --calc=1-A for an "
            "inverted one).",
        )


def _named_clear(dataset: Any, band: int, pam: PamBand) -> str | None:
    description = (pam.description or dataset.descriptions[band - 1] or "").strip()
    return f"the band is called {description!r}" if _CLEAR_NAMES.fullmatch(description) else None


def _categories_inverted(pam: PamBand) -> str | None:
    zero, one = [*pam.categories, "", ""][:2]
    if _CLOUD_NAMES.fullmatch(zero) or _CLEAR_NAMES.fullmatch(one):
        return f"the class 0 is called {zero!r}, the class 1 {one!r}"
    return None


def _drawn_inverted(dataset: Any, band: int) -> str | None:
    """Return why a black-and-white label is drawn the other way round: 0 white and the other value black."""
    if dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        return "the file says that 0 is white (photometric interpretation MINISWHITE)"
    if dataset.colorinterp[band - 1] != ColorInterp.palette:
        return None
    colors = dataset.colormap(band)
    zero, one = colors.get(0, (0, 0, 0, 0)), colors.get(1, (255, 255, 255, 255))
    if len(set(zero[:3])) == len(set(one[:3])) == 1 and zero[0] > one[0]:
        return "the palette draws 0 brighter than 1"
    return None
