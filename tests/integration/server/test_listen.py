"""Where the server listens, and with which TLS."""

import asyncio
import contextlib
import socket
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet.errors import SettingsError
from fleet.server.app import running
from fleet.settings import Settings
from tests.harness.hub import FakeHub
from tests.integration.server.conftest import VIEWER, serving


def write_certificate(directory: Path, name: str = "hub", *, password: bytes = b"") -> tuple[Path, Path]:
    """Write a self-signed certificate for loopback and its key; return both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = directory / f"{name}.crt", directory / f"{name}.key"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encryption: Any = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return cert_path, key_path


async def test_tls_beyond_loopback(hub: FakeHub, tmp_path: Path) -> None:
    """With a certificate the hub listens anywhere, speaks HTTPS, and answers to a token."""
    cert, key = write_certificate(tmp_path)
    trust = ssl.create_default_context(cafile=str(cert))
    async with (
        serving(hub, listen="0.0.0.0:0", tls_cert=str(cert), tls_key=str(key)) as api,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session,
    ):
        assert api.bound.url == f"https://127.0.0.1:{api.bound.main.port}"
        headers = {"Authorization": f"Bearer {VIEWER}"}
        async with session.get(f"{api.bound.url}/api/v1/whoami", headers=headers) as response:
            assert (await response.json())["name"] == "vera"


async def served_name(port: int) -> str:
    """Return the common name of the certificate that a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return str(shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


async def test_a_renewed_certificate_takes_effect(hub: FakeHub, tmp_path: Path) -> None:
    """New connections get it without a restart; a broken one leaves the one before."""
    cert, key = write_certificate(tmp_path, "old")
    new_cert, new_key = write_certificate(tmp_path, "new")
    async with serving(hub, tls_cert=str(cert), tls_key=str(key)) as api:
        port = api.bound.main.port
        assert await served_name(port) == "old"
        new_cert.rename(cert)
        assert await served_name(port) == "old"
        new_key.rename(key)
        assert await served_name(port) == "new"
        cert.unlink()
        assert await served_name(port) == "new"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0", "hub.example.com:0", "192.0.2.1:0"])
async def test_plain_http_beyond_loopback_must_be_asked_for(hub: FakeHub, listen: str) -> None:
    """Without TLS the hub does not start, and says what to give."""
    with pytest.raises(SettingsError, match=r"--tls-cert.*--insecure-http"):
        async with serving(hub, listen=listen):
            pass


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "127.0.0.9:0"])
async def test_plain_http_on_loopback(hub: FakeHub, listen: str) -> None:
    """Every loopback address will do."""
    async with serving(hub, listen=listen) as api:
        assert (await api.get("/status")).status == 200


@pytest.mark.parametrize("listen", ["8420", "127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:1", "::1:8420", "[1]:1"])
async def test_an_address_that_is_none(hub: FakeHub, listen: str) -> None:
    """The setting is named."""
    with pytest.raises(SettingsError, match="--listen: "):
        async with serving(hub, listen=listen):
            pass
    with pytest.raises(SettingsError, match="--probe-listen: "):
        async with serving(hub, probe_listen=listen):
            pass


async def test_certificates_that_cannot_be_used(hub: FakeHub, tmp_path: Path) -> None:
    """Half of a pair, a missing file, a foreign key, an encrypted key: each says what is wrong, nothing listens."""
    cert, key = write_certificate(tmp_path)
    _, foreign = write_certificate(tmp_path, "other")
    locked_cert, locked_key = write_certificate(tmp_path, "locked", password=b"hunter2")
    pairs = [
        (str(cert), "", "given together"),
        (str(tmp_path / "no.crt"), str(key), "^--tls-cert .*no.crt cannot be read: No such file"),
        (str(cert), str(tmp_path / "no.key"), "^--tls-key .*no.key cannot be read: No such file"),
        (str(cert), str(foreign), "cannot be used"),
        (str(key), str(key), "cannot be used"),
        (str(locked_cert), str(locked_key), "passphrase"),
    ]
    for given_cert, given_key, message in pairs:
        with pytest.raises(SettingsError, match=message):
            async with serving(hub, tls_cert=given_cert, tls_key=given_key):
                pass


async def test_a_port_that_is_taken(hub: FakeHub) -> None:
    """The hub does not start, and names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            SettingsError, match=f"--listen 127.0.0.1:{port} cannot be listened on.*another address with --listen"
        ):
            async with running(hub, Settings(listen=f"127.0.0.1:{port}")):
                pass
