"""Headers of answers that clients may keep."""

import re
from typing import Final

from starlette.requests import Request

_IMMUTABLE: Final = "public, max-age=31536000, immutable"
BRIEF: Final = "public, max-age=60"


def cache_headers(etag: str, *, brief: bool = False) -> dict[str, str]:
    """Return ETag and lifetime: what a checksum names never changes."""
    return {"ETag": f'"{etag}"', "Cache-Control": BRIEF if brief else _IMMUTABLE}


def is_cached(request: Request, etag: str) -> bool:
    """Return whether the client has this version already (RFC 9110, 13.1.2, weak comparison)."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or etag in re.findall(r'"([^"]*)"', given)
