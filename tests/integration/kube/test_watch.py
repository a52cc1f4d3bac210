"""A list+watch through everything that happens to one, in virtual time."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from fleet.aio import spawn
from fleet.errors import Forbidden, KubeError, NotFound, ServerFailure, Unauthorized, Unreachable
from fleet.kube import watch as watch_module
from fleet.kube.discovery import Resource
from fleet.kube.watch import Left, Restarted, Resumed, Scope, Seen, Stalled, Synced, run_watch
from fleet.object import GroupKind, Gvk
from fleet.sim.access import Denial
from fleet.sim.cluster import SimCluster
from fleet.sim.network import MemoryNetwork
from tests.integration.kube.conftest import HOST, PORT, Connection, Handler, Log, config_map, open_client

CONFIG_MAP = GroupKind("", "ConfigMap")
HERE = Scope(namespace="default", field_selector="metadata.name!=kube-root-ca.crt")
Serve = Callable[[Handler], None]


def synced(events: list[Any]) -> bool:
    """The fresh list is complete."""
    return any(isinstance(e, Synced) for e in events)


async def test_quiet_watches_live_for_hours(cluster: SimCluster, connection: Connection) -> None:
    """A kind on which nothing happens is listed once, however often the server ends the watch."""
    async with connection.watching(CONFIG_MAP, HERE) as log:
        await log.until(synced)
        await asyncio.sleep(6 * 3600)
        cluster.create(config_map("late"))
        await log.until(lambda _: log.names(Seen) == ["late"])
    assert (log.count(Restarted), log.count(Synced), log.count(Stalled)) == (1, 1, 0)
    assert cluster.count("list") == 0
    assert 45 <= cluster.count("watch") <= 92


async def test_cut_in_the_middle_of_a_line(cluster: SimCluster, connection: Connection) -> None:
    """A stream cut inside an event is resumed; the half event is dropped, no event is lost or told twice."""
    async with connection.watching(CONFIG_MAP, HERE) as log:
        await log.until(synced)
        for n in range(5):
            cluster.create(config_map(f"cm-{n}"))
            await log.until(lambda _, n=n: f"cm-{n}" in log.names(Seen))  # type: ignore[misc]
            cluster.cut_watches()
            cluster.create(config_map(f"after-{n}"))
            await log.until(lambda _, n=n: f"after-{n}" in log.names(Seen))  # type: ignore[misc]
    assert sorted(log.names(Seen)) == sorted([f"{name}-{n}" for n in range(5) for name in ("cm", "after")])
    assert log.count(Restarted) == 1


async def test_silence_is_noticed(network: MemoryNetwork, cluster: SimCluster, connection: Connection) -> None:
    """A half-open connection is told as Stalled within 75 s of silence; what happened meanwhile follows."""
    async with connection.watching(CONFIG_MAP, HERE) as log:
        await log.until(synced)
        network.conditions(HOST, PORT).stall_replies = True
        began = asyncio.get_running_loop().time()
        await log.until(lambda _: log.count(Stalled))
        assert asyncio.get_running_loop().time() - began <= 75
        cluster.create(config_map("missed"))
        await asyncio.sleep(600)
        network.conditions(HOST, PORT).stall_replies = False
        network.cut(HOST, PORT)
        await log.until(lambda _: log.names(Seen) == ["missed"])
    assert log.count(Resumed) == 1
    assert log.count(Restarted) == 1


async def test_dead_server_comes_back(cluster: SimCluster, connection: Connection) -> None:
    """An outage of hours costs few attempts; deletions during it are told afterwards."""
    cluster.create(config_map("a"))
    async with connection.watching(CONFIG_MAP, HERE) as log:
        await log.until(synced)
        cluster.die()
        await log.until(lambda _: log.count(Stalled))
        cluster.delete("v1", "ConfigMap", "default", "a")
        await asyncio.sleep(3600)
        await cluster.revive()
        await log.until(lambda _: log.names(Left) == ["a"], timeout_s=60)
    stalled = next(e for e in log.events if isinstance(e, Stalled))
    assert isinstance(stalled.error, Unreachable)
    assert log.count(Stalled) < 200


async def test_a_server_found_alive_wakes_all_watches(cluster: SimCluster, connection: Connection) -> None:
    """After a long outage the first answer on any connection ends everybody's pause."""
    async with connection.watching(CONFIG_MAP, HERE) as log:
        await log.until(synced)
        cluster.die()
        await asyncio.sleep(3600)
        await cluster.revive()
        await connection.api.server_version()
        await log.until(lambda _: log.count(Resumed), timeout_s=2)


