"""Requests to one API server: bytes in, bytes out, typed errors. No models, no decoding of bodies.

Two connection pools, one for calls and one for watches, so that no number of watches starves a call.
"""

import asyncio
import email.utils
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from fleet import __version__
from fleet.clock import Clock
from fleet.errors import KubeError, ServerFailure, Throttled, Unauthorized, Unreachable
from fleet.kube.credential import Credential, Impersonation
from fleet.kube.gate import Gate, Priority
from fleet.kube.status import classify
from fleet.kube.wire import JSON
from fleet.metric import counter
from fleet.net.http import open_session, translate
from fleet.net.reach import Reach, endpoint_of
from fleet.net.tls import client_context

USER_AGENT = f"fleet/{__version__}"
MOST_BODY_BYTES = 256 * 1024 * 1024
MOST_ERROR_BYTES = 64 * 1024
THROTTLED_TRIES = 4
LOST_REASONS = ("ConnectionLost",)

APPLY_PATCH = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
_WRITES = ("POST", "PUT", "PATCH", "DELETE")

REQUESTS = counter("fleet_api_requests_total", "Requests to API servers.", "cluster", "verb", "code")

Params = Mapping[str, str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer (2xx, or 304 when it was asked for)."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Stream:
    """An open watch response, read chunk by chunk; each read has its own deadline."""

    def __init__(self, response: aiohttp.ClientResponse, client: "Client") -> None:
        self._response = response
        self._client = client

    async def read(self, deadline_s: float) -> bytes:
        """Return the next bytes; empty at the end of the stream. Raises: Unreachable."""
        with translate(self._client.server):
            async with asyncio.timeout(deadline_s):
                chunk = await _read_some(self._response)
        self._client.note_heard()
        return chunk

    def close(self) -> None:
        """Close the connection; what was not read is dropped."""
        self._response.close()


class Client:
    """One API server over HTTP. Use as an async context manager.

    `cluster` labels metrics. `timeout_s` is the default deadline of a call, waiting for the gate not included.
    """

    def __init__(
        self,
        credential: Credential,
        reach: Reach,
        gate: Gate,
        clock: Clock,
        *,
        timeout_s: float = 30.0,
        cluster: str = "",
    ) -> None:
        self._credential = credential
        self._reach = reach
        self._gate = gate
        self._clock = clock
        self._timeout_s = timeout_s
        self._cluster = cluster
        self._calls: aiohttp.ClientSession
        self._watches: aiohttp.ClientSession
        self._transport: dict[str, Any] = {}
        self._revival: asyncio.Future[None] | None = None
        self.heard_at = float("-inf")
        """Loop time of the last bytes from the server, on any connection."""
        self.skew_s: float | None = None
        """The server's clock minus ours, to about a second; None until it answered."""

    @property
    def server(self) -> str:
        """Base URL, as shown in errors."""
        return self._credential.server

    @property
    def gate(self) -> Gate:
        """What bounds the calls."""
        return self._gate

    @property
    def clock(self) -> Clock:
        """Wall time and jitter."""
        return self._clock

    async def __aenter__(self) -> Self:
        """Open the pools. Raises: ConfigError when the keys cannot be used."""
        credential = self._credential
        if credential.server.startswith("https://"):
            self._transport["ssl"] = client_context(
                ca=credential.ca,
                certificate=credential.certificate,
                key=credential.key,
                verify=credential.verify,
                subject=credential.server,
            )
        if credential.tls_server_name:
            self._transport["server_hostname"] = credential.tls_server_name
        if credential.proxy_url:
            self._transport["proxy"] = credential.proxy_url
        endpoint = endpoint_of(credential.server)
        self._calls = open_session(self._reach.connector(endpoint, limit=self._gate.most + 4), user_agent=USER_AGENT)
        self._watches = open_session(self._reach.connector(endpoint, limit=0), user_agent=USER_AGENT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._calls.close()
        finally:
            await self._watches.close()

    def note_heard(self) -> None:
        """Remember that the server spoke, and wake whoever waits for it to come back."""
        self.heard_at = asyncio.get_running_loop().time()
        if self._revival is not None and not self._revival.done():
            self._revival.set_result(None)
        self._revival = None

    async def wait_heard(self, timeout_s: float) -> None:
        """Wait until the server says anything on another connection, or `timeout_s` have passed."""
        if self._revival is None:
            self._revival = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._revival], timeout=timeout_s)

    async def request(
        self,
        method: str,
        path: str,
        *,
        priority: Priority,
        params: Params | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        deadline_s: float | None = None,
        idempotent: bool | None = None,
        impersonate: Impersonation | None = None,
        headers: Mapping[str, str] | None = None,
        plural: str = "",
        subject: str = "",
    ) -> Reply:
        """Send one request through the gate and return the answer.

        Tried again: after a 429, up to four times, when the server wants; an idempotent one (GET, server-side apply, or
        `idempotent`) once after a 503, 504 or a connection that broke; once after a 401 if the token changed. `deadline_s`
        covers one try. `plural` and `subject` make errors precise.

        Raises: KubeError. A 504 or Unreachable on a write leaves its outcome unknown.
        Cancelled: the connection is closed; a write's outcome is unknown.
        """
        sent = _Request(
            method=method,
            url=self._url(path, params, deadline_s or self._timeout_s, method),
            body=body,
            headers=_headers(content_type if body is not None else "", accept, headers),
            deadline_s=deadline_s or self._timeout_s,
            impersonate=impersonate or self._credential.impersonation,
            plural=plural,
            subject=subject,
        )
        if idempotent is None:
            idempotent = method == "GET" or content_type == APPLY_PATCH
        throttled, lost = 0, False
        while True:
            try:
                async with self._gate.enter(priority):
                    return await self._with_token(sent, self._try_once)
            except Throttled:
                throttled += 1
                if throttled >= THROTTLED_TRIES:
                    raise
            except (ServerFailure, Unreachable) as error:
                if lost or not idempotent or not _worth_repeating(error):
                    raise
                lost = True

    async def _with_token(self, sent: "_Request", attempt: "Callable[[_Request, str], Awaitable[T]]") -> T:
        """Authorise an attempt; after a 401 repeat it once, if there is a newer token."""
        token = self._credential.token
        used = await token.authorization() if token else ""
        try:
            return await attempt(sent, used)
        except Unauthorized:
            fresh = await token.authorization(refused=used) if token else ""
            if fresh == used:
                raise
            return await attempt(sent, fresh)

    async def _try_once(self, sent: "_Request", authorization: str) -> Reply:
        code = 0
        try:
            with translate(self.server):
                async with asyncio.timeout(sent.deadline_s):
                    async with self._calls.request(
                        sent.method,
                        sent.url,
                        data=sent.body,
                        headers=_identify(sent.headers, authorization, sent.impersonate),
                        allow_redirects=False,
                        **self._transport,
                    ) as response:
                        code = response.status
                        self._note_reply(response)
                        reply = Reply(code, await _read_body(response), response.headers)
        finally:
            REQUESTS.labels(self._cluster, sent.method, str(code)).inc()
        if 200 <= code < 300 or (code == 304 and "If-None-Match" in sent.headers):
            return reply
        raise classify(code, reply.body[:MOST_ERROR_BYTES], reply.headers, subject=sent.subject, plural=sent.plural)

    async def stream(self, path: str, params: Params, *, accept: str, deadline_s: float, plural: str = "") -> Stream:
        """Open a watch and return it once the server has accepted it; the caller closes it.

        Raises: KubeError. Cancelled: the connection is closed.
        """
        sent = _Request(
            method="GET",
            url=self._url(path, params, 0, "GET"),
            body=None,
            headers=_headers("", accept, None),
            deadline_s=deadline_s,
            impersonate=self._credential.impersonation,
            plural=plural,
            subject="",
        )
        return await self._with_token(sent, self._open_stream)

    async def _open_stream(self, sent: "_Request", authorization: str) -> Stream:
        code = 0
        try:
            with translate(self.server):
                async with asyncio.timeout(sent.deadline_s):
                    response = await self._watches.get(
                        sent.url,
                        headers=_identify(sent.headers, authorization, sent.impersonate),
                        allow_redirects=False,
                        **self._transport,
                    )
                    code = response.status
                    self._note_reply(response)
                    if code == 200:
                        return Stream(response, self)
                    async with response:
                        body = await _read_body(response)
        finally:
            REQUESTS.labels(self._cluster, "WATCH", str(code)).inc()
        raise classify(code, body[:MOST_ERROR_BYTES], response.headers, plural=sent.plural)

    def _url(self, path: str, params: Params | None, deadline_s: float, method: str) -> URL:
        """Build the URL; a write tells the server to give up before we do, so that we learn of it."""
        query = dict(params or {})
        if method in _WRITES:
            query["timeout"] = f"{max(1, int(deadline_s) - 1)}s"
        text = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in query.items())
        return URL(self._credential.server + path + (f"?{text}" if text else ""), encoded=True)

    def _note_reply(self, response: aiohttp.ClientResponse) -> None:
        self.note_heard()
        date = response.headers.get("Date", "")
        if date:
            try:
                at = email.utils.parsedate_to_datetime(date)
            except ValueError:
                return
            if at.tzinfo is None:  # "-0000": UTC, and nothing is said about the place
                at = at.replace(tzinfo=UTC)
            self.skew_s = (at - self._clock.now()).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    method: str
    url: URL
    body: bytes | None
    headers: Mapping[str, str]
    deadline_s: float
    impersonate: Impersonation | None
    plural: str
    subject: str


