"""List and watch on a real API server, through everything that happens to one."""

import asyncio
import json

import pytest

from fleet.aio import spawn
from fleet.errors import Forbidden, Invalid, Unreachable
from fleet.kube import watch as watch_module
from fleet.kube.credential import Impersonation
from fleet.kube.gate import Priority
from fleet.kube.resume import Phase, State
from fleet.kube.watch import Left, Restarted, Resumed, Scope, Seen, Stalled, Synced
from fleet.object import GroupKind
from fleet.sim.real import ControlPlane
from tests.cluster.connection import Log, admin_credential, config_map, connect, manifest

USER = Priority.USER
CONFIG_MAP = GroupKind("", "ConfigMap")


async def test_list_then_changes(plane: ControlPlane, namespace: str) -> None:
    """What exists comes between Restarted and Synced; what happens afterwards follows, without payloads."""
    async with connect(plane) as c:
        await c.api.apply(manifest(config_map(namespace, "old", {"k": "v"}, app="a")), priority=USER)
        await c.api.apply(manifest(config_map(namespace, "other", {"k": "v"}, app="b")), priority=USER)
        async with c.watching(CONFIG_MAP, Scope(namespace=namespace, label_selector="app=a")) as log:
            await log.until(lambda events: any(isinstance(e, Synced) for e in events))
            assert isinstance(log.events[0], Restarted)
            assert isinstance(log.events[-1], Synced)
            assert log.events[-1].rv > 0
            assert log.names(Seen) == ["old"]
            await c.api.apply(manifest(config_map(namespace, "new", {"k": "v"}, app="a")), priority=USER)
            await log.until(lambda _: log.names(Seen) == ["old", "new"])
            await plane.kubectl("-n", namespace, "label", "configmap", "old", "app-")
            await log.until(lambda _: log.names(Left) == ["old"])
            await plane.kubectl("-n", namespace, "delete", "configmap", "new")
            await log.until(lambda _: log.names(Left) == ["old", "new"])
        seen = [e.observed for e in log.events if isinstance(e, Seen)]
        assert all(o.body is None and o.managed for o in seen)
        left = [e.observed for e in log.events if isinstance(e, Left)]
        assert left[0].labels == {"app": "a"}
        assert left[0].rv > seen[0].rv


async def test_whole_objects(plane: ControlPlane, namespace: str) -> None:
    """A whole watch carries bodies that say their kind, from the list on."""
    async with connect(plane) as c:
        await c.api.apply(manifest(config_map(namespace, "a", {"k": "v"})), priority=USER)
        async with c.watching(
            CONFIG_MAP, Scope(namespace=namespace, field_selector="metadata.name=a", whole=True)
        ) as log:
            await log.until(lambda events: any(isinstance(e, Synced) for e in events))
        seen = next(e.observed for e in log.events if isinstance(e, Seen))
        body = json.loads(seen.body or b"")
        assert (body["apiVersion"], body["kind"], body["data"]) == ("v1", "ConfigMap", {"k": "v"})


