"""Requests to a STAC source: bounded, repeated politely, continued."""

import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cloudseg.ingest.inbox_file import NotRead
from cloudseg.ingest.stac_source import http_client
from cloudseg.ingest.stac_source.hosts import HostPolicy, Refused
from cloudseg.ingest.stac_source.http_client import HttpClient, HttpOptions, Unreachable
from tests.ingest.stac_server import StacServer, run_server

Answer = Callable[[BaseHTTPRequestHandler], bool]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StacServer]:
    with run_server(tmp_path / "www") as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    return []


def client_of(server: StacServer, waits: list[float] | None = None, **more: object) -> HttpClient:
    policy = HostPolicy(private=(server.url.removeprefix("http://"),))
    options = HttpOptions(policy, **({"timeout_s": 5.0, "attempts": 3} | more))  # type: ignore[arg-type]

    def sleep(seconds: float) -> None:
        if waits is not None:
            waits.append(seconds)
        time.sleep(min(seconds, 0.05))

    return HttpClient(options, sleep)


def times(count: int, answer: Answer) -> Answer:
    """Return an answer that is given so many times."""
    left = [count]

    def limited(handler: BaseHTTPRequestHandler) -> bool:
        left[0] -= 1
        return left[0] >= 0 and answer(handler)

    return limited


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_bytes(b"", code, **headers)  # type: ignore[attr-defined]
        return True

    return answer


@pytest.mark.parametrize("retry_after", ["3", "date"])
def test_a_server_that_asks_for_a_pause_gets_it(server: StacServer, waits: list[float], retry_after: str) -> None:
    (server.folder / "a.json").write_text("[1]")
    until = int(time.time()) + 4
    text = formatdate(until, usegmt=True) if retry_after == "date" else retry_after
    server.faults["/a.json"] = times(1, status(429, **{"Retry-After": text}))
    began = time.monotonic()
    assert client_of(server, waits).read_json(f"{server.url}/a.json") == [1]
    assert len(server.requests) == 2
    assert waits[0] <= 4
    if retry_after == "date":
        assert time.time() >= until
    else:
        assert time.monotonic() - began >= float(retry_after)


