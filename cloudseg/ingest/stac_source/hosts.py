"""Where requests may go: https to public addresses, unless the operator names a host of the own network.

Items name addresses, and whoever writes an item must not be able to reach the services behind the firewall through
cloudseg (server-side request forgery). Names are resolved here, and the connection is made to the address that was
checked, so a name that resolves differently the second time gains nothing.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from cloudseg.errors import BadScene
from cloudseg.ingest.inbox_file import escape_name

_MAX_URL: Final = 4_000
"""Letters; signed addresses have about 1 000."""
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\]", re.A)
_URL: Final = re.compile(r"[!-~]+", re.A)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: IPv4 addresses behind a translator."""


class Refused(BadScene):
    """An address or an answer that cloudseg refuses; the same request would be refused again."""


@dataclass(frozen=True)
class HostPolicy:
    """The hosts that may be contacted."""

    allowed: tuple[str, ...] = ()
    """`host` or `*.domain`; empty: every public host. Hosts of `private` are allowed anyway."""
    private: tuple[str, ...] = ()
    """`host` or `host:port` with plain http or an address that is not public."""

    def check(self, url: str) -> SplitResult:
        """Return the parts of an address that may be requested.

        Raises:
            Refused: It is no such address.
        """
        shown = escape_name(url[:200])
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError as error:
            raise Refused("not a valid address", subject=shown, found=error) from error
        if len(url) > _MAX_URL or not _URL.fullmatch(url) or parts.scheme not in ("http", "https"):
            raise Refused(
                "an address of this kind is not read",
                subject=shown,
                found=escape_name(parts.scheme[:20]) or "no scheme",
                expected=f"https://…, at most {_MAX_URL} letters",
                next_step="Use a catalog whose assets have https addresses.",
            )
        if parts.username is not None or not _HOST.fullmatch(f"[{host}]" if ":" in host else host):
            raise Refused("not a valid host", subject=shown, expected="https://host/path without user or password")
        if self._is_private_host(host, port or (443 if parts.scheme == "https" else 80)):
            return parts
        if parts.scheme != "https":
            raise Refused(
                "plain http is not read",
                subject=shown,
                expected="https",
                next_step="For a server of your own network, add its host to CLOUDSEG_STAC_PRIVATE_HOSTS.",
            )
        if self.allowed and not any(_matches(host, pattern) for pattern in self.allowed):
            raise Refused(
                "this host is not allowed",
                subject=shown,
                found=host,
                expected=" ".join(self.allowed)[:200],
                next_step="Add it to CLOUDSEG_STAC_HOSTS if its data are wanted.",
            )
        return parts

    def check_public(self, url: str) -> None:
        """Check an address that another program will open: its host too must have public addresses only.

        Raises:
            Refused: It may not be requested.
        """
        parts = self.check(url)
        host, port = (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)
        if self._is_private_host(host, port):
            return
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Refused("the host has no address", subject=host[:100], found=error) from error
        for *_, address in found:
            if not is_public(str(address[0])):
                raise _not_public(host, str(address[0]))

    def connect(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """Return a connection to a host whose address may be contacted.

        Raises:
            Refused: The name belongs to addresses that are not public.
            OSError: The host does not answer, or there is no such name.
        """
        private = self._is_private_host(host.lower(), port)
        failed: OSError | None = None
        refused = ""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # a label of more than 63 letters
            raise Refused("not a valid host", subject=host[:100]) from error
        for family, kind, protocol, _, address in found:
            if not private and not is_public(str(address[0])):
                refused = str(address[0])
                continue
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(timeout_s)
                connection.connect(address)
            except OSError as error:
                connection.close()
                failed = error
            else:
                return connection
        if failed is None and refused:
            raise _not_public(host, refused)
        raise failed or OSError(f"{host} has no address")

    def _is_private_host(self, host: str, port: int) -> bool:
        named = f"[{host}]" if ":" in host else host
        return bool({named, f"{named}:{port}"} & set(self.private))


def _not_public(host: str, address: str) -> Refused:
    return Refused(
        "this host has no public address",
        subject=host,
        found=address,
        next_step="For a server of your own network, add its host to CLOUDSEG_STAC_PRIVATE_HOSTS.",
    )


def absolute(base: str, href: str) -> str:
    """Return the address that a link means; an invalid one as it is, which `HostPolicy.check` refuses."""
    try:
        return urljoin(base, href)
    except ValueError:
        return href


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet, also where it wraps an IPv4 address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def _matches(host: str, pattern: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
