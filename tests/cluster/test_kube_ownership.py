"""Additive drift on a real API server: what is undone, and what must survive."""

import base64
import json
from typing import Any

import pytest

from fleet.errors import Conflict
from fleet.kube.gate import Priority
from fleet.kube.ownership import (
    foreign_additions,
    lost,
    own_fields,
    owned_digest,
    plan_fold,
    plan_preexisting,
)
from fleet.kube.wire import Observed
from fleet.object import Manifest
from fleet.sim.real import ControlPlane
from tests.cluster.connection import Connection, config_map, connect, manifest

USER = Priority.USER
KUBECTL = ("kubectl*",)


async def body_of(c: Connection, m: Manifest) -> dict[str, Any]:
    """Read an object whole."""
    observed = await c.api.get(m.key, priority=USER)
    assert observed is not None
    assert observed.body is not None
    return dict(json.loads(observed.body))


async def read(c: Connection, m: Manifest) -> Observed:
    """Read an object's metadata."""
    observed = await c.api.get_metadata(m.key, priority=USER)
    assert observed is not None
    return observed


async def adopt(c: Connection, m: Manifest) -> Observed:
    """Apply for the first time, as a target's run does: what was there before is marked and left."""
    applied = await c.api.apply(m, priority=USER)
    return await c.api.patch_planned(
        m.key,
        lambda o: plan_preexisting(o.managed, KUBECTL, o.rv),
        priority=USER,
        observed=applied.observed,
    )


async def heal(c: Connection, m: Manifest) -> Observed:
    """Repair, as a target's run does: fold what drift managers added, then apply."""
    await c.api.patch_planned(m.key, lambda o: plan_fold(o.managed, KUBECTL, o.rv), priority=USER)
    return (await c.api.apply(m, priority=USER)).observed


async def test_an_addition_is_seen_and_undone(plane: ControlPlane, namespace: str) -> None:
    """A key that kubectl added beside ours is named, and gone after fold and apply; a second look finds nothing."""
    async with connect(plane) as c:
        m = manifest(config_map(namespace, "a", {"k": "v"}))
        before = await adopt(c, m)
        await plane.kubectl("-n", namespace, "patch", "configmap", "a", "--type=merge", "-p", '{"data":{"extra":"1"}}')
        drifted = await read(c, m)
        assert owned_digest(drifted.managed) == owned_digest(before.managed)
        assert foreign_additions(drifted.managed, KUBECTL).paths() == [".data.extra"]
        healed = await heal(c, m)
        assert (await body_of(c, m))["data"] == {"k": "v"}
        assert foreign_additions(healed.managed, KUBECTL).is_empty
        assert owned_digest(healed.managed) == owned_digest(before.managed)
        assert plan_fold(healed.managed, KUBECTL, healed.rv) is None


async def test_what_was_taken_is_named(plane: ControlPlane, namespace: str) -> None:
    """The paths that left our entry are named with who holds them now; a removed one has no holder."""
    async with connect(plane) as c:
        m = manifest(config_map(namespace, "a", {"k": "v", "l": "w"}))
        before = own_fields((await adopt(c, m)).managed)
        assert before is not None
        await plane.kubectl(
            "-n", namespace, "patch", "configmap", "a", "--type=merge", "-p", '{"data":{"k":"x","l":null}}'
        )
        taken = lost(before, (await read(c, m)).managed)
        assert [(t.path, t.manager) for t in taken] == [(".data.k", "kubectl-patch"), (".data.l", "")]
        assert taken[0].at


