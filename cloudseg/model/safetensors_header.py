"""The header of a safetensors file, bounded and checked before anything is allocated.

8 bytes little-endian length, then a JSON object: tensor names to dtype, shape and offsets, and `__metadata__` with
text values (https://github.com/huggingface/safetensors#format). cloudseg's hold one JSON document under METADATA_KEY.
"""

import json
import struct
from typing import Any, Final

METADATA_KEY: Final = "cloudseg"
"""The only key of the metadata: one key has one order, so equal content produces equal bytes."""
MAX_HEADER_BYTES: Final = 4 << 20
"""A checkpoint of the largest shipped net has a header of about 0.1 MB."""
_LENGTH: Final = struct.Struct("<Q")


class HeaderError(ValueError):
    """A file whose header cannot be read."""

    def __init__(self, what: str, *, found: object = None, expected: object = None) -> None:
        super().__init__(what)
        self.what, self.found, self.expected = what, found, expected


def read_header(data: bytes) -> dict[str, Any]:
    """Return the header's JSON object.

    Raises:
        HeaderError: too short, a length beyond MAX_HEADER_BYTES or the file, not JSON, or not an object.
    """
    if len(data) < _LENGTH.size:
        raise HeaderError("the file is too short", found=f"{len(data)} bytes")
    (length,) = _LENGTH.unpack_from(data)
    if length > min(MAX_HEADER_BYTES, len(data) - _LENGTH.size):
        raise HeaderError(
            "the header's length is impossible",
            found=f"{length} bytes",
            expected=f"at most {MAX_HEADER_BYTES} and inside the file",
        )
    try:
        header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    except (ValueError, RecursionError) as error:
        raise HeaderError("the header is not JSON", found=error) from error
    if not isinstance(header, dict):
        raise HeaderError("the header is not an object", found=type(header).__name__)
    return header


def metadata_text(header: dict[str, Any]) -> str:
    """Return cloudseg's JSON document of a header, as text.

    Raises:
        HeaderError: there is none.
    """
    block = header.get("__metadata__", {})
    text = block.get(METADATA_KEY) if isinstance(block, dict) else None
    if not isinstance(text, str):
        raise HeaderError("the file has no cloudseg metadata", expected=f"text under the metadata key '{METADATA_KEY}'")
    return text


def read_metadata(data: bytes) -> dict[str, Any]:
    """Return cloudseg's JSON document of a file, parsed.

    Raises:
        HeaderError: no readable header, or no JSON object under METADATA_KEY.
    """
    text = metadata_text(read_header(data))
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HeaderError("the metadata is not JSON", found=error) from error
    if not isinstance(document, dict):
        raise HeaderError("the metadata is not an object", found=type(document).__name__)
    return document
