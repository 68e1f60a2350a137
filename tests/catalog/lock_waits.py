"""Wait until sessions of a catalog are blocked by a lock, so that tests need not guess how long to sleep."""

import time
from collections.abc import Sequence
from concurrent.futures import Future

from sqlalchemy import text

from cloudseg.catalog import Catalog

_WAITING = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
_TIMEOUT_S = 60


def wait_until_sessions_wait(catalog: Catalog, calls: Sequence[Future[object]]) -> None:
    """Return when as many sessions wait for a lock as there are calls, or when one of the calls has ended.

    SQLite does not report waiting sessions: there it waits half a second, in which an unblocked call would end.
    """
    if catalog.engine.dialect.name == "sqlite":
        time.sleep(0.5)
        return
    deadline = time.monotonic() + _TIMEOUT_S
    while not any(call.done() for call in calls):
        with catalog.read() as db:
            if db.execute(text(_WAITING)).scalar() == len(calls):
                return
        assert time.monotonic() < deadline, "the calls neither wait for a lock nor end"
        time.sleep(0.01)
