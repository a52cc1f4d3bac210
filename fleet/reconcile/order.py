"""In which order objects are written, and pruned in reverse. Pure.

Ranks follow what needs what: definitions and namespaces, then what workloads read, workloads, what routes to them, and
last what can refuse all of it (webhooks), which also goes first. `argocd.argoproj.io/sync-wave` comes before the rank.
"""

from typing import NamedTuple

from fleet.object import Flags, ObjectKey

_STAGES: tuple[frozenset[str], ...] = (
    frozenset(
        {"CustomResourceDefinition", "Namespace", "PriorityClass", "StorageClass", "IngressClass", "RuntimeClass"}
    ),
    frozenset(
        {
            "ResourceQuota",
            "LimitRange",
            "NetworkPolicy",
            "ServiceAccount",
            "Role",
            "ClusterRole",
            "RoleBinding",
            "ClusterRoleBinding",
        }
    ),
    frozenset({"Secret", "ConfigMap", "PersistentVolume", "PersistentVolumeClaim"}),
)
_LATE = frozenset({"Ingress", "HTTPRoute", "Gateway", "GRPCRoute", "TLSRoute", "APIService"})
_LAST = frozenset(
    {
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
    }
)
_WORKLOAD_STAGE, _LATE_STAGE, _LAST_STAGE = 3, 4, 5
_BUILT_IN_SUFFIX = ".k8s.io"


class Rank(NamedTuple):
    """Objects of one rank are written in parallel; ranks one after the other."""

    wave: int
    stage: int


def stage_of(key: ObjectKey) -> int:
    """Place a kind among the stages; custom resources go with the workloads, whatever their kind is called.

    >>> stage_of(ObjectKey("", "Namespace", "", "shop")), stage_of(ObjectKey("apps", "Deployment", "shop", "web"))
    (0, 3)
    """
    if "." in key.group and not key.group.endswith(_BUILT_IN_SUFFIX):
        return _WORKLOAD_STAGE
    if key.kind in _LAST:
        return _LAST_STAGE
    if key.kind in _LATE:
        return _LATE_STAGE
    return next((stage for stage, kinds in enumerate(_STAGES) if key.kind in kinds), _WORKLOAD_STAGE)


def rank(key: ObjectKey, flags: Flags) -> Rank:
    """Rank an object for writing.

    >>> rank(ObjectKey("", "ConfigMap", "shop", "a"), Flags(wave=-1)) < rank(ObjectKey("", "Namespace", "", "shop"), Flags())
    True
    """
    return Rank(flags.wave, stage_of(key))


def prune_rank(key: ObjectKey) -> int:
    """Rank an object for pruning: the last written kinds go first, custom resources before their definitions.

    >>> prune_rank(ObjectKey("", "Namespace", "", "shop")) > prune_rank(ObjectKey("apps", "Deployment", "shop", "web"))
    True
    """
    return -stage_of(key)
