"""The hub's HTTP API for client commands, over http.client: starts fast, and needs no event loop."""

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from fleet.cli.connection import Connection
from fleet.cli.exit import Exit, Failure

REQUEST_TIMEOUT_S = 60.0
"""Longer than the hub's own deadline for asking a cluster: its answer says more than our timeout."""
STREAM_SILENCE_S = 60.0
"""The hub sends a heartbeat every 15 s; a stream without one is dead."""
PAGE = "500"


class Refused(Failure):
    """The hub answered with an error. `reason` is CamelCase, as in status."""

    def __init__(self, message: str, *, status: int, reason: str = "") -> None:
        super().__init__(message, Exit.DENIED if status in (401, 403) else Exit.ERROR)
        self.status = status
        self.reason = reason


class Unreachable(Failure):
    """The hub did not answer, or what answered is not a hub."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.UNREACHABLE)


class Message(NamedTuple):
    """One server-sent event."""

    id: str
    event: str
    data: str


class Request(NamedTuple):
    """One request: path parts below `/api/v1` (or another root), query values that are not empty, a JSON body."""

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str] = {}
    body: Any = None
    headers: Mapping[str, str] = {}
    root: str = "/api/v1"


class Client:
    """Asks one hub. Every call opens its own connection, so a client needs no closing."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.dropped: Refused | None = None
        """Why the hub refused the token that was found in the data directory, after which none is sent."""
        self._now: datetime | None = None

    def now(self) -> datetime:
        """Return the hub's wall time as of its last answer: ages do not depend on this machine's clock."""
        if self._now is None:
            from fleet.clock import SystemClock

            return SystemClock().now()
        return self._now

    def get(self, *path: str, query: Mapping[str, str] | None = None) -> Any:
        """Read one resource; empty query values are left out. Raises: Refused, Unreachable."""
        return self._call(Request("GET", path, query or {}))

    def items(self, *path: str, query: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Read a whole list, page by page. Raises: Refused, Unreachable."""
        items: list[dict[str, Any]] = []
        at = ""
        while True:
            page = self._call(Request("GET", path, {**(query or {}), "limit": PAGE, "continue": at}))
            if not isinstance(page, dict) or not isinstance(page.get("items"), list):
                raise Unreachable(f"{self.connection.server} answered no list, as a hub would; check --server")
            items += page["items"]
            at = page.get("continue") or ""
            if not at:
                return items

    def read(self, *path: str) -> bytes:
        """Read a file that stands outside `/api/v1`. Raises: Refused, Unreachable."""
        with _translated(self.connection.server), self._open(REQUEST_TIMEOUT_S) as http_connection:
            response = self._send(http_connection, Request("GET", path, headers={"Accept": "*/*"}, root=""))
            if response.status != 200:
                _read_answer(response, self.connection)
            return response.read()

    def post(self, *path: str, body: Mapping[str, Any]) -> Any:
        """Ask for an act; empty values are left out. Raises: Refused, Unreachable."""
        given = {key: value for key, value in body.items() if value not in ("", None, [])}
        return self._call(Request("POST", path, body=given))

    def delete(self, *path: str) -> Any:
        """Remove one resource. Raises: Refused, Unreachable."""
        return self._call(Request("DELETE", path, body={}))

    def stream(self, *path: str, query: Mapping[str, str], last_id: str = "") -> Iterator[Message]:
        """Yield server-sent events until the hub ends the stream. Raises: Refused, Unreachable."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        with _translated(self.connection.server), self._open(STREAM_SILENCE_S) as http_connection:
            response = self._send(http_connection, Request("GET", path, query, headers=headers))
            if response.status != 200:
                _read_answer(response, self.connection)
            yield from read_messages(response)

    def _call(self, request: Request) -> Any:
        try:
            return self._call_once(request)
        except Refused as error:
            if error.status != 401 or not self.connection.found or request.method != "GET":
                raise
            self.dropped = error
        # A token left behind by another hub must not take away what needs no token.
        self.connection = replace(self.connection, token="", token_from="", found=False)
        return self._call_once(request)

    def _call_once(self, request: Request) -> Any:
        with _translated(self.connection.server), self._open(REQUEST_TIMEOUT_S) as http_connection:
            response = self._send(http_connection, request)
            self._now = _read_date(response) or self._now
            return _read_answer(response, self.connection)

    @contextlib.contextmanager
    def _open(self, timeout_s: float) -> Iterator[http.client.HTTPConnection]:
        parts = urlsplit(self.connection.server)
        host = parts.hostname or ""
        opened: http.client.HTTPConnection
        if parts.scheme == "https":
            opened = http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=self._trust())
        else:
            opened = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
        with contextlib.closing(opened):
            yield opened

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.connection.ca or None)
        except OSError as error:
            raise Failure(f"the CA file {self.connection.ca} cannot be used: {error.strerror or error}") from error

    def _send(self, http_connection: http.client.HTTPConnection, request: Request) -> http.client.HTTPResponse:
        given = {name: value for name, value in request.query.items() if value}
        path = "".join(f"/{quote(part, safe='')}" for part in request.path)
        target = urlsplit(self.connection.server).path + request.root + path + (f"?{urlencode(given)}" if given else "")
        headers = {"Accept": "application/json", **request.headers}
        if self.connection.token:
            headers["Authorization"] = f"Bearer {self.connection.token}"
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        payload = None if request.body is None else json.dumps(request.body).encode()
        http_connection.request(request.method, target, payload, headers)
        return http_connection.getresponse()


