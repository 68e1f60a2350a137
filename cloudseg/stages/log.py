"""Log the start and the end of every stage, and progress in between, with `logging`.

A record also has its values in `extra` (`stage`, `facts`, `progress`), so that a handler can find all records of a
stage, draw a progress bar, or print JSON.
"""

import json
import logging
import time
from collections.abc import Callable

from cloudseg.records import Json, Record

log = logging.getLogger("cloudseg.stages")
_EVERY_S = 5.0
_LONGEST = 600
_MOST_ITEMS = 5


def started(stage: str, **facts: object) -> None:
    """Log the start of a stage with its arguments."""
    given = {name: value for name, value in facts.items() if value is not None}
    log.info("%s starts: %s", stage, _short(given), extra={"stage": stage, "facts": given})


def ended(stage: str, record: Record | Json) -> None:
    """Log the end of a stage with its record."""
    facts = brief(record.as_json() if isinstance(record, Record) else record)
    log.info("%s ends: %s", stage, _short(facts), extra={"stage": stage, "facts": facts})


def brief(facts: Json) -> Json:
    """Return the facts with every long list replaced by its length and first few items, to keep logs small."""
    return {name: _brief(value) for name, value in facts.items()}


def progress(stage: str, *, every_s: float = _EVERY_S) -> Callable[..., None]:
    """Return a callback `(done, total, *words)` that logs at most every `every_s` seconds, and always the last step."""
    last = 0.0

    def report(done: int, total: int, *words: object) -> None:
        nonlocal last
        moment = time.monotonic()
        if done < total and moment - last < every_s:
            return
        last = moment
        text = " ".join(str(word) for word in words)
        log.info("%s: %d of %d %s", stage, done, total, text, extra={"stage": stage, "progress": (done, total)})

    return report


def _brief(value: object) -> object:
    if isinstance(value, dict):
        return brief(value)
    if isinstance(value, list) and len(value) > _MOST_ITEMS:
        return {"count": len(value), "first": value[:_MOST_ITEMS]}
    return value


def _short(facts: Json) -> str:
    text = json.dumps(facts, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text)} characters)"
