"""A TCP proxy on loopback that drops, stalls or refuses connections between a client and a real server."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Fault = Callable[[int, int], str]
"""Called with the number of a connection and the bytes that it has carried; returns 'pass', 'drop' or 'stall'."""


@dataclass
class Proxy:
    """Forwards to a port; `down` decides about bytes of the server, `up` about bytes of the client."""

    target: int
    down: Fault = lambda connection, done: "pass"
    up: Fault = lambda connection, done: "pass"
    connections: int = 0
    dropped: int = 0
    timed_out: int = 0
    """Stalled connections that the client kept open for two minutes."""
    _sockets: list[socket.socket] = field(default_factory=list)
    _closed: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        for one in [self._listener, *self._sockets]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                if self._closed.is_set():
                    return
                client.close()  # the server is down: the client's connection is closed at once
                continue
            self.connections += 1
            self._sockets += [client, server]
            for source, sink, fault in ((client, server, self.up), (server, client, self.down)):
                threading.Thread(target=self._pump, args=(self.connections, source, sink, fault), daemon=True).start()

    def _pump(self, number: int, source: socket.socket, sink: socket.socket, fault: Fault) -> None:
        done = 0
        with suppress(OSError):
            while chunk := source.recv(1 << 14):
                verdict = fault(number, done)
                if verdict == "stall":
                    self.timed_out += not self._closed.wait(120)
                    break
                if verdict == "drop":
                    self.dropped += 1
                    break
                sink.sendall(chunk)
                done += len(chunk)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(target: int, **faults: Fault) -> Iterator[Proxy]:
    """Yield a running proxy."""
    one = Proxy(target, **faults)
    one.start()
    try:
        yield one
    finally:
        one.close()
