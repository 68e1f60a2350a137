"""What bounds the work of the service: requests at once, tiles that wait, the time of one, guesses of keys."""

import asyncio
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cloudseg.serve import context
from cloudseg.serve.context import Busy, Workers
from cloudseg.serve.guard import ApiKeys, Guard, RateLimit

KEY = "a-key-of-sufficient-length"


async def ask(guard: Guard) -> tuple[int, dict[bytes, bytes]]:
    """Send a request to a middleware and return status and headers of the answer."""
    sent: list[Any] = []
    scope = {"type": "http", "method": "GET", "path": "/x", "query_string": b"", "headers": [], "client": ("::1", 1)}

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await guard(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])


def test_more_requests_at_once_than_allowed_are_refused_and_counted_down():
    async def scenario() -> None:
        release = asyncio.Event()

        async def slow(_: Any, __: Any, send: Any) -> None:
            await release.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        guard = Guard(slow, keys=ApiKeys(""), rate=RateLimit(0), open_paths=(), at_once=2, private=False)
        running = [asyncio.create_task(ask(guard)) for _ in range(2)]
        await asyncio.sleep(0)
        status, headers = await ask(guard)
        assert (status, headers[b"retry-after"]) == (503, b"1")
        release.set()
        assert [(await task)[0] for task in running] == [200, 200]
        assert (await ask(guard))[0] == 200

    asyncio.run(scenario())


def test_a_guess_of_a_key_counts_as_a_request(client_with: Any):
    locked: TestClient = client_with(serve_api_keys=KEY, serve_requests_per_minute="3")
    guesses = [locked.get("/stac/", headers={"X-API-Key": f"{KEY}{number}"}).status_code for number in range(5)]
    assert guesses == [401, 401, 401, 429, 429]


def test_tiles_that_wait_are_bounded_in_number_and_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(context, "_WAITING", 3)
    monkeypatch.setattr(context, "RENDER_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        workers = Workers(2)
        slow = [asyncio.create_task(workers.run(time.sleep, 0.6)) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Busy, match="busy"):
            await workers.run(time.sleep, 0)
        for task in slow:
            with pytest.raises(Busy, match="too long"):
                await task
        await asyncio.sleep(1.3)  # the threads end, and room is made again
        assert await workers.run(int, "7") == 7

    asyncio.run(scenario())


def test_a_document_that_was_replaced_is_sent_anew(client_with: Any):
    client: TestClient = client_with()
    store = client.app.state.context.store  # type: ignore[attr-defined]
    key = "stac/catalog.json"
    store.put(key, b'{"id": "first"}')
    try:
        first = client.get(f"/store/{key}")
        assert first.headers["cache-control"] == "public, max-age=60"
        given = {"If-None-Match": first.headers["etag"]}
        assert client.get(f"/store/{key}", headers=given).status_code == 304
        store.replace(key, b'{"id": "again"}')
        assert client.get(f"/store/{key}", headers=given).json() == {"id": "again"}
    finally:
        store.delete(key)
