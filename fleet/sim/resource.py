"""The kinds a simulated cluster serves from birth, and what the machinery must know of each."""

from collections.abc import Iterator
from dataclasses import dataclass, field

READ_WRITE = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePaths:
    """Where the scale subresource finds its values, as field paths without the leading dot."""

    spec: str = "spec.replicas"
    status: str = "status.replicas"
    selector: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One served version of a kind.

    `fields` are the field paths that field selectors may name beside metadata.name and metadata.namespace. `counted`:
    metadata.generation counts changes of the spec. `patched_by_strategy`: built-in kinds know strategic merge patches.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str = ""
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = READ_WRITE
    has_status: bool = False
    scale: ScalePaths | None = None
    fields: tuple[str, ...] = ()
    counted: bool = False
    custom: bool = False
    storage_version: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_as(self) -> str:
        """The apiVersion objects are stored under."""
        version = self.storage_version or self.version
        return f"{self.group}/{version}" if self.group else version

    @property
    def collection(self) -> tuple[str, str]:
        """Identity of the stored collection, the same for all versions."""
        return (self.group, self.plural)

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"

    @property
    def qualified(self) -> str:
        """The name used in messages: ``deployments.apps``, ``configmaps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(slots=True)
class Registry:
    """All resources a cluster serves now; `generation` changes with each change of the set."""

    generation: int = 0
    _by_path: dict[tuple[str, str, str], Resource] = field(default_factory=dict)

    def add(self, resource: Resource) -> None:
        self._by_path[resource.group, resource.version, resource.plural] = resource
        self.generation += 1

    def drop(self, group: str, plural: str) -> None:
        """Stop serving every version of a resource."""
        for path in [path for path in self._by_path if (path[0], path[2]) == (group, plural)]:
            del self._by_path[path]
        self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_path.get((group, version, plural))

    def versions(self, group: str, plural: str) -> list[Resource]:
        """Return every served version of a resource."""
        return [r for path, r in self._by_path.items() if (path[0], path[2]) == (group, plural)]

    def find_kind(self, api_version: str, kind: str) -> Resource | None:
        """Return the resource of a manifest's apiVersion and kind."""
        for resource in self._by_path.values():
            if resource.kind == kind and resource.api_version == api_version:
                return resource
        return None

    def find_any(self, group: str, kind: str) -> Resource | None:
        """Return some served version of a kind."""
        return next((r for r in self._by_path.values() if (r.group, r.kind) == (group, kind)), None)

    def has_version(self, group: str, version: str) -> bool:
        return any(path[:2] == (group, version) for path in self._by_path)

    def has_builtin_group(self, group: str) -> bool:
        return any(path[0] == group and not resource.custom for path, resource in self._by_path.items())

    def groups(self) -> dict[str, list[str]]:
        """Return the versions of each group, preferred first, groups in order of arrival."""
        groups: dict[str, list[str]] = {}
        for group, version, _ in self._by_path:
            versions = groups.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return {group: sorted(versions, key=version_rank, reverse=True) for group, versions in groups.items()}

    def of_version(self, group: str, version: str) -> list[Resource]:
        return [r for r in self._by_path.values() if (r.group, r.version) == (group, version)]

    def collections(self) -> Iterator[Resource]:
        """Yield one resource per stored collection."""
        seen = set()
        for resource in self._by_path.values():
            if resource.collection not in seen:
                seen.add(resource.collection)
                yield resource


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Order versions as Kubernetes does: v2 > v1 > v2beta1 > v1beta2 > v1alpha1 > others by name."""
    digits, stage, minor = _split_version(version)
    if digits is None:
        return (0, 0, 0, version)
    return ({"": 3, "beta": 2, "alpha": 1}[stage], digits, minor, "")


def _split_version(version: str) -> tuple[int | None, str, int]:
    rest = version.removeprefix("v")
    for stage in ("alpha", "beta"):
        major, mark, minor = rest.partition(stage)
        if mark and major.isdigit() and minor.isdigit():
            return int(major), stage, int(minor)
    return (int(rest), "", 0) if version.startswith("v") and rest.isdigit() else (None, "", 0)


_SCALE = ScalePaths(selector="status.selector")
_ALL = ("all",)


def builtin_resources() -> list[Resource]:
    """Return what every simulated cluster serves."""
    return [*_core(), *_workloads(), *_access(), *_network_and_policy(), *_machinery()]


def _core() -> list[Resource]:
    pod_fields = ("spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase", "status.podIP")
    event_fields = (
        *(f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "apiVersion", "fieldPath")),
        *("reason", "type", "source", "reportingComponent"),
    )

    def core(kind: str, plural: str, *short: str, namespaced: bool = True) -> Resource:
        return Resource(
            group="",
            version="v1",
            kind=kind,
            plural=plural,
            singular=kind.lower(),
            short_names=short,
            namespaced=namespaced,
            has_status=kind in _CORE_WITH_STATUS,
            categories=_ALL if kind in ("Pod", "Service", "ReplicationController") else (),
            fields={"Pod": pod_fields, "Event": event_fields, "Secret": ("type",), "Namespace": ("status.phase",)}.get(
                kind, ()
            ),
            counted=kind in ("Pod", "ReplicationController"),
            scale=_SCALE if kind == "ReplicationController" else None,
        )

    return [
        core("Namespace", "namespaces", "ns", namespaced=False),
        core("Node", "nodes", "no", namespaced=False),
        core("PersistentVolume", "persistentvolumes", "pv", namespaced=False),
        core("ConfigMap", "configmaps", "cm"),
        core("Endpoints", "endpoints", "ep"),
        core("Event", "events", "ev"),
        core("LimitRange", "limitranges", "limits"),
        core("PersistentVolumeClaim", "persistentvolumeclaims", "pvc"),
        core("Pod", "pods", "po"),
        core("PodTemplate", "podtemplates"),
        core("ReplicationController", "replicationcontrollers", "rc"),
        core("ResourceQuota", "resourcequotas", "quota"),
        core("Secret", "secrets"),
        core("Service", "services", "svc"),
        core("ServiceAccount", "serviceaccounts", "sa"),
    ]


_CORE_WITH_STATUS = (
    "Namespace",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "ReplicationController",
    "ResourceQuota",
    "Service",
)


def _workloads() -> list[Resource]:
    def apps(kind: str, plural: str, *short: str, scale: ScalePaths | None = None, **more: bool) -> Resource:
        return Resource(
            group="apps",
            version="v1",
            kind=kind,
            plural=plural,
            singular=kind.lower(),
            short_names=short,
            categories=_ALL,
            scale=scale,
            has_status=more.get("has_status", True),
            counted=more.get("counted", True),
        )

    def batch(kind: str, plural: str, *short: str) -> Resource:
        return Resource(
            group="batch",
            version="v1",
            kind=kind,
            plural=plural,
            singular=kind.lower(),
            short_names=short,
            categories=_ALL,
            has_status=True,
            counted=True,
            fields=("status.successful",) if kind == "Job" else (),
        )

    revision = Resource(
        group="apps",
        version="v1",
        kind="ControllerRevision",
        plural="controllerrevisions",
        singular="controllerrevision",
    )
    autoscaler = Resource(
        group="autoscaling",
        version="v2",
        kind="HorizontalPodAutoscaler",
        plural="horizontalpodautoscalers",
        singular="horizontalpodautoscaler",
        short_names=("hpa",),
        categories=_ALL,
        has_status=True,
    )
    return [
        revision,
        apps("DaemonSet", "daemonsets", "ds"),
        apps("Deployment", "deployments", "deploy", scale=_SCALE),
        apps("ReplicaSet", "replicasets", "rs", scale=_SCALE),
        apps("StatefulSet", "statefulsets", "sts", scale=_SCALE),
        batch("CronJob", "cronjobs", "cj"),
        batch("Job", "jobs"),
        autoscaler,
    ]


def _access() -> list[Resource]:
    def rbac(kind: str, plural: str, *, namespaced: bool) -> Resource:
        group = "rbac.authorization.k8s.io"
        return Resource(
            group=group, version="v1", kind=kind, plural=plural, singular=kind.lower(), namespaced=namespaced
        )

    def review(group: str, kind: str, plural: str) -> Resource:
        return Resource(
            group=group,
            version="v1",
            kind=kind,
            plural=plural,
            singular=kind.lower(),
            namespaced=kind.startswith("Local"),
            verbs=("create",),
        )

    return [
        rbac("Role", "roles", namespaced=True),
        rbac("RoleBinding", "rolebindings", namespaced=True),
        rbac("ClusterRole", "clusterroles", namespaced=False),
        rbac("ClusterRoleBinding", "clusterrolebindings", namespaced=False),
        review("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
        review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews"),
    ]


def _network_and_policy() -> list[Resource]:
    networking, policy = "networking.k8s.io", "policy"
    return [
        Resource(
            group=networking,
            version="v1",
            kind="Ingress",
            plural="ingresses",
            singular="ingress",
            short_names=("ing",),
            has_status=True,
            counted=True,
        ),
        Resource(
            group=networking,
            version="v1",
            kind="IngressClass",
            plural="ingressclasses",
            singular="ingressclass",
            namespaced=False,
            counted=True,
        ),
        Resource(
            group=networking,
            version="v1",
            kind="NetworkPolicy",
            plural="networkpolicies",
            singular="networkpolicy",
            short_names=("netpol",),
            counted=True,
        ),
        Resource(
            group=policy,
            version="v1",
            kind="PodDisruptionBudget",
            plural="poddisruptionbudgets",
            singular="poddisruptionbudget",
            short_names=("pdb",),
            has_status=True,
            counted=True,
        ),
        Resource(
            group="discovery.k8s.io",
            version="v1",
            kind="EndpointSlice",
            plural="endpointslices",
            singular="endpointslice",
            counted=True,
        ),
    ]


def _machinery() -> list[Resource]:
    def cluster_wide(group: str, kind: str, plural: str, *short: str, **more: bool) -> Resource:
        return Resource(
            group=group,
            version="v1",
            kind=kind,
            plural=plural,
            singular=kind.lower(),
            short_names=short,
            namespaced=False,
            has_status=more.get("has_status", False),
            counted=more.get("counted", False),
        )

    admission = "admissionregistration.k8s.io"
    return [
        cluster_wide(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "crd",
            "crds",
            has_status=True,
            counted=True,
        ),
        cluster_wide("apiregistration.k8s.io", "APIService", "apiservices", has_status=True),
        cluster_wide("scheduling.k8s.io", "PriorityClass", "priorityclasses", "pc", counted=True),
        cluster_wide("storage.k8s.io", "StorageClass", "storageclasses", "sc"),
        cluster_wide("node.k8s.io", "RuntimeClass", "runtimeclasses"),
        cluster_wide(admission, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", counted=True),
        cluster_wide(admission, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", counted=True),
        cluster_wide(
            admission, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", has_status=True, counted=True
        ),
        cluster_wide(admission, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", counted=True),
        Resource(group="coordination.k8s.io", version="v1", kind="Lease", plural="leases", singular="lease"),
    ]
