"""A STAC server on loopback: files with ranges and ETags, and a small STAC API over items; faults on demand."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

CLASSES = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/item-search#query",
]


class StacServer:
    """Serves the files of a folder, and `items` as an API below `/api`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, str, str]] = []
        """Method, path and range of every request."""
        self.agents: set[str] = set()
        self.searches: list[dict[str, Any]] = []
        self.faults: dict[str, Callable[[BaseHTTPRequestHandler], bool]] = {}
        """By path: answers instead of the server if it returns True."""
        self.items: list[dict[str, Any]] = []
        self.page = 2
        self.filters = True
        """Whether the API filters at all."""
        self.etags = True
        self.sent = 0
        """Bytes of files."""
        self.lock = threading.Lock()
        self.url = ""

    def paths(self, suffix: str = ".tif") -> list[str]:
        """Return the paths of files that were asked for."""
        return [path for _, path, _ in self.requests if path.endswith(suffix)]


@contextmanager
def run_server(folder: Path) -> Iterator[StacServer]:
    folder.mkdir(parents=True, exist_ok=True)
    state = StacServer(folder)

    class Handler(_Handler):
        server_state = state

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_state: StacServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any] | None) -> None:
        state, path = self.server_state, urlsplit(self.path).path
        with state.lock:
            state.requests.append((self.command, path, self.headers.get("Range", "")))
            state.agents.add(self.headers.get("User-Agent", ""))
        try:
            fault = state.faults.get(path)
            if fault is not None and fault(self):
                return
            if path == "/api":
                self.send_json(_landing(state.url))
            elif path == "/api/search":
                self.send_json(self._search(body or _from_query(self.path)))
            else:
                self._file(state.folder / path.lstrip("/"))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def send_json(self, values: Any, status: int = 200, **headers: str) -> None:
        self.send_bytes(json.dumps(values).encode(), status, **{"Content-Type": "application/json"} | headers)

    def send_bytes(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self.send_bytes(b"", 404)
            return
        content = path.read_bytes()
        headers = {"Accept-Ranges": "bytes"}
        if self.server_state.etags:
            headers["ETag"] = f'"{hashlib.md5(content).hexdigest()}"'  # noqa: S324
        if asked := self.headers.get("Range"):
            first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
            part = content[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
            self.server_state.sent += len(part)
            self.send_bytes(part, 206, **headers)
        else:
            self.server_state.sent += len(content)
            self.send_bytes(content, **headers)

    def _search(self, body: dict[str, Any]) -> dict[str, Any]:
        state = self.server_state
        state.searches.append(body)
        found = [item for item in state.items if not state.filters or _matches(item, body)]
        begin = int(body.get("token", 0))
        page = found[begin : begin + state.page]
        links = []
        if begin + state.page < len(found):
            href = f"{state.url}/api/search"
            following = {"token": begin + state.page}
            links = [{"rel": "next", "href": href, "method": "POST", "body": following, "merge": True}]
        return {"type": "FeatureCollection", "features": page, "links": links}


def _landing(url: str) -> dict[str, Any]:
    search = f"{url}/api/search"
    return {
        "type": "Catalog",
        "id": "test",
        "stac_version": "1.0.0",
        "description": "for tests",
        "conformsTo": CLASSES,
        "links": [
            {"rel": "self", "href": f"{url}/api"},
            {"rel": "search", "href": search, "method": "GET", "type": "application/geo+json"},
            {"rel": "search", "href": search, "method": "POST", "type": "application/geo+json"},
        ],
    }


def _from_query(path: str) -> dict[str, Any]:
    return {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}


def _matches(item: dict[str, Any], body: dict[str, Any]) -> bool:
    west, south, east, north = item["bbox"]
    if (box := body.get("bbox")) and (west > box[2] or east < box[0] or south > box[3] or north < box[1]):
        return False
    if times := body.get("datetime"):
        first, last = times.split("/")
        moment = item["properties"]["datetime"]
        if (first != ".." and moment < first) or (last != ".." and moment > last):
            return False
    if body.get("collections") and item["collection"] not in body["collections"]:
        return False
    most = body.get("query", {}).get("eo:cloud_cover", {}).get("lte", 100)
    return bool(item["properties"].get("eo:cloud_cover", 0) <= most)
