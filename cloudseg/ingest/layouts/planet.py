"""PlanetScope and RapidEye, one multi-band file: `20230801_105621_12_2456_3B_AnalyticMS_SR_8b.tif`.

Beside it `…_udm2.tif`, and for products of radiance `…_metadata.xml` (or `.json`) with the coefficients to reflectance.
"""

from collections import defaultdict
from dataclasses import dataclass

from cloudseg.errors import BadScene
from cloudseg.ingest.candidate import Candidate, QualityFile, SourceFile, UnmatchedFile
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import RASTER_SUFFIXES, FileListing, unusable_product
from cloudseg.ingest.products.planet import (
    PlanetFile,
    coefficient_radiometry,
    planet_file,
    reflectance_coefficients,
)

_Part = tuple[InboxFile, PlanetFile]


@dataclass(frozen=True)
class Planet:
    """Surface reflectance × 10 000, or radiance with coefficients; time from the name; UDM2 as quality layer.

    Of several images of one acquisition the first of these: surface reflectance, radiance, true color.
    """

    name: str = "planet"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`."""
        scenes: dict[tuple[str, str], list[_Part]] = defaultdict(list)
        for file in listing.files:
            if (found := planet_file(file.stem)) and file.suffix in (*RASTER_SUFFIXES, "xml", "json"):
                scenes[file.folder, found.scene].append((file, found))
        return [
            _scene(listing, parts)
            for _, parts in sorted(scenes.items())
            if any(file.suffix in RASTER_SUFFIXES for file, _ in parts)
        ]


def _scene(listing: FileListing, parts: list[_Part]) -> Candidate | UnmatchedFile:
    rasters = [part for part in parts if part[0].suffix in RASTER_SUFFIXES]
    images = [part for part in rasters if part[1].is_analytic or part[1].rest.startswith("visual")]
    files = [file for file, _ in parts]
    if not images:
        return unusable_product(files, _no_image([found.rest for _, found in rasters]))
    file, image = min(images, key=_preference)
    try:
        sources = _sources(listing, parts, file, image)
    except BadScene as error:
        return unusable_product(files, error)
    # A clipped image has a clipped quality layer; of two that lie there, the one of the same extent.
    layers = sorted(
        (part for part in rasters if part[1].is_udm2), key=lambda part: _is_clipped(part[1]) != _is_clipped(image)
    )
    return Candidate(
        file.stem,
        "planet",
        sources,
        sensor=image.product.sensor,
        acquired_at=image.product.acquired_at,
        quality=tuple(QualityFile(layer, "planet_udm2") for layer, _ in layers[:1]),
        extra_files=tuple(files),
    )


def _preference(part: _Part) -> tuple[bool, bool, int, str]:
    _, found = part
    return not found.is_surface_reflectance, not found.is_analytic, -len(found.band_orders[0]), found.rest


def _is_clipped(found: PlanetFile) -> bool:
    return "clip" in found.rest.split("_")


def _no_image(found: list[str]) -> BadScene:
    return BadScene(
        "a Planet product without its image",
        found=", ".join(found),
        expected="…_AnalyticMS_SR.tif or …_AnalyticMS.tif in the same folder",
        next_step="Put the image into the same folder.",
    )


def _sources(listing: FileListing, parts: list[_Part], file: InboxFile, image: PlanetFile) -> tuple[SourceFile, ...]:
    """Return the image; one of radiance once for each band, because each band has its own coefficient.

    Raises:
        BadScene: A product of radiance has no usable coefficients.
    """
    if not image.is_analytic:
        return (SourceFile(file, listing.bands),)
    if image.is_surface_reflectance:
        first, *others = [listing.bands] if listing.bands else image.band_orders
        return (SourceFile(file, first, other_bands=tuple(others), radiometry=image.product.radiometry),)
    metadata = [(part, found) for part, found in parts if found.is_metadata and part.suffix in ("xml", "json")]
    order, coefficients = _coefficients(listing, metadata, image)
    radiometry = coefficient_radiometry(coefficients, order)
    return tuple(
        SourceFile(file, tuple(name if name == band else None for name in order), radiometry=radiometry[band])
        for band in order
        if band
    )


def _coefficients(
    listing: FileListing, metadata: list[_Part], image: PlanetFile
) -> tuple[tuple[str | None, ...], dict[int, float]]:
    """Return the names of the bands in file order, and the coefficient by band number.

    Raises:
        BadScene: No metadata file has a coefficient for every band.
    """
    orders: tuple[tuple[str | None, ...], ...] = (listing.bands,) if listing.bands else image.band_orders
    found = {file.name: reflectance_coefficients(listing.text(file), file.name) for file, _ in metadata}
    for order in orders:
        for coefficients in found.values():
            if sorted(coefficients) == list(range(1, len(order) + 1)):
                return order, coefficients
    raise BadScene(
        "the digital numbers are radiance, and there are no coefficients to reflectance",
        found="; ".join(f"{name}: {len(each)} coefficients" for name, each in found.items()) or "no metadata file",
        expected=f"reflectanceCoefficient of {len(orders[0])} bands in …_metadata.xml beside the image",
        next_step="Put the metadata file of the product into the same folder, or use its surface reflectance.",
    )
