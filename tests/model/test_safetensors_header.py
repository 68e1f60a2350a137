"""One bounded reader of safetensors headers: weights, golden samples and checkpoints refuse the same files."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from cloudseg.model.safetensors_header import MAX_HEADER_BYTES, METADATA_KEY, HeaderError, read_header, read_metadata


def packed(header: object, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


def test_it_reads_what_the_library_writes() -> None:
    data = save({"a": np.zeros((2, 3), np.float32)}, {METADATA_KEY: json.dumps({"format": "x"})})
    assert read_header(data)["a"]["shape"] == [2, 3]
    assert read_metadata(data) == {"format": "x"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too short"),
        (packed({}, length=2**63), "length is impossible"),
        (packed({}, length=3), "length is impossible"),
        (packed(b"[" * 100_000), "not JSON"),
        (packed(b"9" * 100_000), "not JSON"),
        (packed([1]), "not an object"),
        (packed({}), "no cloudseg metadata"),
        (packed({"__metadata__": [1]}), "no cloudseg metadata"),
        (packed({"__metadata__": {METADATA_KEY: {}}}), "no cloudseg metadata"),
        (packed({"__metadata__": {METADATA_KEY: "["}}), "metadata is not JSON"),
        (packed({"__metadata__": {METADATA_KEY: "9" * 100_000}}), "metadata is not JSON"),
        (packed({"__metadata__": {METADATA_KEY: "[1]"}}), "metadata is not an object"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        read_metadata(data)


def test_a_long_header_is_refused_although_the_file_holds_it() -> None:
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: "{}", "more": "x" * MAX_HEADER_BYTES}}
    with pytest.raises(HeaderError, match="length is impossible"):
        read_metadata(packed(header))
