"""Log the start and the end of every stage, and progress in between, with `logging`.

A record also has its values in `extra` (`stage`, `facts`, `progress`), so that a handler can find all records of a
stage, draw a progress bar, or print JSON.
"""

import logging
import time
from collections.abc import Callable

from cloudseg.records import Json, Record

log = logging.getLogger("cloudseg.stages")
_EVERY_S = 5.0
_LONGEST = 400
_LONGEST_WORD = 120
_MOST_ITEMS = 5


def started(stage: str, **facts: object) -> None:
    """Log the start of a stage with its arguments."""
    given = {name: value for name, value in facts.items() if value is not None}
    log.info("%s starts: %s", stage, _short(given), extra={"stage": stage, "facts": given})


def ended(stage: str, record: Record | Json) -> None:
    """Log the end of a stage with its record."""
    whole = record.as_json() if isinstance(record, Record) else record
    log.info("%s ends: %s", stage, _short(whole), extra={"stage": stage, "facts": brief(whole)})


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
    """Return facts as one line for people: `added 28, known 0, seconds 3.2`; what is empty is left out."""
    words = [f"{name} {text}" for name, value in facts.items() if (text := _word(value))]
    line = ", ".join(words) or "nothing to report"
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"


def _word(value: object) -> str:
    """Return a value in a word or two: a list or a record as its size, figures of a model as their IoU."""
    if isinstance(value, dict):
        if isinstance(value.get("iou"), float):
            return f"IoU {value['iou']:.3f}"
        return str(len(value)) if value else ""
    if isinstance(value, list | tuple):
        return str(len(value)) if value else ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "" if value is None else str(value)
    return text if len(text) <= _LONGEST_WORD else f"{text[:_LONGEST_WORD]}…"
