"""Which built-in kinds live in a namespace. Pure.

Kinds that are not here are custom: their scope comes from a CustomResourceDefinition beside them, else from discovery.

Source: kubernetes 1.36 `kubectl api-resources`; kinds that cannot be stored (reviews, tokens) are left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.object import GroupKind

_NAMESPACED = {
    "": "Binding ConfigMap Endpoints Event LimitRange PersistentVolumeClaim Pod PodTemplate ReplicationController "
    "ResourceQuota Secret Service ServiceAccount",
    "apps": "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet",
    "autoscaling": "HorizontalPodAutoscaler",
    "batch": "CronJob Job",
    "certificates.k8s.io": "PodCertificateRequest",
    "coordination.k8s.io": "Lease LeaseCandidate",
    "discovery.k8s.io": "EndpointSlice",
    "events.k8s.io": "Event",
    "networking.k8s.io": "Ingress NetworkPolicy",
    "policy": "PodDisruptionBudget",
    "rbac.authorization.k8s.io": "Role RoleBinding",
    "resource.k8s.io": "ResourceClaim ResourceClaimTemplate",
    "scheduling.k8s.io": "PodGroup Workload",
    "storage.k8s.io": "CSIStorageCapacity",
}
_CLUSTER_SCOPED = {
    "": "Namespace Node PersistentVolume",
    "admissionregistration.k8s.io": "MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration "
    "ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration",
    "apiextensions.k8s.io": "CustomResourceDefinition",
    "apiregistration.k8s.io": "APIService",
    "certificates.k8s.io": "CertificateSigningRequest ClusterTrustBundle",
    "flowcontrol.apiserver.k8s.io": "FlowSchema PriorityLevelConfiguration",
    "internal.apiserver.k8s.io": "StorageVersion",
    "networking.k8s.io": "IPAddress IngressClass ServiceCIDR",
    "node.k8s.io": "RuntimeClass",
    "rbac.authorization.k8s.io": "ClusterRole ClusterRoleBinding",
    "resource.k8s.io": "DeviceClass DeviceTaintRule ResourceSlice",
    "scheduling.k8s.io": "PriorityClass",
    "storage.k8s.io": "CSIDriver CSINode StorageClass VolumeAttachment VolumeAttributesClass",
    "storagemigration.k8s.io": "StorageVersionMigration",
}

BUILT_IN: Mapping[GroupKind, bool] = {
    GroupKind(group, kind): namespaced
    for table, namespaced in ((_NAMESPACED, True), (_CLUSTER_SCOPED, False))
    for group, kinds in table.items()
    for kind in kinds.split()
}
"""True where the kind is namespaced."""

CRD = GroupKind("apiextensions.k8s.io", "CustomResourceDefinition")


def read_scopes(bodies: Iterable[Mapping[str, Any]]) -> dict[GroupKind, bool]:
    """Return the scopes that CustomResourceDefinitions among `bodies` declare; incomplete ones say nothing."""
    scopes = {}
    for body in bodies:
        spec = body.get("spec")
        if body.get("kind") != CRD.kind or not isinstance(spec, dict):
            continue
        names = spec.get("names")
        kind = names.get("kind") if isinstance(names, dict) else None
        if isinstance(kind, str) and isinstance(spec.get("group"), str) and spec.get("scope") in _SCOPE_WORDS:
            scopes[GroupKind(spec["group"], kind)] = spec["scope"] == "Namespaced"
    return scopes


_SCOPE_WORDS = ("Namespaced", "Cluster")
