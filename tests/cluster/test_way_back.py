"""Ways back on a real API server: an earlier release, and a lost database."""

import json
from typing import Any

from fleet.hub.view import HoldRequest
from fleet.sim.real import ControlPlane
from tests.cluster.test_hub import CONFIG, WEB, fleet, get
from tests.harness.fleet import ADA, Fleet

__all__ = ["fleet"]


def files(namespace: str, colour: str, image: str = "example.com/web:1") -> dict[str, str]:
    """A ConfigMap and a Deployment."""
    return {
        "app/settings.yaml": CONFIG.format(namespace=namespace, colour=colour),
        "app/web.yaml": WEB.format(namespace=namespace, image=image),
    }


async def colour(plane: ControlPlane, namespace: str) -> str:
    """What the ConfigMap says."""
    found = await get(plane, "configmap", "settings", namespace)
    return str(found["data"]["colour"]) if found is not None else ""


async def test_rollback_brings_back_what_was(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """Changed, added and removed objects are as the release had them; a commit and a restart leave them so."""
    first = fleet.repository.commit("first", files(namespace, "red"))
    target = (plane.name, "shop")
    async with fleet.running() as hub:
        await fleet.synced(target, revision=first)
        fleet.repository.git("rm", "-q", "app/web.yaml")
        extra = CONFIG.format(namespace=namespace, colour="x").replace("name: settings", "name: extra")
        changed = {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="blue"), "app/extra.yaml": extra}
        await fleet.synced(target, revision=fleet.repository.commit("second", changed))
        assert await get(plane, "deployment", "web", namespace) is None
        await hub.rollback(HoldRequest(app="shop", reason="incident"), ADA)
        await fleet.synced(target, revision=first)
        assert await colour(plane, namespace) == "red"
        assert await get(plane, "configmap", "extra", namespace) is None
        web = await get(plane, "deployment", "web", namespace)
        assert web is not None
        fleet.repository.commit("third", {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="green")})
    async with fleet.running() as hub:
        await fleet.synced(target, revision=first)
        kept = await get(plane, "deployment", "web", namespace)
        assert kept is not None
        assert (kept["metadata"]["uid"], await colour(plane, namespace)) == (web["metadata"]["uid"], "red")
        assert await hub.unhold(HoldRequest(app="shop"), ADA) == 1

        async def green() -> bool:
            return await colour(plane, namespace) == "green"

        await fleet.until(green)


async def test_a_lost_database_is_rebuilt_from_marks(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """No healthy object is written, what left Git meanwhile stays until confirmed, and a stranger is never taken."""
    fleet.repository.commit("first", files(namespace, "red"))
    target = (plane.name, "shop")
    async with fleet.running():
        await fleet.synced(target)
    stranger = json.dumps(await _stranger(plane, namespace))
    await plane.kubectl("apply", "-f", "-", stdin=stranger)
    before = await get(plane, "configmap", "settings", namespace)
    fleet.repository.git("rm", "-q", "app/web.yaml")
    fleet.repository.commit("less")
    for file in (fleet.root / "data").glob("fleet.db*"):
        file.unlink()
    async with fleet.running() as hub:
        row = await fleet.state(*target, "Waiting", "RecoverPending")
        assert "fleet recover" in row.message
        assert [(r.kind, r.name) for r in hub.recovery()] == [("Deployment", "web")]
        after = await get(plane, "configmap", "settings", namespace)
        assert before is not None
        assert after is not None
        assert after["metadata"] == before["metadata"]
        assert await get(plane, "deployment", "web", namespace) is not None
        await hub.recover(cluster="", app="shop", reason="disk lost", actor=ADA)

        async def gone() -> bool:
            return await get(plane, "deployment", "web", namespace) is None

        await fleet.until(gone)
        await fleet.synced(target)
        assert await get(plane, "configmap", "stranger", namespace) is not None


async def _stranger(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    """Build a ConfigMap with the labels of one of ours and nobody's Apply entry."""
    ours = await get(plane, "configmap", "settings", namespace)
    assert ours is not None
    metadata = {"name": "stranger", "namespace": namespace, "labels": ours["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}
