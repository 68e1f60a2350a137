"""What SQLite's query planner must be told, because it has no statistics of the tables; PostgreSQL has them."""

from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class NotByIndex(FunctionElement[Any]):
    """A column whose index SQLite does not use, because of a unary plus (sqlite.org/optoverview.html, section 2.1).

    Without statistics SQLite takes every index for selective, also one over a column with few values.
    """

    name = "not_by_index"
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(NotByIndex)
def _plain(element: NotByIndex, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(NotByIndex, "sqlite")
def _with_plus(element: NotByIndex, compiler: Any, **options: Any) -> str:
    return f"+{compiler.process(element.clauses, **options)}"
