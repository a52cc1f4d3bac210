"""What may not change once an object is there."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fleet.sim import quantity
from fleet.sim.cause import Causes, forbidden, invalid

Struct = Mapping[str, Any]
Check = Callable[[Struct, Struct], Causes]
"""Compares the live object with the one that is to replace it."""


def _fixed(*paths: str) -> Check:
    def check(live: Struct, new: Struct) -> Causes:
        for path in paths:
            value = _at(new, path)
            if value != _at(live, path):
                yield invalid(path, value, "field is immutable")

    return check


def _at(obj: Struct, path: str) -> Any:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _only(allowed: Sequence[str], why: str, *, path: str = "spec") -> Check:
    """Forbid changes of a struct outside some of its fields."""

    def check(live: Struct, new: Struct) -> Causes:
        before, after = (
            {n: v for n, v in (obj.get(path) or {}).items() if n not in allowed and v} for obj in (live, new)
        )
        if before != after:
            yield forbidden(path, why)

    return check


def _service(live: Struct, new: Struct) -> Causes:
    before, after = live["spec"].get("clusterIP"), new["spec"].get("clusterIP")
    if before and after != before and new["spec"].get("type") != "ExternalName":
        yield invalid("spec.clusterIPs[0]", [after] if after else None, "may not change once set")


def _sealed(live: Struct, new: Struct) -> Causes:
    """ConfigMaps and Secrets that are immutable."""
    if not live.get("immutable"):
        return
    why = "field is immutable when `immutable` is set"
    if not new.get("immutable"):
        yield forbidden("immutable", why)
    for name in ("data", "binaryData"):
        if live.get(name) != new.get(name):
            yield forbidden(name, why)


def _secret(live: Struct, new: Struct) -> Causes:
    yield from _fixed("type")(live, new)
    yield from _sealed(live, new)


def _binding(live: Struct, new: Struct) -> Causes:
    role = new["roleRef"]
    if role != live["roleRef"]:
        said = {"APIGroup": role.get("apiGroup", ""), "Kind": role.get("kind", ""), "Name": role.get("name", "")}
        yield invalid("roleRef", said, "cannot change roleRef")


def _priority_class(live: Struct, new: Struct) -> Causes:
    if live.get("value") != new.get("value"):
        yield forbidden("value", "may not be changed in an update.")


_STATEFUL_SET_FIELDS: Final = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
_POD_FIELDS: Final = (
    "spec.containers[*].image",
    "spec.initContainers[*].image",
    "spec.activeDeadlineSeconds",
    "spec.tolerations",
)
_LISTED: Final = ", ".join(f"'{name}'" for name in _STATEFUL_SET_FIELDS[:-1])

_stateful_set: Final = _only(
    _STATEFUL_SET_FIELDS,
    f"updates to statefulset spec for fields other than {_LISTED} and '{_STATEFUL_SET_FIELDS[-1]}' are forbidden",
)
_claim_spec: Final = _only(
    ("resources", "volumeAttributesClassName", "volumeName"),
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
)


def _claim(live: Struct, new: Struct) -> Causes:
    yield from _claim_spec(live, new)
    before, after = (_at(obj, "spec.resources.requests.storage") for obj in (live, new))
    if before and after and quantity.magnitude(after) < quantity.magnitude(before):
        yield forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")


def _pod(live: Struct, new: Struct) -> Causes:
    if _frozen_pod(live["spec"]) != _frozen_pod(new["spec"]):
        listed = ",".join(f"`{name}`" for name in _POD_FIELDS)
        why = f"pod updates may not change fields other than {listed} (only additions to existing tolerations)"
        yield forbidden("spec", why)


def _frozen_pod(spec: Struct) -> Struct:
    frozen = {name: value for name, value in spec.items() if name not in ("activeDeadlineSeconds", "tolerations")}
    for name in ("containers", "initContainers"):
        if name in frozen:
            frozen[name] = [{**container, "image": ""} for container in frozen[name] or ()]
    return frozen


CHANGES: Final[Mapping[tuple[str, str], Check]] = {
    ("", "ConfigMap"): _sealed,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): _pod,
    ("", "Secret"): _secret,
    ("", "Service"): _service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _fixed("spec.group", "spec.scope", "spec.names.kind"),
    ("apps", "DaemonSet"): _fixed("spec.selector"),
    ("apps", "Deployment"): _fixed("spec.selector"),
    ("apps", "ReplicaSet"): _fixed("spec.selector"),
    ("apps", "StatefulSet"): _stateful_set,
    ("batch", "Job"): _fixed("spec.completions", "spec.selector", "spec.template", "spec.completionMode"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _binding,
    ("rbac.authorization.k8s.io", "RoleBinding"): _binding,
    ("scheduling.k8s.io", "PriorityClass"): _priority_class,
    ("storage.k8s.io", "StorageClass"): _fixed("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"),
}
"""By (group, kind)."""
