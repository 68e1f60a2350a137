"""STAC items beside their assets, of any sensor: the item names the bands, their scale, the time and the place.

Files that a product's own layout recognizes by their names are read by that one.
"""

from dataclasses import dataclass, replace
from typing import Final

from cloudseg.bands import RGB, Radiometry
from cloudseg.errors import BadScene
from cloudseg.ingest.candidate import Candidate, QualityFile, QualityKind, SourceFile, UnmatchedFile
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import RASTER_SUFFIXES, FileListing, missing_bands, select_sources, unusable_product
from cloudseg.ingest.layouts.sentinel2_beside import damage_tags
from cloudseg.ingest.products import find_product
from cloudseg.ingest.products.sentinel2 import guess_radiometry
from cloudseg.ingest.products.sentinel2_radiometry import Sentinel2Evidence
from cloudseg.ingest.stac_item import StacAsset, StacBand, StacItem

_QUALITY: Final[dict[str, QualityKind]] = {
    "scl": "sentinel2_scl",
    "qa_pixel": "landsat_qa_pixel",
    "fmask": "hls_fmask",
    "udm2": "planet_udm2",
    "ortho_udm2": "planet_udm2",
}
"""Quality layers by the asset's key."""
_PICTURES: Final = frozenset(("thumbnail", "overview", "visual"))
"""Roles of assets that are drawn for people."""
_Files = list[tuple[InboxFile, StacAsset]]


@dataclass(frozen=True)
class StacAssets:
    """One item, one scene: one file per band, else one file with several bands."""

    name: str = "stac"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`."""
        by_path = {file.path: file for file in listing.files}
        found: list[Candidate | UnmatchedFile] = []
        claimed: set[str] = set()
        for item in listing.items.all():
            files = [
                (by_path[path], asset)
                for path, asset in item.paths().items()
                if path in by_path and path not in claimed and by_path[path].suffix in RASTER_SUFFIXES
            ]
            if scene := self._scene(listing, item, files):
                found.append(scene)
                claimed |= scene.claimed_paths()
        return found

    def _scene(self, listing: FileListing, item: StacItem, files: _Files) -> Candidate | UnmatchedFile | None:
        """Return the scene of an item; None if its files name no bands of it."""
        chosen = _one_file_per_band(files, listing.bands) or _one_file(files)
        if not chosen:
            return None
        everything = [item.file, *(file for file, _ in files)]
        if len(chosen) == 1 and listing.bands:
            chosen = [(*chosen[0][:2], listing.bands)]
        try:
            sources = {names[0] or "": _source(item, file, asset, names) for file, asset, names in chosen}
        except BadScene as error:
            return unusable_product(everything, error)
        one = len(chosen) == 1 and next(iter(sources.values()))
        layers = [(file, _QUALITY.get(asset.key.lower())) for file, asset in files]
        return Candidate(
            item.name,
            self.name,
            (one,) if one else select_sources(sources, listing.bands),
            quality=tuple(QualityFile(file, kind) for file, kind in layers if kind),
            sensor=item.sensor,
            acquired_at=item.acquired_at,
            place=item.place,
            extra_files=tuple(everything),
        )


def _one_file_per_band(
    files: _Files, wanted: tuple[str | None, ...] | None
) -> list[tuple[InboxFile, StacAsset, tuple[str | None, ...]]]:
    """Return the files with one named band each; empty unless red, green and blue are among them."""
    found: dict[str, tuple[InboxFile, StacAsset, tuple[str | None, ...]]] = {}
    for file, asset in files:
        if len(asset.bands) == 1 and asset.bands[0].name and not _PICTURES.intersection(asset.roles):
            found.setdefault(asset.bands[0].name, (file, asset, (asset.bands[0].name,)))
    return [] if missing_bands(found, wanted) else list(found.values())


def _one_file(files: _Files) -> list[tuple[InboxFile, StacAsset, tuple[str | None, ...]]]:
    """Return the file with several bands, data before pictures; empty if no file has red, green and blue."""
    several = [
        (file, asset, tuple(band.name for band in asset.bands))
        for file, asset in files
        if set(RGB) <= {band.name for band in asset.bands}
    ]
    return sorted(several, key=lambda each: bool(_PICTURES.intersection(each[1].roles)))[:1]


def _source(item: StacItem, file: InboxFile, asset: StacAsset, names: tuple[str | None, ...]) -> SourceFile:
    """Return a file with its bands and the scale that the item states.

    Raises:
        BadScene: The scale is not plausible, or differs between the bands of one file.
    """
    bands = [band for band in asset.bands if band.name] or asset.bands
    found = [_radiometry(item, file, band) for band in bands]
    for other in found[1:]:
        if (found[0] is None) != (other is None) or (found[0] and other and not _same(found[0], other)):
            raise BadScene(
                "the item states different scales for the bands of one file",
                subject=file.path,
                found="; ".join(each.source if each else "none" for each in found)[:300],
                expected="one scale and offset",
                next_step="Split the file into one file per band.",
            )
    return SourceFile(file, names, radiometry=found[0] if found else None)


def _same(one: Radiometry, other: Radiometry) -> bool:
    return (one.scale, one.offset) == (other.scale, other.offset)


def _radiometry(item: StacItem, file: InboxFile, band: StacBand) -> Radiometry | None:
    product = find_product(item.product_name or file.stem)
    if item.is_sentinel2:
        evidence = Sentinel2Evidence(item.name, product, guess_radiometry(item.acquired_at))
        return evidence.radiometry(band.name or "", item, band)
    if band.scale is None and band.offset is None:
        return product.radiometry if product else None
    scale, offset = (1.0 if band.scale is None else band.scale), band.offset or 0.0
    if not (0 < scale <= 1 and abs(offset) <= 1):
        raise BadScene(
            "scale and offset of the STAC item are not plausible",
            subject=file.path,
            found=f"{item.file.name}: scale {scale:g}, offset {offset:g}",
            expected="scale in (0, 1], offset in [-1, 1]",
            next_step="Get the item again from its source.",
        )
    return Radiometry(scale, offset, band.nodata, f"STAC item {item.file.name}: scale {scale:g}, offset {offset:g}")


def with_item(scene: Candidate, listing: FileListing) -> Candidate | UnmatchedFile:
    """Return the scene of one file, for an unknown sensor with what the STAC item beside it states.

    A damaged item in its folder may be the one that states something: the scene's tag `metadata` names it.

    Args:
        scene: The scene with what its name states.
        listing: The files of the inbox.
    """
    (source,) = scene.files
    found = listing.items.of(source.file) if scene.sensor == "unknown" else []
    if not found:
        return replace(scene, tags=(*scene.tags, *damage_tags(listing.items.damaged(source.file.folder))))
    item, asset = found[0]
    names = tuple(band.name for band in asset.bands)
    bands = source.bands or (names if set(RGB) <= set(names) else None)
    try:
        stated = _source(item, source.file, asset, bands or names)
    except BadScene as error:
        return unusable_product([source.file, *([scene.label.file] if scene.label else [])], error)
    return replace(
        scene,
        files=(replace(stated, bands=bands),),
        sensor=item.sensor,
        acquired_at=scene.acquired_at or item.acquired_at,
        place=scene.place or item.place,
    )
