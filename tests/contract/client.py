"""A tiny HTTP client for the contract suite: what goes over the wire, and nothing between."""

import base64
import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
DEADLINE_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer; `body` is decoded JSON, or text."""

    code: int
    headers: Mapping[str, str]
    body: Any

    @property
    def error(self) -> tuple[int, str, str]:
        """Code, reason and message of a Status."""
        return (self.code, self.body.get("reason", ""), self.body["message"])

    @property
    def causes(self) -> list[dict[str, str]]:
        return list(self.body["details"]["causes"])

    @property
    def rv(self) -> str:
        return str(self.body["metadata"]["resourceVersion"])


class Api:
    """One API server, reached as its administrator. `simulated` is for cleaning up, never for expecting less."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext | None, *, simulated: bool) -> None:
        self._parts = urlsplit(url)
        self._token = token
        self._context = context
        self.simulated = simulated
        self._connection = self._connect()

    def call(
        self, method: str, path: str, body: Any = None, *, media: str = "application/json", **headers: str
    ) -> Reply:
        """Send one request; a str or bytes body goes as it is, anything else as JSON."""
        data = None if body is None else body if isinstance(body, (str, bytes)) else json.dumps(body)
        sent = {"Authorization": f"Bearer {self._token}", "Content-Type": media, "User-Agent": "contract/1"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            self._connection.request(method, path, data, sent)
            answer = self._connection.getresponse()
        except (http.client.HTTPException, OSError):
            self._connection.close()
            self._connection.request(method, path, data, sent)
            answer = self._connection.getresponse()
        text = answer.read()
        decoded: Any = text.decode()
        if "json" in answer.headers.get("Content-Type", "") and text:
            decoded = json.loads(text)
        joined = {name: ", ".join(answer.headers.get_all(name, ())) for name in answer.headers}
        return Reply(code=answer.status, headers=joined, body=decoded)

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any) -> Reply:
        return self.call("POST", path, body)

    def put(self, path: str, body: Any) -> Reply:
        return self.call("PUT", path, body)

    def patch(self, path: str, body: Any, media: str = MERGE) -> Reply:
        return self.call("PATCH", path, body, media=media)

    def delete(self, path: str, body: Any = None) -> Reply:
        return self.call("DELETE", path, body)

    def apply(self, path: str, body: Any, *, manager: str = "one", force: bool = False, **query: str) -> Reply:
        """Server-side apply."""
        more = "".join(f"&{name}={quote(value)}" for name, value in query.items())
        return self.patch(f"{path}?fieldManager={manager}&force={str(force).lower()}{more}", body, APPLY)

    @contextmanager
    def watch(self, path: str, **headers: str) -> Iterator["Stream"]:
        """Open a watch; `path` carries its query."""
        connection = self._connect()
        sent = {"Authorization": f"Bearer {self._token}"} | {n.replace("_", "-"): v for n, v in headers.items()}
        try:
            connection.request("GET", path, headers=sent)
            yield Stream(connection.getresponse())
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=DEADLINE_S, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=DEADLINE_S)


class Stream:
    """The events of one watch."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer
        self.code = answer.status

    def next(self) -> dict[str, Any] | None:
        """Return the next event, or None at the end of the stream."""
        line = self._answer.readline()
        event: dict[str, Any] | None = json.loads(line) if line else None
        return event

    def body(self) -> Any:
        """Return the reply of a watch that was refused."""
        return json.loads(self._answer.read())

    def take(self, count: int) -> list[tuple[str, str]]:
        """Return the next events as (type, name)."""
        events = [self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events if event]

    def until_bookmark(self) -> list[dict[str, Any]]:
        """Return the events up to the next bookmark, with it."""
        events = []
        while (event := self.next()) is not None:
            events.append(event)
            if event["type"] == "BOOKMARK":
                break
        return events


def eventually(check: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds."""
    ends_at = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < ends_at, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.02)


def encode64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def fields_of(body: Any, manager: str, *, subresource: str = "", operation: str = "Apply") -> Any:
    """Return the fieldsV1 of one manager's entry, or None."""
    for entry in body["metadata"].get("managedFields", ()):
        if (entry["manager"], entry["operation"], entry.get("subresource", "")) == (manager, operation, subresource):
            return entry["fieldsV1"]
    return None


def managed(body: Any) -> list[dict[str, Any]]:
    """Return managedFields without times, ordered."""
    entries = [{n: v for n, v in e.items() if n != "time"} for e in body["metadata"].get("managedFields", ())]
    return sorted(entries, key=lambda e: (e["manager"], e["operation"], e.get("subresource", "")))
