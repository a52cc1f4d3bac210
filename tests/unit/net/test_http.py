"""Library and system errors become ours, each saying where to look."""

import asyncio
import errno
import os
import socket
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from fleet.errors import Unreachable
from fleet.net.http import translate
from fleet.net.reach import Endpoint, endpoint_of

SERVER = "https://one.example:6443"
REQUEST = aiohttp.RequestInfo(URL(SERVER), "GET", CIMultiDictProxy(CIMultiDict()), URL(SERVER))
KEY = ConnectionKey("one.example", 6443, True, True, None, None, None)


def certificate_error(code: int) -> ssl.SSLCertVerificationError:
    """An error of verification as OpenSSL words it."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "words of OpenSSL"
    return error


def tls_error(reason: str) -> ssl.SSLError:
    """An error of the handshake."""
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


def connecting(error: OSError) -> aiohttp.ClientConnectorError:
    """What aiohttp makes of an error while it connects."""
    return aiohttp.ClientConnectorError(KEY, error)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "Timeout"),
        (aiohttp.ServerTimeoutError(), "Timeout"),
        (aiohttp.ConnectionTimeoutError(), "Timeout"),
        (connecting(OSError(errno.ETIMEDOUT, "x")), "Timeout"),
        (connecting(ConnectionRefusedError(errno.ECONNREFUSED, "x")), "ConnectionRefused"),
        (connecting(OSError(errno.EHOSTUNREACH, "x")), "NoRoute"),
        (connecting(OSError(errno.ENETUNREACH, "x")), "NoRoute"),
        (connecting(OSError(errno.EMFILE, "x")), "DescriptorsExhausted"),
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "x")), "NameUnknown"),
        (connecting(socket.gaierror(-2, "x")), "NameUnknown"),
        (aiohttp.ClientConnectorCertificateError(KEY, certificate_error(10)), "CertificateExpired"),
        (aiohttp.ClientConnectorCertificateError(KEY, certificate_error(9)), "CertificateNotYetValid"),
        (aiohttp.ClientConnectorCertificateError(KEY, certificate_error(62)), "CertificateNameMismatch"),
        (aiohttp.ClientConnectorCertificateError(KEY, certificate_error(64)), "CertificateNameMismatch"),
        (aiohttp.ClientConnectorCertificateError(KEY, certificate_error(20)), "CertificateUnknown"),
        (certificate_error(18), "CertificateUnknown"),
        (aiohttp.ClientConnectorSSLError(KEY, tls_error("WRONG_VERSION_NUMBER")), "TlsFailed"),
        (aiohttp.ClientConnectorSSLError(KEY, tls_error("UNSUPPORTED_PROTOCOL")), "TlsFailed"),
        (tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "CertificateRefused"),
        (tls_error("TLSV1_ALERT_UNKNOWN_CA"), "CertificateRefused"),
        (aiohttp.ClientProxyConnectionError(KEY, OSError(errno.ECONNREFUSED, "x")), "ProxyFailed"),
        (aiohttp.ClientHttpProxyError(REQUEST, (), status=403), "ProxyFailed"),
        (aiohttp.ServerDisconnectedError(), "ConnectionLost"),
        (aiohttp.ClientOSError(errno.ECONNRESET, "x"), "ConnectionLost"),
        (aiohttp.ClientPayloadError("x"), "ConnectionLost"),
        (aiohttp.ClientConnectionError("connection closed"), "ConnectionLost"),
        (asyncio.IncompleteReadError(b"", 1), "ConnectionLost"),
        (ConnectionResetError(), "ConnectionLost"),
        (BrokenPipeError(), "ConnectionLost"),
        (aiohttp.InvalidURL(URL("http://x")), "AddressInvalid"),
        (aiohttp.ClientResponseError(REQUEST, (), status=400), "ProtocolError"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_table(error: Exception, reason: str) -> None:
    """Each failure has its reason, names the server, and keeps its cause; nothing of the library's wording leaks."""
    with pytest.raises(Unreachable) as failed, translate(SERVER):
        raise error
    assert failed.value.reason == reason
    assert failed.value.status == 0
    assert failed.value.__cause__ is error
    assert SERVER in failed.value.message or reason == "DescriptorsExhausted"
    assert "ConnectionKey" not in failed.value.message
    assert os.strerror(errno.ECONNREFUSED) not in failed.value.message


def test_the_reason_is_found_below_what_it_was_raised_from() -> None:
    """aiohttp wraps errors in errors; the innermost tells what happened."""
    try:
        try:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "x")
        except OSError as inner:
            raise aiohttp.ClientConnectionError("outer") from inner
    except aiohttp.ClientError as error:
        wrapped = error
    with pytest.raises(Unreachable) as failed, translate(SERVER):
        raise wrapped
    assert failed.value.reason == "ConnectionRefused"


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyError("x"), Unreachable("ours")])
def test_what_is_not_about_the_connection_passes(error: BaseException) -> None:
    """Cancellations, bugs and our own errors are left as they are."""
    with pytest.raises(type(error)) as passed, translate(SERVER):
        raise error
    assert passed.value is error


@pytest.mark.parametrize(
    ("url", "endpoint", "text"),
    [
        ("https://one.example", Endpoint("one.example", 443), "one.example:443"),
        ("http://one.example", Endpoint("one.example", 80), "one.example:80"),
        ("https://one.example:6443/k8s/clusters/c-1", Endpoint("one.example", 6443), "one.example:6443"),
        ("https://[fd00::1]:6443", Endpoint("fd00::1", 6443), "[fd00::1]:6443"),
        ("https://10.0.0.1", Endpoint("10.0.0.1", 443), "10.0.0.1:443"),
    ],
)
def test_endpoints(url: str, endpoint: Endpoint, text: str) -> None:
    """Where a URL's server listens, also by default."""
    assert endpoint_of(url) == endpoint
    assert str(endpoint) == text
