"""Comparison of text that is the same on every database: by case, letter by letter, in the order of code points.

SQLite's LIKE ignores case and PostgreSQL's does not; PostgreSQL orders text by the language of the database and SQLite
by bytes, which in UTF-8 is the order of code points.
"""

from typing import Any

from sqlalchemy import Boolean, ColumnElement, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

ESCAPE = "\\"
_LITERAL = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})
_WILD = {**_LITERAL, ord("%"): "*", ord("_"): "?"}


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
