"""One small HTTP request to a place that an inventory names: where it may lead, how long, and how much is read."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from yarl import URL

from fleet import __version__
from fleet.errors import ConfigError, Unreachable
from fleet.inventory.address import is_forbidden_host
from fleet.net.http import open_session, translate
from fleet.net.reach import Endpoint, Reach, RefusedAddress
from fleet.net.tls import client_context

MOST_BODY_BYTES = 1 << 20
USER_AGENT = f"fleet/{__version__} (check)"
_PORT = re.compile(r"[a-z]+://[^/?#]*:([^/?#:@\]]+)(?:[/?#]|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A request. Redirects are answers, and never followed."""

    url: str
    method: str = "GET"
    form: Mapping[str, str] | None = None
    """Sent in the body, as a browser's form is."""
    ca_file: str = ""
    """PEM certificates that are trusted instead of the machine's; read anew each time."""
    token_file: str = ""
    """Holds a bearer token; read anew each time."""
    allow_link_local: bool = False
    read_body: bool = True
    timeout_s: float = 10.0
    """For everything: resolving, connecting, TLS, the answer."""


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """What came back; the text is empty where nobody asked for it."""

    status: int
    text: str
    token: str = field(default="", repr=False)
    """What was sent along, and must not be shown should the text repeat it."""


async def send_probe(probe: Probe, reach: Reach) -> ProbeReply:
    """Send a request once, over a connection of its own.

    Raises: Unreachable, with reason AddressForbidden for a link-local, metadata or multicast address (by name, by number or
    by what the name resolves to when the connection is made), BodyTooLarge beyond MOST_BODY_BYTES, and those of
    `translate`; ConfigError with reason CredentialsUnreadable or TlsInvalid. Messages name the server, never the path,
    the query or the token.
    """
    url, server = _read_url(probe.url)
    if not probe.allow_link_local and is_forbidden_host(server.host):
        raise _refuse(server)
    refuse = None if probe.allow_link_local else is_forbidden_host
    try:
        with translate(str(server)):
            async with asyncio.timeout(probe.timeout_s):
                ca = await _read(probe.ca_file, "caFile")
                context = client_context(ca=ca, subject=str(server)) if url.scheme == "https" else True
                connector = reach.connector(server, limit=1, refuse=refuse)
                token = await _read_token(probe.token_file)
                async with (
                    open_session(connector, user_agent=USER_AGENT, connect_s=None) as session,
                    session.request(
                        probe.method,
                        url,
                        data=probe.form,
                        headers={"Authorization": f"Bearer {token}"} if token else {},
                        ssl=context,
                        allow_redirects=False,
                    ) as response,
                ):
                    text = await _read_text(response, server) if probe.read_body else ""
                    return ProbeReply(response.status, text, token)
    except Unreachable as error:
        if _is_refusal(error):
            raise _refuse(server) from error
        raise


def _read_url(text: str) -> tuple[URL, Endpoint]:
    port = _PORT.match(text)
    if port is not None and not (re.fullmatch("[0-9]{1,5}", port[1]) and 0 < int(port[1]) < 1 << 16):
        raise Unreachable(
            "the port of the url, its variables filled in, is not a number from 1 to 65535", reason="AddressInvalid"
        )
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or url.user is not None or url.password is not None:
        raise Unreachable(
            "the url, its variables filled in, is not an https or http URL without credentials", reason="AddressInvalid"
        )
    return url, Endpoint(url.host, url.port or 443)


def _refuse(server: Endpoint) -> Unreachable:
    return Unreachable(
        f"{server} leads to a link-local, metadata or multicast address; set allowLinkLocal: true if it is meant",
        reason="AddressForbidden",
    )


def _is_refusal(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, RefusedAddress):
            return True
        inner = getattr(error, "os_error", None)
        error = inner if isinstance(inner, BaseException) and inner is not error else error.__cause__
    return False


async def _read_token(file: str) -> str:
    if not file:
        return ""
    token = (await _read(file, "tokenFile")).decode(errors="replace").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError(f"tokenFile {file} does not hold one line of text", reason="CredentialsUnreadable")
    return token


async def _read(file: str, field: str) -> bytes:
    if not file:
        return b""
    try:
        content = await asyncio.to_thread(Path(file).read_bytes)
    except OSError as error:
        raise ConfigError(
            f"{field} {file} cannot be read ({error.strerror})", reason="CredentialsUnreadable"
        ) from error
    if not content.strip():
        # an empty caFile would otherwise mean: trust whom the machine trusts
        raise ConfigError(f"{field} {file} is empty", reason="CredentialsUnreadable")
    return content


async def _read_text(response: aiohttp.ClientResponse, server: Endpoint) -> str:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MOST_BODY_BYTES:
            raise Unreachable(
                f"the answer of {server} is larger than {MOST_BODY_BYTES >> 20} MiB", reason="BodyTooLarge"
            )
    return body.decode(errors="replace")
