"""Waiting times between the attempts of something that another machine refused temporarily."""

import itertools
import math
import random
import time
from collections.abc import Iterator


def pauses(
    *, attempts: float = math.inf, within_s: float = math.inf, longest_s: float = 20.0
) -> Iterator[float | None]:
    """Yield the seconds to wait after each failed attempt, and None after the last one.

    Full jitter over a span that doubles from half a second (M. Brooker, "Exponential Backoff and Jitter", AWS
    Architecture Blog, 2015).

    Args:
        attempts: how many there are, the first one included.
        within_s: seconds after which there is one more attempt, the last one.
        longest_s: bound of a pause.
    """
    deadline = time.monotonic() + within_s
    for attempt in itertools.count(1):
        if attempt >= attempts or time.monotonic() >= deadline:
            break
        yield random.uniform(0, min(longest_s, 0.5 * 2.0 ** (attempt - 1)))  # noqa: S311 -- no secret depends on it
    yield None
