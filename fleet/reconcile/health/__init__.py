"""Health: what a live object's status says, as a verdict. Pure.

The rules are kstatus's, which Flux uses too, made stricter where a gate must not pass too early: generic rules first,
then the kind's own, then the conditions that custom resources share.
"""

from fleet.reconcile.health.verdict import Health, Verdict

__all__ = ["Health", "Verdict", "assess", "has_status", "is_ended"]

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fleet.object import GroupKind
from fleet.reconcile.health.generic import assess_conditions, assess_generic
from fleet.reconcile.health.other import RULES as OTHER_RULES
from fleet.reconcile.health.workload import RULES as WORKLOAD_RULES
from fleet.reconcile.health.workload import is_ended

_RULES = {**WORKLOAD_RULES, **OTHER_RULES}

STATUSLESS = frozenset(
    {
        GroupKind("", "ConfigMap"),
        GroupKind("", "Secret"),
        GroupKind("", "ServiceAccount"),
        GroupKind("", "LimitRange"),
        GroupKind("", "ResourceQuota"),
        GroupKind("", "Endpoints"),
        GroupKind("batch", "CronJob"),
        GroupKind("networking.k8s.io", "NetworkPolicy"),
        GroupKind("networking.k8s.io", "IngressClass"),
        GroupKind("networking.k8s.io", "Ingress"),
        GroupKind("rbac.authorization.k8s.io", "Role"),
        GroupKind("rbac.authorization.k8s.io", "RoleBinding"),
        GroupKind("rbac.authorization.k8s.io", "ClusterRole"),
        GroupKind("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        GroupKind("scheduling.k8s.io", "PriorityClass"),
        GroupKind("storage.k8s.io", "StorageClass"),
        GroupKind("node.k8s.io", "RuntimeClass"),
        GroupKind("coordination.k8s.io", "Lease"),
        GroupKind("discovery.k8s.io", "EndpointSlice"),
        GroupKind("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        GroupKind("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
        GroupKind("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
        GroupKind("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
        GroupKind("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
        GroupKind("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
    }
)
"""Kinds whose existence is all there is to say: only their metadata is watched."""


def has_status(kind: GroupKind) -> bool:
    """Tell whether a kind is watched whole because its status matters: built-in ones by list, custom ones always.

    >>> has_status(GroupKind("apps", "Deployment")), has_status(GroupKind("", "Secret"))
    (True, False)
    """
    return kind not in STATUSLESS


def assess(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a whole live object.

    Source: sigs.k8s.io/cli-utils kstatus; Flux's rule for Jobs, Argo CD's for LoadBalancers and autoscalers.
    """
    generic = assess_generic(body)
    if generic is not None:
        return generic
    group = str(body.get("apiVersion", "")).rpartition("/")[0]
    rule = _RULES.get(GroupKind(group, str(body.get("kind", ""))))
    return rule(body, now) if rule else assess_conditions(body, now)
