"""A remote behind HTTP: smart protocol, version 2 where the server speaks it, credentials from files.

A poll is one POST of a few hundred bytes: that a server speaks version 2 is remembered, the connection is kept.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
from yarl import URL

from fleet import __version__
from fleet.errors import After, FetchFailed, FleetError, Unreachable
from fleet.git.relay import SERVICE, open_relay
from fleet.git.wire import parse_advertisement, parse_ls_refs, write_ls_refs
from fleet.inventory.schema import Auth
from fleet.net.http import CONNECT_S, open_session, translate
from fleet.net.reach import Reach, endpoint_of
from fleet.net.tls import client_context

SILENCE_S = 20.0
"""A server that sends nothing for so long is hanging; Git servers send a sign of life every 5 s while they work."""
MOST_REFS_BYTES = 64 << 20
MOST_RETRY_AFTER_S = 3600.0
USER_AGENT = f"git/2 (fleet {__version__})"
"""Begins as Git's own: some servers answer others with a web page."""
_CONNECTIONS = 4
_REDIRECTS = (301, 302, 303, 307, 308)
_VERSION_2 = {"Git-Protocol": "version=2"}
_ADVERTISEMENT = {"Accept": f"application/x-{SERVICE}-advertisement"}
_RESULT = {"Accept": f"application/x-{SERVICE}-result", "Content-Type": f"application/x-{SERVICE}-request"}


