"""Requests to an API server that is slow, overloaded, broken or not there."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fleet.errors import (
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    ServerFailure,
    Throttled,
    Unauthorized,
    Unreachable,
)
from fleet.kube import api as api_module
from fleet.kube import client as client_module
from fleet.kube.api import KubeApi
from fleet.kube.client import USER_AGENT
from fleet.kube.credential import Credential, FileToken, Impersonation
from fleet.kube.discovery import Discovery
from fleet.kube.gate import Priority
from fleet.metric import REGISTRY
from fleet.object import GroupKind
from fleet.sim.access import Denial
from fleet.sim.cluster import SimCluster
from fleet.sim.network import MemoryNetwork
from tests.integration.kube.conftest import HOST, PORT, Connection, Handler, config_map, manifest, open_client

USER = Priority.USER
Serve = Callable[[Handler], None]


def now_s() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


def unanswered() -> float:
    """How many PATCH requests have had no answer so far."""
    labels = {"cluster": "one", "verb": "PATCH", "code": "0"}
    return REGISTRY.get_sample_value("fleet_api_requests_total", labels) or 0.0


async def test_a_lost_answer_to_an_apply_is_asked_for_again(cluster: SimCluster, connection: Connection) -> None:
    """A server-side apply is idempotent: when the connection breaks after it was done, it is simply sent again."""
    cluster.faults.drop(after=True, verb="patch", times=1)
    applied = await connection.api.apply(manifest(config_map("a", k="v")), priority=USER)
    assert applied.observed.key.name == "a"
    assert not applied.created
    cluster.faults.drop(after=True, verb="patch", times=2)
    with pytest.raises(Unreachable) as lost:
        await connection.api.apply(manifest(config_map("a", k="w")), priority=USER)
    assert lost.value.reason == "ConnectionLost"


async def test_json_patches_are_never_repeated(cluster: SimCluster, connection: Connection) -> None:
    """A write that is not idempotent is sent once; its outcome is unknown."""
    cluster.create(config_map("a", k="v"))
    cluster.faults.drop(after=True, verb="patch", times=1)
    before = unanswered()
    with pytest.raises(Unreachable):
        await connection.api.patch_json(
            manifest(config_map("a")).key, [{"op": "add", "path": "/data/l", "value": "1"}], priority=USER
        )
    assert unanswered() == before + 1
    assert cluster.count("patch") == 0
    assert cluster.get("v1", "ConfigMap", "default", "a")["data"] == {"k": "v", "l": "1"}


@pytest.mark.parametrize("code", [503, 504])
async def test_overload_is_tried_once_more(cluster: SimCluster, connection: Connection, code: int) -> None:
    """A 503 or 504 on an apply is repeated once and halves the gate."""
    cluster.faults.fail(code, verb="patch", times=1)
    assert await connection.api.apply(manifest(config_map("a")), priority=USER)
    assert connection.gate.limit == 8
    cluster.faults.fail(code, verb="patch", times=2)
    with pytest.raises(ServerFailure) as failed:
        await connection.api.apply(manifest(config_map("b")), priority=USER)
    assert failed.value.status == code


async def test_retry_after_is_obeyed(cluster: SimCluster, connection: Connection) -> None:
    """After a 429 everybody waits as long as the server asked, then the request goes through."""
    cluster.faults.fail(429, verb="patch", times=1, retry_after_s=20)
    began = now_s()
    await connection.api.apply(manifest(config_map("a")), priority=USER)
    assert 16 <= now_s() - began <= 25
    cluster.faults.fail(429, verb="patch", retry_after_s=1)
    with pytest.raises(Throttled):
        await connection.api.apply(manifest(config_map("b")), priority=USER)


@pytest.mark.parametrize("code", [400, 403, 409, 500])
async def test_refusals_are_not_repeated(cluster: SimCluster, connection: Connection, code: int) -> None:
    """What would be refused again is asked once."""
    cluster.faults.fail(code, verb="patch")
    with pytest.raises(KubeError) as refused:
        await connection.api.apply(manifest(config_map("a")), priority=USER)
    assert refused.value.status == code
    assert refused.value.subject == "ConfigMap default/a"
    assert cluster.count("patch") == 1


async def test_a_hanging_server_meets_the_deadline(cluster: SimCluster, connection: Connection) -> None:
    """A server that never answers costs one deadline, and says so."""
    cluster.faults.hang(verb="patch")
    began = now_s()
    with pytest.raises(Unreachable) as late:
        await connection.api.apply(manifest(config_map("a")), priority=USER)
    assert late.value.reason == "Timeout"
    assert now_s() - began == pytest.approx(30, abs=1)


async def test_writes_tell_the_server_their_deadline(cluster: SimCluster, connection: Connection) -> None:
    """Writes carry `timeout`, our manager and our name; reads carry no manager."""
    m = manifest(config_map("a"))
    applied = await connection.api.apply(m, priority=USER)
    await connection.api.get(m.key, priority=USER)
    await connection.api.delete(m.key, applied.observed.uid, priority=USER)
    patch, get, delete = cluster.requests
    assert patch.query["timeout"] == delete.query["timeout"] == "29s"
    assert (patch.manager, "force" in patch.query) == ("fleet", False)
    assert "timeout" not in get.query
    assert {patch.user_agent, get.user_agent, delete.user_agent} == {USER_AGENT}


async def test_a_dead_server(network: MemoryNetwork, cluster: SimCluster, connection: Connection) -> None:
    """A refused connection, a reset one and one that hangs are told apart."""
    cluster.die()
    with pytest.raises(Unreachable) as refused:
        await connection.api.server_version()
    assert refused.value.reason == "ConnectionRefused"
    network.conditions(HOST, PORT).hang = True
    with pytest.raises(Unreachable) as silent:
        await connection.api.server_version()
    assert silent.value.reason == "Timeout"
    network.conditions(HOST, PORT).hang = False
    await cluster.revive()
    assert await connection.api.server_version()


async def test_an_idle_connection_that_died_is_replaced(
    network: MemoryNetwork, cluster: SimCluster, connection: Connection
) -> None:
    """A kept-alive connection that was cut meanwhile costs nobody a failure."""
    assert await connection.api.server_version()
    network.cut(HOST, PORT)
    assert await connection.api.server_version()


async def test_wrong_token(cluster: SimCluster, network: MemoryNetwork) -> None:
    """A token that cannot change is tried once."""
    async with open_client(network, "wrong") as client:
        with pytest.raises(Unauthorized):
            await client.request("GET", "/version", priority=USER)
    assert len(cluster.requests) == 1


async def test_rotated_token_file(cluster: SimCluster, network: MemoryNetwork, tmp_path: Path) -> None:
    """A token file is read again each minute, and at once after a refusal."""
    path = tmp_path / "token"
    path.write_text(cluster.token)
    async with open_client(network) as client:
        client._credential = Credential(server=client.server, token=FileToken(path))
        await client.request("GET", "/version", priority=USER)
        cluster.access.tokens["second"] = cluster.access.tokens.pop(cluster.token)
        path.write_text("second\n")
        await client.request("GET", "/version", priority=USER)
        assert [r.code for r in cluster.requests] == [200, 401, 200]
        cluster.access.tokens["third"] = cluster.access.tokens["second"]
        path.write_text("third")
        await asyncio.sleep(61)
        del cluster.access.tokens["second"]
        await client.request("GET", "/version", priority=USER)
        assert [r.code for r in cluster.requests] == [200, 401, 200, 200]


async def test_token_file_that_goes_away(cluster: SimCluster, network: MemoryNetwork, tmp_path: Path) -> None:
    """While the old token is good a missing or half-written file harms nobody; when it is refused, the file is named."""
    path = tmp_path / "token"
    path.write_text(cluster.token)
    async with open_client(network) as client:
        client._credential = Credential(server=client.server, token=FileToken(path))
        await client.request("GET", "/version", priority=USER)
        for spoil in (lambda: path.write_text(""), path.unlink):
            spoil()
            await asyncio.sleep(61)
            await client.request("GET", "/version", priority=USER)
        cluster.access.tokens["second"] = cluster.access.tokens.pop(cluster.token)
        with pytest.raises(Unauthorized) as unreadable:
            await client.request("GET", "/version", priority=USER)
        assert unreadable.value.reason == "TokenUnreadable"
        assert str(path) in unreadable.value.message
        path.write_text("second")
        await client.request("GET", "/version", priority=USER)


async def test_missing_token(cluster: SimCluster, network: MemoryNetwork) -> None:
    """Without any proof of who we are there is one refusal, and no second try."""
    async with open_client(network) as client:
        with pytest.raises((Unauthorized, Forbidden)):
            await client.request("GET", "/api/v1/secrets", priority=USER)
    assert len(cluster.requests) == 1


async def test_secrets_do_not_leak_through_refusals(connection: Connection) -> None:
    """A server quotes what it refuses; for a sensitive object that is not passed on."""
    body = {**config_map("a"), "data": {"password": {"hunter2": 1}}}
    with pytest.raises(Invalid) as plain:
        await connection.api.apply(manifest(body), priority=USER)
    with pytest.raises(Invalid) as hidden:
        await connection.api.apply(manifest(body, sensitive=True), priority=USER)
    assert "hunter2" not in repr((str(hidden.value), hidden.value.args, hidden.value.causes))
    assert hidden.value.__cause__ is None
    assert plain.value.reason == hidden.value.reason


async def test_lost_races_are_planned_again(cluster: SimCluster, connection: Connection) -> None:
    """A patch bound to a position is planned on a fresh read until it wins, a bounded number of times."""
    cluster.create(config_map("a", k="v"))
    key = manifest(config_map("a")).key
    races = iter(range(3))

    def plan(observed: Any) -> list[dict[str, object]]:
        if next(races, None) is not None:
            cluster.patch_as("v1", "ConfigMap", "default", "a", {"data": {"n": str(observed.rv)}}, manager="racer")
        return [
            {"op": "add", "path": "/data/won", "value": "1"},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": str(observed.rv)},
        ]

    await connection.api.patch_planned(key, plan, priority=USER)
    assert cluster.get("v1", "ConfigMap", "default", "a")["data"]["won"] == "1"
    races = iter(range(100))
    with pytest.raises(Conflict):
        await connection.api.patch_planned(key, plan, priority=USER)


async def test_impersonation_is_per_call_or_credential(cluster: SimCluster, connection: Connection) -> None:
    """Another identity travels in headers, every group of it, and has its own rights."""
    cluster.access.denials.append(Denial(user="somebody"))
    acting = connection.api.acting_as(Impersonation(user="somebody", groups=("a", "b")))
    with pytest.raises(Forbidden):
        await acting.list_metadata(GroupKind("", "ConfigMap"), "default", priority=USER)
    assert [r.user for r in cluster.requests] == ["somebody"]


HTML = "text/html"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (web.Response(body=b"<html>Please log in</html>", content_type=HTML), "BrokenReply"),
        (web.Response(body=b'{"kind":"List","items":[{"meta', content_type="application/json"), "BrokenReply"),
        (web.Response(body=b"\x00\xff\x00"), "BrokenReply"),
        (web.Response(status=302, headers={"Location": "http://else/"}), "Redirected"),
        (web.Response(status=502, body=b"<html>Bad Gateway</html>", content_type=HTML), "ServerFailure"),
        (web.Response(status=404, body=b"404 page not found", content_type="text/plain"), "NotFound"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.status),
)
async def test_replies_that_no_api_server_gives(
    network: MemoryNetwork, serve: Serve, reply: web.Response, reason: str
) -> None:
    """Whatever sits at the address, the answer is a typed error without the page that it sent."""

    async def handle(_request: web.BaseRequest) -> web.Response:
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers)

    serve(handle)
    async with open_client(network) as client:
        with pytest.raises(KubeError) as failed:
            await Discovery(client).refresh()
    assert failed.value.reason == reason
    assert "<html>" not in str(failed.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"Date": "Tue, 24 Nov 2026 21:06:55 -0000"},
        {"Date": "yesterday"},
        {"Date": "Tue, 24 Nov 99999 21:06:55 GMT"},
        {"Date": ""},
        {"Retry-After": "9" * 5000},
        {"Warning": "299 - " + "x" * 5000},
    ],
)
async def test_headers_that_no_api_server_sends(network: MemoryNetwork, serve: Serve, headers: dict[str, str]) -> None:
    """A header that makes no sense spoils no answer."""

    async def handle(_request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"{}", headers=headers)

    serve(handle)
    async with open_client(network) as client:
        assert (await client.request("GET", "/version", priority=USER)).status == 200


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b"\xff", b'{"status": null, "gitVersion": {}}'])
async def test_answers_of_the_wrong_shape(network: MemoryNetwork, serve: Serve, body: bytes) -> None:
    """Small questions get a typed error too when something else than an API server answers."""

    async def handle(_request: web.BaseRequest) -> web.Response:
        return web.Response(body=body)

    serve(handle)
    async with open_client(network) as client:
        api = KubeApi(client, Discovery(client))
        for ask in (api.server_version(), api.can_i("get", "", "secrets", "a")):
            with pytest.raises(ServerFailure) as failed:
                await ask
            assert failed.value.reason == "BrokenReply"


async def test_a_proxy_that_says_yes_to_everything(network: MemoryNetwork, serve: Serve) -> None:
    """`200 {}` is no object, no empty list, no write that succeeded and no delete that happened."""
    spoiled = False

    async def handle(request: web.BaseRequest) -> web.Response:
        if spoiled:
            return web.json_response({})
        kind = {"group": "", "version": "v1", "kind": "ConfigMap"}
        entry = {"resource": "configmaps", "responseKind": kind, "scope": "Namespaced", "verbs": ["list", "watch"]}
        version = {"version": "v1", "resources": [entry]}
        items = [{"metadata": {"name": ""}, "versions": [version]}] if request.path == "/api" else []
        return web.json_response({"kind": "APIGroupDiscoveryList", "items": items})

    serve(handle)
    m = manifest(config_map("a"))
    async with open_client(network) as client:
        discovery = Discovery(client)
        await discovery.refresh()
        spoiled = True
        api = KubeApi(client, discovery)
        for ask in (
            api.get(m.key, priority=USER),
            api.get_metadata(m.key, priority=USER),
            api.list_metadata(m.key.group_kind, "default", priority=USER),
            api.apply(m, priority=USER),
            api.delete(m.key, "uid", priority=USER),
            api.namespace_uid("kube-system"),
        ):
            with pytest.raises(ServerFailure) as failed:
                await ask
            assert failed.value.reason == "BrokenReply"


async def test_broken_compression(network: MemoryNetwork, serve: Serve) -> None:
    """A body that cannot be unpacked is a broken connection, not a bug."""

    async def handle(_request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"no gzip at all", headers={"Content-Encoding": "gzip"})

    serve(handle)
    async with open_client(network) as client:
        with pytest.raises(KubeError):
            await client.request("GET", "/version", priority=USER)


async def test_a_list_that_expires_between_pages_starts_again(
    cluster: SimCluster, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A continue token that is too old costs a fresh list and never a half one; an endless 410 is told."""
    monkeypatch.setattr(api_module, "PAGE", 2)
    names = [f"cm-{n}" for n in range(5)]
    for name in names:
        cluster.create(config_map(name, k="v"))
    cluster.faults.fail(410, verb="list", path="continue=", times=1)
    found = await connection.api.list_metadata(GroupKind("", "ConfigMap"), "default", priority=USER)
    assert [o.key.name for o in found if o.key.name.startswith("cm-")] == names
    cluster.faults.fail(410, verb="list")
    with pytest.raises(Gone):
        await connection.api.list_metadata(GroupKind("", "ConfigMap"), "default", priority=USER)


async def test_endless_bodies_are_cut(network: MemoryNetwork, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has an upper bound, announced or not."""
    monkeypatch.setattr(client_module, "MOST_BODY_BYTES", 1000)

    async def announced(_request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"x" * 5000)

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x" * 100)
        return response

    for handler in (announced, endless):
        serve(handler)
        async with open_client(network) as client:
            with pytest.raises(ServerFailure) as failed:
                await client.request("GET", "/version", priority=USER)
            assert failed.value.reason == "ReplyTooLarge"
