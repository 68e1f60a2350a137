"""What the routes share: catalog, store, workers, and the addresses of answers."""

import asyncio
import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Generic, TypeVar
from urllib.parse import quote

from fastapi import Path, Query
from starlette.requests import Request

from cloudseg.catalog import Catalog
from cloudseg.catalog.mask_query import Found
from cloudseg.errors import CloudsegError
from cloudseg.runtime import Runtime
from cloudseg.serve.guard import KEY_PARAMETER, key_parameter
from cloudseg.stac.links import Site
from cloudseg.storage import Store

T = TypeVar("T")
DATABASE_TIMEOUT_S: Final = 15.0
PATIENT_TIMEOUT_S: Final = 120.0
"""For the summary of a collection: about 10 seconds for a million masks on SQLite."""
RENDER_TIMEOUT_S: Final = 30.0
_WAITING: Final = 400
"""Tiles that wait for a worker; more are refused."""
_ITEM_LIFETIME_S: Final = 60.0
"""As long as clients may keep what changes (`BRIEF`): an item that is withdrawn is drawn no longer."""
_ITEMS: Final = 2_000

MaskId = Annotated[str, Path(pattern=r"^mk-[0-9a-z-]{1,60}$")]
ItemId = Annotated[str, Path(pattern=r"^(mk|sc|w|sn)-[0-9a-z-]{1,60}$")]
AS_OF: Final = "What readers saw at this moment: RFC 3339, such as 2026-11-22T02:00:00Z; now when not given."
AsOf = Annotated[str | None, Query(description=AS_OF)]


class Busy(CloudsegError):
    """Too much waits already, or an answer took too long."""

    retry_helps = True
    http_status = 503


class Workers:
    """Threads that read rasters: as many as cores, with a bounded queue and a time limit."""

    def __init__(self, threads: int) -> None:
        self.threads = max(2, threads)
        self._pool = ThreadPoolExecutor(self.threads, "serve")
        self._waiting = 0

    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Return what a function returns, called in a thread.

        Raises:
            Busy: too many calls wait, or this one takes too long. Its thread goes on until GDAL returns.
        """
        if self._waiting >= _WAITING:
            raise Busy("the service is busy", next_step="Try again in a moment.")
        self._waiting += 1
        call = asyncio.get_running_loop().run_in_executor(self._pool, functools.partial(function, *args, **kwargs))
        call.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(call, RENDER_TIMEOUT_S)
        except TimeoutError as error:
            raise Busy("the answer took too long", next_step="Try again, or ask for less.") from error

    def _done(self, _: object) -> None:
        self._waiting -= 1


class Recent(Generic[T]):
    """What was found a moment ago, by key; what was not asked for longest is forgotten first."""

    def __init__(self, lifetime_s: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime_s, self._most, self._clock = lifetime_s, most, clock
        self._kept: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, find: Callable[[], T]) -> T:
        """Return what is kept, or what `find` returns; an error is not kept."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and self._clock() - kept[0] < self._lifetime_s:
                self._kept.move_to_end(key)
                return kept[1]
        found = find()
        with self._lock:
            self._kept[key] = (self._clock(), found)
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return found


@dataclass(frozen=True)
class Context:
    """Catalog (which cannot be written), store, settings and workers."""

    runtime: Runtime
    catalog: Catalog
    workers: Workers
    patient: Catalog
    """The same, with more time for a statement: for what one request reads and many are answered from."""
    items: Recent[Found] = field(default_factory=lambda: Recent(_ITEM_LIFETIME_S, _ITEMS))
    """Rows of masks and scenes whose tiles are drawn: a map asks for many tiles of one item."""

    @property
    def store(self) -> Store:
        """The store."""
        return self.runtime.store

    def site(self, request: Request) -> "ApiSite":
        """Return the addresses of items as this request sees them."""
        return ApiSite(self.store, self.runtime.settings, base_of(request))


@dataclass(frozen=True)
class ApiSite(Site):
    """The addresses of the API: items live in collections, not in months, and files are served here.

    CLOUDSEG_PUBLIC_URL, where it is set, says where the files are instead.
    """

    base: str = ""

    def object(self, key: str) -> str:
        """Return the address of a stored object."""
        return super().object(key) if self.settings.public_url else f"{self.base}/store/{key}"

    def root(self) -> str:
        """Return the address of the landing page."""
        return f"{self.base}/stac/"

    def collection(self, collection: str) -> str:
        """Return the address of a collection."""
        return f"{self.base}/stac/collections/{collection}"

    def parent(self, collection: str, month: str) -> str:
        """Return the address of the collection: the API has no months."""
        return self.collection(collection)

    def item(self, collection: str, month: str, item_id: str) -> str:
        """Return the address of an item."""
        return f"{self.collection(collection)}/items/{item_id}"


def base_of(request: Request) -> str:
    """Return the address of the application, without a slash at its end, also where it is mounted in another one."""
    return f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '').rstrip('/')}"


def with_key(request: Request, address: str) -> str:
    """Return an address with the API key of the query, if that is where the client has it.

    A map client reads TileJSON by one address and then sends no headers for its tiles.
    """
    key = key_parameter(request.scope)
    if key is None:
        return address
    return f"{address}{'&' if '?' in address else '?'}{KEY_PARAMETER}={quote(key, safe='')}"
