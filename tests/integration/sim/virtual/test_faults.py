"""Faults: each does what it says to the requests it names, and ends when it is cleared."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from fleet.sim.access import Denial
from fleet.sim.cluster import SimCluster
from fleet.sim.network import MemoryNetwork

MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


async def code(client: aiohttp.ClientSession, path: str, method: str = "GET", **more: Any) -> int:
    async with client.request(method, path, **more) as response:
        return response.status


async def test_errors_by_rule(cluster: SimCluster, client: aiohttp.ClientSession) -> None:
    """A rule covers its verb and path, as often as it says."""
    cluster.faults.fail(503, verb="list", path="configmaps", times=2)
    assert [await code(client, MAPS) for _ in range(3)] == [503, 503, 200]
    cluster.faults.fail(500, path="secrets")
    assert await code(client, MAPS) == 200
    assert await code(client, "/api/v1/secrets") == 500
    cluster.faults.clear()
    assert await code(client, "/api/v1/secrets") == 200


async def test_too_many_requests(cluster: SimCluster, client: aiohttp.ClientSession) -> None:
    """429 says when to come back."""
    cluster.faults.fail(429, retry_after_s=7, times=1)
    async with client.get(MAPS) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "7")
        assert (await response.json())["details"] == {"retryAfterSeconds": 7}


async def test_slow_and_hanging(cluster: SimCluster, client: aiohttp.ClientSession) -> None:
    """A delayed reply is late, a hanging one never comes."""
    loop = asyncio.get_running_loop()
    cluster.faults.delay(5, verb="list", times=1)
    before = loop.time()
    assert await code(client, MAPS) == 200
    assert loop.time() - before == pytest.approx(5)
    cluster.faults.hang(verb="list", times=1)
    with pytest.raises(TimeoutError):
        await client.get(MAPS, timeout=aiohttp.ClientTimeout(total=60))


@pytest.mark.parametrize(("after", "stored"), [(False, False), (True, True)])
async def test_lost_answers(cluster: SimCluster, client: aiohttp.ClientSession, after: bool, stored: bool) -> None:
    """A dropped connection leaves the client not knowing; the work is done or not."""
    cluster.faults.drop(after=after, verb="create", times=1)
    with pytest.raises(aiohttp.ClientError):
        await client.post(MAPS, json=config_map("a"))
    assert (cluster.find("v1", "ConfigMap", "default", "a") is not None) is stored


async def test_watches_are_cut_in_a_line(cluster: SimCluster, client: aiohttp.ClientSession) -> None:
    """A cut watch ends within a line, as an error or as a line without an end."""
    async with client.get(f"{MAPS}?watch=1&resourceVersion={cluster.state.storage.rv}") as response:
        cluster.create(config_map("a") | {"metadata": {"name": "a", "namespace": "default"}})
        line = await response.content.readline()
        assert json.loads(line)["type"] == "ADDED"
        assert cluster.server.watch_count == 1
        cluster.cut_watches()
        with pytest.raises((aiohttp.ClientError, json.JSONDecodeError)):
            json.loads(await response.content.readline())
    await asyncio.sleep(1)
    assert cluster.server.watch_count == 0


async def test_watches_fall_silent(cluster: SimCluster, client: aiohttp.ClientSession) -> None:
    """A stalled watch says nothing, not even bookmarks, and goes on where it was."""
    query = f"watch=1&allowWatchBookmarks=true&timeoutSeconds=3600&resourceVersion={cluster.state.storage.rv}"
    async with client.get(f"{MAPS}?{query}") as response:
        cluster.faults.stall_watches()
        cluster.create(config_map("a") | {"metadata": {"name": "a", "namespace": "default"}})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(300):
                await response.content.readline()
        cluster.faults.stall_watches(False)
        assert json.loads(await response.content.readline())["object"]["metadata"]["name"] == "a"


async def test_death_and_revival(cluster: SimCluster, client: aiohttp.ClientSession, network: MemoryNetwork) -> None:
    """A dead server refuses and drops; revived it has all its data."""
    cluster.create(config_map("a") | {"metadata": {"name": "a", "namespace": "default"}})
    assert await code(client, f"{MAPS}/a") == 200
    cluster.die()
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.get(f"{MAPS}/a")
    await cluster.revive()
    assert await code(client, f"{MAPS}/a") == 200


async def test_identity_and_rights(cluster: SimCluster, client: aiohttp.ClientSession) -> None:
    """Unknown tokens are 401; what is denied is 403 in the words of RBAC, also to an impersonated user."""
    assert await code(client, MAPS, headers={"Authorization": "Bearer no"}) == 401
    cluster.access.denials.append(Denial(user="system:serviceaccount:a:b", verb="list", resource="configmaps"))
    assert await code(client, MAPS) == 200
    headers = {"Impersonate-User": "system:serviceaccount:a:b"}
    async with client.get(MAPS, headers=headers) as response:
        assert response.status == 403
        assert (await response.json())["message"] == (
            'configmaps is forbidden: User "system:serviceaccount:a:b" cannot list resource "configmaps" in API group '
            '"" in the namespace "default"'
        )


async def test_history_and_backups(cluster: SimCluster, client: aiohttp.ClientSession) -> None:
    """Compaction makes old versions 410; a restored backup brings the past back under old versions."""
    rv = cluster.state.storage.rv
    backup = cluster.backup()
    cluster.create(config_map("a") | {"metadata": {"name": "a", "namespace": "default"}})
    cluster.compact()
    async with client.get(f"{MAPS}?watch=1&resourceVersion={rv}") as response:
        event = json.loads(await response.content.readline())
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
    cluster.restore(backup)
    assert await code(client, f"{MAPS}/a") == 404
    assert cluster.state.storage.rv == rv


async def test_request_log(cluster: SimCluster, client: aiohttp.ClientSession) -> None:
    """Every request is logged with its verb, manager and outcome."""
    await code(client, f"{MAPS}?fieldManager=fleet", "POST", json=config_map("a"))
    await code(client, f"{MAPS}/zz")
    told = [(logged.verb, logged.manager, logged.code) for logged in cluster.requests]
    assert told[0] == ("create", "fleet", 201)
    assert (told[1][0], told[1][2]) == ("get", 404)
    assert (cluster.count("create", manager="fleet"), cluster.count()) == (1, 2)
    cluster.forget_requests()
    assert cluster.count() == 0
