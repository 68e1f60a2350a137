"""Comparison of text that is the same on every database: by case, letter by letter, in the order of code points.

SQLite's LIKE ignores case and PostgreSQL's does not; PostgreSQL orders text by the language of the database and SQLite
by bytes, which in UTF-8 is the order of code points.
"""

import re
from typing import Any, Final

from sqlalchemy import Boolean, ColumnElement, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from cloudseg.errors import InputError

ESCAPE = "\\"
MAX_WILD: Final = 10
"""Letters of one pattern that stand for any letters: the time of a comparison grows with every one."""
UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL stores no NUL, and no database half of a surrogate pair."""
_LITERAL = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})
_WILD = {**_LITERAL, ord("%"): "*", ord("_"): "?"}


def check_wanted(text: str, subject: str) -> None:
    """Check a text to search for, in which `*` stands for any letters.

    Raises:
        InputError: it has a letter that is never stored, or too many `*`.
    """
    if UNSTORABLE.search(text) or text.count("*") > MAX_WILD:
        raise InputError(
            "this text cannot be searched for",
            subject=subject,
            found=text[:60],
            expected=f"letters that a name may have, and at most {MAX_WILD} `*`",
        )


class Like(FunctionElement[bool]):
    """Whether a text is like a pattern of CQL2: `%` any letters, `_` one letter, a backslash before one of them."""

    type = Boolean()
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], pattern: str) -> None:
        """`pattern`: must not end within an escape."""
        super().__init__(column, literal(pattern, Text()), literal(glob_of(pattern), Text()))


class InCodeOrder(FunctionElement[str]):
    """A text that is ordered by code points."""

    type = Text()
    inherit_cache = True


def literal_pattern(text: str) -> str:
    """Return the pattern that only this text is like."""
    for letter in (ESCAPE, "%", "_"):
        text = text.replace(letter, ESCAPE + letter)
    return text


def glob_of(pattern: str) -> str:
    """Return the pattern of SQLite's GLOB, which minds case, for a pattern of CQL2."""
    parts, escaped = [], False
    for letter in pattern:
        if not escaped and letter == ESCAPE:
            escaped = True
            continue
        parts.append(letter.translate(_LITERAL if escaped else _WILD))
        escaped = False
    return "".join(parts)


@compiles(Like)
def _like(element: Like, compiler: Any, **kwargs: Any) -> str:
    column, pattern, _ = element.clauses
    return f"({compiler.process(column, **kwargs)} LIKE {compiler.process(pattern, **kwargs)} ESCAPE '{ESCAPE}')"


@compiles(Like, "sqlite")
def _like_sqlite(element: Like, compiler: Any, **kwargs: Any) -> str:
    column, _, pattern = element.clauses
    return f"({compiler.process(column, **kwargs)} GLOB {compiler.process(pattern, **kwargs)})"


@compiles(InCodeOrder)
def _in_code_order(element: InCodeOrder, compiler: Any, **kwargs: Any) -> str:
    (column,) = element.clauses
    return str(compiler.process(column, **kwargs))


@compiles(InCodeOrder, "postgresql")
def _in_code_order_postgresql(element: InCodeOrder, compiler: Any, **kwargs: Any) -> str:
    (column,) = element.clauses
    return f'({compiler.process(column, **kwargs)} COLLATE "C")'
