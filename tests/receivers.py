"""Real receivers on loopback of notifications and metrics: a webhook, a mail server, a StatsD collector."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller


@dataclass
class Received:
    """Everything that was received."""

    posts: list[dict[str, Any]] = field(default_factory=list)
    mails: list[Any] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def events(self) -> set[str]:
        return {post["event"] for post in self.posts}

    def subjects(self) -> set[str]:
        return {str(mail["Subject"]) for mail in self.mails}


class _Mailbox:
    def __init__(self, received: Received) -> None:
        self._received = received

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self._received.mails.append(message_from_bytes(envelope.content))
        return "250 OK"


@contextlib.contextmanager
def receivers(smtp_port: int) -> Iterator[tuple[Received, dict[str, str]]]:
    """Run a webhook, a mail server and a StatsD collector on loopback.

    Yields:
        What they received so far, and the Airflow settings with their addresses.
    """
    received = Received()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    web = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    mail = Controller(_Mailbox(received), hostname="127.0.0.1", port=smtp_port)
    mail.start()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    threading.Thread(target=_collect, args=(udp, received), daemon=True).start()
    smtp = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": smtp_port,
        "extra": {
            "disable_ssl": True,
            "disable_tls": True,
            "from_email": "stack@example.org",
            "to": "people@example.org",
        },
    }
    try:
        yield (
            received,
            {
                "AIRFLOW_CONN_CLOUDSEG_WEBHOOK": json.dumps(
                    {"conn_type": "http", "host": f"http://127.0.0.1:{web.server_address[1]}/hook"}
                ),
                "AIRFLOW_CONN_CLOUDSEG_MAIL": json.dumps(smtp),
                "AIRFLOW__METRICS__STATSD_ON": "True",
                "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
                "AIRFLOW__METRICS__STATSD_PORT": str(udp.getsockname()[1]),
            },
        )
    finally:
        web.shutdown()
        web.server_close()
        mail.stop()
        udp.close()


def _collect(udp: socket.socket, received: Received) -> None:
    while True:
        try:
            packet = udp.recv(65535).decode()
        except OSError:
            return
        for line in packet.splitlines():
            name, _, rest = line.partition(":")
            with contextlib.suppress(ValueError):
                received.metrics[name] = float(rest.split("|")[0])
