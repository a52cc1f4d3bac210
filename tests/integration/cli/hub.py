"""A hub that answers what a test says, over real HTTP on loopback."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from click.testing import CliRunner, Result

from fleet.cli.main import cli
from fleet.hub.view import (
    FieldRow,
    ObjectCounts,
    ObjectRow,
    PauseRow,
    PlannedRow,
    RepositoryRow,
    Status,
    TargetRow,
    WhereRow,
)

OLD, NEW = "a" * 40, "b" * 40
NOW = "2026-01-02T04:00:00Z"
DATE = "Fri, 02 Jan 2026 04:00:00 GMT"


@dataclass(frozen=True)
class Asked:
    """One request as the hub got it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """One response; a `bytes` body goes out as it is."""

    body: Any
    status: int = 200
    kind: str = "application/json"


@dataclass
class FakeHub:
    """Answers by method and path; a list of answers is used up to its last, which stays."""

    url: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def on(self, call: str, *bodies: Any) -> None:
        """Answer `GET status` and the like."""
        self.answers[call] = [body if isinstance(body, Answer) else Answer(body) for body in bodies]

    def on_items(self, call: str, *items: Any) -> None:
        """Answer with a list of one page."""
        self.on(call, {"items": list(items), "continue": ""})

    def refuse(self, call: str, status: int, detail: str, reason: str = "") -> None:
        """Answer with a problem."""
        problem = {"type": "about:blank", "title": "no", "status": status, "detail": detail, "reason": reason}
        self.on(call, Answer(problem, status, "application/problem+json"))

    def calls(self) -> list[str]:
        """Return what was asked, in order."""
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> Result:
        """Run a command against this hub."""
        return run(*arguments, env={"FLEET_SERVER": self.url, **(env or {})})

    def answer(self, asked: Asked) -> Answer:
        """Return the next answer."""
        self.asked.append(asked)
        left = self.answers.get(f"{asked.method} {asked.path}")
        if not left:
            body = {
                "title": "Not Found",
                "status": 404,
                "detail": f"no {asked.path} in this test",
                "reason": "NotFound",
            }
            return Answer(body, 404, "application/problem+json")
        return left.pop(0) if len(left) > 1 else left[0]


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    """Run a command of `fleet`; a token or server of this machine does not reach it."""
    clean = dict.fromkeys(("FLEET_SERVER", "FLEET_TOKEN", "FLEET_TOKEN_FILE", "FLEET_CA", "FLEET_DATA", "NO_COLOR"))
    return CliRunner().invoke(cli, arguments, env={**clean, "FLEET_DATA": "/nonexistent", **(env or {})})


@contextlib.contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve a hub on a free port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size)
            path = unquote(parts.path.removeprefix("/api/v1/"))
            query = dict(parse_qsl(parts.query))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = hub.answer(Asked(self.command, path, query, headers, json.loads(body) if body else None))
            payload = answer.body if isinstance(answer.body, bytes) else msgspec.json.encode(answer.body)
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815

        def date_time_string(self, timestamp: float | None = None) -> str:
            return DATE

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def target(cluster: str = "dev-1", app: str = "shop", **changes: Any) -> TargetRow:
    """Build a target that is as it should be."""
    values: dict[str, Any] = {
        "environment": "dev",
        "state": "Synced",
        "reason": "Current",
        "message": "everything is as Git says",
        "since": "2026-01-02T03:50:00Z",
        "desired_revision": NEW,
        "applied_revision": NEW,
        "release": f"{app}#7",
        "observed_at": "2026-01-02T03:59:55Z",
        "objects": ObjectCounts(total=4, current=4),
        "labels": {"region": "eu"},
    }
    return TargetRow(cluster=cluster, app=app, **{**values, **changes})


def late(cluster: str = "dev-1", app: str = "shop", **changes: Any) -> TargetRow:
    """Build a target that is on its way."""
    values = {"state": "Progressing", "reason": "Applying", "message": "1 of 4 applied", "applied_revision": OLD}
    return target(cluster, app, **{**values, **changes})


def status(**changes: Any) -> Status:
    """Build the status of a healthy hub."""
    repository = RepositoryRow(
        name="shop", url="https://git.example.com/shop", ref="main", revision=NEW, state="Ready", reason="", message="",
        fetched_at=NOW,
    )  # fmt: skip
    values: dict[str, Any] = {
        "version": "0.1.0",
        "hub_id": "c0ffee",
        "started_at": "2026-01-02T02:00:00Z",
        "now": NOW,
        "clusters": {"Ready": 2},
        "targets": {"Synced": 2},
        "repositories": (repository,),
        "problems": (),
        "pauses": (),
    }
    return Status(**{**values, **changes})


def thing(**changes: Any) -> ObjectRow:
    """Build an object that is as it should be."""
    values: dict[str, Any] = {
        "group": "apps",
        "version": "v1",
        "kind": "Deployment",
        "namespace": "shop",
        "name": "web",
        "action": "unchanged",
        "health": "Current",
        "reason": "",
        "message": "",
        "file": "apps/shop/web.yaml",
    }
    return ObjectRow(**{**values, **changes})


def planned(**changes: Any) -> PlannedRow:
    """Build an object that someone scaled."""
    field_row = FieldRow(path="spec.replicas", desired="3", live="5", manager="kubectl-edit")
    values: dict[str, Any] = {
        "group": "apps",
        "version": "v1",
        "kind": "Deployment",
        "namespace": "shop",
        "name": "web",
        "action": "configure",
        "reason": "Drifted",
        "message": "",
        "fields": (field_row,),
    }
    return PlannedRow(**{**values, **changes})


def where(cluster: str = "dev-1", app: str = "shop", **changes: Any) -> WhereRow:
    """Build a row of a commit that runs."""
    values = {"environment": "dev", "runs": "yes", "applied_revision": NEW, "state": "Synced", "message": f"{app}#7"}
    return WhereRow(cluster=cluster, app=app, **{**values, **changes})


def pause(**changes: Any) -> PauseRow:
    """Build a pause of one app."""
    values = {
        "scope": "app shop",
        "cluster": "",
        "app": "shop",
        "environment": "",
        "reason": "incident 12",
        "actor": "alice",
        "since": "2026-01-02T03:00:00Z",
        "until": "",
        "origin": "command",
    }
    return PauseRow(**{**values, **changes})
