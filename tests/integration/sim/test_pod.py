"""The simulated kubelet gets on with a server that fails in every way; the server here is as small as it can be."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from fleet.sim.behaviour import Kind
from fleet.sim.pod import Rules, labelled, run_pods


class Server:
    """Keeps pods, tells watchers, and fails as told: `failures` are the codes of the next writes."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.failures: list[int] = []
        self.writes: list[str] = []
        self.lists = 0
        self.watches = 0
        self.refused_watches: list[int] = []
        self.vanishing: dict[str, str] = {}
        """Pods that are deleted while the reply to a write is on its way, and which write: `bind` or `status`."""
        self._version = 0
        self._streams: list[web.StreamResponse] = []
        self._release = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/v1/pods", self._list)
        app.router.add_route("*", "/api/v1/nodes{rest:.*}", self._accept)
        app.router.add_post("/api/v1/namespaces/{namespace}/events", self._accept)
        app.router.add_post("/api/v1/namespaces/{namespace}/pods/{name}/binding", self._bind)
        app.router.add_patch("/api/v1/namespaces/{namespace}/pods/{name}/status", self._status)
        app.router.add_delete("/api/v1/namespaces/{namespace}/pods/{name}", self._delete)
        return app

    async def put(self, name: str, *, tell: bool = True, **metadata: Any) -> None:
        """Store a pod, whether watchers learn of it or not."""
        meta = {"name": name, "namespace": "web", "uid": f"uid-{name}", "labels": {"app": name}, **metadata}
        self.pods[name] = {
            "metadata": meta,
            "spec": {"containers": [{"name": "main", "image": "shop:1"}]},
            "status": {},
        }
        await self._changed(name, "ADDED", tell=tell)

    async def tell(self, line: bytes) -> None:
        """Send a line to every watcher."""
        for stream in list(self._streams):
            with contextlib.suppress(ConnectionResetError):  # a watcher that left
                await stream.write(line + b"\n")

    def cut(self) -> None:
        """End every watch."""
        self._release.set()
        self._release = asyncio.Event()

    async def _changed(self, name: str, kind: str, *, tell: bool = True) -> None:
        self._version += 1
        self.pods[name]["metadata"]["resourceVersion"] = str(self._version)
        if tell:
            await self.tell(json.dumps({"type": kind, "object": self.pods[name]}).encode())

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            self.lists += 1
            body = {"metadata": {"resourceVersion": str(self._version)}, "items": list(self.pods.values())}
            return web.json_response(body)
        self.watches += 1
        if self.refused_watches:
            return web.Response(status=self.refused_watches.pop(0))
        stream = web.StreamResponse()
        await stream.prepare(request)
        self._streams.append(stream)
        try:
            await self._release.wait()
        finally:
            self._streams.remove(stream)
        return stream

    async def _accept(self, _: web.Request) -> web.Response:
        return web.json_response({})

    def _check(self, request: web.Request, verb: str) -> str:
        name = request.match_info["name"]
        self.writes.append(f"{verb} {name}")
        if self.failures:
            raise FAILURES[self.failures.pop(0)]
        if name not in self.pods:
            raise web.HTTPNotFound
        return name

    async def _bind(self, request: web.Request) -> web.Response:
        name = self._check(request, "bind")
        self.pods[name]["spec"]["nodeName"] = (await request.json())["target"]["name"]
        await self._changed(name, "MODIFIED")
        await self._vanish(name, "bind")
        return web.json_response({}, status=201)

    async def _status(self, request: web.Request) -> web.Response:
        name = self._check(request, "status")
        self.pods[name]["status"] = (await request.json())["status"]
        await self._changed(name, "MODIFIED")
        pod = self.pods[name]
        await self._vanish(name, "status")
        return web.json_response(pod)

    async def _vanish(self, name: str, verb: str) -> None:
        if self.vanishing.get(name) == verb:
            await self._changed(name, "DELETED")
            del self.pods[name]
            await asyncio.sleep(0.1)  # the watch is faster than the reply

    async def _delete(self, request: web.Request) -> web.Response:
        name = self._check(request, "delete")
        await self._changed(name, "DELETED")
        return web.json_response(self.pods.pop(name))


FAILURES = {404: web.HTTPNotFound(), 409: web.HTTPConflict(), 422: web.HTTPUnprocessableEntity(),
            429: web.HTTPTooManyRequests(), 500: web.HTTPInternalServerError()}  # fmt: skip