async def test_paged_list_where_streaming_is_refused(
    plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without streaming lists everything is found by pages, and the watch goes on from there."""
    monkeypatch.setattr(watch_module, "PAGE", 2)
    monkeypatch.setattr(watch_module, "STREAMING_LIST", {"sendInitialEvents": "true", "resourceVersionMatch": "Exact"})
    async with connect(plane) as c:
        names = [f"cm-{n}" for n in range(5)]
        for name in names:
            await c.api.apply(manifest(config_map(namespace, name, {}, page="1")), priority=USER)
        async with c.watching(CONFIG_MAP, Scope(namespace=namespace, label_selector="page=1", whole=True)) as log:
            await log.until(lambda events: any(isinstance(e, Synced) for e in events))
            assert log.names(Seen) == names
            await c.api.apply(manifest(config_map(namespace, "late", {}, page="1")), priority=USER)
            await log.until(lambda _: "late" in log.names(Seen))
        body = json.loads(next(e.observed.body for e in log.events if isinstance(e, Seen)) or b"")
        assert body["kind"] == "ConfigMap"


async def test_restart_of_the_server_is_survived(plane: ControlPlane, namespace: str) -> None:
    """A killed and restarted API server is told as Stalled and Resumed, and nothing is missed or told as gone.

    Where other objects were written meanwhile its history begins after our position, which costs one fresh list.
    """
    async with connect(plane) as c:
        await c.api.apply(manifest(config_map(namespace, "a", {})), priority=USER)
        async with c.watching(CONFIG_MAP, Scope(namespace=namespace)) as log:
            await log.until(lambda events: any(isinstance(e, Synced) for e in events))
            await plane.stop(grace_s=0)
            await log.until(lambda events: any(isinstance(e, Stalled) for e in events))
            await plane.start()
            await plane.kubectl("-n", namespace, "create", "configmap", "b")
            await log.until(lambda _: "b" in log.names(Seen))
        assert any(isinstance(e, Resumed) for e in log.events)
        assert sum(isinstance(e, Restarted) for e in log.events) <= 2
        assert not log.names(Left)
        stalled = next(e for e in log.events if isinstance(e, Stalled))
        assert isinstance(stalled.error, Unreachable)


async def test_frozen_server_is_noticed(plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that holds its connections and says nothing is told as Stalled; thawed, it is resumed."""
    monkeypatch.setattr(watch_module, "SILENCE_S", 2.0)
    monkeypatch.setattr(watch_module, "OPEN_S", 2.0)
    async with connect(plane) as c:
        async with c.watching(CONFIG_MAP, Scope(namespace=namespace)) as log:
            await log.until(lambda events: any(isinstance(e, Synced) for e in events))
            await plane.pause()
            try:
                await log.until(lambda events: any(isinstance(e, Stalled) for e in events))
            finally:
                await plane.resume()
            await log.until(lambda events: any(isinstance(e, Resumed) for e in events))
            await plane.kubectl("-n", namespace, "create", "configmap", "late")
            await log.until(lambda _: "late" in log.names(Seen))
        stalled = next(e for e in log.events if isinstance(e, Stalled))
        assert stalled.error.reason == "Timeout"


async def test_expired_position_lists_again(plane: ControlPlane, namespace: str) -> None:
    """After a 410 everything is listed again: deletions that happened meanwhile show by absence."""
    await plane.kubectl("-n", namespace, "create", "configmap", "here")
    await plane.stop(grace_s=0)  # a new server remembers no changes from before its start
    await plane.start()
    async with connect(plane) as c:
        resource = c.discovery.resource(CONFIG_MAP)
        assert resource is not None
        log = Log()
        watch = watch_module._Watch(c.client, resource, Scope(namespace=namespace), log.append, c.client.clock)
        watch._state = State(phase=Phase.WATCHING, rv="1", heard=True)
        await watch.connect_once()
        assert watch._state.phase is Phase.LISTING
        async with asyncio.TaskGroup() as group:
            listing = spawn(group, "watch", watch.connect_once())
            await log.until(lambda events: any(isinstance(e, Synced) for e in events))
            listing.cancel()
        assert isinstance(log.events[0], Restarted)
        assert "here" in log.names(Seen)


async def test_refusals_are_raised(plane: ControlPlane, namespace: str) -> None:
    """A kind we may not list, or a selector the server does not know, ends the watch with a typed error."""
    credential = await admin_credential(plane, impersonate=Impersonation(user="nobody"))
    async with connect(plane, credential) as c:
        resource = c.discovery.resource(CONFIG_MAP)
        assert resource is not None
        with pytest.raises(Forbidden):
            await watch_module.run_watch(c.client, resource, Scope(), lambda _: None, clock=c.client.clock)
    async with connect(plane) as c:
        scope = Scope(namespace=namespace, field_selector="data.k=v")
        with pytest.raises(Invalid):
            await watch_module.run_watch(c.client, resource, scope, lambda _: None, clock=c.client.clock)


async def test_large_objects_pass(plane: ControlPlane, namespace: str) -> None:
    """A line of the stream may be hundreds of kilobytes long."""
    async with connect(plane) as c:
        async with c.watching(CONFIG_MAP, Scope(namespace=namespace, whole=True)) as log:
            await log.until(lambda events: any(isinstance(e, Synced) for e in events))
            big = config_map(namespace, "big", {"blob": "x" * 900_000})
            await c.api.apply(manifest(big), priority=USER)
            await log.until(lambda _: "big" in log.names(Seen))
        seen = [e.observed for e in log.events if isinstance(e, Seen) and e.observed.key.name == "big"]
        assert len(seen[0].body or b"") > 900_000
