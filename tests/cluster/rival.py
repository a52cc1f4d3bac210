"""Other GitOps tools on a real cluster, as far as their field managers, marks, suspension and finalizers go."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from fleet.aio import spawn
from fleet.sim.real import ControlPlane

Body = dict[str, Any]
PAUSE_S = 0.3
APPLICATION_FINALIZER = "resources-finalizer.argocd.argoproj.io"
FLUX_FINALIZER = "finalizers.fluxcd.io"


class Rival(Protocol):
    """A tool that applies what it was given until it is told to stop."""

    @property
    def objects(self) -> Sequence[Body]: ...

    async def install(self, plane: ControlPlane) -> None:
        """Define its kind and make its one custom resource `shop`."""

    async def run_once(self, plane: ControlPlane) -> None:
        """Reconcile once."""


@dataclass(frozen=True)
class Flux:
    """kustomize-controller with a Kustomization that prunes."""

    objects: Sequence[Body]

    async def install(self, plane: ControlPlane) -> None:
        """Make the Kustomization `shop`."""
        group = "kustomize.toolkit.fluxcd.io"
        await _define(plane, group, "v1", "Kustomization", "kustomizations")
        metadata = {"name": "shop", "namespace": "flux-system", "finalizers": [FLUX_FINALIZER]}
        spec = {"prune": True, "path": "./shop", "suspend": False}
        body = {"apiVersion": f"{group}/v1", "kind": "Kustomization", "metadata": metadata, "spec": spec}
        await _create(plane, body)

    async def run_once(self, plane: ControlPlane) -> None:
        """Apply; when deleted, delete everything unless suspended. Source: kustomize-controller's finalize."""
        found = await _get(plane, "kustomization", "flux-system")
        if found is None:
            return
        if "deletionTimestamp" in found["metadata"]:
            if not found["spec"]["suspend"]:
                await _delete(plane, self.objects)
            await _finish(plane, "kustomization", "flux-system")
        elif not found["spec"]["suspend"]:
            marks = {f"kustomize.toolkit.fluxcd.io/{k}": v for k, v in (("name", "shop"), ("namespace", "flux-system"))}
            marked = [_marked(body, "labels", marks) for body in self.objects]
            flags = "--server-side", "--force-conflicts", "--field-manager=kustomize-controller"
            await plane.kubectl("apply", *flags, "-f", "-", stdin=_listed(marked))


@dataclass(frozen=True)
class ArgoCd:
    """The application controller with an Application that syncs by itself."""

    objects: Sequence[Body]

    async def install(self, plane: ControlPlane) -> None:
        """Make the Application `shop`."""
        await _define(plane, "argoproj.io", "v1alpha1", "Application", "applications")
        metadata = {"name": "shop", "namespace": "argocd", "finalizers": [APPLICATION_FINALIZER]}
        spec = {"syncPolicy": {"automated": {"prune": True, "selfHeal": True}}}
        body = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": metadata, "spec": spec}
        await _create(plane, body)

    async def run_once(self, plane: ControlPlane) -> None:
        """Apply; when deleted with its finalizer, delete everything. Source: Argo CD, app deletion."""
        found = await _get(plane, "application", "argocd")
        if found is None:
            return
        if "deletionTimestamp" in found["metadata"]:
            await _delete(plane, self.objects)
            await _finish(plane, "application", "argocd")
        elif found["spec"]["syncPolicy"].get("automated"):
            marked = [
                _marked(body, "annotations", {"argocd.argoproj.io/tracking-id": _track(body)}) for body in self.objects
            ]
            await plane.kubectl("apply", "--field-manager=argocd-controller", "-f", "-", stdin=_listed(marked))


@asynccontextmanager
async def reconciling(rival: Rival, plane: ControlPlane) -> AsyncIterator[None]:
    """Install a rival and let it apply for the length of the block; it has applied once when the block begins."""
    await rival.install(plane)
    await rival.run_once(plane)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        spawn(group, "rival", _run(rival, plane, stop))
        yield
        stop.set()


async def _run(rival: Rival, plane: ControlPlane, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await rival.run_once(plane)
        await asyncio.sleep(PAUSE_S)


async def _define(plane: ControlPlane, group: str, version: str, kind: str, plural: str) -> None:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
        "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
    }
    name = f"{plural}.{group}"
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": spec,
    }
    await plane.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    await plane.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s")


async def _create(plane: ControlPlane, body: Body) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": body["metadata"]["namespace"]}}
    await plane.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    await plane.kubectl("apply", "-f", "-", stdin=json.dumps(body))


async def _get(plane: ControlPlane, kind: str, namespace: str) -> Body | None:
    out = await plane.kubectl("get", kind, "shop", "-n", namespace, "-o", "json", "--ignore-not-found")
    return json.loads(out) if out.strip() else None


async def _delete(plane: ControlPlane, objects: Sequence[Body]) -> None:
    await plane.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=_listed(objects))


async def _finish(plane: ControlPlane, kind: str, namespace: str) -> None:
    patch = '{"metadata":{"finalizers":null}}'
    await plane.kubectl("patch", kind, "shop", "-n", namespace, "--type=merge", "-p", patch)


def _marked(body: Body, where: str, marks: Mapping[str, str]) -> Body:
    metadata = body["metadata"]
    return {**body, "metadata": {**metadata, where: {**metadata.get(where, {}), **marks}}}


def _track(body: Body) -> str:
    group, metadata = body["apiVersion"].rpartition("/")[0], body["metadata"]
    return f"shop:{group}/{body['kind']}:{metadata['namespace']}/{metadata['name']}"


def _listed(objects: Sequence[Body]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
