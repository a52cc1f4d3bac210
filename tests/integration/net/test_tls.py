"""TLS and TCP on the loopback: who is trusted, who is known, and what is said when it fails."""

import asyncio
import contextlib
import datetime as dt
import os
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from fleet.errors import ConfigError, Unreachable
from fleet.net import tls
from fleet.net.http import open_session, translate
from fleet.net.reach import DirectReach, _open_socket, endpoint_of
from fleet.net.tls import client_context
from fleet.sim.authority import Authority, Issued

OURS = Authority.create("ours")
OTHER = Authority.create("other")
EXPIRED = dt.timedelta(minutes=-1)


@contextlib.asynccontextmanager
async def serving(directory: Path, issued: Issued, *, clients: Authority | None = None) -> AsyncIterator[str]:
    """Serve over TLS; answers with the name in the client's certificate, if it shows one. Yields the base URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = directory / "pair.pem"
    pair.write_bytes(issued.cert_pem + issued.key_pem)
    context.load_cert_chain(pair)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=clients.cert_pem.decode())
    async with listening(context) as port:
        yield f"https://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Serve HTTP on a free port."""

    async def answer(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        shown = request.transport.get_extra_info("peercert") or {}
        names = [value for part in shown.get("subject", ()) for name, value in part if name == "commonName"]
        return web.Response(text=",".join(names))

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def get(url: str, context: ssl.SSLContext | None, server_hostname: str | None = None) -> str:
    """Ask once, as the hub does."""
    connector = DirectReach().connector(endpoint_of(url), limit=1)
    async with open_session(connector, user_agent="test") as session:
        with translate(url):
            async with (
                asyncio.timeout(20),
                session.get(url, ssl=context or True, server_hostname=server_hostname) as response,
            ):
                return await response.text()


async def test_an_authority_of_ones_own(tmp_path: Path) -> None:
    """What the configured authority signed is trusted, and nothing else is: neither another's nor the machine's."""
    async with serving(tmp_path, OURS.issue_server(["127.0.0.1"])) as url:
        assert await get(url, client_context(ca=OURS.cert_pem)) == ""
        for wrong in (client_context(ca=OTHER.cert_pem), client_context()):
            with pytest.raises(Unreachable) as unknown:
                await get(url, wrong)
            assert unknown.value.reason == "CertificateUnknown"
            assert url in unknown.value.message


async def test_several_authorities(tmp_path: Path) -> None:
    """A bundle may hold old and new authorities while one replaces the other."""
    async with serving(tmp_path, OURS.issue_server(["127.0.0.1"])) as url:
        assert await get(url, client_context(ca=OTHER.cert_pem + b"\n# the new one\n" + OURS.cert_pem)) == ""


async def test_an_expired_certificate(tmp_path: Path) -> None:
    """A certificate that has run out is told as such."""
    async with serving(tmp_path, OURS.issue_server(["127.0.0.1"], valid_for=EXPIRED)) as url:
        with pytest.raises(Unreachable) as expired:
            await get(url, client_context(ca=OURS.cert_pem))
    assert expired.value.reason == "CertificateExpired"


async def test_the_name_on_the_certificate(tmp_path: Path) -> None:
    """A certificate for another name is refused, unless that name is asked for."""
    async with serving(tmp_path, OURS.issue_server(["kubernetes.default"])) as url:
        with pytest.raises(Unreachable) as mismatch:
            await get(url, client_context(ca=OURS.cert_pem))
        assert mismatch.value.reason == "CertificateNameMismatch"
        assert "tls-server-name" in mismatch.value.message
        assert await get(url, client_context(ca=OURS.cert_pem), server_hostname="kubernetes.default") == ""


async def test_a_client_certificate(tmp_path: Path) -> None:
    """The server learns who we are; without a certificate, or with one it does not trust, it refuses."""
    async with serving(tmp_path, OURS.issue_server(["127.0.0.1"]), clients=OURS) as url:
        known = OURS.issue_client("fleet")
        context = client_context(ca=OURS.cert_pem, certificate=known.cert_pem, key=known.key_pem)
        assert await get(url, context) == "fleet"
        stranger = OTHER.issue_client("fleet")
        foreign = client_context(ca=OURS.cert_pem, certificate=stranger.cert_pem, key=stranger.key_pem)
        for refused in (client_context(ca=OURS.cert_pem), foreign):
            with pytest.raises(Unreachable) as refusal:
                await get(url, refused)
            assert refusal.value.reason in ("CertificateRefused", "ConnectionLost")


async def test_not_verifying_accepts_anybody(tmp_path: Path) -> None:
    """Without verification any certificate will do: the caller has asked for it twice."""
    async with serving(tmp_path, OTHER.issue_server(["elsewhere"], valid_for=EXPIRED)) as url:
        assert await get(url, client_context(verify=False)) == ""


async def test_plain_and_encrypted_are_told_apart(tmp_path: Path) -> None:
    """https to an HTTP port, and http to a TLS port, say so."""
    async with listening(None) as port:
        with pytest.raises(Unreachable) as plain:
            await get(f"https://127.0.0.1:{port}", client_context(ca=OURS.cert_pem))
        assert plain.value.reason == "TlsFailed"
        assert "does not speak TLS" in plain.value.message
    async with serving(tmp_path, OURS.issue_server(["127.0.0.1"])) as url:
        with pytest.raises(Unreachable) as encrypted:
            await get(url.replace("https", "http"), None)
        assert encrypted.value.reason in ("ConnectionLost", "ProtocolError")


async def test_nobody_listens(tmp_path: Path) -> None:
    """A closed port, a silent one and a name that does not exist are told apart."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable) as refused:
            await get(f"http://127.0.0.1:{held.getsockname()[1]}", None)
    assert refused.value.reason == "ConnectionRefused"
    with pytest.raises(Unreachable) as unknown:
        await get("http://no-such-name.invalid", None)
    assert unknown.value.reason == "NameUnknown"


async def test_a_server_that_hangs_up(tmp_path: Path) -> None:
    """A connection that is closed instead of answered is lost; garbage is no HTTP."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"" if not words else words.pop())
        writer.close()

    for word, reason in ((b"", "ConnectionLost"), (b"SSH-2.0-OpenSSH_9.9\r\n", "ProtocolError")):
        words = [word] if word else []
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server:
            with pytest.raises(Unreachable) as lost:
                await get(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None)
        assert lost.value.reason == reason


def test_dead_peers_are_noticed() -> None:
    """Sockets ask the kernel to find out when the other side is gone."""
    with _open_socket((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)) as opened:
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies come from the configuration alone; nothing of the machine's environment is obeyed."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with listening(None) as port:
        assert await get(f"http://127.0.0.1:{port}", None) == ""


def test_equal_keys_share_a_context() -> None:
    """A thousand clusters behind one authority need one context; any difference makes another, the oldest go first."""
    issued = OURS.issue_client("fleet")
    base = client_context(ca=OURS.cert_pem)
    assert client_context(ca=OURS.cert_pem, subject="other") is base
    others = [
        client_context(ca=OTHER.cert_pem),
        client_context(ca=OURS.cert_pem, verify=False),
        client_context(ca=OURS.cert_pem, certificate=issued.cert_pem, key=issued.key_pem),
    ]
    assert len({id(context) for context in (base, *others)}) == 4
    assert base.verify_mode is ssl.CERT_REQUIRED
    assert base.check_hostname
    assert base.minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_number_of_contexts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotated certificates do not add up for ever; the one in use stays."""
    monkeypatch.setattr(tls, "MOST_CONTEXTS", 3)
    monkeypatch.setattr(tls, "_contexts", OrderedDict())
    base = client_context(ca=OURS.cert_pem)
    for n in range(5):
        client_context(ca=Authority.create(str(n)).cert_pem)
        assert client_context(ca=OURS.cert_pem) is base
    assert len(tls._contexts) == 3


def encrypted(issued: Issued) -> bytes:
    """Protect a key by a passphrase."""
    key = load_pem_private_key(issued.key_pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))


ISSUED = OURS.issue_client("fleet")


@pytest.mark.parametrize(
    ("ca", "certificate", "key", "message"),
    [
        (b"nonsense", b"", b"", "the certificate authority is not a PEM certificate"),
        (b"\xff\xfe", b"", b"", "the certificate authority is not a PEM certificate"),
        (ISSUED.key_pem, b"", b"", "the certificate authority is not a PEM certificate"),
        (b"  \n", b"", b"", "the certificate authority is not a PEM certificate"),
        (OURS.cert_pem, b"nonsense", ISSUED.key_pem, "do not match or are not PEM"),
        (OURS.cert_pem, ISSUED.cert_pem, b"nonsense", "do not match or are not PEM"),
        (OURS.cert_pem, ISSUED.cert_pem, OURS.issue_client("x").key_pem, "do not match or are not PEM"),
        (OURS.cert_pem, ISSUED.cert_pem, encrypted(ISSUED), "it is encrypted; store it without a passphrase"),
    ],
)
def test_keys_that_cannot_be_used(ca: bytes, certificate: bytes, key: bytes, message: str) -> None:
    """A wrong certificate or key is an error of the configuration that names the connection and shows no key."""
    with pytest.raises(ConfigError) as fault:
        client_context(ca=ca, certificate=certificate, key=key, subject="https://one.example")
    assert message in fault.value.message
    assert (fault.value.subject, fault.value.reason) == ("https://one.example", "TlsInvalid")


def test_no_key_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has no anonymous files a key touches the disk for a moment only, readable by nobody else."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delattr(os, "memfd_create")
    issued = OURS.issue_client("disk")
    client_context(ca=OURS.cert_pem, certificate=issued.cert_pem, key=issued.key_pem)
    with pytest.raises(ConfigError):
        client_context(ca=OURS.cert_pem, certificate=issued.cert_pem, key=b"nonsense")
    assert list(tmp_path.iterdir()) == []


async def test_responses_are_bounded(tmp_path: Path) -> None:
    """A header without an end is no reason to fill the memory."""

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Unreachable) as refused:
            await get(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None)
    assert refused.value.reason == "ProtocolError"
    assert isinstance(refused.value.__cause__, aiohttp.ClientResponseError)