async def test_expired_position_lists_again(cluster: SimCluster, connection: Connection) -> None:
    """After a 410 a fresh list shows by absence what was deleted meanwhile."""
    for name in ("stays", "goes"):
        cluster.create(config_map(name))
    async with connection.watching(CONFIG_MAP, HERE) as log:
        await log.until(synced)
        cluster.die()
        cluster.delete("v1", "ConfigMap", "default", "goes")
        cluster.compact()
        await cluster.revive()
        await log.until(lambda _: log.count(Synced) == 2)
    restarted = max(i for i, e in enumerate(log.events) if isinstance(e, Restarted))
    again = Log(log.events[restarted:])
    assert again.names(Seen) == ["stays"]
    assert log.names(Left) == []


async def test_restored_backup_is_noticed(cluster: SimCluster, connection: Connection) -> None:
    """A server whose history was rewound would accept the watch and stay silent: it is listed again."""
    cluster.create(config_map("old"))
    backup = cluster.backup()
    async with connection.watching(CONFIG_MAP, HERE) as log:
        await log.until(synced)
        for n in range(20):
            cluster.create(config_map(f"lost-{n}"))
        await log.until(lambda _: len(log.names(Seen)) == 21)
        cluster.die()
        cluster.restore(backup)
        await cluster.revive()
        await log.until(lambda _: log.count(Synced) == 2)
    restarted = max(i for i, e in enumerate(log.events) if isinstance(e, Restarted))
    assert Log(log.events[restarted:]).names(Seen) == ["old"]