class HttpRemote:
    """A repository at an http or https URL."""

    def __init__(self, url: str, *, auth: Auth | None, reach: Reach) -> None:
        self._url = url.rstrip("/")
        self._base = self._url
        self._auth = auth or Auth()
        self._reach = reach
        self._session: aiohttp.ClientSession | None = None
        self._speaks_v2 = False

    @property
    def name(self) -> str:
        """The URL."""
        return self._url

    async def list_refs(self, prefixes: Sequence[str]) -> Mapping[str, str]:
        """Return commits by full ref name.

        Raises: FetchFailed; ConfigError when the CA file holds no certificate.
        """
        with self._named():
            if self._speaks_v2:
                try:
                    return await self._ls_refs(prefixes)
                except FetchFailed as error:
                    # what was learned from the first answer may hold no more: another server, another path
                    self._speaks_v2, self._base = False, self._url
                    if error.reason not in ("ProtocolError", "Redirected"):
                        raise
            advertised = parse_advertisement(await self._read("GET", "info/refs", _ADVERTISEMENT | _VERSION_2))
            self._speaks_v2 = advertised.version == 2
            return await self._ls_refs(prefixes) if self._speaks_v2 else advertised.refs

    async def _ls_refs(self, prefixes: Sequence[str]) -> Mapping[str, str]:
        return parse_ls_refs(await self._read("POST", SERVICE, _RESULT | _VERSION_2, write_ls_refs(prefixes)))

    def relay(self) -> AbstractAsyncContextManager[str]:
        """Return a loopback URL that libgit2 may fetch from.

        Raises: FetchFailed.
        """
        return open_relay(self)

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request for a path of the repository with our credentials; yield an answer that is what was asked for.

        Raises: FetchFailed, also for what goes wrong while the answer is read; ConfigError.
        """
        for _ in range(2):
            async with self._send(method, path, headers, body) as answer:
                if answer.status in _REDIRECTS and method == "GET":
                    self._follow(answer)
                    continue
                self._check(answer, headers["Accept"])
                yield answer
                return
        raise FetchFailed(f"{self.name} redirects for ever; check the URL", reason="Redirected")

    async def _read(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
        parts: list[bytes] = []
        size = 0
        async with self.request(method, path, headers=headers, body=body) as answer:
            async for chunk in answer.content.iter_any():
                size += len(chunk)
                if size > MOST_REFS_BYTES:
                    raise FetchFailed(f"{self.name} has too many refs to list", reason="RepositoryTooLarge")
                parts.append(chunk)
        return b"".join(parts)

    @asynccontextmanager
    async def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = URL(f"{self._base}/{path}")
        if method == "GET":
            url = url.with_query(service=SERVICE)
        authorization = await self._authorize()
        ca = await _read_file(self._auth.ca_file, "caFile") if self._auth.ca_file else b""
        context = client_context(ca=ca, subject=str(self._auth.ca_file or self.name))
        if self._session is None:
            connector = self._reach.connector(endpoint_of(self._base), limit=_CONNECTIONS)
            self._session = open_session(connector, user_agent=USER_AGENT)
        with self._translate():
            async with self._session.request(
                method,
                url,
                headers={**headers, **authorization},
                data=body,
                ssl=context,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
            ) as answer:
                yield answer

    async def _authorize(self) -> dict[str, str]:
        """Return the Authorization header from files as they are now: whoever rotates them need not tell us."""
        auth = self._auth
        if auth.token_file is not None:
            return {"Authorization": f"Bearer {await _read_secret(auth.token_file, 'tokenFile')}"}
        if auth.username is not None and auth.password_file is not None:
            pair = f"{auth.username}:{await _read_secret(auth.password_file, 'passwordFile')}"
            return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        return {}

    def _follow(self, answer: aiohttp.ClientResponse) -> None:
        """Take a redirect to another path of the same server; credentials go to no other."""
        target = answer.url.join(URL(answer.headers.get("Location", "")))
        moved = str(target.with_query(None)).removesuffix("/info/refs")
        if target.origin() != answer.url.origin() or not target.path.endswith("/info/refs"):
            raise FetchFailed(f"{self.name} redirects to {moved}; write that address into url", reason="Redirected")
        self._base = moved

    def _check(self, answer: aiohttp.ClientResponse, wanted: str) -> None:
        status = answer.status
        if status == 200:
            if answer.content_type != wanted:
                raise FetchFailed(
                    f"{self.name} answers with {answer.content_type} and not as a Git server; check the URL",
                    reason="ProtocolError",
                )
        elif status == 401:
            raise FetchFailed(self._explain_refusal(), reason="Unauthorized")
        elif status == 403:
            raise FetchFailed(
                f"{self.name} refuses access (403); the credentials need the right to read it", reason="Forbidden"
            )
        elif status == 404:
            raise FetchFailed(
                f"there is no repository at {self.name} (404), or these credentials may not see it",
                reason="RepositoryNotFound",
            )
        elif status in _REDIRECTS:
            raise FetchFailed(
                f"{self.name} has moved (HTTP {status}); write its new address into url", reason="Redirected"
            )
        else:
            raise FetchFailed(
                f"{self.name} answered with HTTP {status}", reason=f"Http{status}", retry=_read_retry_after(answer)
            )

    def _explain_refusal(self) -> str:
        auth = self._auth
        if auth.token_file is not None:
            return (
                f"{self.name} does not accept the token in {auth.token_file} (401); renew it, or, for a server that takes"
                " tokens as passwords only, name it in passwordFile with a username"
            )
        if auth.username is not None:
            return f"{self.name} does not accept user {auth.username} with the password in {auth.password_file} (401)"
        return f"{self.name} wants credentials (401); name a tokenFile, or username and passwordFile, in auth"

    @contextmanager
    def _translate(self) -> Iterator[None]:
        try:
            with translate(self.name):
                yield
        except Unreachable as error:
            hint = "; name its CA in auth.caFile" if self._misses_ca(error) else ""
            raise FetchFailed(error.message + hint, reason=error.reason, retry=error.retry) from error

    def _misses_ca(self, error: FleetError) -> bool:
        return error.reason == "CertificateUnknown" and self._auth.ca_file is None

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say whose answer it was that could not be understood."""
        try:
            yield
        except FetchFailed as error:
            if self.name not in error.message:
                raise FetchFailed(f"{self.name}: {error.message}", reason=error.reason, retry=error.retry) from error
            raise


async def _read_file(path: Path, field: str) -> bytes:
    try:
        return await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise FetchFailed(
            f"auth.{field} {path} cannot be read ({error.strerror})", reason="CredentialsUnreadable"
        ) from error


async def _read_secret(path: Path, field: str) -> str:
    """Read a one-line secret; a line end is not part of it."""
    text = (await _read_file(path, field)).decode(errors="replace").strip()
    if not text or not text.isprintable():
        raise FetchFailed(f"auth.{field} {path} does not hold one line of text", reason="CredentialsUnreadable")
    return text


def _read_retry_after(answer: aiohttp.ClientResponse) -> After | None:
    value = answer.headers.get("Retry-After", "")
    return After(min(float(value), MOST_RETRY_AFTER_S)) if value.isascii() and value.isdigit() else None
