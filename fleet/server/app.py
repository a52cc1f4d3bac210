"""The HTTP server: wiring, and what holds for every request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from fleet.errors import RequestError
from fleet.hub.view import Hub
from fleet.metric import counter, histogram
from fleet.server.address import Address, HostRule
from fleet.server.answer import Exit, error_of, problem
from fleet.server.api import Api
from fleet.server.health import Admission, Metrics, Probes
from fleet.server.identity import Gate
from fleet.server.intake import MOST_BODY_BYTES
from fleet.server.listener import Listeners, listen
from fleet.server.nearest import suggest
from fleet.server.openapi import DOCUMENT_PATH, document
from fleet.server.page import StatusPage
from fleet.server.sealing import PublicKeys
from fleet.server.stream import Streams
from fleet.settings import Settings
from fleet.store.token import Role

log = structlog.get_logger()

FINISH_S = 5.0
"""How long requests under way may take to end when the hub stops."""
IDLE_S = 75.0
"""How long a connection may be silent, also before its first request is whole."""
PROBE_PATHS = ("/livez", "/readyz", "/healthz")

REQUESTS = counter("fleet_http_requests_total", "Requests answered, by route.", "method", "route", "code")
SECONDS = histogram("fleet_http_request_seconds", "Time to answer, by route.", "method", "route")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Server": "fleet",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Where the server listens, with real ports."""

    main: Address
    probe: Address | None
    url: str
    """Base URL of the main listener as seen from this machine."""


@contextlib.asynccontextmanager
async def running(hub: Hub, settings: Settings) -> AsyncIterator[Bound]:
    """Serve the hub for the length of the block; at its end requests under way finish, and streams say goodbye.

    Raises: SettingsError before anything listens.
    """
    listeners = Listeners.from_settings(settings)
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="server")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(executor.shutdown)
        out, streams = Exit(executor), Streams(hub)
        main = await _start(stack, make_app(hub, settings, listeners, out, streams))
        bound = await listen(main, "--listen", listeners.main, listeners.tls)
        probe = await _start_probes(stack, hub, out, listeners.probe)
        scheme = "https" if listeners.tls else "http"
        url = f"{scheme}://{bound.reachable_host}:{bound.port}"
        log.info("listening", url=url, probes=f"{probe.host}:{probe.port}" if probe else "")
        try:
            yield Bound(main=bound, probe=probe, url=url)
        finally:
            streams.stop()


async def _start(stack: contextlib.AsyncExitStack, app: web.Application) -> web.AppRunner:
    runner = web.AppRunner(
        app, handle_signals=False, access_log=None, shutdown_timeout=FINISH_S, keepalive_timeout=IDLE_S
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


async def _start_probes(
    stack: contextlib.AsyncExitStack, hub: Hub, out: Exit, address: Address | None
) -> Address | None:
    """Listen for probes and scrapes only: they tell no secret, and kubelets and Prometheus come as they are."""
    if address is None:
        return None
    app = web.Application(middlewares=[answered])
    Probes(hub).add_routes(app.router)
    Metrics(out).add_routes(app.router)
    return await listen(await _start(stack, app), "--probe-listen", address, None)


def make_app(hub: Hub, settings: Settings, listeners: Listeners, out: Exit, streams: Streams) -> web.Application:
    """Put the main listener's application together."""
    gate = Gate(hub, reading_is_free=listeners.main.is_loopback)
    rule = HostRule.make(listeners.main, settings.allowed_hosts.split(","))
    app = web.Application(middlewares=[answered, hosts(rule)], client_max_size=MOST_BODY_BYTES)

    async def admit_reader(request: web.Request) -> None:
        await gate.admit(request, Role.VIEWER)

    Probes(hub).add_routes(app.router)
    Metrics(out, admit_reader).add_routes(app.router)
    Api(hub, gate, out, streams).add_routes(app.router)
    PublicKeys(hub, gate, anonymous=settings.anonymous_seal_keys).add_routes(app.router)
    StatusPage(hub, gate, out).add_routes(app.router)
    app.router.add_get(DOCUMENT_PATH, _describe(out, admit_reader))
    return app


def _describe(out: Exit, admit: Admission) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        await admit(request)
        return await out.json(document())

    return handle


@web.middleware
async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into an answer, count the request, set what every answer carries."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "unknown"
    try:
        response = await handler(request)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
        told = (
            _nothing_at(request)
            if isinstance(error, web.HTTPNotFound)
            else error_of(error, f"{request.method} {route}")
        )
        response = problem(told, _kept_headers(error))
    method = request.method if request.method in ("GET", "HEAD", "POST", "DELETE") else "other"
    REQUESTS.labels(method, route, str(response.status)).inc()
    SECONDS.labels(method, route).observe(loop.time() - started)
    if not response.prepared:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
    return response


def _nothing_at(request: web.Request) -> RequestError:
    known = {resource.canonical for resource in request.app.router.resources()}
    return RequestError(
        f"there is nothing at {request.path}{suggest(request.path, known)}", status=404, reason="NotFound"
    )


def _kept_headers(error: Exception) -> dict[str, str]:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return {"Allow": error.headers["Allow"]}
    return {}


def hosts(rule: HostRule) -> Middleware:
    """Make the middleware that answers only to names the hub is meant to have; probes come with any name."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Host", "")
        if not rule.allows(given) and not request.path.startswith(PROBE_PATHS):
            raise RequestError(
                f"this hub does not answer to the Host {given!r}; if it should, add it to --allowed-hosts",
                status=421,
                reason="HostNotAllowed",
            )
        return await handler(request)

    return check
