"""Filters of the templates: how pages write numbers, times, sizes and the text of messages."""

import math
import re
from datetime import datetime, timedelta
from typing import Any, Final

from markupsafe import Markup, escape

_CODE: Final = re.compile(r"`([^`]+)`")


def percent(value: float | None) -> str:
    """Return a fraction in whole percent."""
    return "–" if value is None else f"{value:.0%}"


def figure(value: float | None) -> str:
    """Return a metric with three decimals."""
    return "–" if value is None else f"{value:.3f}"


def moment(value: datetime | None) -> str:
    """Return a time to the minute."""
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def day(value: datetime | None) -> str:
    """Return a date."""
    return "no date" if value is None else f"{value:%Y-%m-%d}"


def duration(value: timedelta | float | None) -> str:
    """Return a time span (or seconds) in its largest two units, e.g. '3 d 4 h', '12 min'."""
    if value is None:
        return "–"
    seconds = round(value.total_seconds() if isinstance(value, timedelta) else value)
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"
    if hours:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{minutes} min"


def size(value: int) -> str:
    """Return a size in bytes, as kilobytes or megabytes."""
    return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{math.ceil(value / 1e3)} kB"


def middle(value: str, most: int = 30) -> str:
    """Return a name that is cut in the middle: names of Sentinel-2 begin alike and differ at their end."""
    if len(value) <= most:
        return value
    begin = (most - 1) // 3
    return f"{value[:begin]}…{value[begin + 1 - most :]}"


def code_spans(value: Any) -> Markup:
    """Return text with what stands between backticks as code; everything is escaped."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(value))))  # noqa: S704  (escaped before)


def capitalize_first(value: str) -> str:
    """Return a text that begins with a capital letter, and is otherwise as it was."""
    return value[:1].upper() + value[1:]


FILTERS: Final = {
    "percent": percent,
    "figure": figure,
    "moment": moment,
    "day": day,
    "duration": duration,
    "size": size,
    "code_spans": code_spans,
    "middle": middle,
    "capitalize_first": capitalize_first,
}
