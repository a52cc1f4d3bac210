"""Probes as Kubernetes has them, and metrics.

`/livez`, `/readyz` and `/healthz` (both) answer 200 or 503; `?verbose` lists the checks, `?exclude=NAME` leaves one out,
and `/readyz/NAME` asks for one alone. Source: Kubernetes, "API health endpoints".
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from fleet.hub.view import Check, Hub
from fleet.log import redact
from fleet.metric import REGISTRY
from fleet.server.answer import COMPRESS_FROM_BYTES, Exit

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Probes:
    """Answers probes: of nobody they ask who he is."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the three probes and their single checks."""
        probes: dict[str, Callable[[], Sequence[Check]]] = {
            "livez": self._live,
            "readyz": self._ready,
            "healthz": lambda: [*self._live(), *self._ready()],
        }
        for name, checks in probes.items():
            router.add_get(f"/{name}", _probe(name, checks))
            router.add_get(f"/{name}/{{check}}", _single(name, checks))

    def _live(self) -> Sequence[Check]:
        live = self._hub.live()
        return [Check(name="ping", ok=live, message="" if live else "the event loop is stuck")]

    def _ready(self) -> Sequence[Check]:
        return self._hub.checks()


def _probe(name: str, checks: Callable[[], Sequence[Check]]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        excluded = {word for value in request.query.getall("exclude", []) for word in value.split(",") if word}
        return report(name, checks(), excluded, verbose="verbose" in request.query)

    return handle


def _single(name: str, checks: Callable[[], Sequence[Check]]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        wanted = request.match_info["check"]
        found = [check for check in checks() if check.name == wanted]
        if not found:
            known = ", ".join(check.name for check in checks())
            return _text(f"there is no check {wanted}; known are {known}\n", 404)
        return report(name, found, frozenset(), verbose="verbose" in request.query)

    return handle


def report(probe: str, checks: Sequence[Check], excluded: Iterable[str], *, verbose: bool) -> web.Response:
    """Answer checks as kube-apiserver does: `ok`, or a line per check when asked or when one fails."""
    out = set(excluded)
    ok = all(check.ok or check.name in out for check in checks)
    if ok and not verbose:
        return _text("ok", 200)
    lines = [_line(check, excluded=check.name in out) for check in checks]
    unknown = sorted(out - {check.name for check in checks})
    lines += [f"warn: some health checks cannot be excluded: no matches for {', '.join(unknown)}"] if unknown else []
    lines.append(f"{probe} check {'passed' if ok else 'failed'}")
    return _text("\n".join(lines) + "\n", 200 if ok else 503)


def _line(check: Check, *, excluded: bool) -> str:
    if excluded:
        return f"[+]{check.name} excluded: ok"
    return f"[+]{check.name} ok" if check.ok else f"[-]{check.name} failed: {check.message}"


def _text(text: str, status: int) -> web.Response:
    return web.Response(text=redact(text), status=status, headers={"X-Content-Type-Options": "nosniff"})


class Admission(Protocol):
    """Lets a scrape in, or raises."""

    async def __call__(self, request: web.Request) -> None: ...


class Metrics:
    """Answers `/metrics` in the format that the scraper prefers, rendered off the loop."""

    def __init__(self, out: Exit, admit: Admission | None = None) -> None:
        self._out = out
        self._admit = admit

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add `/metrics`."""
        router.add_get("/metrics", self._handle)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self._admit is not None:
            await self._admit(request)
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = await self._out.run(encode, REGISTRY)
        response = web.Response(body=body, headers={"Content-Type": content_type})
        if len(body) >= COMPRESS_FROM_BYTES:
            response.enable_compression()
        return response
