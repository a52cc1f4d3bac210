"""Validation of metadata, and which rules count for which built-in kind."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fleet.sim import naming, objectrule, workloadrule
from fleet.sim.cause import Cause, Causes, forbidden, invalid
from fleet.sim.changerule import CHANGES
from fleet.sim.schema import Object

_SEGMENT_KINDS: Final = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "APIService")
_DOTLESS_KINDS: Final = ("Namespace", "Service")
_STANDARD_FINALIZERS: Final = ("kubernetes", "orphan", "foregroundDeletion")
_FINALIZER_SAYS: Final = "name is neither a standard finalizer name nor is it fully qualified"

Check = Callable[[Mapping[str, Any]], Causes]

_KINDS: Final[Mapping[tuple[str, str], Check]] = {
    ("", "ConfigMap"): objectrule.check_config_map,
    ("", "PersistentVolume"): objectrule.check_volume,
    ("", "PersistentVolumeClaim"): objectrule.check_claim,
    ("", "Pod"): workloadrule.check_pod,
    ("", "Secret"): objectrule.check_secret,
    ("", "Service"): objectrule.check_service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): objectrule.check_definition,
    ("apps", "DaemonSet"): workloadrule.check_daemon_set,
    ("apps", "Deployment"): workloadrule.check_deployment,
    ("apps", "ReplicaSet"): workloadrule.check_replica_set,
    ("apps", "StatefulSet"): workloadrule.check_stateful_set,
    ("autoscaling", "HorizontalPodAutoscaler"): workloadrule.check_autoscaler,
    ("batch", "CronJob"): workloadrule.check_cron_job,
    ("batch", "Job"): workloadrule.check_job,
    ("networking.k8s.io", "Ingress"): objectrule.check_ingress,
    ("networking.k8s.io", "NetworkPolicy"): objectrule.check_network_policy,
    ("policy", "PodDisruptionBudget"): workloadrule.check_disruption_budget,
    ("rbac.authorization.k8s.io", "ClusterRole"): objectrule.check_cluster_rules,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): objectrule.check_cluster_binding,
    ("rbac.authorization.k8s.io", "Role"): objectrule.check_rules,
    ("rbac.authorization.k8s.io", "RoleBinding"): objectrule.check_binding,
    ("scheduling.k8s.io", "PriorityClass"): objectrule.check_priority_class,
    ("storage.k8s.io", "StorageClass"): objectrule.check_storage_class,
}


def check_metadata(kind: str, obj: Object) -> Causes:
    """Check name, labels, annotations, owners and finalizers."""
    metadata = obj["metadata"]
    yield from naming.check("metadata.name", metadata["name"], _name_rule(kind))
    yield from naming.check_labels("metadata.labels", metadata.get("labels"))
    yield from naming.check_annotations("metadata.annotations", metadata.get("annotations"))
    for owner in metadata.get("ownerReferences") or ():
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                yield invalid(f"metadata.ownerReferences.{name}", owner.get(name) or "", "must not be empty")
    for n, finalizer in enumerate(metadata.get("finalizers") or ()):
        yield from naming.check("metadata.finalizers", finalizer, naming.key_faults)
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            yield invalid(f"metadata.finalizers[{n}]", finalizer, _FINALIZER_SAYS)


def _name_rule(kind: str) -> naming.Rule:
    if kind in _SEGMENT_KINDS:
        return naming.segment_faults
    return naming.dotless_faults if kind in _DOTLESS_KINDS else naming.subdomain_faults


def check_finalizers(live: Object, new: Object) -> Causes:
    """Check that nothing new holds an object that is going."""
    if "deletionTimestamp" not in live["metadata"]:
        return
    held = live["metadata"].get("finalizers") or ()
    more = [name for name in new["metadata"].get("finalizers") or () if name not in held]
    if more:
        listed = ", ".join(f'"{name}"' for name in more)
        why = "no new finalizers can be added if the object is being deleted, found new finalizers []string"
        yield forbidden("metadata.finalizers", f"{why}{{{listed}}}")


def check_kind(group: str, kind: str, obj: Object) -> Iterator[Cause]:
    """Check what only this kind asks for."""
    check = _KINDS.get((group, kind))
    return iter(()) if check is None else check(obj)


def check_change(group: str, kind: str, live: Object, new: Object) -> Iterator[Cause]:
    """Check what may not change in this kind."""
    check = CHANGES.get((group, kind))
    return iter(()) if check is None else check(live, new)
