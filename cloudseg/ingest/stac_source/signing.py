"""Tokens for catalogs whose files need one: the Planetary Computer gives everybody one for each collection.

Its documentation, "Using tokens for data access": `GET …/api/sas/v1/token/{collection}` answers with `token`, which is
the query of a file's address, and `msft:expiry`.
"""

import re
import threading
import time
from typing import Final
from urllib.parse import quote

from cloudseg.ingest.products.sentinel2_metadata import parse_iso_time
from cloudseg.ingest.stac_source.hosts import Refused
from cloudseg.ingest.stac_source.http_client import HttpClient, Remote, shown

_TOKEN: Final = re.compile(r"[A-Za-z0-9%&=:._~+/-]{1,2000}", re.A)
_MARGIN_S: Final = 300.0
"""A token that ends sooner is not used for a new file."""
_USED_S: Final = 600.0
"""A token whose end is not stated is used for so long."""


class Signer:
    """Asks for tokens and for files with them. Safe to use from several threads."""

    def __init__(self, client: HttpClient, template: str) -> None:
        """Ask for nothing yet.

        Args:
            client: Makes the requests.
            template: Address of tokens with `{collection}`; empty: files need none.
        """
        self._client, self._template = client, template
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def probe(self, href: str, collection: str) -> Remote:
        """Return what the server says about a file; see `HttpClient.probe`."""
        self._client.policy.check(href)
        if not self._template or "?" in href:  # signed already
            return self._client.probe(href)
        return self._client.probe(f"{href}?{self._token(collection)}")

    def _token(self, collection: str) -> str:
        with self._lock:  # one thread asks, the others wait for its answer
            token, end = self._tokens.get(collection, ("", 0.0))
            if time.time() > end - _MARGIN_S:
                token, end = self._ask(self._template.replace("{collection}", quote(collection, safe="")))
                self._tokens[collection] = token, end
            return token

    def _ask(self, url: str) -> tuple[str, float]:
        answer = self._client.read_json(url)
        values = answer if isinstance(answer, dict) else {}
        token, expiry = values.get("token"), values.get("msft:expiry")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise Refused("the answer is no token", subject=shown(url), next_step="Check CLOUDSEG_STAC_TOKEN_URL.")
        end = parse_iso_time(expiry) if isinstance(expiry, str) else None
        return token, end.timestamp() if end else time.time() + _MARGIN_S + _USED_S
