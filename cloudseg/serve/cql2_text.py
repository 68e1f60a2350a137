"""A CQL2 text filter as CQL2 JSON, by the library cql2, within bounds that keep its parser fast."""

import re
from typing import Any, Final

from cloudseg.errors import InputError, SettingsError

MAX_TEXT: Final = 4_000
"""Letters of a filter."""
MAX_NESTED: Final = 6
"""Nested parentheses. The parser of cql2 0.6.0 takes twice as long with each unclosed one: 2.4 s for 18."""
_QUOTED: Final = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"")


def parse_text(text: str) -> Any:
    """Return a CQL2 text filter as JSON.

    Raises:
        InputError: it is too long, too deeply nested, or not CQL2.
        SettingsError: the library is not installed.
    """
    try:
        import cql2
    except ImportError as error:
        raise SettingsError(
            "cql2, which reads filters, is not installed",
            subject="cloudseg serve",
            next_step="Install the extra: pip install 'cloudseg[serve]'.",
        ) from error
    depth = _depth(text)
    if len(text) > MAX_TEXT or depth > MAX_NESTED:
        raise InputError(
            "the filter is too long or too deeply nested",
            subject="filter",
            found=f"{len(text)} letters, {depth} levels",
            expected=f"at most {MAX_TEXT} letters and {MAX_NESTED} levels of parentheses",
            next_step="Send it as CQL2 JSON.",
        )
    try:
        return cql2.parse_text(text).to_json()
    except (cql2.ParseError, cql2.ValidationError, ValueError) as error:
        raise InputError(
            "the filter is not CQL2 text",
            subject="filter",
            found=text[:100],
            expected='such as: eo:cloud_cover < 10 AND "cloudseg:model_version" = 3',
        ) from error


def _depth(text: str) -> int:
    """Return the deepest level of parentheses outside of quotes; an unclosed quote counts as none."""
    depth = deepest = 0
    for letter in _QUOTED.sub("", text):
        depth += (letter == "(") - (letter == ")")
        deepest = max(deepest, depth)
    return deepest
