"""Rasters from outside become a scene or a BadScene; answers of a decoder are rejected or fit a row of the catalog."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import strategies as st
from pydantic import ValidationError

from cloudseg.errors import BadScene
from cloudseg.ingest import DecodeLimits
from cloudseg.ingest.candidate import Candidate, SourceFile
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.ingest_scene import scene_row
from cloudseg.ingest.job import Answer, RasterJob, SceneFacts, SceneJob, SceneReading
from cloudseg.ingest.pool import Decoder, DecoderPool
from cloudseg.keys import canonical_json
from cloudseg.records import StoredObject
from tests.fuzz.fuzzing import fuzz_bytes, fuzzed
from tests.ingest.tiles import random_dn, write


@pytest.fixture
def decoder(tmp_path: Path) -> Iterator[Decoder]:
    with DecoderPool(DecodeLimits(timeout_s=10, memory_mb=1024), 1) as pool, pool.acquire() as decoder:
        yield decoder


def test_damaged_rasters_become_a_scene_or_a_reason(decoder: Decoder, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.tif", random_dn(size=32)).read_bytes()
    tiled = write(
        tmp_path / "tiled.tif", random_dn(size=48), tiled=True, blockxsize=16, blockysize=16, compress="deflate"
    ).read_bytes()
    jp2 = write(tmp_path / "plain.jp2", random_dn(size=32), names=None, driver="JP2OpenJPEG").read_bytes()
    job = SceneJob(
        name="scene",
        files=[RasterJob(path=str(tmp_path / "source0"), display_name="scene.tif", bands=["red", "green", "blue"])],
        needs_georeference=True,
        time_in_tags=True,
        is_product=False,
        out=str(tmp_path / "out.tif"),
        folder=str(tmp_path),
        max_pixels=4_000_000,
        memory_mb=1024,
    )

    def is_bounded(data: bytes) -> None:
        (tmp_path / "source0").write_bytes(data)
        with suppress(BadScene):
            facts = decoder.decode_scene(job)
            assert canonical_json(facts.as_json())
            assert facts.height * facts.width <= job.max_pixels

    fuzz_bytes("raster", is_bounded, [plain, tiled, jp2], examples=40)


_TEXT = st.text(max_size=12)
_NUMBER = st.floats() | st.integers() | st.none()
_ANSWER = st.fixed_dictionaries(
    {
        "radiometry": _TEXT,
        "crs": st.sampled_from(["EPSG:32631", None]) | _TEXT,
        "transform": st.lists(_NUMBER, min_size=5, max_size=7),
        "height": st.integers(-1, 2**40),
        "width": st.integers(-1, 2**40),
        "resolution_m": _NUMBER,
        "bands": st.lists(st.sampled_from(["red", "green", "blue"]) | _TEXT, max_size=4),
        "footprint_wkb_hex": st.sampled_from([None, "00", "zz", "0"]) | _TEXT,
        "bounds": st.none() | st.lists(_NUMBER, min_size=3, max_size=5),
        "center": st.none() | st.lists(st.floats(), min_size=2, max_size=2),
        "valid_fraction": _NUMBER,
        "acquired_at": st.none() | _TEXT,
        "tags": st.dictionaries(_TEXT, _TEXT, max_size=2),
    }
)


def test_what_a_decoder_answers_is_refused_or_fits_a_row() -> None:
    """A malicious file may have compromised the decoder: its answer is untrusted input."""
    file = InboxFile("a.tif", "file:///a.tif")
    candidate = Candidate("a", "multiband", (SourceFile(file),), place="mgrs:31UDQ")

    def fits(facts: dict[str, object]) -> None:
        read = {name: value for name, value in facts.items() if name in SceneReading.model_fields}
        written = {name: value for name, value in facts.items() if name not in read}
        try:
            answer = Answer.model_validate_json(json.dumps({"scene": read, "written_scene": written}))
        except ValidationError:
            return
        assert answer.scene is not None
        assert answer.written_scene is not None
        facts_of = SceneFacts(**dict(answer.scene), **dict(answer.written_scene))
        row = scene_row(candidate, facts_of, "0" * 64, StoredObject(key="scenes/a", sha256="0" * 64, size=1))
        assert canonical_json(row.as_json())

    fuzzed(fits, _ANSWER, examples=150)


def test_noise_instead_of_an_answer_is_refused() -> None:
    def is_refused(data: bytes) -> None:
        with suppress(ValidationError):
            Answer.model_validate_json(data)

    fuzz_bytes(
        "answers", is_refused, [b'{"cut_off":true}', Answer(megapixels=1.0).model_dump_json().encode()], examples=100
    )
