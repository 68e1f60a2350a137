"""Which split a place belongs to: a stable hash of its name, so that no later scene can change it."""

import hashlib
from typing import Final

from cloudseg.records import Split

HELD_OUT_BELOW: Final = 0.20
VALIDATION_BELOW: Final = 0.35


def split_of(place: str) -> Split:
    """Return the split of a place: 20 % of places are held out (the test split), 15 % validation, the rest train.

    The first 8 bytes of SHA-256 over a fixed salt and the name, read as a fraction in [0, 1): independent of time,
    order and other places. The catalog records each decision (`decide_places`), so places keep their split even if this
    function changes.
    """
    digest = hashlib.sha256(f"cloudseg-split-v1:{place}".encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    if fraction < HELD_OUT_BELOW:
        return "held_out"
    return "validation" if fraction < VALIDATION_BELOW else "train"
