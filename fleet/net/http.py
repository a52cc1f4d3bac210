"""HTTP sessions, deadlines, and the one place where aiohttp's, ssl's and the system's errors become ours."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator
from typing import TypeVar

import aiohttp

from fleet.errors import Unreachable

CONNECT_S = 10.0
MOST_HEADER_BYTES = 64 * 1024

_UNKNOWN_AUTHORITY = {2, 18, 19, 20, 21, 24, 25, 26, 27}
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_NAME = {62, 64}

E = TypeVar("E", bound=BaseException)


def open_session(
    connector: aiohttp.BaseConnector, *, user_agent: str, connect_s: float | None = CONNECT_S
) -> aiohttp.ClientSession:
    """Return a session without cookies, environment proxies or a total deadline: whoever asks sets one.

    `connect_s` limits connecting alone; None = only that deadline does.
    """
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
        auto_decompress=True,
        trust_env=False,
        read_bufsize=256 * 1024,
        max_line_size=MOST_HEADER_BYTES,
        max_field_size=MOST_HEADER_BYTES,
    )


@contextlib.contextmanager
def translate(server: str) -> Iterator[None]:
    """Turn failures of reaching `server` (shown in messages) into Unreachable, each saying what to look at.

    Raises: Unreachable with reason CertificateUnknown, CertificateExpired, CertificateNotYetValid,
    CertificateNameMismatch, CertificateRefused, TlsFailed, NameUnknown, ConnectionRefused, NoRoute, ProxyFailed,
    Timeout, ConnectionLost, ProtocolError or AddressInvalid.
    """
    try:
        yield
    except TimeoutError as error:
        raise Unreachable(f"{server} did not answer in time", reason="Timeout") from error
    except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise describe(error, server) from error


def describe(error: BaseException, server: str) -> Unreachable:
    """Return the Unreachable that explains `error`, an aiohttp, ssl or system error."""
    certificate = _find(error, ssl.SSLCertVerificationError)
    if certificate is not None:
        return _describe_certificate(certificate, server)
    tls = _find(error, ssl.SSLError)
    if tls is not None:
        return _describe_tls(tls, server)
    return _describe_http(error, server) or _describe_connection(error, server)


def _describe_http(error: BaseException, server: str) -> Unreachable | None:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return Unreachable(
            f"the proxy refused to connect to {server} (HTTP {error.status}); check proxyUrl and its rules",
            reason="ProxyFailed",
        )
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return Unreachable(f"the proxy for {server} cannot be reached; check proxyUrl", reason="ProxyFailed")
    if isinstance(error, aiohttp.ClientConnectorDNSError) or _find(error, socket.gaierror) is not None:
        return Unreachable(f"the name of {server} cannot be resolved; check the address and DNS", reason="NameUnknown")
    if isinstance(error, aiohttp.InvalidURL):
        return Unreachable(f"{server} is not a valid address", reason="AddressInvalid")
    if isinstance(error, aiohttp.ClientResponseError):
        return Unreachable(f"{server} does not speak HTTP as expected; check scheme and port", reason="ProtocolError")
    return None


def _describe_connection(error: BaseException, server: str) -> Unreachable:
    code = next((e.errno for e in _chain(error) if isinstance(e, OSError) and e.errno), 0)
    if code == errno.ECONNREFUSED:
        return Unreachable(
            f"{server} refused the connection; nothing listens there or a firewall rejects it",
            reason="ConnectionRefused",
        )
    if code in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        return Unreachable(f"there is no route to {server}; check the network", reason="NoRoute")
    if code == errno.ETIMEDOUT:
        return Unreachable(f"{server} did not answer in time", reason="Timeout")
    if code in (errno.EMFILE, errno.ENFILE):
        return Unreachable(
            "this process has no file descriptors left; raise its limit (ulimit -n)", reason="DescriptorsExhausted"
        )
    return Unreachable(f"{server} closed the connection before it had answered", reason="ConnectionLost")


def _describe_certificate(error: ssl.SSLCertVerificationError, server: str) -> Unreachable:
    code = error.verify_code
    if code == _EXPIRED:
        return Unreachable(f"the certificate of {server} has expired; renew it", reason="CertificateExpired")
    if code == _NOT_YET_VALID:
        return Unreachable(
            f"the certificate of {server} is not valid yet; check the clocks of both machines",
            reason="CertificateNotYetValid",
        )
    if code in _WRONG_NAME:
        return Unreachable(
            f"the certificate of {server} is for another name ({error.verify_message}); use that name or set"
            " tls-server-name",
            reason="CertificateNameMismatch",
        )
    why = "is signed by an unknown authority; check the configured CA" if code in _UNKNOWN_AUTHORITY else "is refused"
    return Unreachable(f"the certificate of {server} {why} ({error.verify_message})", reason="CertificateUnknown")


def _describe_tls(error: ssl.SSLError, server: str) -> Unreachable:
    reason = (error.reason or "").upper()
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"):
        return Unreachable(f"{server} does not speak TLS; check scheme and port", reason="TlsFailed")
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return Unreachable(
            f"{server} does not accept our client certificate ({reason.lower().replace('_', ' ')})",
            reason="CertificateRefused",
        )
    return Unreachable(
        f"TLS with {server} failed ({reason.lower().replace('_', ' ') or 'no reason given'})", reason="TlsFailed"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk an error, what aiohttp wrapped in it, and what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        inner = getattr(seen, "os_error", None) or getattr(seen, "certificate_error", None)
        seen = inner if isinstance(inner, BaseException) and inner is not seen else seen.__cause__


def _find(error: BaseException, kind: type[E]) -> E | None:
    """Return the innermost error of a kind: aiohttp's wrappers inherit from what they wrap, without its details."""
    return next((e for e in reversed(list(_chain(error))) if isinstance(e, kind)), None)
