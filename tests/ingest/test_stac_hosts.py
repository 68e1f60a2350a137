"""Where a STAC source may make the service connect to."""

import socket
from typing import Any

import pytest

from cloudseg.ingest.stac_source.hosts import HostPolicy, Refused, is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("224.0.0.1", False),
        ("::1", False),
        ("fd00::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("no address", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "s3://bucket/key.tif",
        "ftp://example.org/a.tif",
        "/etc/passwd",
        "https://user:password@example.org/a.tif",
        "https:///a.tif",
        "https://exa mple.org/a.tif",
        "https://example.org/a\r\nHost: other",
        "https://[::1",
        "https://example.org:99999/a",
        "http://example.org/a.tif",
        "https://пример.example/a",
        f"https://example.org/{'a' * 5000}",
    ],
)
def test_addresses_that_are_refused_without_a_request(url: str) -> None:
    with pytest.raises(Refused):
        HostPolicy().check(url)


def test_allowed_and_private_hosts() -> None:
    policy = HostPolicy(("example.org", "*.amazonaws.com"), ("stac.intra", "127.0.0.1:8080"))
    for url in (
        "https://example.org/a",
        "https://b.s3.amazonaws.com/x?sig=1",
        "http://stac.intra/a",
        "http://127.0.0.1:8080/",
    ):
        policy.check(url)
    for url in (
        "https://example.com/",
        "https://amazonaws.com.evil.org/",
        "http://127.0.0.1:9090/",
        "http://127.0.0.1/",
    ):
        with pytest.raises(Refused):
            policy.check(url)


def test_a_name_with_a_private_address_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is checked after the name is resolved, and the connection goes to the address that was checked."""
    asked: list[Any] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        with pytest.raises(Refused, match="no public address"):
            HostPolicy().connect("rebind.example.org", port, 1)
        with pytest.raises(TimeoutError):
            listener.accept()
        HostPolicy(private=("rebind.example.org",)).connect("rebind.example.org", port, 1).close()
        listener.accept()[0].close()
    assert asked == ["rebind.example.org"] * 2
