"""File names from outside: what the layouts make of them, and that no text becomes a key or file outside the store."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from hypothesis import strategies as st

from cloudseg import keys
from cloudseg.errors import CloudsegError
from cloudseg.ingest.candidate import Candidate, UnmatchedFile
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.ingest_scene import source_hash
from cloudseg.ingest.layouts import find_candidates
from cloudseg.ingest.layouts.base import RASTER_SUFFIXES
from cloudseg.ingest.layouts.leftovers import without_leftovers
from cloudseg.ingest.products.sentinel2_metadata import parse_sentinel2_metadata
from cloudseg.ingest.stac_item import parse_item
from cloudseg.storage import LocalStore
from tests.fuzz.fuzzing import CORPUS, fuzzed

_PLACE = re.compile(r"(mgrs:[0-9]{2}[C-X][A-Z]{2}|wrs2:[0-9]{6})")
_WORDS = (CORPUS / "layouts" / "words.txt").read_text(encoding="utf-8").splitlines()
_PART = st.lists(
    st.sampled_from(_WORDS) | st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=6),
    min_size=1,
    max_size=5,
)
_PATHS = st.lists(st.lists(_PART.map("".join), min_size=1, max_size=4).map("/".join), max_size=14, unique=True)
_TEXT = st.lists(
    st.sampled_from(
        [
            "GROUP = ",
            "REFLECTANCE_MULT_BAND_4 = ",
            "SUN_ELEVATION = ",
            "DATE_ACQUIRED = ",
            "1e999",
            "nan",
            "-0",
            "2020-02-30",
            "\n",
            '"',
            "<Level-1C_User_Product>",
            "<PROCESSING_BASELINE>05.00</PROCESSING_BASELINE>",
            "</Level-1C_User_Product>",
            '{"stac_version": "1", "type": "Feature", "properties": {}, "assets": {',
            '"a": {"href": "a_B04.tif", "eo:bands": [{"common_name": "red"}]}',
            "}}",
        ]
    )
    | st.text(max_size=8),
    max_size=30,
).map("".join)

_JSON_KEYS = (
    *("assets", "properties", "href", "roles", "eo:bands", "raster:bands", "bands", "common_name", "scale", "offset"),
    *("datetime", "platform", "constellation", "grid:code", "s2:processing_baseline", "earthsearch:boa_offset_applied"),
    *("utmZone", "latitudeBand", "gridSquare", "productName", "datastrip", "id", "timestamp", "name", "raster:scale"),
)
_XML = st.lists(
    st.sampled_from(
        [
            *("<n1:Level-1C_User_Product xmlns:n1='x'>", "</n1:Level-1C_User_Product>", "<Level-2A_Tile_ID>"),
            *("</Level-2A_Tile_ID>", "<TILE_ID>", "</TILE_ID>", "<PROCESSING_BASELINE>05.00</PROCESSING_BASELINE>"),
            *(
                "<RADIO_ADD_OFFSET band_id='3'>-1000</RADIO_ADD_OFFSET>",
                "<RADIO_ADD_OFFSET band_id='x'>nan</RADIO_ADD_OFFSET>",
            ),
            *(
                "<Spectral_Information bandId='9e9' physicalBand='B4'/>",
                "<SENSING_TIME>9999-12-31T24:00:00+14:00</SENSING_TIME>",
            ),
            *(
                "<!DOCTYPE a [<!ENTITY b 'c'>]>",
                "&b;",
                "<?xml version='1.0' encoding='utf-7'?>",
                "<?xml version='1.0' encoding='base64'?>",
            ),
        ]
    )
    | st.text(max_size=5),
    max_size=8,
).map("".join)


class Memory:
    """An inbox of names whose files all hold the same text."""

    uri = "memory:"

    def __init__(self, paths: list[str], text: str) -> None:
        self._files, self._text = [InboxFile(path, f"memory:/{path}") for path in sorted(paths)], text

    def list_files(self) -> list[InboxFile]:
        return self._files

    @contextmanager
    def open(self, file: InboxFile) -> Iterator[IO[bytes]]:
        yield io.BytesIO(self._text.encode("utf-8", "replace"))


def _is_in_product(path: str, found: list[Candidate | UnmatchedFile]) -> bool:
    """Return whether a path is in a folder that is one store, or in a SAFE product of which something was found."""
    folders = [path[:at] for at in range(len(path)) if path[at] == "/"]
    whole = [folder for folder in folders if folder.lower().endswith((".safe", ".zarr", ".n5", ".gdb", ".sen3"))]
    return any(f"{item.path}/".startswith(f"{folder}/") for item in found for folder in whole)


def _every_raster_is_claimed_once(paths: list[str], text: str, bands: tuple[str, ...] | None) -> None:
    found = find_candidates(Memory(paths, text), bands=bands)
    claimed = {path for item in found for path in item.claimed_paths()}
    rasters = {
        path
        for path in paths
        if path.rpartition("/")[2].rpartition(".")[2].lower() in RASTER_SUFFIXES and "." in path.rpartition("/")[2]
    }
    listed = {file.path for file in without_leftovers([InboxFile(path, "") for path in paths])}
    spoken_for = {path for path in rasters - claimed if _is_in_product(path, found)}
    assert rasters & listed <= claimed | spoken_for
    pixels = [source.file.path for item in found if isinstance(item, Candidate) for source in item.files]
    unmatched = [item.file.path for item in found if isinstance(item, UnmatchedFile)]
    assert len(unmatched) == len(set(unmatched))
    assert not set(pixels) & set(unmatched)
    for item in found:
        if isinstance(item, Candidate):
            assert item.files
            assert item.name
            assert item.place is None or _PLACE.fullmatch(item.place), item.place
            assert all(text.isprintable() for pair in item.tags for text in pair)
            assert keys.is_key(
                keys.scene(source_hash(item, {file.path: keys.sha256_of(b"x") for file in item.pixel_files()}))
            )
    again = find_candidates(Memory(list(reversed(paths)), text), bands=bands)
    assert again == found


def test_every_raster_is_in_a_candidate_or_unmatched() -> None:
    fuzzed(
        _every_raster_is_claimed_once,
        _PATHS,
        _TEXT,
        st.sampled_from([None, ("red", "green", "blue"), ("red", "-", "nir")]),
        examples=50,
    )


def _metadata_is_read_or_refused(name: str, content: bytes) -> None:
    """A parser returns what it understood or raises ValueError; anything else would stop the whole ingest."""
    with contextlib.suppress(ValueError):
        found = parse_sentinel2_metadata(name, content)
        assert found is None or found.place is None or _PLACE.fullmatch(found.place)
    with contextlib.suppress(ValueError):
        item = parse_item(InboxFile("a/item.json", "memory:/a/item.json"), content)
        assert item is None or item.place is None or _PLACE.fullmatch(item.place)
        assert item is None or not any(path.startswith(("/", "..")) for path in item.paths())


def test_any_metadata_is_read_or_refused() -> None:
    json_values = st.recursive(
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers()
        | st.text(max_size=12)
        | st.sampled_from(["a.tif", "red"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_JSON_KEYS), inner, max_size=5),
        max_leaves=25,
    )
    items = st.dictionaries(st.sampled_from(_JSON_KEYS), json_values, max_size=8).map(
        lambda values: json.dumps({"stac_version": "1.0.0", "type": "Feature", "properties": {}, "assets": {}} | values)
    )
    fuzzed(
        _metadata_is_read_or_refused,
        st.sampled_from(["MTD_MSIL1C.xml", "metadata.xml", "MTD_TL.xml", "tileInfo.json"]),
        st.binary(max_size=200) | _XML.map(str.encode) | items.map(str.encode),
        examples=200,
    )


def _text_stays_text(texts: list[str], tmp: Path) -> None:
    for text in texts:
        assert keys.is_key(keys.slug(text))
        assert keys.is_key(keys.checkpoint(text, 1, "0" * 64))
        assert keys.is_key(f"x/{keys.make_id('sc', text)}")
    assert keys.make_id("x", *texts) != keys.make_id("x", *texts, "")
    if len(texts) > 1:
        assert keys.make_id("x", "".join(texts[:2]), *texts[2:]) != keys.make_id("x", *texts)
        assert (keys.slug(texts[0]) == keys.slug(texts[1])) == (texts[0] == texts[1])


def test_every_text_makes_a_valid_key(tmp_path: Path) -> None:
    fuzzed(
        lambda texts: _text_stays_text(texts, tmp_path),
        st.lists(st.text(max_size=80), min_size=1, max_size=4),
        examples=150,
    )


def test_no_key_escapes_the_store(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    (tmp_path / "secret").write_bytes(b"outside")
    pieces = st.sampled_from(
        [
            "..",
            ".",
            "/",
            "\\",
            "secret",
            "store",
            "\0",
            "\u2024\u2024",
            "．．",
            "%2e%2e",
            "~",
            "a",
            "A",
            "",
            " ",
            "\n",
            "-",
        ]
    )

    def stays_inside(parts: list[str]) -> None:
        key = "".join(parts)
        for act in (store.get, lambda key: store.put(key, b"x"), lambda key: list(store.list_keys(key)), store.delete):
            try:
                act(key)
            except (ValueError, CloudsegError):
                continue
        assert {path.name for path in tmp_path.iterdir()} == {"store", "secret"}
        assert (tmp_path / "secret").read_bytes() == b"outside"

    fuzzed(stays_inside, st.lists(pieces, max_size=8), examples=150)


@pytest.mark.parametrize(
    "name",
    [
        "ſ2A_MSIL1C_20240501T105031_N0510_R051_T31UDQ_20240501T124036",
        "S2A_MSIL1C_20240501T105031_N0510_R051_T31UD\u212a_20240501T124036",
        "S2A_MSIL1C_20240501T105031_N0510_R051_T٣١UDQ_20240501T124036",
    ],
)
def test_look_alikes_name_no_place(name: str) -> None:
    """Else one place would have two names, and a held-out place could be trained on under the second."""
    (item,) = find_candidates(Memory([f"images/{name}.tif"], ""))
    assert isinstance(item, Candidate)
    assert item.place is None
