"""Pages of a long list: which rows to read, and the values of the macros `pager` and `token_pager`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import Query

SIZE: Final = 24
"""Rows of a page, unless the list chooses another number."""
PageNumber = Annotated[int, Query(alias="page", ge=1, le=100_000)]
"""The parameter `page` of a route, 1 for the newest rows."""


@dataclass(frozen=True)
class Paging:
    """One page of a list with `total` rows, newest first."""

    number: int
    total: int
    size: int = SIZE
    filters: Mapping[str, str] | None = None
    """Values of the filter form, which the links to other pages keep; empty ones are left out."""

    @property
    def offset(self) -> int:
        """Rows before this page: OFFSET of the query, whose LIMIT is `size`."""
        return (self.number - 1) * self.size

    @property
    def first(self) -> int:
        """Number of the first row of the page, from 1; 0 if the page is empty."""
        return self.offset + 1 if self.offset < self.total else 0

    @property
    def last(self) -> int:
        """Number of the last row of the page."""
        return min(self.offset + self.size, self.total)

    @property
    def count(self) -> int:
        """Rows on this page."""
        return max(0, self.last - self.offset)

    @property
    def pages(self) -> int:
        """Number of pages, 1 for an empty list."""
        return max(1, -(-self.total // self.size))

    @property
    def active(self) -> dict[str, str]:
        """The filters that are set."""
        return {name: value for name, value in (self.filters or {}).items() if value}

    def query(self, number: int) -> str:
        """Return the query of another page's address, which keeps the filters; it begins with '?'."""
        return "?" + urlencode({**self.active, "page": number})


@dataclass(frozen=True)
class TokenPaging:
    """One page of a search that goes on after the last row of the page before, however many there are."""

    seen: int
    """Rows of the pages before."""
    count: int
    """Rows on this page."""
    token: str | None
    """Where the next page begins; None: there is none."""
    total: int | None = None
    """All rows, where they were counted."""
    filters: Mapping[str, str] | None = None
    """As in `Paging`."""

    @property
    def first(self) -> int:
        """Number of the first row of the page, from 1."""
        return self.seen + 1

    @property
    def last(self) -> int:
        """Number of the last row of the page."""
        return self.seen + self.count

    @property
    def known(self) -> int | None:
        """All rows: as they were counted, or after the last page; None: not known."""
        return self.last if self.token is None else self.total

    @property
    def active(self) -> dict[str, str]:
        """The filters that are set."""
        return {name: value for name, value in (self.filters or {}).items() if value}

    def query(self, *, older: bool) -> str:
        """Return the query of the address of the next page, or of the first one; it keeps the filters."""
        after = {"after": self.token, "seen": self.last} if older else {}
        return "?" + urlencode({**self.active, **after})