def read_messages(lines: Iterator[bytes] | http.client.HTTPResponse) -> Iterator[Message]:
    """Parse server-sent events; comments, which are heartbeats, yield nothing.

    Source: WHATWG HTML, 9.2.6 "Interpreting an event stream".
    """
    fields: dict[str, list[str]] = {}
    for line in lines:
        text = line.decode(errors="replace").rstrip("\r\n")
        if text:
            name, _, value = text.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
            continue
        if "data" in fields:
            last = {key: values[-1] for key, values in fields.items()}
            yield Message(last.get("id", ""), last.get("event", "message"), "\n".join(fields["data"]))
        fields = {}


def _read_answer(response: http.client.HTTPResponse, connection: Connection) -> Any:
    body = response.read()
    kind = response.headers.get_content_type()
    if response.status == 204:
        return None
    if kind not in ("application/json", "application/problem+json"):
        raise Unreachable(
            f"{connection.server} answered {response.status} {response.reason}, not as a hub does; check --server"
        )
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise Unreachable(f"{connection.server} broke off its answer; try again") from error
    if response.status >= 400:
        raise _refusal(response.status, answer, connection)
    return answer


def _refusal(status: int, problem: Any, connection: Connection) -> Refused:
    fields = problem if isinstance(problem, dict) else {}
    text = str(fields.get("detail") or fields.get("title") or f"the hub answered {status}")
    problems = [str(problem) for problem in fields.get("problems") or ()]
    if len(problems) > 1:
        text = "\n".join([f"{len(problems)} problems", *(f"  {problem}" for problem in problems)])
    if status in (401, 403):
        text += f" (token: {connection.token_from})" if connection.token else f". {_WITHOUT_ONE}"
    return Refused(text, status=status, reason=str(fields.get("reason", "")))


_WITHOUT_ONE = (
    "No token was sent: give one with --token-file, FLEET_TOKEN or FLEET_TOKEN_FILE, or on the hub's machine point"
    " --data at its data directory"
)


def _read_date(response: http.client.HTTPResponse) -> datetime | None:
    try:
        return parsedate_to_datetime(response.headers["Date"])
    except (TypeError, ValueError):
        return None


@contextlib.contextmanager
def _translated(server: str) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(_explain(error, server)) from error


def _explain(error: Exception, server: str) -> str:
    match error:
        case ConnectionRefusedError():
            return f"no hub answers at {server}; start one with fleet run, or say where it is with --server or FLEET_SERVER"
        case socket.gaierror():
            return f"the host of {server} cannot be resolved; check --server or FLEET_SERVER"
        case ssl.SSLCertVerificationError():
            return (
                f"the certificate of {server} is not trusted ({error.verify_message});"
                " name the file of its CA with --ca or FLEET_CA"
            )
        case ssl.SSLError():
            return f"{server} does not speak TLS as expected ({error.reason}); is it a plain http:// address?"
        case TimeoutError():
            return f"{server} did not answer in time; is the hub alive? GET {server}/livez tells"
        case http.client.RemoteDisconnected() | ConnectionError():
            return f"{server} closed the connection; is the hub stopping, or does it expect https://?"
        case http.client.HTTPException():
            return f"{server} does not speak HTTP ({type(error).__name__}); check --server or FLEET_SERVER"
        case _:
            return f"{server} cannot be reached: {getattr(error, 'strerror', None) or error}"
