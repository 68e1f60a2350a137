"""The token of a page: the position of its last row in the order of a search, as text for a URL."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cloudseg.catalog.item_filter import FieldType
from cloudseg.errors import InputError

_MAX_LENGTH: Final = 2000


@dataclass(frozen=True)
class PageToken:
    """Where the next page begins."""

    part: int
    """0: dated scenes or all; 1: undated ones."""
    model: str | None
    """Weights whose masks the pages before show, so that a switch of readers between two pages mixes no models; None:
    the search chose them itself."""
    position: tuple[Any, ...]
    """Values that the last row was sorted by, then its id."""

    def encode(self, order: str) -> str:
        """Return the token as text.

        Args:
            order: names the fields that rows are sorted by.
        """
        values = [value.isoformat() if isinstance(value, datetime) else value for value in self.position]
        text = json.dumps([self.part, self.model, order, *values], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(token: str, order: str, types: Sequence[FieldType]) -> PageToken:
    """Return the position of a token.

    Args:
        token: what `PageToken.encode` returned.
        order: names the fields that rows are sorted by.
        types: of these fields.

    Raises:
        InputError: it was not made by a search in this order.
    """
    try:
        if len(token) > _MAX_LENGTH:
            raise ValueError("too long")
        part, model, order_of_token, *values, last_id = json.loads(
            base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        )
        is_sound = part in (0, 1) and isinstance(model, str | None) and isinstance(last_id, str)
        if order_of_token != order or not is_sound:
            raise ValueError("another order")
        position = [_checked(kind, value) for kind, value in zip(types, values, strict=True)]
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise InputError(
            "not a token of this search",
            subject="token",
            found=token[:60],
            expected="the token of the page before, with the same order",
            next_step="Follow the link `next` of the page, or begin again without a token.",
        ) from error
    return PageToken(part, model, (*position, last_id))


def _checked(kind: FieldType, value: Any) -> Any:
    """Return a value of a token as the type of its field.

    Raises:
        ValueError: it is of another type.
    """
    if kind == "time":
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("a time without its zone")
        return moment
    expected = str if kind == "text" else (int, float)
    if isinstance(value, bool) or not isinstance(value, expected):
        raise ValueError("another type")
    return value
