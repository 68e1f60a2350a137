"""What a banner on every page says: the store or the catalog cannot be used as they should.

The check is one small request to each, in a thread of its own: a page waits for it two seconds at most, and its result
holds for half a minute.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from cloudseg.catalog import tables as t
from cloudseg.errors import CatalogOutdated, CloudsegError, ObjectMissing, StoreError
from cloudseg.runtime import Runtime

log = logging.getLogger(__name__)
FRESH_S: Final = 30.0
WAIT_S: Final = 2.0


@dataclass(frozen=True)
class Banner:
    """One sentence above the content of a page."""

    what: str
    next_step: str


SLOW: Final = Banner(
    f"The store has not answered within {WAIT_S:.0f} seconds.",
    "Pictures and reports are not shown until it does. `cloudseg doctor` checks it.",
)


UNKNOWN: Final = Banner(
    "Catalog and store could not be checked.",
    "The log of Airflow's API server has the error. `cloudseg doctor` checks them.",
)


class Probe:
    """Checks store and catalog, not more often than every half minute."""

    def __init__(self, runtime: Callable[[], Runtime], *, fresh_s: float = FRESH_S, wait_s: float = WAIT_S) -> None:
        self._runtime, self._fresh_s, self._wait_s = runtime, fresh_s, wait_s
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._at = float("-inf")
        self._found: list[Banner] = []

    def banners(self) -> list[Banner]:
        """Return what the newest check found; start another one if it is old."""
        with self._lock:
            if self._thread is None and time.monotonic() - self._at > self._fresh_s:
                self._thread = threading.Thread(target=self._run, name="cloudseg-probe", daemon=True)
                self._thread.start()
            thread = self._thread
        if thread is not None:
            thread.join(self._wait_s)
            if thread.is_alive():
                return [SLOW]
        return self._found

    def _run(self) -> None:
        found = [UNKNOWN]
        try:
            found = check(self._runtime)
        except Exception:  # a thread has no caller: otherwise no page would be checked again
            log.exception("store and catalog could not be checked")
        finally:
            with self._lock:
                self._found, self._at, self._thread = found, time.monotonic(), None


def check(runtime: Callable[[], Runtime]) -> list[Banner]:
    """Return what is wrong with catalog and store; a catalog that does not answer is a page of its own, no banner."""
    try:
        opened = runtime()
        opened.catalog.check()
    except CatalogOutdated as error:
        return [Banner("The catalog does not fit this version.", f"{error.what}. {error.next_step}")]
    except CloudsegError:
        return []
    try:
        with opened.catalog.read() as db:
            key = db.execute(select(t.weights.c.key).order_by(t.weights.c.version.desc()).limit(1)).scalar()
        if key is not None:
            opened.store.stat(str(key))
    except ObjectMissing:
        return [
            Banner(
                "The store lacks the weights of the newest model.",
                "The store may be an empty or another folder: `cloudseg doctor` checks it.",
            )
        ]
    except StoreError as error:
        return [Banner(f"The store cannot be read: {error.what}.", "`cloudseg doctor` checks it.")]
    except CloudsegError:
        return []
    return []
