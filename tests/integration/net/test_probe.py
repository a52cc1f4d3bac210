"""Requests of checks on the loopback: where they may lead, what they show, how much they read."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fleet.errors import ConfigError, FleetError, Unreachable
from fleet.net.probe import MOST_BODY_BYTES, Probe, ProbeReply, send_probe
from fleet.net.reach import DirectReach, Endpoint
from fleet.sim.authority import Authority

METADATA = "169.254.169.254"
OURS, OTHER = Authority.create("ours"), Authority.create("other")


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    """Answer by path; show what was sent."""
    if request.path == "/moved":
        return web.Response(status=302, headers={"Location": "/ok"})
    if request.path == "/large":
        return web.Response(body=b"x" * (MOST_BODY_BYTES + 1))
    sent = f"{request.method} {request.headers.get('Authorization', '-')} {dict(await request.post())}"
    return web.Response(text=sent)


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve on a free port of the loopback."""
    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def ask(url: str, **fields: Any) -> ProbeReply:
    """Ask directly."""
    return await send_probe(Probe(url=url, **fields), DirectReach())


async def refused(url: str, **fields: Any) -> FleetError:
    """Ask in vain."""
    with pytest.raises(FleetError) as caught:
        await ask(url, **fields)
    return caught.value


class Rebound:
    """A reach for which every name leads to one address once it is resolved for the connection."""

    def __init__(self, address: str) -> None:
        self._address = address

    def connector(
        self, to: Endpoint, *, limit: int, refuse: Callable[[str], bool] | None = None
    ) -> aiohttp.BaseConnector:
        """Return a connector that takes the loopback for the address."""
        seen = (lambda _: refuse(self._address)) if refuse is not None else None
        return DirectReach().connector(to, limit=limit, refuse=seen)


async def test_a_request_is_sent_as_asked(tmp_path: Path) -> None:
    """Method, form and the token as the file has it now."""
    token = tmp_path / "token"
    async with serving() as port:
        url = f"http://127.0.0.1:{port}/ok"
        assert (await ask(url)).text == "GET - {}"
        for text in ("first", "second\n"):
            token.write_text(text)
            reply = await ask(url, method="POST", form={"query": "up{}"}, token_file=str(token))
            assert reply == ProbeReply(200, f"POST Bearer {text.strip()} {{'query': 'up{{}}'}}", text.strip())
            assert f"token='{text.strip()}'" not in repr(reply)


async def test_redirects_are_answers() -> None:
    """Who is asked does not decide where the hub goes."""
    async with serving() as port:
        assert await ask(f"http://127.0.0.1:{port}/moved") == ProbeReply(302, "")


async def test_an_answer_that_is_too_large_is_not_read() -> None:
    """Memory is bounded; where only the status matters the size does not."""
    async with serving() as port:
        url = f"http://127.0.0.1:{port}/large"
        assert (await refused(url)).reason == "BodyTooLarge"
        assert await ask(url, read_body=False) == ProbeReply(200, "")


@pytest.mark.parametrize(
    "host", [METADATA, "[fe80::1]", "[::ffff:169.254.169.254]", "metadata.google.internal", "0xa9fea9fe", "224.0.0.1"]
)
async def test_forbidden_addresses_are_refused_before_anything_is_sent(host: str) -> None:
    """Written in whatever way; the message says how to allow it, and shows no more of the URL."""
    error = await refused(f"http://{host}:1/latest?key=secret")
    assert error.reason == "AddressForbidden"
    assert "allowLinkLocal: true" in error.message
    assert "latest" not in error.message


async def test_a_name_that_leads_to_a_forbidden_address_is_refused() -> None:
    """What counts is the address that is dialled, at the moment it is dialled."""
    async with serving() as port:
        url = f"http://localhost:{port}/ok"
        with pytest.raises(Unreachable) as caught:
            await send_probe(Probe(url=url), Rebound(METADATA))
        assert caught.value.reason == "AddressForbidden"
        assert (await send_probe(Probe(url=url), Rebound("10.0.0.1"))).status == 200
        assert (await send_probe(Probe(url=url, allow_link_local=True), Rebound(METADATA))).status == 200


async def test_a_ca_file_is_trusted_and_nobody_else(tmp_path: Path) -> None:
    """The server's authority, another one, and an empty file, which must not mean the machine's."""
    issued = OURS.issue_server(["localhost"])
    pair, ours, other, empty = (tmp_path / name for name in ("pair", "ours", "other", "empty"))
    pair.write_bytes(issued.cert_pem + issued.key_pem)
    ours.write_bytes(OURS.cert_pem)
    other.write_bytes(OTHER.cert_pem)
    empty.touch()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    async with serving(context) as port:
        url = f"https://localhost:{port}/ok"
        assert (await ask(url, ca_file=str(ours))).status == 200
        assert (await refused(url, ca_file=str(other))).reason == "CertificateUnknown"
        assert (await refused(url)).reason == "CertificateUnknown"
        assert (await refused(url, ca_file=str(empty))).reason == "CredentialsUnreadable"


@pytest.mark.parametrize("content", [None, "", "two\nlines", "não"])
async def test_a_token_that_cannot_be_sent_is_named_by_its_file(tmp_path: Path, content: str | None) -> None:
    """Missing, empty or no token: the file is named, its content is not shown."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    error = await refused("http://127.0.0.1:1/", token_file=str(file))
    assert isinstance(error, ConfigError)
    assert error.reason == "CredentialsUnreadable"
    assert str(file) in error.message
    assert not content or content not in error.message


@pytest.mark.parametrize("url", ["ftp://a/", "http://", "http://user:secret@a/", "a", "http://a:99999/"])
async def test_what_is_no_url_once_filled_in_is_refused(url: str) -> None:
    """Variables may make anything of it; a password is not shown."""
    error = await refused(url)
    assert error.reason == "AddressInvalid"
    assert "secret" not in str(error)


@pytest.mark.parametrize("port", ["99999", "0", "-1", "http", "1" * 5000])
async def test_a_port_that_is_none_is_named_as_such(port: str) -> None:
    """Whatever a variable makes of it."""
    for url in (f"http://a:{port}", f"https://[fd00::1]:{port}/x?y#z"):
        error = await refused(url)
        assert (error.reason, error.message[:19]) == ("AddressInvalid", "the port of the url")


async def test_nobody_listens() -> None:
    """The usual reasons are kept."""
    async with serving() as port:
        pass
    assert (await refused(f"http://127.0.0.1:{port}/")).reason == "ConnectionRefused"
