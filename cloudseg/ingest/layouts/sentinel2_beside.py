"""What the names and the metadata files beside the bands of one Sentinel-2 acquisition state."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cloudseg.bands import RGB, Radiometry
from cloudseg.errors import BadScene
from cloudseg.ingest.candidate import Candidate, UnmatchedFile
from cloudseg.ingest.inbox_file import InboxFile, NotRead, read_metadata
from cloudseg.ingest.layouts.base import FileListing, unusable_product
from cloudseg.ingest.layouts.sentinel2_files import Granule
from cloudseg.ingest.products import Product
from cloudseg.ingest.products.sentinel2 import (
    guess_radiometry,
    sentinel2_band,
    sentinel2_bucket_tile,
    sentinel2_product,
    sentinel2_tile,
)
from cloudseg.ingest.products.sentinel2_metadata import (
    Sentinel2Metadata,
    is_sentinel2_metadata,
    parse_sentinel2_metadata,
)
from cloudseg.ingest.products.sentinel2_radiometry import Sentinel2Evidence, check_agreement

_SAME_TIME: Final = timedelta(hours=1)
"""Sensing times of one datatake in different files differ by less; the same tile is seen again after days."""
_MAX_TAG_LENGTH: Final = 200
_METADATA_BYTES: Final = 8 << 20
"""Size of a metadata file; MTD_TL.xml has less than 1 MB."""


@dataclass(frozen=True)
class NameFacts:
    """Place and time from the names of files and folders."""

    place: str | None
    acquired_at: datetime | None
    day: datetime | None = None
    """Where only the day is known."""

    def differs(self, place: str | None, moment: datetime | None) -> bool:
        """Return whether metadata of this place and time belongs to another acquisition."""
        if place and self.place and place != self.place:
            return True
        known, tolerance = (self.acquired_at, _SAME_TIME) if self.acquired_at else (self.day, timedelta(days=1))
        return bool(known and moment and abs(known - moment) > tolerance)


@dataclass(frozen=True)
class Beside:
    """What the names and the metadata files of one acquisition state."""

    product: Product | None
    facts: NameFacts
    metadata: tuple[Sentinel2Metadata, ...]
    damaged: tuple[str, ...]


class MetadataFiles:
    """The metadata files of the inbox by folder. Each is read once, on first use."""

    def __init__(self, listing: FileListing) -> None:
        self._listing = listing
        self.rasters = Counter(file.folder for file in listing.rasters)
        """Number of rasters by folder."""
        self._files: dict[str, list[InboxFile]] = defaultdict(list)
        self._parsed: dict[str, Sentinel2Metadata | str | None] = {}
        for file in listing.files:
            if is_sentinel2_metadata(file.name):
                self._files[file.folder].append(file)

    def of(self, key: Granule, first: InboxFile, *, alone: bool) -> Beside:
        """Return what belongs to an acquisition.

        Args:
            key: The acquisition.
            first: One of its band files.
            alone: Whether its folder holds no other acquisition.

        Raises:
            BadScene: All metadata beside it belongs to another acquisition.
        """
        product, facts = sentinel2_product(first.path), _facts(first, key)
        read = [self._parse(file) for folder in key.metadata_folders() for file in self._files.get(folder, [])]
        found = [each for each in read if isinstance(each, Sentinel2Metadata)]
        damaged = tuple(each for each in read if isinstance(each, str))
        own = [each for each in found if not facts.differs(each.place, each.acquired_at)]
        if (alone or key.is_safe) and found and not own:
            other = found[0]
            raise other_acquisition(first.path, facts, other.file, other.place, other.acquired_at)
        if not alone and not key.is_safe:  # a file that does not say whose it is may be that of a neighbor
            own = [each for each in own if each.place or each.acquired_at]
        level = _level(product, first)
        same_level = [each for each in own if level is None or each.level in (level, None)]
        return Beside(product, facts, tuple(same_level or own), damaged)

    def _parse(self, file: InboxFile) -> Sentinel2Metadata | str | None:
        if file.path not in self._parsed:
            try:
                content = read_metadata(self._listing.inbox, file, _METADATA_BYTES)
                self._parsed[file.path] = parse_sentinel2_metadata(file.name, content)
            except NotRead as error:
                self._parsed[file.path] = f"{file.name}: {error.what}"
            except ValueError as error:
                self._parsed[file.path] = f"{file.name}: {error}"
        return self._parsed[file.path]


def _level(product: Product | None, first: InboxFile) -> str | None:
    """Return `l1c` or `l2a` from the product id, else from a band file's suffix `_10m`, which only Level-2A has."""
    if product is not None:
        return product.sensor.rpartition("-")[2]
    found = sentinel2_band(first.name)
    return "l2a" if found and found[2] else None