def test_a_pause_is_kept_by_every_thread(server: StacServer) -> None:
    for name in ("a", "b"):
        (server.folder / f"{name}.json").write_text("[1]")
    refused = threading.Event()

    def refuse(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_bytes(b"", 429, **{"Retry-After": "2"})  # type: ignore[attr-defined]
        refused.set()
        return True

    server.faults["/a.json"] = times(1, refuse)
    client = HttpClient(client_of(server)._options)
    first = threading.Thread(target=client.read_json, args=(f"{server.url}/a.json",))
    first.start()
    assert refused.wait(10)
    time.sleep(0.5)  # the refusal has arrived
    began = time.monotonic()
    assert client.read_json(f"{server.url}/b.json") == [1]
    assert time.monotonic() - began > 1, "the host is left alone, whatever is asked for"
    first.join()


def test_a_pause_that_is_too_long_is_left_to_the_next_run(server: StacServer) -> None:
    (server.folder / "a.json").write_text("[1]")
    server.faults["/b.json"] = status(503, **{"Retry-After": "86400"})
    client = client_of(server)
    with pytest.raises(Unreachable) as caught:
        client.read_json(f"{server.url}/b.json")
    assert caught.value.retry_helps
    with pytest.raises(Unreachable, match="not asked again"):
        client.read_json(f"{server.url}/a.json")
    assert len(server.requests) == 1


def test_a_host_that_keeps_failing_is_left_alone(server: StacServer) -> None:
    server.faults["/a.json"] = status(500)
    client = client_of(server, attempts=2)
    for _ in range(5):
        with pytest.raises(Unreachable):
            client.read_json(f"{server.url}/a.json")
    assert len(server.requests) == 3 * 2


def test_a_refusal_is_not_repeated(server: StacServer) -> None:
    for code in (401, 403, 404):
        server.faults["/a.json"] = status(code)
        with pytest.raises(NotRead, match=f"status {code}"):
            client_of(server).read_json(f"{server.url}/a.json")
    assert len(server.requests) == 3


def test_at_most_so_many_requests_at_a_time(server: StacServer) -> None:
    (server.folder / "a.json").write_text("[1]")
    running, seen, lock = [0], [0], threading.Lock()

    def slowly(_: BaseHTTPRequestHandler) -> bool:
        """Count before the answer is sent: after it the client may ask again before this thread goes on."""
        with lock:
            running[0] += 1
            seen.append(running[0])
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        return False

    server.faults["/a.json"] = slowly
    client = client_of(server, connections=2)
    threads = [threading.Thread(target=client.read_json, args=(f"{server.url}/a.json",)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(server.requests), max(seen)) == (10, 2)


def test_a_download_that_breaks_continues(server: StacServer, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000
    (server.folder / "a.tif").write_bytes(content)

    def break_off(handler: BaseHTTPRequestHandler) -> bool:
        first = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        handler.send_response(206 if first else 200)
        handler.send_header("Content-Length", str(len(content) - first))
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        handler.send_header("ETag", remote.validator)
        handler.end_headers()
        handler.wfile.write(content[first : first + 400_000])
        handler.connection.close()
        return True

    client = client_of(server)
    remote = client.probe(f"{server.url}/a.tif")
    server.requests.clear()
    server.faults["/a.tif"] = times(2, break_off)
    client.download(remote, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert [asked.split("-")[0] for _, _, asked in server.requests] == ["", "bytes=400000", "bytes=800000"]


def test_a_file_that_changes_while_it_is_read(server: StacServer, tmp_path: Path) -> None:
    (server.folder / "a.tif").write_bytes(b"x" * 100)
    client = client_of(server)
    remote = client.probe(f"{server.url}/a.tif")
    (server.folder / "a.tif").write_bytes(b"y" * 100)
    with pytest.raises(NotRead, match="changed"):
        client.download(remote, tmp_path / "copy")
    with pytest.raises(NotRead, match="changed"):
        client.read_range(remote, 10, 20)


def test_a_server_without_ranges(server: StacServer, tmp_path: Path) -> None:
    def whole(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_bytes(b"z" * 1000)  # type: ignore[attr-defined]
        return True

    server.faults["/a.tif"] = whole
    client = client_of(server)
    remote = client.probe(f"{server.url}/a.tif")
    assert (remote.size, remote.ranges, remote.validator) == (1000, False, "")
    client.download(remote, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == 1000


def test_answers_are_bounded_in_size(server: StacServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body without an end, with and without a stated length, and one in pieces."""
    monkeypatch.setattr(http_client, "MAX_JSON_BYTES", 1 << 20)
    sent = [0]

    def endless(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.end_headers()
        while sent[0] < 64 << 20:
            handler.wfile.write(b" " * 65536)
            sent[0] += 65536
        return True

    server.faults["/a.json"] = endless
    with pytest.raises(Refused, match="larger than allowed"):
        client_of(server).read_json(f"{server.url}/a.json")
    assert sent[0] < 32 << 20


def test_answers_are_bounded_in_time(server: StacServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then never exceeds the timeout of one read; headers and body are cut all the same."""
    monkeypatch.setattr(http_client, "_LEAST_RATE", 100_000_000)
    stop = threading.Event()

    def drip_body(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not stop.wait(0.1):
            handler.wfile.write(b" ")
            handler.wfile.flush()
        return True

    def drip_headers(handler: BaseHTTPRequestHandler) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
        while not stop.wait(0.1):
            handler.wfile.write(b"a")
            handler.wfile.flush()
        return True

    for drip in (drip_body, drip_headers):
        server.faults["/a.json"] = drip
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"too long|ended"):
            client_of(server, timeout_s=1.0, attempts=1).read_json(f"{server.url}/a.json")
        assert time.monotonic() - began < 5
    stop.set()


def test_a_bomb_is_not_unpacked(server: StacServer) -> None:
    import gzip

    def packed(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_bytes(gzip.compress(b" " * 100_000), **{"Content-Encoding": "gzip"})  # type: ignore[attr-defined]
        return True

    server.faults["/a.json"] = packed
    with pytest.raises(Refused, match="compressed"):
        client_of(server).read_json(f"{server.url}/a.json")


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "\x00", ""])
def test_what_is_no_json_is_refused(server: StacServer, content: str) -> None:
    (server.folder / "a.json").write_text(content)
    with pytest.raises(Refused, match="no JSON"):
        client_of(server).read_json(f"{server.url}/a.json")


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:1/secret",
        "http://localhost/",
        "https://169.254.169.254/latest",
        "file:///etc/passwd",
        "http://[",
    ],
)
def test_a_redirect_to_a_private_address_is_refused(server: StacServer, target: str) -> None:
    server.faults["/a.json"] = status(302, Location=target)
    with pytest.raises(Refused):
        client_of(server).read_json(f"{server.url}/a.json")
    assert len(server.requests) == 1


def test_redirects_are_followed_and_end(server: StacServer) -> None:
    (server.folder / "b.json").write_text("[2]")
    server.faults["/a.json"] = status(301, Location="/b.json")
    assert client_of(server).read_json(f"{server.url}/a.json") == [2]
    server.faults["/a.json"] = status(301, Location="/a.json")
    with pytest.raises(Refused, match="too many redirects"):
        client_of(server).read_json(f"{server.url}/a.json")
