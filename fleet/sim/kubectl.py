"""A person with kubectl: the same requests, under the same manager names, as the real tool sends."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fleet.sim.storage import Object

if TYPE_CHECKING:
    from fleet.sim.cluster import SimCluster

AGENT: Final = "kubectl/v1.36.3 (linux/amd64) kubernetes/0000000"
_STRATEGIC: Final = "application/strategic-merge-patch+json"
_MERGE: Final = "application/merge-patch+json"


class Kubectl:
    """Acts of a person on one cluster; `namespace` is where names are looked up.

    Kinds are given as ``Deployment`` or with their API version, ``apps/v1/Deployment``.
    """

    def __init__(self, cluster: "SimCluster", namespace: str = "default") -> None:
        self._cluster = cluster
        self._namespace = namespace

    def scale(self, kind: str, name: str, replicas: int) -> Object:
        """``kubectl scale``: writes the scale subresource."""
        body = {"spec": {"replicas": replicas}}
        return self._send("patch", kind, name, body, _MERGE, manager="", subresource="scale")

    def edit(self, kind: str, name: str, change: Callable[[Object], None]) -> Object:
        """``kubectl edit``: `change` alters a copy of the live object in place."""
        live = self._cluster.get(*self._cluster.kind(kind), self._namespace, name)
        edited = msgspec.json.decode(msgspec.json.encode(live))
        change(edited)
        body = merge_difference(live, edited)
        return self._send("patch", kind, name, body, _MERGE, manager="kubectl-edit")

    def set_image(self, name: str, container: str, image: str, *, kind: str = "Deployment") -> Object:
        """``kubectl set image``."""
        return self._patch_container(kind, name, {"name": container, "image": image})

    def set_env(self, name: str, container: str, variable: str, value: str, *, kind: str = "Deployment") -> Object:
        """``kubectl set env``."""
        return self._patch_container(kind, name, {"name": container, "env": [{"name": variable, "value": value}]})

    def label(self, kind: str, name: str, **labels: str | None) -> Object:
        """``kubectl label --overwrite``; None removes a label."""
        return self._send("patch", kind, name, {"metadata": {"labels": labels}}, _MERGE, manager="kubectl-label")

    def annotate(self, kind: str, name: str, annotations: Mapping[str, str | None]) -> Object:
        """``kubectl annotate --overwrite``; None removes an annotation."""
        body = {"metadata": {"annotations": dict(annotations)}}
        return self._send("patch", kind, name, body, _MERGE, manager="kubectl-annotate")

    def patch(self, kind: str, name: str, body: Any, *, media: str = _MERGE) -> Object:
        """``kubectl patch``."""
        return self._send("patch", kind, name, body, media, manager="kubectl-patch")

    def restart(self, name: str, at: str, *, kind: str = "Deployment") -> Object:
        """``kubectl rollout restart``; `at` is the time it writes into the template."""
        template = {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": at}}}
        return self._send("patch", kind, name, {"spec": {"template": template}}, _STRATEGIC, manager="kubectl-rollout")

    def create(self, obj: Object) -> Object:
        """``kubectl create -f``."""
        return self._cluster.create(obj, manager="kubectl-create", user_agent=AGENT)

    def apply(self, obj: Object, *, force: bool = False) -> Object:
        """``kubectl apply --server-side``."""
        return self._cluster.apply(obj, manager="kubectl", force=force, user_agent=AGENT)

    def delete(self, kind: str, name: str, *, policy: str = "Background") -> Object:
        """``kubectl delete``."""
        return self._send("delete", kind, name, {"propagationPolicy": policy}, "application/json", manager="")

    def _patch_container(self, kind: str, name: str, container: Mapping[str, Any]) -> Object:
        body = {"spec": {"template": {"spec": {"containers": [container]}}}}
        return self._send("patch", kind, name, body, _STRATEGIC, manager="kubectl-set")

    def _send(
        self, verb: str, kind: str, name: str, body: Any, media: str, *, manager: str, subresource: str = ""
    ) -> Object:
        api_version, kind = self._cluster.kind(kind)
        return self._cluster.call(
            verb,
            (api_version, kind),
            (self._namespace, name),
            body,
            media=media,
            subresource=subresource,
            query={"fieldManager": manager} if manager else {},
            user_agent=AGENT,
        )


def merge_difference(before: Any, after: Any) -> Any:
    """Return the JSON merge patch that leads from one object to the other."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    difference = {name: None for name in before if name not in after}
    for name, value in after.items():
        if name not in before or before[name] != value:
            difference[name] = merge_difference(before.get(name), value)
    return difference
