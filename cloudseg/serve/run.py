"""Run the application on uvicorn."""

import ipaddress
import logging
import socket
import warnings

import uvicorn
from rasterio.errors import NotGeoreferencedWarning

from cloudseg.errors import SettingsError
from cloudseg.runtime import open_runtime
from cloudseg.serve.app import create_app

log = logging.getLogger(__name__)


def run(host: str, port: int, forwarded_allow_ips: str) -> None:
    """Serve until a signal stops it.

    Args:
        host: address to listen on.
        port: 0 for a free one.
        forwarded_allow_ips: reverse proxies whose X-Forwarded headers are believed, divided by commas.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a tile is a picture without a place
    runtime = open_runtime()
    app = create_app(runtime)
    if not is_loopback(host) and not runtime.settings.serve_api_keys:
        log.warning(
            "everybody who reaches %s can read scenes, masks and models: CLOUDSEG_SERVE_API_KEYS is not set", host
        )
    listener = _listen(host, port)
    name = f"[{host}]" if ":" in host else host
    log.info("serving http://%s:%d/ (STAC API: /stac/)", name, listener.getsockname()[1])
    config = uvicorn.Config(
        app,
        # The access log would hold the API keys of queries.
        access_log=False,
        log_level="warning",
        log_config=None,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=forwarded_allow_ips,
        timeout_keep_alive=15,
        h11_max_incomplete_event_size=64 * 1024,
        timeout_graceful_shutdown=10,
    )
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(256)
    except OSError as error:
        raise SettingsError(
            "cannot listen on this address",
            subject=f"{host}:{port}",
            found=error.strerror or error,
            next_step="Choose another --host or --port.",
        ) from error
    return listener