async def test_kubectl_habits_are_drift_or_not(plane: ControlPlane, namespace: str) -> None:
    """Scale, set image, set env and label change what we own or add beside it; annotate with opt-outs does not."""
    async with connect(plane) as c:
        m = manifest(deployment(namespace))
        before = await adopt(c, m)
        digest = owned_digest(before.managed)
        for command in (
            ("scale", "deployment/web", "--replicas=3"),
            ("set", "image", "deployment/web", "web=web:2"),
            ("label", "deployment/web", "app=other", "--overwrite"),
        ):
            await plane.kubectl("-n", namespace, *command)
            assert owned_digest((await read(c, m)).managed) != digest, command
            assert owned_digest((await heal(c, m)).managed) == digest, command
        await plane.kubectl("-n", namespace, "set", "env", "deployment/web", "DEBUG=1")
        assert not foreign_additions((await read(c, m)).managed, KUBECTL).is_empty
        await heal(c, m)
        assert "env" not in (await body_of(c, m))["spec"]["template"]["spec"]["containers"][0]


async def test_restart_and_opt_outs_are_left_alone(plane: ControlPlane, namespace: str) -> None:
    """`kubectl rollout restart` and an opt-out annotation are no drift, and survive the repair of what is."""
    async with connect(plane) as c:
        m = manifest(deployment(namespace))
        await adopt(c, m)
        await plane.kubectl("-n", namespace, "rollout", "restart", "deployment/web")
        await plane.kubectl("-n", namespace, "annotate", "deployment/web", "fleet/reconcile=disabled")
        observed = await read(c, m)
        assert foreign_additions(observed.managed, KUBECTL).is_empty
        assert plan_fold(observed.managed, KUBECTL, observed.rv) is None
        await plane.kubectl("-n", namespace, "annotate", "deployment/web", "note=by-hand")
        await heal(c, m)
        body = await body_of(c, m)
        assert body["metadata"]["annotations"].get("note") is None
        assert body["metadata"]["annotations"]["fleet/reconcile"] == "disabled"
        assert "kubectl.kubernetes.io/restartedAt" in body["spec"]["template"]["metadata"]["annotations"]


async def test_finalizers_added_by_hand_survive(plane: ControlPlane, namespace: str) -> None:
    """A finalizer that somebody added after our first apply is never folded, so never removed."""
    async with connect(plane) as c:
        m = manifest(config_map(namespace, "a", {"k": "v"}))
        await adopt(c, m)
        patch = '{"metadata":{"finalizers":["example.com/hold"]},"data":{"extra":"1"}}'
        await plane.kubectl("-n", namespace, "patch", "configmap", "a", "--type=merge", "-p", patch)
        await heal(c, m)
        body = await body_of(c, m)
        assert body["data"] == {"k": "v"}
        assert body["metadata"]["finalizers"] == ["example.com/hold"]
        await c.api.patch_json(m.key, [{"op": "remove", "path": "/metadata/finalizers"}], priority=USER)


async def test_adoption_keeps_what_was_there(plane: ControlPlane, namespace: str) -> None:
    """An object made by kubectl keeps its finalizers, labels and data through adoption and later repairs."""
    async with connect(plane) as c:
        existing = config_map(namespace, "a", {"k": "old", "theirs": "1"}, team="x")
        existing["metadata"]["finalizers"] = ["example.com/hold"]
        await plane.kubectl("apply", "-f", "-", stdin=json.dumps(existing))
        m = manifest(config_map(namespace, "a", {"k": "v"}))
        adopted = await adopt(c, m)
        assert {e.manager for e in adopted.managed} == {"fleet", "fleet-preexisting"}
        assert foreign_additions(adopted.managed, KUBECTL).is_empty
        await plane.kubectl("-n", namespace, "patch", "configmap", "a", "--type=merge", "-p", '{"data":{"extra":"1"}}')
        await heal(c, m)
        body = await body_of(c, m)
        assert body["data"] == {"k": "v", "theirs": "1"}
        assert body["metadata"]["labels"] == {"team": "x"}
        assert body["metadata"]["finalizers"] == ["example.com/hold"]
        await c.api.patch_json(m.key, [{"op": "remove", "path": "/metadata/finalizers"}], priority=USER)


