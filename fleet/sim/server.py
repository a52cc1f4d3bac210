"""One API server over HTTP: reads the request, asks who and whether, lets the machinery answer, and writes the reply.

The machinery itself is synchronous: a request takes effect in one step between two awaits.
"""

import asyncio
import gzip
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from fleet.sim import discovery, openapi, status
from fleet.sim.access import Access
from fleet.sim.deletion import delete, delete_collection
from fleet.sim.fault import Faults, Rule, injected_error
from fleet.sim.reading import read, read_list
from fleet.sim.representation import ACCEPTED, encode, shown, wants_metadata
from fleet.sim.request import Request, find_target, verb_of
from fleet.sim.state import State
from fleet.sim.storage import Object
from fleet.sim.watching import Watch, run_watch
from fleet.sim.writing import Written, create, patch, update

BODY_LIMIT_BYTES: Final = 3 * 1024 * 1024
GZIP_FROM_BYTES: Final = 128 * 1024
LOG_LENGTH: Final = 100_000
WATCH_DEFAULT_S: Final = (1800.0, 3600.0)
BODY_TYPES: Final = ("application/json", "application/yaml")
_HEALTH: Final = ("/livez", "/readyz", "/healthz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One request as it was answered; `code` is 0 while it is not. `verb` is empty for paths that are no resource."""

    method: str
    path: str
    query: Mapping[str, str]
    verb: str
    user: str
    user_agent: str
    manager: str
    code: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A complete reply."""

    code: int
    body: bytes
    media: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class _Dropped(Exception):
    """The connection ends here, unanswered."""


class ApiServer:
    """The HTTP side of one simulated cluster.

    `requests` is the log, oldest first. One server may be reached over several listeners at a time.
    """

    def __init__(self, state: State, access: Access, faults: Faults) -> None:
        self._state = state
        self._access = access
        self._faults = faults
        self._streams: set[web.StreamResponse] = set()
        self._transports: dict[web.StreamResponse, asyncio.BaseTransport | None] = {}
        self.requests: deque[Logged] = deque(maxlen=LOG_LENGTH)

    def listener(self) -> web.Server:
        """Return a factory of server protocols, for one loop's listeners."""
        return web.Server(self._handle, handler_cancellation=True, access_log=None)

    @property
    def watch_count(self) -> int:
        """How many watch streams are open."""
        return len(self._transports)

    def cut_watches(self) -> None:
        """Break every watch stream in the middle of a line."""
        for transport in list(self._transports.values()):
            if isinstance(transport, asyncio.WriteTransport) and not transport.is_closing():
                transport.write(b'20\r\n{"type":"MODIFIED","object":{"k')
                transport.close()

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._serve(http)
        except (_Dropped, ConnectionResetError):  # dropped on purpose, or the client is gone
            if http.transport is not None:
                http.transport.abort()
            raise asyncio.CancelledError from None

    async def _serve(self, http: web.BaseRequest) -> web.StreamResponse:
        log = _Log(self, http)
        try:
            user = self._access.identify(http.headers, _certificate_name(http))
            log.user = user
            request = await self._parse(http, user)
            if request is not None:
                log.verb, log.manager = request.verb, request.manager
            rule = self._faults.take(log.verb, http.path_qs)
            await _suffer(rule)
            if request is not None and request.verb == "watch":
                return await self._stream(http, request, log)
            answer = self._answer(http, request)
            if rule is not None and rule.action == "drop_after":
                raise _Dropped
        except status.ApiError as error:
            await asyncio.sleep(error.after_s)
            answer = _refusal(error)
        log.write(answer.code)
        return await _reply(http, answer, self._headers())

    async def _parse(self, http: web.BaseRequest, user: str) -> Request | None:
        """Return the request for a resource, or None for any other path."""
        parts = http.path.strip("/").split("/")
        if not ((parts[0] == "api" and len(parts) > 2) or (parts[0] == "apis" and len(parts) > 3)):
            return None
        target = find_target(self._state.registry, http.path)
        verb = verb_of(http.method, target, http.query)
        self._access.check(user, verb, target)
        media = http.content_type.lower()
        if verb in ("create", "update") and media not in BODY_TYPES:
            raise status.unsupported_media_type(ACCEPTED)
        return Request(
            verb=verb,
            target=target,
            query=dict(http.query),
            user=user,
            user_agent=http.headers.get("User-Agent", ""),
            accept=http.headers.get("Accept", ""),
            content_type=http.headers.get("Content-Type", ""),
            body=await _body(http),
        )

    def _answer(self, http: web.BaseRequest, request: Request | None) -> Answer:
        if request is None:
            return _special(self._state, http)
        if request.target.subresource == "" and request.resource.kind in (
            "SelfSubjectAccessReview",
            "SelfSubjectReview",
        ):
            return Answer(code=201, body=encode(self._access.review(request.user, request.decode())))
        return _resource_answer(self._state, request)

    async def _stream(self, http: web.BaseRequest, request: Request, log: "_Log") -> web.StreamResponse:
        changed = asyncio.Event()
        watch = Watch(self._state, request, changed.set)
        response = web.StreamResponse(headers={"Content-Type": "application/json", **self._headers()})
        response.enable_chunked_encoding()
        log.write(200)
        self._transports[response] = http.transport
        try:
            await response.prepare(http)

            async def send(data: bytes) -> None:
                await self._faults.wait_flow()
                await response.write(data)

            await run_watch(watch, changed, send, self._watch_timeout_s(request))
            await response.write_eof()
        except ConnectionResetError:
            pass  # the client is gone; there is nobody to tell
        finally:
            watch.close()
            del self._transports[response]
        return response

    def _watch_timeout_s(self, request: Request) -> float:
        asked = request.query.get("timeoutSeconds", "")
        return float(asked) if asked.isdigit() and asked != "0" else self._state.rng.uniform(*WATCH_DEFAULT_S)

    def _headers(self) -> dict[str, str]:
        return {
            "Audit-Id": self._state.new_uid(),
            "Cache-Control": "no-cache, private",
            "Date": self._state.now().strftime("%a, %d %b %Y %H:%M:%S GMT"),
            "X-Kubernetes-Pf-Flowschema-Uid": self._state.flow_uid,
        }


class _Log:
    """Collects what is known of a request until it is answered."""

    def __init__(self, server: ApiServer, http: web.BaseRequest) -> None:
        self._server = server
        self._http = http
        self.user = self.verb = self.manager = ""

    def write(self, code: int) -> None:
        self._server.requests.append(
            Logged(
                method=self._http.method,
                path=self._http.path,
                query=dict(self._http.query),
                verb=self.verb,
                user=self.user,
                user_agent=self._http.headers.get("User-Agent", ""),
                manager=self.manager,
                code=code,
                at_s=asyncio.get_running_loop().time(),
            )
        )


async def _suffer(rule: Rule | None) -> None:
    """Do what an injected fault says must come before the work."""
    if rule is None:
        return
    if rule.action == "error":
        raise injected_error(rule)
    if rule.action == "drop_before":
        raise _Dropped
    if rule.action == "hang":
        await asyncio.get_running_loop().create_future()
    if rule.action == "delay":
        await asyncio.sleep(rule.delay_s)


async def _body(http: web.BaseRequest) -> bytes:
    if http.content_length is not None and http.content_length > BODY_LIMIT_BYTES:
        raise status.too_large()
    chunks, size = [], 0
    async for chunk in http.content.iter_any():
        size += len(chunk)
        if size > BODY_LIMIT_BYTES:
            raise status.too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _certificate_name(http: web.BaseRequest) -> str:
    certificate = http.get_extra_info("peercert") or {}
    subject: Any = certificate.get("subject", ())
    return next((value for part in subject for name, value in part if name == "commonName"), "")


def _resource_answer(state: State, request: Request) -> Answer:
    if request.verb == "get":
        return Answer(code=200, body=encode(read(state, request)))
    if request.verb == "list":
        return Answer(code=200, body=encode(read_list(state, request)))
    if request.verb == "delete":
        return Answer(code=200, body=encode(delete(state, request)))
    if request.verb == "deletecollection":
        return Answer(code=200, body=encode(delete_collection(state, request)))
    write: Callable[[State, Request], Written] = {"create": create, "update": update, "patch": patch}[request.verb]
    metadata_only = wants_metadata(request.accept)
    written = write(state, request)
    body: Object = written.obj
    if request.target.subresource != "scale":
        body = shown(written.obj, request.resource, metadata_only=metadata_only)
    headers = {"Warning": ", ".join(map(_warning, written.warnings))} if written.warnings else {}
    return Answer(code=201 if written.created else 200, body=encode(body), headers=headers)


def _warning(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{quoted}"'


def _special(state: State, http: web.BaseRequest) -> Answer:
    path = http.path.rstrip("/") or "/"
    if http.method not in ("GET", "HEAD"):
        raise status.page_not_found()
    if path in _HEALTH:
        return Answer(code=200, body=b"ok", media="text/plain; charset=utf-8")
    if path == "/version":
        return Answer(code=200, body=encode(discovery.VERSION))
    if path == "/openapi/v3":
        return Answer(code=200, body=openapi.index(state), media="text/plain; charset=utf-8")
    if path.startswith("/openapi/v3/"):
        return Answer(code=200, body=openapi.document(state, path.removeprefix("/openapi/v3/")))
    if path.split("/")[1] in ("api", "apis"):
        return _discovery(state, path, http.headers)
    raise status.page_not_found()


def _discovery(state: State, path: str, headers: Mapping[str, str]) -> Answer:
    if path not in ("/api", "/apis") or not discovery.wants_aggregated(headers.get("Accept", "")):
        return Answer(code=200, body=discovery.legacy(state.registry, path))
    body = discovery.aggregated(state.registry, core=path == "/api")
    tags = {"Etag": discovery.etag(body), "Cache-Control": "public", "Vary": "Accept"}
    if headers.get("If-None-Match") == tags["Etag"]:
        return Answer(code=304, body=b"", media=discovery.AGGREGATED, headers=tags)
    return Answer(code=200, body=body, media=discovery.AGGREGATED, headers=tags)


def _refusal(error: status.ApiError) -> Answer:
    if error.text:
        media = "text/plain; charset=utf-8"
        return Answer(code=error.code, body=error.text.encode(), media=media, headers=error.headers)
    return Answer(code=error.code, body=encode(error.body()), headers=error.headers)


async def _reply(http: web.BaseRequest, answer: Answer, headers: dict[str, str]) -> web.StreamResponse:
    body = answer.body
    headers = headers | {"Content-Type": answer.media} | dict(answer.headers)
    if len(body) > GZIP_FROM_BYTES and "gzip" in http.headers.get("Accept-Encoding", ""):
        body = gzip.compress(body, compresslevel=1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    response = web.Response(status=answer.code, body=b"" if http.method == "HEAD" else body, headers=headers)
    await response.prepare(http)
    await response.write_eof()
    return response
