"""Item search of a STAC API with pystac-client, whose requests are made by our own bounded client.

The only module that imports pystac-client, which is an extra.
"""

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

from pystac.errors import STACError
from pystac.link import Link
from pystac_client import ConformanceClasses, ItemSearch
from pystac_client.stac_api_io import StacApiIO

from cloudseg.ingest.stac_source.hosts import Refused
from cloudseg.ingest.stac_source.http_client import HttpClient, parse_json, shown
from cloudseg.ingest.stac_source.search import Search

_MAX_PAGES: Final = 5_000
"""Answers of one search; each has at least one item, or the search ends."""


class _BoundedIO(StacApiIO):  # type: ignore[misc, unused-ignore]
    """Makes the requests of pystac-client with the bounded client; opens no file, whatever a link says."""

    def __init__(self, client: HttpClient, url: str, more: dict[str, str]) -> None:
        super().__init__()
        self._client, self._url, self._more, self._pages = client, url, more, 0

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """Return what an address holds; see `StacApiIO.read_text`, which also opens files."""
        if isinstance(source, Link):
            return str(super().read_text(source, *args, **kwargs))
        return self.request(str(source), *args, **kwargs)

    def json_loads(self, txt: str, *args: Any, **kwargs: Any) -> Any:
        """Return the values of an answer; one item with NaN must not cost the page, as it would with orjson."""
        return parse_json(txt.encode(), self._url)

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """Return the answer to a request; headers that a server asks for in its links are not sent."""
        self._pages += 1
        if self._pages > _MAX_PAGES:
            raise Refused("the pages of the search are endless", subject=shown(self._url), found=f"{_MAX_PAGES} pages")
        url = urljoin(self._url, href)
        values = {**(parameters or {}), **self._more}
        if (method or "GET").upper() == "POST":
            content = self._client.read_text(url, body=values)
        else:
            there = parse_qs(urlsplit(url).query)  # the link to the next page repeats the parameters
            query = urlencode({key: value for key, value in values.items() if value is not None and key not in there})
            separator = "&" if "?" in url else "?"
            content = self._client.read_text(f"{url}{separator}{query}" if query else url)
        return content.decode("utf-8", "replace")


def search_api(
    client: HttpClient, url: str, root: dict[str, Any], search: Search, *, page: int
) -> Iterator[dict[str, Any]]:
    """Yield the items that an API returns, page by page.

    Args:
        client: Makes the requests.
        url: The API's landing page.
        root: Its content.
        search: Which items are wanted.
        page: Items of one answer.

    Raises:
        Refused: A page is no item collection, or larger than allowed.
        NotRead: The API does not answer.
    """
    links = [link for link in root["links"] if isinstance(link, dict) and link.get("rel") == "search"]
    by_post = any(str(link.get("method", "GET")).upper() == "POST" for link in links)
    method = "POST" if by_post else "GET"
    try:
        found = ItemSearch(
            urljoin(url, str(links[0]["href"])),
            method=method,
            stac_io=_BoundedIO(client, url, {} if search.as_of is None else {"as_of": search.as_of}),
            limit=page,
            collections=list(search.collections) or None,
            bbox=None if search.drawn else search.bounds,
            intersects=search.geometry,
            datetime=search.interval,
            **_filter_of(root, search, method),
        )
        yield from found.items_as_dicts()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, STACError) as error:
        raise Refused(
            "the answer of the API is no item collection",
            subject=shown(url),
            found=f"{type(error).__name__}: {error}"[:200],
            expected="a page of STAC items",
        ) from error


def _filter_of(root: dict[str, Any], search: Search, method: str) -> dict[str, Any]:
    """Return the filter of a search in a form that the API declares; none if it declares none."""
    most = search.max_cloud_cover
    cloud = {"op": "<=", "args": [{"property": "eo:cloud_cover"}, most]}
    wanted = [*([] if most is None else [cloud]), *([] if search.where is None else [search.where])]
    if not wanted:
        return {}
    if _conforms(root, ConformanceClasses.FILTER):
        if method == "GET" and search.where is None:
            return {"filter": f'"eo:cloud_cover" <= {most:g}', "filter_lang": "cql2-text"}
        one = wanted[0] if len(wanted) == 1 else {"op": "and", "args": wanted}
        return {"filter": one, "filter_lang": "cql2-json"}
    if most is not None and _conforms(root, ConformanceClasses.QUERY):
        return {"query": {"eo:cloud_cover": {"lte": most}}}
    return {}


def _conforms(root: dict[str, Any], wanted: ConformanceClasses) -> bool:
    return any(isinstance(each, str) and re.match(wanted.pattern, each) for each in root["conformsTo"])
