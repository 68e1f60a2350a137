"""The STAC API, on stac-fastapi: its routes and models, with answers from the catalog's rows.

Items are those of the static catalog (`cloudseg.stac.static.documents`) with other addresses. A search that names no
collection searches all of them: first scenes and masks, then models and snapshots, which are few (`few_items`).

Masks are those that readers see (docs/decisions/0031), unless a search names ids or the model. The parameter `as_of`,
of items and searches, gives what readers saw at a moment.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, cast
from urllib.parse import urlencode

import attr
from fastapi import APIRouter, FastAPI, Query
from pydantic import Field as ModelField
from pydantic import model_validator
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.models import (
    ItemCollectionUri,
    ItemUri,
    create_get_request_model,
    create_post_request_model,
    create_request_model,
)
from stac_fastapi.extensions import (
    FieldsExtension,
    FilterExtension,
    QueryExtension,
    SortExtension,
    TokenPaginationExtension,
)
from stac_fastapi.extensions.filter import FilterConformanceClasses
from stac_fastapi.extensions.filter.client import BaseFiltersClient
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.search import APIRequest, BaseSearchGetRequest, BaseSearchPostRequest
from starlette.requests import Request

from cloudseg import __version__
from cloudseg.catalog import mask_query as mq
from cloudseg.catalog import mask_search as ms
from cloudseg.catalog import stac_rows
from cloudseg.catalog.item_filter import parse_time
from cloudseg.catalog.search_area import area_of_box, area_of_geometry
from cloudseg.catalog.stac_rows import COLLECTIONS
from cloudseg.catalog.times import parse_moment
from cloudseg.errors import InputError, NotInCatalog
from cloudseg.records import Json
from cloudseg.serve.context import AS_OF, ApiSite, AsOf, Context, base_of
from cloudseg.serve.cql2_text import parse_text
from cloudseg.serve.few_items import kinds_of, search_few, start_of
from cloudseg.serve.item_fields import fields_of_search
from cloudseg.serve.item_query import both, filter_of_query
from cloudseg.stac.collections import collection_of
from cloudseg.stac.static import documents

PREFIX: Final = "/stac"
TITLE: Final = "Cloud masks"
_DESCRIPTION: Final = "Cloud masks, with the scenes, models and training data behind them."
_CONFORMS_TO: Final = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/item-search",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/oas30",
]
_LONGEST_ID: Final = 100
_SUMMARY_LIFETIME_S: Final = 60.0
"""The extent of a collection reads every row; it is kept this long, or longer in a large catalog:"""
_SUMMARY_COSTS: Final = 20.0
"""times that it took."""
_QUERYABLES: Final[dict[str, Json]] = {
    "id": {"title": "Id", "type": "string"},
    "collection": {"title": "Collection", "type": "string", "enum": list(COLLECTIONS)},
    "datetime": {"title": "Time of acquisition", "type": "string", "format": "date-time"},
    "created": {"title": "Time of publication", "type": "string", "format": "date-time"},
    "geometry": {"title": "Footprint", "$ref": "https://geojson.org/schema/Geometry.json"},
    "gsd": {"title": "Ground size of a pixel in meters", "type": "number"},
    "eo:cloud_cover": {"title": "Cloud cover in percent", "type": "number", "minimum": 0, "maximum": 100},
    "cloudseg:model_version": {"title": "Version of the model", "type": "integer", "minimum": 1},
    "cloudseg:weights_id": {"title": "Weights that made the mask", "type": "string"},
    "cloudseg:radiometry": {
        "title": "Whether the scene is as bright as training scenes were",
        "type": "string",
        "enum": ["inside", "outside", "unknown"],
    },
    "cloudseg:scene_id": {"title": "Scene", "type": "string"},
    "cloudseg:place": {"title": "Place, the unit of the split", "type": "string"},
    "cloudseg:sensor": {"title": "Sensor and processing level", "type": "string"},
    "cloudseg:valid_fraction": {"title": "Valid share of the pixels", "type": "number", "minimum": 0, "maximum": 1},
}


@attr.s
class ItemsRequest(ItemCollectionUri):
    """The page of a collection, with a token."""

    token: Annotated[str | None, Query()] = attr.ib(default=None)
    as_of: AsOf = attr.ib(default=None)


@attr.s
class ItemRequest(ItemUri):
    """An item, now or at a moment."""

    as_of: AsOf = attr.ib(default=None)


@attr.s
class SearchRequest(BaseSearchGetRequest):
    """A search, now or at a moment."""

    as_of: AsOf = attr.ib(default=None)


class PostBody(BaseSearchPostRequest):
    """A search; bounds may cross the antimeridian, and a filter may be text."""

    as_of: str | None = ModelField(None, description=AS_OF)

    bbox: list[float] | None = ModelField(None, min_length=4, max_length=6)  # type: ignore[assignment]
    ids: list[str] | None = ModelField(None, max_length=mq.MAX_IDS)
    filter_expr: dict[str, Any] | str | None = ModelField(None, alias="filter")
    filter_lang: str | None = ModelField(None, alias="filter-lang")
    filter_crs: str | None = ModelField(None, alias="filter-crs")
    query: dict[str, dict[str, Any]] | None = None
    fields: dict[Literal["include", "exclude"], list[str] | None] = ModelField(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _check_object(cls, values: Any) -> Any:
        """Refuse what is no JSON object: the validators of stac-pydantic, which come next, expect one."""
        if not isinstance(values, dict):
            raise ValueError("expected a JSON object and the header Content-Type: application/json")
        return values


class PlainFilterExtension(FilterExtension):
    """The filter extension, whose fields `PostBody` has already."""

    POST = None  # type: ignore[assignment]


class PlainFieldsExtension(FieldsExtension):
    """The same for the fields extension."""

    POST = None  # type: ignore[assignment]


class PlainQueryExtension(QueryExtension):
    """The same for the query extension."""

    POST = None  # type: ignore[assignment]


class Queryables(BaseFiltersClient):
    """The fields that a filter may name."""

    def get_queryables(self, collection_id: str | None = None, **kwargs: Any) -> Json:
        """Return them as JSON Schema."""
        request: Request = kwargs["request"]
        if collection_id is not None:
            _known(collection_id)
        return {
            "$schema": "https://json-schema.org/draft/2019-09/schema",
            "$id": f"{base_of(request)}{request.url.path.removeprefix(request.scope.get('root_path', ''))}",
            "type": "object",
            "title": f"Queryables of {collection_id or TITLE}",
            "properties": _QUERYABLES,
            "additionalProperties": False,
        }


@attr.s
class CatalogClient(BaseCoreClient):
    """The answers, as plain JSON instead of the TypedDicts of stac-fastapi."""

    context: Context = attr.ib(kw_only=True)
    clock: Callable[[], float] = attr.ib(default=time.monotonic, kw_only=True)
    _summaries: dict[str, tuple[float, stac_rows.Overview]] = attr.ib(factory=dict, init=False)
    _reading: threading.Lock = attr.ib(factory=threading.Lock, init=False)

    def landing_page(self, **kwargs: Any) -> Json:  # type: ignore[override]
        """Return the landing page: what the API is and where everything begins."""
        request: Request = kwargs["request"]
        base = base_of(request)
        root = f"{base}{PREFIX}"
        page: Json = dict(self._landing_page(f"{root}/", self.conformance_classes(), []))
        links = [
            _link("self", f"{root}/"),
            _link("root", f"{root}/"),
            _link("conformance", f"{root}/conformance"),
            _link("data", f"{root}/collections"),
            {**_link("search", f"{root}/search", "application/geo+json"), "method": "GET"},
            {**_link("search", f"{root}/search", "application/geo+json"), "method": "POST"},
            _link("http://www.opengis.net/def/rel/ogc/1.0/queryables", f"{root}/queryables", "application/schema+json"),
            _link("service-desc", f"{root}/api", "application/vnd.oai.openapi+json;version=3.0"),
            _link("service-doc", f"{root}/api.html", "text/html"),
            *(_link("child", f"{root}/collections/{name}") for name in COLLECTIONS),
        ]
        return {**page, "links": links}

    def all_collections(self, **kwargs: Any) -> Json:  # type: ignore[override]
        """Return every collection."""
        site = self.context.site(kwargs["request"])
        links = [_link("self", f"{site.base}{PREFIX}/collections"), _link("root", site.root())]
        return {"collections": [self._collection(site, name) for name in COLLECTIONS], "links": links}

    def get_collection(self, collection_id: str, **kwargs: Any) -> Json:  # type: ignore[override]
        """Return a collection."""
        return self._collection(self.context.site(kwargs["request"]), _known(collection_id))

    def get_item(self, item_id: str, collection_id: str, **kwargs: Any) -> Json:  # type: ignore[override]
        """Return an item."""
        site = self.context.site(kwargs["request"])
        with self.context.catalog.read() as db:
            found = documents(site, db, _known(collection_id), _possible([item_id]), moment_of(kwargs.get("as_of")))
        if not found:
            raise NotInCatalog("no such item", subject=item_id[:100])
        return _with_tiles(site, found[0])

    def item_collection(  # type: ignore[override]
        self,
        collection_id: str,
        bbox: Any = None,
        datetime: str | None = None,
        limit: int | None = 10,
        token: str | None = None,
        **kwargs: Any,
    ) -> Json:
        """Return a page of a collection."""
        asked = {
            "collections": [_known(collection_id)],
            "bbox": bbox,
            "datetime": datetime,
            "limit": limit,
            "token": token,
            "filter": kwargs.get("filter_expr"),
            "filter-lang": kwargs.get("filter_lang"),
            "sortby": kwargs.get("sortby"),
            "as_of": kwargs.get("as_of"),
            "query": kwargs.get("query"),
            "fields": kwargs.get("fields"),
        }
        return self._search(kwargs["request"], asked)

    def get_search(  # type: ignore[override]
        self,
        collections: list[str] | None = None,
        ids: list[str] | None = None,
        bbox: Any = None,
        intersects: Any = None,
        datetime: str | None = None,
        limit: int | None = 10,
        **kwargs: Any,
    ) -> Json:
        """Return a page of a search by GET."""
        asked = {
            "collections": collections,
            "ids": ids,
            "bbox": bbox,
            "intersects": _from_json(intersects, "intersects") if intersects else None,
            "datetime": datetime,
            "limit": limit,
            "token": kwargs.get("token"),
            "filter": kwargs.get("filter_expr"),
            "filter-lang": kwargs.get("filter_lang"),
            "sortby": kwargs.get("sortby"),
            "as_of": kwargs.get("as_of"),
            "query": kwargs.get("query"),
            "fields": kwargs.get("fields"),
        }
        return self._search(kwargs["request"], asked)

    def post_search(self, search_request: Any, **kwargs: Any) -> Json:  # type: ignore[override]
        """Return a page of a search by POST."""
        asked = search_request.model_dump(mode="json", by_alias=True, exclude_none=True)
        request: Request = kwargs["request"]
        as_of = asked.get("as_of") or request.query_params.get("as_of")
        return self._search(request, asked | ({"as_of": as_of} if as_of else {}))

    def _collection(self, site: ApiSite, name: stac_rows.Collection) -> Json:
        found = collection_of(site, name, self._summary(name), [])
        kept = [link for link in found["links"] if link["rel"] not in ("child", "item")]
        own = site.collection(name)
        return {
            **found,
            "links": [
                *kept,
                _link("items", f"{own}/items", "application/geo+json"),
                _link(
                    "http://www.opengis.net/def/rel/ogc/1.0/queryables", f"{own}/queryables", "application/schema+json"
                ),
            ],
        }

    def _summary(self, name: stac_rows.Collection) -> stac_rows.Overview:
        """Return what summarizes a collection; while one request reads it anew, the others get the one before."""
        kept = self._summaries.get(name)
        if kept is not None and self.clock() - kept[0] < _SUMMARY_LIFETIME_S:
            return kept[1]
        if not self._reading.acquire(blocking=kept is None):
            assert kept is not None  # noqa: S101 - otherwise it waits
            return kept[1]
        try:
            # Another request may have read it while this one waited.
            if (newer := self._summaries.get(name)) is not None and newer is not kept:
                return newer[1]
            began = self.clock()
            with self.context.patient.read() as db:
                found = stac_rows.overview(db, name)
            # What takes long is read more seldom.
            spare = max(0.0, _SUMMARY_COSTS * (self.clock() - began) - _SUMMARY_LIFETIME_S)
            self._summaries[name] = (self.clock() + spare, found)
            return found
        finally:
            self._reading.release()

    def _search(self, request: Request, asked: Json) -> Json:
        site = self.context.site(request)
        limit = max(1, min(int(asked.get("limit") or 10), mq.MAX_LIMIT))
        query, few = query_of(asked), kinds_of(asked.get("collections"))
        wanted = fields_of_search(asked.get("fields"))
        given = asked.get("token")
        start = start_of(given)
        features: list[Json] = []
        token: str | None = None
        with self.context.catalog.read() as db:
            if query.kinds and start is None:
                page = ms.search(db, query, limit=limit, token=given)
                features, token = _features(site, db, page.rows, query.as_of), page.token
            if few and token is None:
                more, token = search_few(db, site, few, query, limit=limit - len(features), start=start or 0)
                features += more
        links = [_link("self", str(request.url.replace(scheme=request.url.scheme)), "application/geo+json")]
        links.append(_link("root", site.root()))
        if token is not None:
            links.append(_next_link(request, site, asked, token))
        return {
            "type": "FeatureCollection",
            "features": [wanted.of(_with_tiles(site, feature)) for feature in features],
            "numberReturned": len(features),
            "links": links,
        }


def query_of(asked: Json) -> mq.Query:
    """Return the search of the parameters of a STAC search.

    Raises:
        InputError: one of them is unusable.
    """
    if asked.get("bbox") and asked.get("intersects"):
        raise InputError("bbox and intersects exclude each other", subject="intersects", expected="one of them")
    since, until = interval_of(asked.get("datetime"))
    named = asked.get("collections")
    return mq.Query(
        kinds=mq.KINDS if named is None else tuple(kind for kind in mq.KINDS if kind in named),
        ids=None if asked.get("ids") is None else tuple(_possible(asked["ids"])),
        area=_area_of(asked),
        since=since,
        until=until,
        as_of=moment_of(asked.get("as_of")),
        where=_where_of(asked),
        sort=_sort_of(asked.get("sortby")),
    )


def moment_of(as_of: str | None) -> datetime | None:
    """Return the moment of the parameter `as_of`, None for now.

    Raises:
        InputError: it is no time with a zone.
    """
    return None if as_of is None else parse_moment(as_of.upper(), "as_of")


def interval_of(text: str | None) -> tuple[datetime | None, datetime | None]:
    """Return begin and end of an RFC 3339 time or interval; `..` or nothing is an open end.

    Raises:
        InputError: it is neither.
    """
    if not text:
        return None, None
    parts = text.split("/")
    if len(parts) == 1:
        moment = parse_time(text)
        return moment, moment
    since, until = (None if part in ("", "..") else parse_time(part) for part in (parts if len(parts) == 2 else "??"))
    if (since is None and until is None) or (since and until and since > until):
        raise InputError(
            "not an interval", subject="datetime", found=text[:80], expected="begin/end, one of which may be `..`"
        )
    return since, until


def _possible(ids: Sequence[str]) -> list[str]:
    """Return the ids that an item may have; PostgreSQL takes no NUL."""
    return [item_id for item_id in ids if len(item_id) <= _LONGEST_ID and item_id.isascii() and item_id.isprintable()]


def _area_of(asked: Json) -> Any:
    if box := asked.get("bbox"):
        return area_of_box(box)
    given = asked.get("intersects")
    if given is None:
        return None
    return area_of_geometry(given, "intersects")


def _where_of(asked: Json) -> Any:
    given = asked.get("filter")
    if isinstance(given, str) and given:
        given = _from_json(given, "filter") if asked.get("filter-lang") == "cql2-json" else parse_text(given)
    elif not isinstance(given, dict):
        given = None
    query = asked.get("query")
    return both(given, filter_of_query(_from_json(query, "query"), mq.fields_of("masks")) if query else None)


def _sort_of(given: Any) -> tuple[mq.SortKey, ...]:
    if not given:
        return mq.NEWEST_FIRST
    keys = []
    for entry in given:
        if isinstance(entry, dict):
            name, descending = str(entry["field"]), str(entry.get("direction", "asc")).lower() == "desc"
        else:
            name, descending = str(entry).lstrip("+- "), str(entry).startswith("-")
        keys.append(mq.SortKey(name.removeprefix("properties."), descending))
    return tuple(keys)


def _from_json(text: Any, subject: str) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("not JSON", subject=subject, found=text[:60]) from error


def _features(site: ApiSite, db: Any, rows: Sequence[mq.Found], as_of: datetime | None) -> list[Json]:
    """Return the items of a page, in its order."""
    found: dict[str, Json] = {}
    for kind in mq.KINDS:
        ids = [row.id for row in rows if row.kind == kind]
        if ids:
            found.update({item["id"]: item for item in documents(site, db, kind, ids, as_of)})
    return [found[row.id] for row in rows]


def _with_tiles(site: ApiSite, item: Json) -> Json:
    """Add where the tiles of an item are described."""
    layers = {"masks": ("mask", "probability"), "scenes": ("image",)}.get(item.get("collection", ""), ())
    tiles = [
        {
            "rel": "tilejson",
            "href": f"{site.base}/tiles/{item['id']}/{layer}/tilejson.json",
            "type": "application/json",
            "title": f"Tiles of the {layer}",
        }
        for layer in layers
    ]
    return {**item, "links": [*item["links"], *tiles]}


def _next_link(request: Request, site: ApiSite, asked: Json, token: str) -> Json:
    if request.method == "POST":
        href = f"{site.base}{PREFIX}/search"
        body = {**asked, "token": token}
        return {"rel": "next", "type": "application/geo+json", "method": "POST", "href": href, "body": body}
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    parameters = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
    href = f"{site.base}{path}?{urlencode([*parameters, ('token', token)])}"
    return {"rel": "next", "type": "application/geo+json", "method": "GET", "href": href}


def _known(collection_id: str) -> stac_rows.Collection:
    for name in COLLECTIONS:
        if name == collection_id:
            return name
    raise NotInCatalog("no such collection", subject=collection_id[:60], expected=", ".join(COLLECTIONS))


def _link(rel: str, href: str, media_type: str = "application/json") -> Json:
    return {"rel": rel, "href": href, "type": media_type}


def add_stac_api(app: FastAPI, context: Context) -> None:
    """Add the STAC API to an application whose OpenAPI document is at `/stac/api`."""
    client = CatalogClient(context=context, base_conformance_classes=list(_CONFORMS_TO), landing_page_id="cloudseg")
    sort, token = SortExtension(), TokenPaginationExtension()
    wanted = PlainFilterExtension(client=Queryables())
    wanted.conformance_classes += [
        FilterConformanceClasses.ADVANCED_COMPARISON_OPERATORS,
        FilterConformanceClasses.BASIC_SPATIAL_FUNCTIONS,
        FilterConformanceClasses.BASIC_SPATIAL_FUNCTIONS_PLUS,
    ]
    fields, query = PlainFieldsExtension(), PlainQueryExtension()
    for extension in (fields, query, sort):
        extension.conformance_classes = [*extension.conformance_classes, _of_items(extension.conformance_classes[0])]
    extensions = [wanted, sort, token, fields, query]
    StacApi(
        settings=ApiSettings(
            _env_file=None,
            stac_fastapi_title=TITLE,
            stac_fastapi_description=_DESCRIPTION,
            stac_fastapi_version=__version__,
            stac_fastapi_landing_id="cloudseg",
            openapi_url=f"{PREFIX}/api",
            docs_url=f"{PREFIX}/api.html",
            root_path="",
            enable_response_models=False,
            enable_direct_response=True,
        ),
        client=client,
        app=app,
        router=APIRouter(prefix=PREFIX),
        extensions=extensions,
        exceptions={},
        middlewares=[],
        title=TITLE,
        description=_DESCRIPTION,
        search_get_request_model=create_get_request_model(extensions, base_model=SearchRequest),
        search_post_request_model=create_post_request_model(extensions, base_model=PostBody),
        item_get_request_model=ItemRequest,
        items_get_request_model=cast(
            "type[APIRequest]",
            create_request_model(
                "ItemsRequest",
                ItemsRequest,
                mixins=[_get(wanted), _get(sort), _get(fields), _get(query)],
                request_type="GET",
            ),
        ),
    )


def _of_items(of_search: str) -> str:
    """Return the conformance class of an extension for the items of a collection."""
    return of_search.replace("/item-search#", "/ogcapi-features#")


def _get(extension: Any) -> type[APIRequest]:
    found: type[APIRequest] = extension.get_request_model("GET")
    return found
