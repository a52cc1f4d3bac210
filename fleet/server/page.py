"""The status page: rendered here, kept current by a script that asks for it again; works without the script too."""

import base64
import functools
import hashlib
from importlib import resources

from aiohttp import web

from fleet.errors import RequestError
from fleet.hub.view import Hub
from fleet.log import redact
from fleet.server import panel, pipeline
from fleet.server.answer import CHALLENGE, COMPRESS_FROM_BYTES, Exit
from fleet.server.identity import Gate
from fleet.server.intake import read_query
from fleet.server.listing import Scope
from fleet.server.markup import Html, join, tag
from fleet.server.model import PageFilter
from fleet.server.panel import Snapshot
from fleet.store.token import Role

EVENTS = 40


class StatusPage:
    """Serves the page at `/`."""

    def __init__(self, hub: Hub, gate: Gate, out: Exit) -> None:
        self._hub = hub
        self._gate = gate
        self._out = out

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add `/`."""
        router.add_get("/", self._handle)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            await self._gate.admit(request, Role.VIEWER)
            query = read_query(request, PageFilter)
            snapshot = await self._take(query)
        except RequestError as error:
            return _answer(frame(_refusal(error)), error.status)
        return _answer(await self._out.run(render, snapshot, query), 200)

    async def _take(self, query: PageFilter) -> Snapshot:
        scope = Scope.parse(query)
        targets = [row for row in self._hub.targets() if scope.matches(row)]
        reached = {row.cluster for row in targets}
        narrowed = bool(scope.apps or scope.is_of_targets)
        status, apps = self._hub.status(), {row.app for row in targets}
        running = [row.app for row in status.rollouts if not narrowed or row.app in apps]
        shown = [await self._hub.rollouts.show(app, history=False) for app in running[: pipeline.MOST_ROLLOUTS]]
        return Snapshot(
            status=status,
            rollouts=[detail for detail in shown if detail is not None],
            more_rollouts=len(running) - pipeline.MOST_ROLLOUTS,
            clusters=[row for row in self._hub.clusters() if not narrowed or row.name in reached],
            targets=targets,
            events=await self._hub.events(limit=EVENTS),
        )


def render(snapshot: Snapshot, query: PageFilter) -> str:
    """Render a snapshot. Every credential in it is masked."""
    status, now = snapshot.status, snapshot.now
    parts = [
        panel.tiles(snapshot),
        panel.problems(status.problems),
        panel.pauses(status.pauses, now),
        panel.holds(status.holds, now),
        _filter(query),
        pipeline.rollouts(snapshot.rollouts, snapshot.more_rollouts, now),
        panel.attention(snapshot),
        panel.matrix(snapshot),
        panel.clusters(snapshot),
        panel.repositories(status.repositories, now),
        panel.events(snapshot.events, now),
    ]
    facts = f"version {status.version} · hub {status.hub_id[:8]} · as of {status.now}"
    return frame(Html(redact(join(parts))), facts, status.now)


def _filter(query: PageFilter) -> Html:
    fields = [
        tag("label", name, tag("input", name=name, value=getattr(query, name))) for name in query.__struct_fields__
    ]
    return tag("section", tag("form", *fields, tag("button", "Filter"), tag("a", "all", href="/", class_="faint")))


def _refusal(error: RequestError) -> Html:
    """Say why there is nothing to see; without a good token, ask for one, which stays in this browser tab."""
    parts = [tag("h2", error.reason), tag("p", error.message)]
    if error.status == 401:
        field = tag("input", name="token", type="password", autocomplete="off", required="")
        parts.append(tag("form", tag("label", "token", field), tag("button", "Sign in"), id="sign-in"))
    return tag("section", *parts, class_="alert")


def frame(main: Html, facts: str = "", now: str = "") -> str:
    """Put a page around its content."""
    style, script = _asset("page.css"), _asset("page.js")
    head = join([
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<noscript><meta http-equiv="refresh" content="20"></noscript>'),
        tag("title", "fleet"),
        tag("style", style),
    ])  # fmt: skip
    bar = tag(
        "header",
        tag("h1", "fleet"),
        tag("span", "", id="link", role="status"),
        tag("span", facts, class_="faint"),
    )
    body = tag("body", bar, tag("main", main, data_now=now or None), tag("script", script))
    return f"<!doctype html>\n{tag('html', tag('head', head), body, lang='en')}\n"


@functools.cache
def _asset(name: str) -> Html:
    return Html((resources.files("fleet.server") / "asset" / name).read_text())


@functools.cache
def content_security_policy() -> str:
    """Allow this page's own style and script by their hashes, requests to the hub, and nothing else."""
    style, script = (
        f"'sha256-{base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode()}'"
        for name in ("page.css", "page.js")
    )
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'"
    )


def _answer(text: str, status: int) -> web.Response:
    response = web.Response(text=text, status=status, content_type="text/html")
    response.headers["Content-Security-Policy"] = content_security_policy()
    response.headers.update(CHALLENGE if status == 401 else {})
    if len(text) >= COMPRESS_FROM_BYTES:
        response.enable_compression()
    return response