@asynccontextmanager
async def running(server: Server, rules: Rules | None = None) -> AsyncIterator[None]:
    """Serve, and run pods, until the block ends."""
    runner = web.AppRunner(server.app(), shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    task = asyncio.create_task(run_pods(f"http://127.0.0.1:{port}", rules=rules))
    try:
        await until(lambda: server.watches > 0)
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        server.cut()
        await runner.cleanup()
    assert task.cancelled()


async def until(condition: Any) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def server() -> Server:
    """A server without pods."""
    return Server()


def phase(server: Server, name: str) -> str:
    """Read a pod's phase."""
    return str(server.pods[name]["status"].get("phase", ""))


async def test_one_binding_and_one_status_per_pod(server: Server) -> None:
    """A pod costs two writes: the echo of our own writes starts nothing."""
    async with running(server):
        for name in "abc":
            await server.put(name)
        await until(lambda: all(phase(server, name) == "Running" for name in "abc"))
        await server.put("last")
        await until(lambda: phase(server, "last") == "Running")
    assert sorted(server.writes) == sorted(f"{verb} {name}" for verb in ("bind", "status") for name in (*"abc", "last"))


@pytest.mark.parametrize("code", [429, 500])
async def test_failed_write_is_tried_again(server: Server, code: int) -> None:
    """An overloaded or ill server is asked again."""
    server.failures = [code]
    async with running(server):
        await server.put("a")
        await until(lambda: phase(server, "a") == "Running")
    assert server.writes == ["bind a", "bind a", "status a"]


@pytest.mark.parametrize("verb", ["bind", "status"])
async def test_a_pod_may_go_while_it_is_written(server: Server, verb: str) -> None:
    """A reply that comes behind the deletion brings nothing back, and the other pods go on."""
    server.vanishing = {"a": verb}
    async with running(server):
        await server.put("a")
        await until(lambda: "a" not in server.pods)
        await asyncio.sleep(0.2)
        await server.put("b")
        await until(lambda: phase(server, "b") == "Running")
    assert server.writes == ["bind a", *(["status a"] if verb == "status" else []), "bind b", "status b"]


@pytest.mark.parametrize("code", [404, 409, 422])
async def test_refused_write_is_not_repeated(server: Server, code: int, caplog: pytest.LogCaptureFixture) -> None:
    """What the server refuses for good is left until the pod changes; only what is our fault is logged."""
    server.failures = [code]
    with caplog.at_level(logging.WARNING, "fleet.sim.pod"):
        async with running(server):
            await server.put("a")
            await until(lambda: server.writes)
            await server.put("b")
            await until(lambda: phase(server, "b") == "Running")
    assert server.writes == ["bind a", "bind b", "status b"]
    assert len(caplog.records) == (1 if code == 422 else 0)


async def test_ended_watch_goes_on_without_a_list(server: Server) -> None:
    """A watch that ends is taken up where it was."""
    async with running(server):
        server.cut()
        await until(lambda: server.watches == 2)
        await server.put("a")
        await until(lambda: phase(server, "a") == "Running")
    assert server.lists == 1


async def test_expired_watch_lists_again(server: Server) -> None:
    """After 410, as an event or as an answer, pods that came and went unseen are found by a list."""
    async with running(server):
        await server.put("gone")
        await until(lambda: phase(server, "gone") == "Running")
        await server.put("unseen", tell=False)
        del server.pods["gone"]
        await server.tell(b'{"type":"ERROR","object":{"code":410}}')
        await until(lambda: phase(server, "unseen") == "Running")
        server.refused_watches = [410]
        server.cut()
        await until(lambda: server.lists == 3)


@pytest.mark.parametrize("line", [b"{ half", b'{"type":"ERROR","object":{"code":500}}'])
async def test_broken_stream_is_left(server: Server, line: bytes) -> None:
    """A stream that makes no sense is given up for a new one."""
    async with running(server):
        await until(lambda: server._streams)
        await server.tell(line)
        await until(lambda: server.watches == 2)


async def test_refused_watch_is_tried_again(server: Server) -> None:
    """A server that refuses to be watched is asked again."""
    server.refused_watches = [503]
    async with running(server):
        await until(lambda: server.watches == 2)


async def test_deleted_pod_is_let_go(server: Server) -> None:
    """A terminating pod is removed; nothing else happens to it."""
    async with running(server):
        await server.put("a", deletionTimestamp="2026-01-01T00:00:00Z", deletionGracePeriodSeconds=30)
        await until(lambda: not server.pods)
    assert server.writes == ["delete a"]


async def test_rules_change_running_pods(server: Server) -> None:
    """A rule reaches pods that matched before it was made; the last one made wins, and taking it back undoes it."""
    rules = Rules()
    async with running(server, rules):
        await server.put("a")
        await server.put("b")
        await until(lambda: phase(server, "a") == phase(server, "b") == "Running")
        rules.add(labelled(app="a"), Kind.CRASH)
        take_back = rules.add(labelled(app="a"), Kind.IMAGE)
        await until(lambda: phase(server, "a") == "Pending")
        take_back()
        await until(lambda: server.pods["a"]["status"]["containerStatuses"][0]["restartCount"] == 3)
        assert server.writes.count("status b") == 1
