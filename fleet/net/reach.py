"""Ways to reach an address: directly now; bastions and reverse tunnels join behind the same seam."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

KEEPALIVE_IDLE_S = 15
KEEPALIVE_EVERY_S = 5
KEEPALIVE_PROBES = 3
UNACKNOWLEDGED_MS = 30_000
POOL_IDLE_S = 60.0
DNS_CACHE_S = 30


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port to open a stream to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def endpoint_of(url: str) -> Endpoint:
    """Return where a URL's server listens; the port is its scheme's default when it names none.

    >>> endpoint_of("https://k8s.example.com/clusters/a")
    Endpoint(host='k8s.example.com', port=443)
    """
    parsed = URL(url)
    return Endpoint(parsed.host or "", parsed.port or 443)


class Reach(Protocol):
    """Opens streams to an endpoint, whatever lies between."""

    def connector(
        self, to: Endpoint, *, limit: int, refuse: Callable[[str], bool] | None = None
    ) -> aiohttp.BaseConnector:
        """Return a connector for requests to `to`, with at most `limit` connections (0: any number).

        A name that leads to an address which `refuse` holds for is not dialled: requests fail with RefusedAddress, as
        aiohttp wraps it. Addresses that are written as such are for the caller to look at.
        """
        ...


class DirectReach:
    """Plain TCP from this machine. A proxy is named per request (`proxy=`), so it needs no reach of its own."""

    def connector(
        self, to: Endpoint, *, limit: int, refuse: Callable[[str], bool] | None = None
    ) -> aiohttp.BaseConnector:
        """Return a connector that dials what each request's URL names."""
        return aiohttp.TCPConnector(
            limit=limit,
            ttl_dns_cache=DNS_CACHE_S,
            keepalive_timeout=POOL_IDLE_S,
            socket_factory=_open_socket,
            resolver=_ScreenedResolver(refuse) if refuse is not None else None,
        )


class RefusedAddress(OSError):
    """A name leads to an address that may not be dialled."""


class _ScreenedResolver(AbstractResolver):
    """Looks at the very addresses that are dialled next: a name that answers otherwise a moment later gains nothing."""

    def __init__(self, refuse: Callable[[str], bool]) -> None:
        self._refuse = refuse
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if any(self._refuse(one["host"]) for one in found):
            raise RefusedAddress(f"{host} leads to a refused address")
        return found

    async def close(self) -> None:
        await self._inner.close()


def _open_socket(address: tuple[Any, ...]) -> socket.socket:
    """Make a socket that notices a peer which vanished without a word (a half-open NAT entry) within 30 s."""
    family, kind, protocol = address[:3]
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_EVERY_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS),
    ):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
