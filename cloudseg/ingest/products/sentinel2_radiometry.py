"""Scale and offset of a Sentinel-2 band from everything that lies beside it.

In this order: the STAC item that names the file, the product's metadata file, the baseline in another metadata file,
the baseline in the product id, the date. The date only guesses; so does a product id beside metadata that cannot be
read. Two statements that differ are an error.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from cloudseg.bands import Radiometry
from cloudseg.errors import BadScene
from cloudseg.ingest.products.product import Product
from cloudseg.ingest.products.sentinel2 import baseline_radiometry
from cloudseg.ingest.products.sentinel2_metadata import Sentinel2Metadata
from cloudseg.ingest.stac_item import StacBand, StacItem

_SCALE: Final = 1e-4
"""1 / QUANTIFICATION_VALUE of every product so far."""


@dataclass(frozen=True)
class Sentinel2Evidence:
    """What lies beside the band files of one acquisition."""

    name: str
    """The scene's name, for messages."""
    product: Product | None
    """From the product id in the path."""
    date_guess: Radiometry
    metadata: tuple[Sentinel2Metadata, ...] = ()
    damaged: tuple[str, ...] = ()
    """Metadata files that cannot be read, with the reason."""

    def radiometry(self, band: str, item: StacItem | None, asset_band: StacBand | None) -> Radiometry:
        """Return scale and offset of a band.

        Args:
            band: The band's name.
            item: The STAC item that names the file.
            asset_band: The file's band in it.

        Raises:
            BadScene: Two statements differ, a value is not plausible, or the only statement cannot be read.
        """
        stated = [
            each
            for each in (
                _of_item(self.name, item, asset_band) if item else None,
                *(_of_product_file(self.name, each, band) for each in self.metadata if each.is_product),
            )
            if each is not None
        ]
        if item and item.offset_applied and stated:
            return stated[0]  # describes these very files; the product's metadata describes those before the offset
        certain = [each for each in stated if not each.guessed] or stated
        for other in certain[1:]:
            check_agreement(self.name, certain[0], other)
        return certain[0] if certain else self._from_baseline()

    def _from_baseline(self) -> Radiometry:
        for metadata in self.metadata:
            if known := baseline_radiometry(metadata.baseline):
                return replace(known, source=f"{known.source} (baseline in {metadata.file})")
        named = self.product.radiometry if self.product else None
        if self.damaged and (named is None or named.guessed):
            raise BadScene(
                "the metadata beside the bands cannot be read, and nothing else states the offset",
                subject=self.name,
                found="; ".join(self.damaged),
                expected="the product's metadata as it was delivered",
                next_step="Get the metadata file again from its source; without one, the date decides and is checked.",
            )
        if named is not None and self.damaged:
            because = "guessed from the product id: the metadata beside it cannot be read"
            return replace(named, source=f"{named.source} ({because})", guessed=True)
        return named or self.date_guess


def _of_item(name: str, item: StacItem, band: StacBand | None) -> Radiometry | None:
    """Return what a STAC item states about a band, or None."""
    scale = band.scale if band and band.scale else _SCALE
    offset = band.offset if band else None
    implied = baseline_radiometry(item.baseline)
    if item.offset_applied:
        return _checked(name, scale, 0.0, f"STAC item {item.file.name}: the offset is already applied")
    if offset is None:
        return replace(implied, source=f"{implied.source} (baseline in {item.file.name})") if implied else None
    stated = _checked(name, scale, offset, f"STAC item {item.file.name}: scale {scale:g}, offset {offset:g}")
    if implied:
        check_agreement(name, stated, implied)
    return stated


def _of_product_file(name: str, metadata: Sentinel2Metadata, band: str) -> Radiometry | None:
    """Return what the product's metadata file states about a band, or None."""
    quantification = metadata.quantification or 1 / _SCALE
    text = f"{metadata.file}: QUANTIFICATION_VALUE {quantification:g}"
    if metadata.offsets:
        if band not in metadata.offsets:
            raise BadScene(
                f"the metadata states no offset for {band}",
                subject=name,
                found=f"{metadata.file}: {', '.join(metadata.offsets)}",
                expected="an offset for every band",
                next_step="Get the metadata file again from its source, or leave the band out with --bands.",
            )
        offset = metadata.offsets[band]
        return _checked(name, 1 / quantification, offset / quantification, f"{text}, offset {offset:g}")
    if metadata.baseline is None:
        return None
    if (implied := baseline_radiometry(metadata.baseline)) and implied.offset:
        source = f"{implied.source} (guessed from the baseline: {metadata.file} lists no offsets)"
        return replace(implied, source=source, guessed=True)
    return _checked(name, 1 / quantification, 0.0, f"{text}, no offset")


def _checked(name: str, scale: float, offset: float, source: str) -> Radiometry:
    if not (0 < scale <= 1 and abs(offset) <= 1):
        raise BadScene(
            "scale and offset of the metadata are not plausible",
            subject=name,
            found=source,
            expected="scale in (0, 1], offset in [-1, 1]",
            next_step="Get the metadata file again from its source.",
        )
    return Radiometry(scale, offset, 0, source)


def check_agreement(name: str, one: Radiometry, other: Radiometry) -> None:
    """Check that two statements about one band agree.

    Raises:
        BadScene: They differ.
    """
    pairs = ((one.scale, other.scale), (one.offset, other.offset))
    if all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) for a, b in pairs):
        return
    raise BadScene(
        "two statements about scale and offset differ",
        subject=name,
        found=f"scale {one.scale:g}, offset {one.offset:g} ({one.source}); "
        f"scale {other.scale:g}, offset {other.offset:g} ({other.source})",
        expected="metadata of these files only",
        next_step="Remove the metadata that does not belong to these files.",
    )
