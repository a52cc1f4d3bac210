"""Fields that belong to others survive what fleet does, on a real API server."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from fleet.aio import spawn
from fleet.kube.api import KubeApi
from fleet.kube.gate import Priority
from fleet.kube.wire import Observed
from fleet.object import ObjectKey
from fleet.reconcile.port import IgnoreRule, Policy
from fleet.render.normalize import normalize
from fleet.sim.real import ControlPlane
from tests.cluster.connection import config_map
from tests.cluster.keeper import Keeper, deployment, keeping, key, settings
from tests.cluster.site import until

WEBHOOK = "ValidatingWebhookConfiguration"
BUNDLE = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCi0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K"


async def read(keeper: Keeper, which: ObjectKey, field: Callable[[dict[str, Any]], Any]) -> Any:
    """Read a field from the server."""
    found = await keeper.connection.api.get(which, priority=Priority.USER)
    assert found is not None, which
    return field(json.loads(found.body or b""))


async def write(plane: ControlPlane, manager: str, *bodies: dict[str, Any], server_side: bool = True) -> None:
    """Apply as somebody else, taking what conflicts."""
    how = ("--server-side", "--force-conflicts") if server_side else ()
    listed = {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
    await plane.kubectl("apply", *how, f"--field-manager={manager}", "-f", "-", stdin=json.dumps(listed))


async def patch(plane: ControlPlane, name: str, manager: str, body: Any, *args: str, kind: str = "merge") -> None:
    """Patch as somebody else."""
    await plane.kubectl("patch", name, *args, f"--type={kind}", f"--field-manager={manager}", "-p", json.dumps(body))


def webhook(name: str, bundle: str | None = None) -> dict[str, Any]:
    """Write a webhook that matches nothing."""
    client: dict[str, Any] = {"url": "https://127.0.0.1:1/x", **({"caBundle": bundle} if bundle else {})}
    hook = {
        "name": f"{name}.example.com",
        "clientConfig": client,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "rules": [
            {"apiGroups": ["none.example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["x"]}
        ],
    }
    version = "admissionregistration.k8s.io/v1"
    return {"apiVersion": version, "kind": WEBHOOK, "metadata": {"name": name}, "webhooks": [hook]}


def volume(name: str) -> dict[str, Any]:
    """Write a PersistentVolume."""
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/none"}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


async def test_what_others_set_survives_a_reset(plane: ControlPlane, namespace: str) -> None:
    """Finalizers, a volume's claim, a CA bundle and a namespace's labels stay, even after managedFields were wiped; and Git still decides."""
    later, vol, hook = f"{namespace}-sub", f"{namespace}-pv", f"{namespace}-hook"
    claim = {"namespace": namespace, "name": "data", "uid": "0e4f3bb2-0000-4000-8000-000000000000"}
    space: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": later}}
    held = settings(namespace, k="1", left="x")
    before: list[dict[str, Any]] = [
        {**held, "metadata": {**held["metadata"], "finalizers": ["example.com/hold"]}},
        {**space, "metadata": {"name": later, "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}},
        {**volume(vol), "spec": {**volume(vol)["spec"], "claimRef": claim}},
        webhook(hook, BUNDLE),
    ]
    await write(plane, "kubectl-client-side-apply", *before, server_side=False)
    things: dict[ObjectKey, tuple[list[str], Callable[[dict[str, Any]], Any]]] = {
        key("ConfigMap", namespace, "settings"): (
            ["configmap/settings", "-n", namespace],
            lambda body: body["metadata"].get("finalizers"),
        ),
        key("Namespace", "", later): ([f"namespace/{later}"], lambda b: b["metadata"]["labels"].get(POD_SECURITY)),
        key("PersistentVolume", "", vol): ([f"pv/{vol}"], lambda body: body["spec"].get("claimRef", {}).get("name")),
        key(WEBHOOK, "", hook, "admissionregistration.k8s.io"): (
            [f"validatingwebhookconfiguration/{hook}"],
            lambda body: body["webhooks"][0]["clientConfig"].get("caBundle"),
        ),
    }
    async with keeping(plane, namespace) as keeper:
        keeper.want(held, space, volume(vol), webhook(hook))
        await keeper.done()
        expected = [await read(keeper, which, field) for which, (_, field) in things.items()]
        assert all(expected)
        for name, *where in (args for args, _ in things.values()):
            await patch(plane, name, "kubectl", [WIPE], *where, kind="json")
        await keeper.done()
        for name, *where in (args for args, _ in things.values()):
            await patch(plane, name, "kubectl", {"metadata": {"annotations": {"added": "x"}}}, *where)
        for which in things:
            await until(lambda which=which: _without(keeper, which, "added"))  # type: ignore[misc]
        await keeper.done()
        assert [await read(keeper, which, field) for which, (_, field) in things.items()] == expected
        keeper.want(settings(namespace, k="1"), space, volume(vol), webhook(hook))
        await keeper.done()
        assert await read(keeper, key("ConfigMap", namespace, "settings"), lambda body: body["data"]) == {"k": "1"}
        await patch(plane, "configmap/settings", "kubectl", {"metadata": {"finalizers": None}}, "-n", namespace)
    await plane.kubectl("delete", f"pv/{vol}", f"namespace/{later}", f"{WEBHOOK.lower()}/{hook}", "--wait=false")
    await patch(plane, f"pv/{vol}", "kubectl", {"metadata": {"finalizers": None}})


POD_SECURITY = "pod-security.kubernetes.io/enforce"
WIPE = {"op": "replace", "path": "/metadata/managedFields", "value": [{}]}


async def _without(keeper: Keeper, which: ObjectKey, annotation: str) -> bool:
    return annotation not in await read(keeper, which, lambda body: body["metadata"].get("annotations", {}))


async def test_ignored_replicas_are_never_one(plane: ControlPlane, namespace: str) -> None:
    """An ignored `replicas` keeps whatever it was given, by a person or an unknown scaler, through every release."""
    which = key("Deployment", namespace, "web", "apps")
    ignore = Policy(ignore=(IgnoreRule(kind="Deployment", paths=("/spec/replicas",)),))

    async def replicas() -> Any:
        return await read(keeper, which, lambda body: body["spec"]["replicas"])

    async with keeping(plane, namespace) as keeper:
        keeper.want(deployment(namespace, replicas=2), policy=ignore)
        await keeper.done()
        assert await replicas() == 2
        keeper.want(deployment(namespace, image="web:2", replicas=2), policy=ignore)
        await keeper.done()
        assert await replicas() == 2
        for number, manager in ((4, "kubectl-scale"), (5, "keda")):
            await patch(plane, "deployment/web", manager, {"spec": {"replicas": number}}, "-n", namespace)
            keeper.want(deployment(namespace, image=f"web:{number}", replicas=2), policy=ignore)
            await keeper.done()
            assert await replicas() == number
        assert keeper.notes == []


async def test_injectors_keep_their_fields(plane: ControlPlane, namespace: str) -> None:
    """A sidecar, a right-sizer's resources and a CA bundle, set by controllers, are no drift and outlive releases."""
    which, hook = key("Deployment", namespace, "web", "apps"), f"{namespace}-inject"
    bundle = key(WEBHOOK, "", hook, "admissionregistration.k8s.io")
    vpa = {"kind": "Deployment", "paths": ("/spec/template/spec/containers/*/resources",)}
    policy = Policy(ignore=(IgnoreRule(kind=str(vpa["kind"]), paths=tuple(vpa["paths"])),))

    def app(image: str) -> list[dict[str, Any]]:
        made = deployment(namespace, image=image)
        made["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "10m"}}
        return [made, webhook(hook)]

    def containers(*items: dict[str, Any]) -> dict[str, Any]:
        return {"spec": {"template": {"spec": {"containers": list(items)}}}}

    async with keeping(plane, namespace) as keeper:
        keeper.want(*app("web:1"), policy=policy)
        await keeper.done()
        sidecar = containers({"name": "proxy", "image": "proxy:1"})
        await patch(plane, "deployment/web", "mesh-injector", sidecar, "-n", namespace, kind="strategic")
        sized = containers({"name": "web", "resources": {"requests": {"cpu": "70m"}}})
        await patch(plane, "deployment/web", "vpa-recommender", sized, "-n", namespace, kind="strategic")
        filled = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": BUNDLE}]
        await patch(plane, f"{WEBHOOK.lower()}/{hook}", "cainjector", filled, kind="json")
        keeper.want(*app("web:2"), policy=policy)
        await keeper.done()
        pod = await read(keeper, which, lambda body: body["spec"]["template"]["spec"]["containers"])
        found = {c["name"]: (c["image"], c["resources"].get("requests")) for c in pod}
        assert found == {"web": ("web:2", {"cpu": "70m"}), "proxy": ("proxy:1", None)}
        assert await read(keeper, bundle, lambda body: body["webhooks"][0]["clientConfig"]["caBundle"]) == BUNDLE
        assert keeper.notes == []
    await plane.kubectl("delete", f"{WEBHOOK.lower()}/{hook}")


async def test_aggregated_rights_stay_filled(plane: ControlPlane, namespace: str) -> None:
    """A ClusterRole that the server fills is not emptied by a heal, although Git says `rules: []`."""
    total, part = f"{namespace}-all", f"{namespace}-part"
    select = {"clusterRoleSelectors": [{"matchLabels": {"part-of": namespace}}]}
    version = "rbac.authorization.k8s.io/v1"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    metadata = {"name": total, "labels": {"tier": "a"}}
    role = {"apiVersion": version, "kind": "ClusterRole", "metadata": metadata, "aggregationRule": select, "rules": []}
    piece = {
        "apiVersion": version,
        "kind": "ClusterRole",
        "metadata": {"name": part, "labels": {"part-of": namespace}},
        "rules": rules,
    }
    which = key("ClusterRole", "", total, "rbac.authorization.k8s.io")

    async def filled() -> bool:
        return bool(await read(keeper, which, lambda body: body.get("rules")) == rules)

    async with keeping(plane, namespace) as keeper:
        keeper.want(normalize(role)[0], piece)
        await keeper.done()
        await until(filled)
        await plane.kubectl("label", f"clusterrole/{total}", "tier=b", "--overwrite")
        await keeper.noted("drift")
        await keeper.done()
        assert await filled()
        keeper.want(normalize({**role, "metadata": {"name": total, "labels": {"tier": "c"}}})[0], piece)
        await keeper.done()
        assert await filled()
        keeper.want(removed=True)
        await keeper.done()


async def test_merge_on_the_live_object_keeps_additions(plane: ControlPlane, namespace: str) -> None:
    """`fleet/ssa: merge` by hand lets people add to one object; values that Git sets are still theirs in Git."""
    which = key("ConfigMap", namespace, "settings")
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"))
        await keeper.done()
        await plane.kubectl("-n", namespace, "annotate", "configmap/settings", "fleet/ssa=merge")
        await patch(plane, "configmap/settings", "kubectl", {"data": {"k": "2", "added": "x"}}, "-n", namespace)
        await keeper.noted("drift")
        await keeper.done()
        assert await read(keeper, which, lambda body: body["data"]) == {"k": "1", "added": "x"}


class Interrupted(KubeApi):
    """Lets a person write once more between the two requests of a repair."""

    between: Callable[[], Coroutine[Any, Any, None]] | None = None

    async def patch_planned(self, *args: Any, **options: Any) -> Observed:
        """Patch, and let the other write."""
        observed = await super().patch_planned(*args, **options)
        between, self.between = self.between, None
        if between is not None:
            await between()
        return observed


async def test_what_a_repair_leaves_is_named(plane: ControlPlane, namespace: str) -> None:
    """An addition that comes back while it is undone is `Unrepaired`, by path, and gone after the next repair."""
    which = key("ConfigMap", namespace, "settings")

    async def add(value: str) -> None:
        label = {"metadata": {"labels": {"theirs": value}}}
        await patch(plane, "configmap/settings", "kubectl-edit", label, "-n", namespace)

    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"))
        await keeper.done()
        connection = keeper.connection
        connection.api = interrupted = Interrupted(connection.client, connection.discovery)
        interrupted.between = lambda: add("again")
        await add("once")
        notes = await keeper.noted("drift", 2)
        assert [note.reason for note in notes] == ["Unrepaired", "Added"]
        assert "still there: .metadata.labels.theirs" in notes[0].message
        await keeper.done()
        assert "theirs" not in await read(keeper, which, lambda body: body["metadata"]["labels"])


async def test_two_writers_are_a_contest(plane: ControlPlane, namespace: str) -> None:
    """A controller that takes a value back after every repair is named, and repairs are spaced out; a person never is."""
    stop = asyncio.Event()

    async def rival(manager: str, name: str) -> None:
        while not stop.is_set():
            with suppress(Exception):
                await write(plane, manager, config_map(namespace, name, {"k": manager}))
            await asyncio.sleep(0.2)

    fought, person = key("ConfigMap", namespace, "fought"), key("ConfigMap", namespace, "person")
    async with keeping(plane, namespace) as keeper:
        keeper.want(config_map(namespace, "fought", {"k": "ours"}), config_map(namespace, "person", {"k": "ours"}))
        await keeper.done()
        async with asyncio.TaskGroup() as group:
            spawn(group, "rival", rival("rival-operator", "fought"))
            spawn(group, "person", rival("kubectl-edit", "person"))
            report = await keeper.until(lambda r: r.contested and _notes(keeper, person) > 8)
            stop.set()
        assert report.contested.keys() == {fought}
        assert report.contested[fought].manager == "rival-operator"
        assert _notes(keeper, fought) == 5
        await keeper.until(lambda r: _notes(keeper, fought) == 6)
        assert await read(keeper, fought, lambda body: body["data"]) == {"k": "ours"}


def _notes(keeper: Keeper, which: ObjectKey) -> int:
    return len([note for note in keeper.notes if note.key == which])
