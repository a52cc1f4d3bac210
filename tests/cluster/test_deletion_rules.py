"""What is not deleted, on a real API server."""

from typing import Any

from fleet.kube.gate import Priority
from fleet.reconcile.port import Policy
from fleet.sim.real import ControlPlane
from tests.cluster.connection import config_map
from tests.cluster.keeper import keeping, key, settings
from tests.cluster.test_hub import get


async def test_a_failed_apply_holds_the_prune(plane: ControlPlane, namespace: str) -> None:
    """While an object of the new version is refused, what the new version drops stays; with a good one it goes."""
    port = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": namespace}}
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"))
        await keeper.done()
        keeper.want({**port, "spec": {"ports": [{"port": 99999}]}})
        report = await keeper.until(lambda report: report.failures)
        assert {change.reason for change in report.changes} == {"Absent", "NotInGit"}
        assert await get(plane, "configmap", "settings", namespace) is not None
        keeper.want({**port, "spec": {"ports": [{"port": 80}]}})
        await keeper.done()
        assert await get(plane, "configmap", "settings", namespace) is None


async def test_namespaces_and_claims_are_let_go(plane: ControlPlane, namespace: str) -> None:
    """A namespace and a claim that leave Git stay, with what is in them, without our labels; events say so."""
    other = f"{namespace}-data"
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}}
    claim: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": other},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    kept = [key("Namespace", "", other), key("PersistentVolumeClaim", other, "data")]
    async with keeping(plane, namespace) as keeper:
        keeper.want(space, claim, settings(namespace, k="1"))
        await keeper.done()
        keeper.want(settings(namespace, k="1"))
        report = await keeper.done()
        assert len(report.changes) == 1
        assert sorted(note.key for note in keeper.notes if note.reason == "Orphaned" and note.key) == sorted(kept)
        for which in kept:
            found = await keeper.connection.api.get_metadata(which, priority=Priority.USER)
            assert found is not None
            assert not found.deleting
            assert not {"fleet/hub", "applyset.kubernetes.io/part-of"} & found.labels.keys()
    await plane.kubectl("delete", "namespace", other, "--wait=false")


async def test_a_terminating_namespace_is_waited_for(plane: ControlPlane, namespace: str) -> None:
    """An app whose namespace is being deleted waits for it, and is there again in the next one of that name."""
    other = f"{namespace}-again"
    await plane.kubectl("create", "namespace", other)
    hold = '{"metadata":{"finalizers":["example.com/hold"]}}'
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(other, k="1"))
        await keeper.done()
        await plane.kubectl("-n", other, "create", "configmap", "held")
        await plane.kubectl("-n", other, "patch", "configmap/held", "-p", hold)
        await plane.kubectl("delete", "namespace", other, "--wait=false")
        report = await keeper.until(lambda report: report.waits_for)
        assert report.waits_for == {key("Namespace", "", other)}
        assert {error.reason for error in report.failures.values()} == {"NamespaceTerminating"}
        await plane.kubectl("-n", other, "patch", "configmap/held", "-p", '{"metadata":{"finalizers":null}}')
        await plane.kubectl("wait", "--for=delete", f"namespace/{other}", "--timeout=60s")
        await plane.kubectl("create", "namespace", other)
        keeper.target.retry_now()
        keeper.want(settings(other, k="1"))
        await keeper.done()
    await plane.kubectl("delete", "namespace", other, "--wait=false")


async def test_what_is_being_deleted_is_not_written(plane: ControlPlane, namespace: str) -> None:
    """An object that somebody deletes and a finalizer holds is left alone, whatever Git says, and made anew when gone."""
    merge = ("patch", "configmap", "settings", "-n", namespace, "--type=merge", "-p")
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"))
        await keeper.done()
        await plane.kubectl(*merge, '{"metadata":{"finalizers":["example.com/hold"]}}')
        await plane.kubectl("delete", "configmap", "settings", "-n", namespace, "--wait=false")
        keeper.want(settings(namespace, k="2"))
        await keeper.until(lambda report: [change.reason for change in report.changes] == ["Terminating"])
        held = await get(plane, "configmap", "settings", namespace)
        assert held is not None
        assert held["data"] == {"k": "1"}
        await plane.kubectl(*merge, '{"metadata":{"finalizers":null}}')
        await keeper.done()
        again = await get(plane, "configmap", "settings", namespace)
        assert again is not None
        assert (again["data"], again["metadata"]["uid"] != held["metadata"]["uid"]) == ({"k": "2"}, True)


async def test_prune_false_lets_go(plane: ControlPlane, namespace: str) -> None:
    """What an app with `prune: false` drops stays, without our labels."""
    off = Policy(prune=False)
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"), config_map(namespace, "other", {"k": "1"}), policy=off)
        await keeper.done()
        keeper.want(config_map(namespace, "other", {"k": "1"}), policy=off)
        await keeper.done()
        kept = await get(plane, "configmap", "settings", namespace)
        assert kept is not None
        assert not kept["metadata"].get("labels")