async def test_no_streaming_lists(cluster: SimCluster, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refuses streaming lists is paged; a 410 between pages starts again."""
    monkeypatch.setattr(watch_module, "PAGE", 2)
    for n in range(5):
        cluster.create(config_map(f"cm-{n}"))
    cluster.faults.fail(400, verb="watch", path="sendInitialEvents")
    cluster.faults.fail(410, verb="list", path="continue=", times=1)
    async with connection.watching(CONFIG_MAP, HERE) as log:
        await log.until(synced)
        restarted = max(i for i, e in enumerate(log.events) if isinstance(e, Restarted))
        assert Log(log.events[restarted:]).names(Seen) == [f"cm-{n}" for n in range(5)]
        assert log.count(Restarted) == 2
        cluster.create(config_map("late"))
        await log.until(lambda _: "late" in log.names(Seen))


async def test_one_broken_kind_does_not_spin(cluster: SimCluster, connection: Connection) -> None:
    """A kind that keeps failing is tried ever more rarely, although the server is fine otherwise."""
    cluster.faults.fail(500, path="/configmaps")
    async with connection.watching(CONFIG_MAP, HERE) as log, asyncio.TaskGroup() as group:
        chatter = spawn(group, "chatter", _ask_often(connection))
        await asyncio.sleep(600)
        chatter.cancel()
    assert 10 < cluster.count("watch") < 600
    assert all(isinstance(e, Stalled) for e in log.events)


async def test_a_watch_waits_as_long_as_the_server_asks(cluster: SimCluster, connection: Connection) -> None:
    """After a 429 with Retry-After a watch comes back when it may, and not before."""
    cluster.faults.fail(429, verb="watch", times=1, retry_after_s=20)
    began = asyncio.get_running_loop().time()
    async with connection.watching(CONFIG_MAP, HERE) as log:
        await log.until(synced)
    assert 16 <= asyncio.get_running_loop().time() - began <= 25
    assert cluster.count("watch") == 2


async def _ask_often(connection: Connection) -> None:
    while True:
        await connection.api.server_version()
        await asyncio.sleep(0.1)


async def test_refusals_end_the_watch(cluster: SimCluster, connection: Connection) -> None:
    """What trying again would not change is raised: no rights, no such kind, no credentials."""
    resource = connection.discovery.resource(CONFIG_MAP)
    assert resource is not None
    unknown = Resource(gvk=Gvk("example.com", "v1", "Widget"), plural="widgets", namespaced=True)
    clock = connection.client.clock
    with pytest.raises(NotFound) as missing:
        await run_watch(connection.client, unknown, Scope(), lambda _: None, clock=clock)
    assert missing.value.what == "kind"
    cluster.access.denials.append(Denial(resource="configmaps"))
    with pytest.raises(Forbidden):
        await run_watch(connection.client, resource, Scope(), lambda _: None, clock=clock)
    cluster.access.tokens.clear()
    with pytest.raises(Unauthorized):
        await run_watch(connection.client, resource, Scope(), lambda _: None, clock=clock)


async def test_rights_lost_meanwhile_show_at_the_next_connection(cluster: SimCluster, connection: Connection) -> None:
    """Watches are authorised when they start; the refusal comes with the next one, and ends it."""
    resource = connection.discovery.resource(CONFIG_MAP)
    assert resource is not None
    log = Log()
    ended: list[KubeError] = []

    async def watch() -> None:
        try:
            await run_watch(connection.client, resource, HERE, log.append, clock=connection.client.clock)
        except KubeError as error:
            ended.append(error)

    async with asyncio.TaskGroup() as group:
        spawn(group, "watch", watch())
        await log.until(synced)
        cluster.access.denials.append(Denial(verb="watch", resource="configmaps"))
        cluster.create(config_map("still"))
        await log.until(lambda _: log.names(Seen) == ["still"])
    assert [type(error) for error in ended] == [Forbidden]


RESOURCE = Resource(gvk=Gvk("", "v1", "ConfigMap"), plural="configmaps", namespaced=True)


def line(kind: str, name: str, rv: int, **more: Any) -> bytes:
    """Write one line of a watch."""
    metadata = {"name": name, "namespace": "default", "resourceVersion": str(rv), **more}
    return json.dumps({"type": kind, "object": {"kind": "ConfigMap", "metadata": metadata}}).encode() + b"\n"


def end_of_list(rv: int) -> bytes:
    """Write the bookmark that completes a streaming list."""
    return line("BOOKMARK", "", rv, annotations={"k8s.io/initial-events-end": "true"})


@pytest.mark.parametrize(
    "poison",
    [
        b"<html>gateway</html>\n",
        b'{"type":"ADDED","object":{"metadata":{"name":7}}}\n',
        b'{"type":"SURPRISE","object":{}}\n',
        b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"boom"}}\n',
        b"\xff\xfe\n",
        b"{}\n",
    ],
)
async def test_poisoned_streams_are_left(network: MemoryNetwork, serve: Serve, poison: bytes) -> None:
    """Garbage in a stream ends that connection; the next one resumes from the last good event."""
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if "limit" in request.query:
            return web.json_response({"metadata": {"resourceVersion": "9"}, "items": []})
        asked.append(request.query.get("resourceVersion", ""))
        response = web.StreamResponse()
        await response.prepare(request)
        if len(asked) == 1:
            await response.write(end_of_list(5) + line("ADDED", "good", 6) + poison)
        else:
            await response.write(line("ADDED", "next", 7))
        await asyncio.sleep(3600)
        return response

    serve(handle)
    log = Log()
    async with open_client(network) as client, asyncio.TaskGroup() as group:
        task = spawn(group, "watch", run_watch(client, RESOURCE, Scope(), log.append, clock=client.clock))
        await log.until(lambda _: log.names(Seen) == ["good", "next"])
        task.cancel()
    assert asked == ["", "6"]
    stalled = next(e for e in log.events if isinstance(e, Stalled))
    assert isinstance(stalled.error, ServerFailure)


async def test_an_empty_answer_is_no_empty_list(network: MemoryNetwork, serve: Serve) -> None:
    """A proxy that answers `200 {}` does not make every object disappear."""

    async def handle(request: web.BaseRequest) -> web.Response:
        return web.Response(status=400) if "watch" in request.query else web.json_response({})

    serve(handle)
    log = Log()
    async with open_client(network) as client, asyncio.TaskGroup() as group:
        task = spawn(group, "watch", run_watch(client, RESOURCE, Scope(), log.append, clock=client.clock))
        await log.until(lambda _: log.count(Stalled) > 2)
        task.cancel()
    assert log.count(Synced) == 0


async def test_streaming_list_that_never_completes(network: MemoryNetwork, serve: Serve) -> None:
    """A server that accepts a streaming list and says nothing is paged after ten seconds."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if "watch" not in request.query:
            item = {"metadata": {"name": "paged", "resourceVersion": "3"}}
            return web.json_response({"metadata": {"resourceVersion": "5"}, "items": [item]})
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.sleep(3600)
        return response

    serve(handle)
    log = Log()
    async with open_client(network) as client, asyncio.TaskGroup() as group:
        task = spawn(group, "watch", run_watch(client, RESOURCE, Scope(), log.append, clock=client.clock))
        await log.until(synced, timeout_s=15)
        task.cancel()
    assert log.names(Seen) == ["paged"]


async def test_server_that_closes_stale_watches_silently(network: MemoryNetwork, serve: Serve) -> None:
    """Some servers end a watch at a stale position at once, without a 410: after three times it is listed again."""
    lists = 0

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal lists
        response = web.StreamResponse()
        await response.prepare(request)
        if "sendInitialEvents" in request.query:
            lists += 1
            await response.write(line("ADDED", f"list-{lists}", lists) + end_of_list(100 * lists))
            if lists == 2:
                await asyncio.sleep(3600)
        return response

    serve(handle)
    log = Log()
    async with open_client(network) as client, asyncio.TaskGroup() as group:
        task = spawn(group, "watch", run_watch(client, RESOURCE, Scope(), log.append, clock=client.clock))
        await log.until(lambda _: log.names(Seen) == ["list-1", "list-2"], timeout_s=30)
        task.cancel()


async def test_a_server_that_ends_every_watch_at_once_is_not_hammered(network: MemoryNetwork, serve: Serve) -> None:
    """A stream that shows something and ends, again and again, costs about one connection per second."""
    opened = 0

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal opened
        opened += 1
        response = web.StreamResponse()
        await response.prepare(request)
        if "sendInitialEvents" in request.query:
            await response.write(end_of_list(5))
        await response.write(line("BOOKMARK", "", 5 + opened))
        return response

    serve(handle)
    log = Log()
    async with open_client(network) as client, asyncio.TaskGroup() as group:
        task = spawn(group, "watch", run_watch(client, RESOURCE, Scope(), log.append, clock=client.clock))
        await asyncio.sleep(100)
        task.cancel()
    assert 50 <= opened <= 150
    assert (log.count(Restarted), log.count(Stalled)) == (1, 0)


@pytest.mark.parametrize("chunk_bytes", [0, 7, 1000])
async def test_any_chunks(
    network: MemoryNetwork, cluster: SimCluster, connection: Connection, chunk_bytes: int
) -> None:
    """However the network cuts the stream, every object arrives, megabytes included."""
    network.conditions(HOST, PORT).chunk_bytes = chunk_bytes
    big = config_map("big", blob="x" * (900_000 if chunk_bytes != 7 else 5_000))
    async with connection.watching(CONFIG_MAP, Scope(namespace="default", whole=True)) as log:
        await log.until(synced)
        for n in range(20):
            cluster.create(config_map(f"cm-{n}"))
        cluster.create(big)
        await log.until(lambda _: "big" in log.names(Seen))
    assert [name for name in log.names(Seen) if name.startswith("cm-")] == [f"cm-{n}" for n in range(20)]
    body = next(e.observed.body for e in log.events if isinstance(e, Seen) and e.observed.key.name == "big")
    assert json.loads(body or b"")["data"] == big["data"]
