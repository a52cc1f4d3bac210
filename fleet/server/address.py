"""Listen addresses: parsing, what is loopback, which Host headers they stand for."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from fleet.errors import SettingsError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; an empty host means every interface, port 0 any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine can connect. A name other than localhost may be anything."""
        if self.host == "localhost":
            return True
        ip = _parse_ip(self.host)
        return ip is not None and ip.is_loopback

    @property
    def reachable_host(self) -> str:
        """Return the host to connect to from this machine, in brackets where a URL needs them."""
        ip = _parse_ip(self.host)
        if not self.host or (ip is not None and ip.is_unspecified):
            return "[::1]" if ip is not None and ip.version == 6 else "127.0.0.1"
        return f"[{self.host}]" if ip is not None and ip.version == 6 else self.host


def parse_address(setting: str, text: str) -> Address:
    """Parse `HOST:PORT`, `[IPV6]:PORT` or `:PORT`.

    Raises: SettingsError naming the setting.
    """
    match = re.fullmatch(r"(?:\[(?P<ip6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\[\]:\s/]*)):(?P<port>\d{1,5})", text.strip())
    if match is None or int(match["port"]) > 65535:
        raise SettingsError(f"{setting}: {text!r} is not HOST:PORT, for example 127.0.0.1:8420 or [::1]:8420")
    if match["ip6"] and _parse_ip(match["ip6"]) is None:
        raise SettingsError(f"{setting}: {match['ip6']!r} is not an IPv6 address")
    return Address(match["ip6"] or match["host"], int(match["port"]))


@dataclass(frozen=True, slots=True)
class HostRule:
    """Which Host headers are answered: a page in a browser cannot reach the hub through a DNS name of its own choice.

    IP literals are accepted beyond loopback (nobody can rebind one), names only when they are listed.
    """

    names: frozenset[str]
    any_ip: bool

    @classmethod
    def make(cls, listen: Address, allowed: Iterable[str]) -> "HostRule":
        """Derive the rule from the listen address and `--allowed-hosts`."""
        listed = (word.strip().lower() for word in allowed)
        own = {listen.host.lower()} if listen.host else set()
        return cls(frozenset({*LOOPBACK_NAMES, *own, *filter(None, listed)}), any_ip=not listen.is_loopback)

    def allows(self, header: str) -> bool:
        """Tell whether a request with this Host header is answered. A listed name may carry a port, then only that."""
        header = header.strip().lower()
        host = host_of(header)
        if host is None:
            return False
        return header in self.names or host in self.names or (self.any_ip and _parse_ip(host) is not None)


def host_of(header: str) -> str | None:
    """Return the host in a Host header without brackets and port; None when it is not one.

    >>> host_of("[::1]:8420"), host_of("fleet.example.com."), host_of("a:b")
    ('::1', 'fleet.example.com', None)
    """
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?", header)
    return (match[1] or match[2].removesuffix(".")) if match else None


def _parse_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
