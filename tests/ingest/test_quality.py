"""Quality layers of products: pixels that they state as not observed are no data; clouds in them are not looked at."""

from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin

from cloudseg.errors import BadScene
from cloudseg.ingest.candidate import Candidate, QualityFile, QualityKind, SourceFile
from cloudseg.ingest.context import IngestContext
from cloudseg.ingest.inbox import FolderInbox
from cloudseg.ingest.ingest_candidate import ingest_candidate
from cloudseg.ingest.pool import DecoderPool
from tests.ingest.conftest import Service
from tests.ingest.decoding import decode, valid
from tests.ingest.tiles import SIZE, random_dn, write

CASES: list[tuple[QualityKind, int, str, list[int], list[int]]] = [
    # QA_PIXEL: 1 is fill; 21824 clear, 22280 cloud, 55052 cloud and cirrus are observations.
    ("landsat_qa_pixel", 1, "uint16", [1, 3], [21824, 22280, 55052, 0]),
    ("hls_fmask", 1, "uint8", [255], [0, 2, 64, 194]),
    # UDM: bit 0 black fill, bit 1 cloud, bits 2 to 6 missing or suspect bands.
    ("planet_udm2", 8, "uint8", [1, 4, 64, 3], [0, 2, 128]),
    ("planet_udm2", 1, "uint8", [1, 4, 64, 3], [0, 2, 128]),
    ("sentinel2_scl", 1, "uint8", [0, 1], [2, 3, 4, 8, 9, 10, 11]),
]


def _layer(
    path: Path, count: int, dtype: str, unusable: list[int], usable: list[int], size: int, **more: object
) -> Path:
    """Write a layer whose upper half is unusable, with the given values in turn."""
    flags = np.resize(np.array(usable), (size, size))
    flags[: size // 2] = np.resize(np.array(unusable), (size // 2, size))
    pixels = np.ones((count, size, size), dtype)
    pixels[-1] = flags
    return write(path, pixels, names=None, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "count", "dtype", "unusable", "usable"), CASES)
@pytest.mark.parametrize("factor", [1, 2])
def test_pixels_that_a_quality_layer_calls_unusable_are_no_data(
    tmp_path: Path, kind: QualityKind, count: int, dtype: str, unusable: list[int], usable: list[int], factor: int
) -> None:
    path = write(tmp_path / "a.tif", random_dn())
    transform = from_origin(500_000, 5_600_000, 10 * factor, 10 * factor)
    size = SIZE // factor
    layer = _layer(tmp_path / "quality.tif", count, dtype, unusable, usable, size, transform=transform)
    facts, canonical = decode(tmp_path, path, quality={kind: layer})
    assert not valid(canonical)[: SIZE // 2].any()
    assert valid(canonical)[SIZE // 2 :].all()
    assert facts.tags["validity"]


def test_a_quality_layer_on_a_shifted_grid_says_nothing_beyond_its_border(tmp_path: Path) -> None:
    # Landsat: the corners of panchromatic and 30 m pixels differ by 7.5 m.
    path = write(tmp_path / "a.tif", random_dn())
    layer = np.full((1, SIZE // 2, SIZE // 2), 4, np.uint8)
    shifted = write(tmp_path / "scl.tif", layer, names=None, transform=from_origin(500_008, 5_599_992, 20, 20))
    assert valid(decode(tmp_path, path, quality={"sentinel2_scl": shifted})[1]).all()


def test_a_quality_layer_of_another_place_or_kind_refuses_the_scene(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", random_dn())
    flags = np.full((1, SIZE, SIZE), 4, np.uint8)
    elsewhere = write(tmp_path / "b.tif", flags, names=None, transform=from_origin(500_100, 5_600_000, 10, 10))
    with pytest.raises(BadScene, match="another extent") as error:
        decode(tmp_path, path, quality={"sentinel2_scl": elsewhere})
    assert error.value.subject == "b.tif"
    with pytest.raises(BadScene, match="bands of its kind"):
        decode(tmp_path, path, quality={"planet_udm2": write(tmp_path / "c.tif", random_dn(3), names=None)})
    with pytest.raises(BadScene, match="bands of its kind"):
        decode(tmp_path, path, quality={"hls_fmask": write(tmp_path / "d.tif", flags.astype("float32"), names=None)})


def test_a_candidate_with_a_quality_layer_through_the_sandbox(service: Service, inbox: Path, tmp_path: Path) -> None:
    write(inbox / "a.tif", random_dn())
    _layer(inbox / "a_udm2.tif", 8, "uint8", [1], [0], SIZE)
    folder = FolderInbox(inbox)
    image, udm2 = folder.list_files()
    candidate = Candidate("a", "planet", (SourceFile(image),), quality=(QualityFile(udm2, "planet_udm2"),))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with DecoderPool(service.limits, 1) as decoders:
        context = IngestContext(service.store, service.catalog, folder, decoders, service.limits, scratch, False)
        ingest_candidate(context, candidate)
    scene = service.scenes()["a"]
    assert scene.valid_fraction == 0.5
    assert scene.tags["validity"] == "UDM unusable"