def _facts(first: InboxFile, key: Granule) -> NameFacts:
    """Return place and time from the product id in the path, else from the band files' names, else from the bucket."""
    if (product := sentinel2_product(first.path)) and product.acquired_at:
        return NameFacts(product.place, product.acquired_at)
    if tile := sentinel2_tile(key.prefix):
        return NameFacts(*tile)
    if bucket := sentinel2_bucket_tile(first.path):
        return NameFacts(bucket[0], None, bucket[1])
    return NameFacts(product.place if product else None, None)


def other_acquisition(
    subject: str, facts: NameFacts, file: str, place: str | None, moment: datetime | None
) -> BadScene:
    """Return the error of metadata that describes another acquisition than the files beside it."""
    return BadScene(
        "the metadata beside the bands belongs to another acquisition",
        subject=subject,
        found=f"{file}: {place or 'no tile'}, {moment or 'no time'}",
        expected=f"{facts.place or 'any tile'}, {facts.acquired_at or facts.day or 'any time'}",
        next_step="Put the metadata of this acquisition beside its bands, or remove it.",
    )


def band_radiometry(
    evidence: Sentinel2Evidence, listing: FileListing, facts: NameFacts, band: str, file: InboxFile
) -> Radiometry:
    """Return scale and offset of a band file; items that name the file must agree.

    Raises:
        BadScene: Two statements differ, or the item belongs to another acquisition.
    """
    items = listing.items.of(file)
    for item, _ in items:
        if facts.differs(item.place, item.acquired_at):
            raise other_acquisition(evidence.name, facts, item.file.name, item.place, item.acquired_at)
    found = [evidence.radiometry(band, item, asset.band(band)) for item, asset in items]
    first = found[0] if found else evidence.radiometry(band, None, None)
    for other in found[1:]:
        check_agreement(evidence.name, first, other)
    return first


def with_metadata(scene: Candidate, listing: FileListing, files: MetadataFiles) -> Candidate | UnmatchedFile:
    """Return the scene of one Sentinel-2 file, with the scale from the metadata or the STAC item beside it.

    Args:
        scene: The scene with what its name states; other sensors are returned unchanged.
        listing: The files of the inbox.
        files: Its metadata files.
    """
    (source,) = scene.files
    if not scene.sensor.startswith("sentinel-2"):
        return scene
    file = source.file
    items = listing.items.of(file)
    try:
        beside = files.of(Granule(file.folder, file.folder, file.stem), file, alone=files.rasters[file.folder] == 1)
        if not (items or beside.metadata or beside.damaged):
            return scene
        guess = guess_radiometry(beside.facts.acquired_at)
        evidence = Sentinel2Evidence(scene.name, beside.product, guess, beside.metadata, beside.damaged)
        found = [evidence.radiometry(band, item, asset.band(band)) for band in RGB for item, asset in items]
        found = found or [evidence.radiometry(band, None, None) for band in RGB]
        for other in found[1:]:
            check_agreement(scene.name, found[0], other)
    except BadScene as error:
        return unusable_product([file, *([scene.label.file] if scene.label else [])], error)
    tags = (*scene.tags, *damage_tags(beside.damaged))
    return replace(scene, files=(replace(source, radiometry=found[0]),), tags=tags)


def damage_tags(damaged: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the tag that names metadata files which cannot be read, in printable text; none if there are none."""
    text = "; ".join(damaged)[:_MAX_TAG_LENGTH]
    return (("metadata", "".join(c if c.isprintable() else " " for c in text)),) if text else ()