def _headers(content_type: str, accept: str, more: Mapping[str, str] | None) -> dict[str, str]:
    headers = {"Accept": accept, **(more or {})}
    if content_type:
        headers["Content-Type"] = content_type
    return headers


def _identify(
    headers: Mapping[str, str], authorization: str, impersonate: Impersonation | None
) -> list[tuple[str, str]]:
    identified = list(headers.items())
    if authorization:
        identified.append(("Authorization", authorization))
    if impersonate is not None:
        identified.extend(impersonate.headers)
    return identified


def _worth_repeating(error: KubeError) -> bool:
    if isinstance(error, Unreachable):
        return error.reason in LOST_REASONS
    return error.status in (503, 504)


async def _read_some(response: aiohttp.ClientResponse) -> bytes:
    """Read what has arrived; empty at the end."""
    try:
        return await response.content.readany()
    except RuntimeError as error:  # how aiohttp says that the connection closed between two reads
        raise aiohttp.ClientConnectionError("connection closed") from error


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    """Read a body that has an upper bound, whatever the other side is."""
    if (response.content_length or 0) <= MOST_BODY_BYTES:
        chunks: list[bytes] = []
        size = 0
        while size <= MOST_BODY_BYTES:
            chunk = await _read_some(response)
            if not chunk:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.append(chunk)
            size += len(chunk)
    raise ServerFailure(f"the API server sent more than {MOST_BODY_BYTES >> 20} MiB", reason="ReplyTooLarge")