async def test_adoption_without_managed_fields(plane: ControlPlane, namespace: str) -> None:
    """An object whose managedFields were reset keeps its fields: `before-first-apply` is renamed too."""
    async with connect(plane) as c:
        await plane.kubectl("-n", namespace, "create", "configmap", "a", "--from-literal=theirs=1")
        reset = '[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]'
        await plane.kubectl("-n", namespace, "patch", "configmap", "a", "--type=json", "-p", reset)
        m = manifest(config_map(namespace, "a", {"k": "v"}))
        adopted = await adopt(c, m)
        assert {e.manager for e in adopted.managed} == {"fleet", "fleet-preexisting"}
        await heal(c, m)
        assert (await body_of(c, m))["data"] == {"k": "v", "theirs": "1"}


async def test_adoption_of_volumes_webhooks_and_namespaces(plane: ControlPlane) -> None:
    """A PV's claimRef, a webhook's caBundle and a namespace's pod-security labels survive adoption and repair."""
    volume: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "adopted-pv"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/data"},
        },
    }
    claim = {"claimRef": {"namespace": "default", "name": "claim", "apiVersion": "v1", "kind": "PersistentVolumeClaim"}}
    hook: dict[str, Any] = {
        "name": "check.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore",
        "rules": [
            {"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["widgets"]}
        ],
    }

    def webhook(**client_config: str) -> dict[str, Any]:
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "adopted-hook"},
            "webhooks": [{**hook, "clientConfig": {**hook["clientConfig"], **client_config}}],
        }

    space: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "adopted-ns"}}
    level = {"pod-security.kubernetes.io/enforce": "baseline"}
    async with connect(plane) as c:
        try:
            await plane.kubectl("create", "-f", "-", stdin=json.dumps({**volume, "spec": {**volume["spec"], **claim}}))
            await plane.kubectl("create", "-f", "-", stdin=json.dumps(webhook(caBundle=json_ca(plane))))
            await plane.kubectl(
                "create", "-f", "-", stdin=json.dumps({**space, "metadata": {"name": "adopted-ns", "labels": level}})
            )
            for body in (volume, webhook(), space):
                m = manifest({**body, "metadata": {**body["metadata"], "labels": {"ours": "1"}}})
                await adopt(c, m)
                kind, name = body["kind"], body["metadata"]["name"]
                await plane.kubectl("annotate", kind, name, "note=by-hand")
                await heal(c, m)
                after = await body_of(c, m)
                assert "note" not in after["metadata"].get("annotations", {})
                if kind == "PersistentVolume":
                    assert after["spec"]["claimRef"]["name"] == "claim"
                elif kind == "Namespace":
                    assert level.items() <= after["metadata"]["labels"].items()
                else:
                    assert after["webhooks"][0]["clientConfig"]["caBundle"]
        finally:
            await plane.kubectl("delete", "pv/adopted-pv", "--wait=false", "--ignore-not-found")
            await plane.kubectl("delete", "validatingwebhookconfiguration/adopted-hook", "--ignore-not-found")
            await plane.kubectl("delete", "namespace/adopted-ns", "--wait=false", "--ignore-not-found")


async def test_a_race_is_a_conflict(plane: ControlPlane, namespace: str) -> None:
    """A patch planned on a state that has moved on is refused, and nothing is folded."""
    async with connect(plane) as c:
        m = manifest(config_map(namespace, "a", {"k": "v"}))
        await adopt(c, m)
        await plane.kubectl("-n", namespace, "label", "configmap", "a", "by=hand")
        observed = await read(c, m)
        patch = plan_fold(observed.managed, KUBECTL, observed.rv)
        assert patch is not None
        await plane.kubectl("-n", namespace, "label", "configmap", "a", "more=1")
        with pytest.raises(Conflict):
            await c.api.patch_json(m.key, patch, priority=USER)


def json_ca(plane: ControlPlane) -> str:
    """A valid CA bundle as it stands in a webhook configuration."""
    return base64.b64encode(plane.ca_pem).decode()


def deployment(namespace: str) -> dict[str, Any]:
    """Write a Deployment without pods."""
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": "web", "namespace": namespace, "labels": labels}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
