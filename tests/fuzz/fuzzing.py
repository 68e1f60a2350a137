"""Property tests that can run for minutes. Inputs that found bugs are in `corpus/` and always run first.

By default, as in `make test`, each property is tested with a few dozen inputs of fixed seeds. `make fuzz` sets
FUZZ_SECONDS, shared by all properties: then new seeds are drawn until the time is over.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "corpus"
_PROPERTIES = 7
"""Number of properties that share the time."""
_SECONDS = float(os.environ.get("FUZZ_SECONDS", "0")) / _PROPERTIES


def fuzzed(check: Callable[..., None], *strategies: st.SearchStrategy[Any], examples: int = 40) -> None:
    """Test a property with `examples` inputs, and repeat with other seeds while there is time."""
    end = time.monotonic() + _SECONDS
    number = 0
    while number == 0 or time.monotonic() < end:
        chosen = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            print_blob=True,
        )
        seed(number if number == 0 else secrets.randbits(64))(chosen(given(*strategies)(check)))()
        number += 1


def fuzz_bytes(target: str, check: Callable[[bytes], None], more: list[bytes], *, examples: int = 40) -> None:
    """Test a property of bytes on the corpus, then on damaged copies of it and of `more`.

    A new failing input is added to the corpus.
    """
    corpus = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    for data in corpus:
        check(data)
    last = b""

    def remember(data: bytes) -> None:
        nonlocal last
        last = data
        check(data)

    try:
        fuzzed(remember, damaged([*corpus, *more]), examples=examples)
    except BaseException:
        (CORPUS / target / f"found-{hashlib.sha256(last).hexdigest()[:12]}").write_bytes(last)
        raise


@st.composite
def damaged(draw: st.DrawFn, bases: list[bytes]) -> bytes:
    """Draw a known input with a few bytes changed, inserted, removed, repeated or cut off, mostly near its start."""
    data = bytearray(draw(st.sampled_from(bases)))
    for _ in range(draw(st.integers(0, 6))):
        near = draw(st.sampled_from([64, 512, 4096, len(data)]))
        at = draw(st.integers(0, max(0, min(near, len(data)) - 1)))
        how = draw(st.sampled_from(["flip", "set", "insert", "remove", "repeat", "cut", "extreme"]))
        some = draw(st.binary(min_size=1, max_size=8))
        if how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "set":
            data[at : at + len(some)] = some
        elif how == "extreme":
            data[at : at + 4] = draw(
                st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0"])
            )
        elif how == "insert":
            data[at:at] = some
        elif how == "remove":
            del data[at : at + draw(st.integers(1, 64))]
        elif how == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 256))]
        else:
            del data[at:]
    return bytes(data)
