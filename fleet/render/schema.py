"""What normalisation must know about the fields of built-in kinds. Tables only.

A field that is not here is passed on as it was written. A list is merged by the API server when it is here with
`keys`: two entries with equal keys are refused there, and an empty one means the same as none. Every other list is
atomic, where empty can be a statement of its own (a NetworkPolicy's `ingress: []` denies everything), and stays.

Source: kubernetes 1.36 OpenAPI v3, `x-kubernetes-list-type` and `x-kubernetes-list-map-keys`.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.object import GroupKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Struct:
    """An object; `defaults` are filled in where a field is missing or empty."""

    fields: Mapping[str, "Shape"] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list of `of`. With `keys` the API server merges it by them (`SET`: by the whole item)."""

    of: "Shape | None" = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """A string; a number or a bool is refused, since the API server would."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A map of string to string; null is the empty string. `droppable`: an empty map means the same as none."""

    droppable: bool = False


@dataclass(frozen=True, slots=True)
class Encoded:
    """A map of string to base64."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A CA bundle that a controller fills in: an empty one is left out, so that filling it in is no drift."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A resource quantity, brought to the API server's form."""


@dataclass(frozen=True, slots=True)
class Quantities:
    """A map of resource name to quantity."""


Shape = Struct | Items | Text | Texts | Encoded | Bundle | Quantity | Quantities

SET = ("",)

METADATA = Struct(
    fields={
        "name": Text(),
        "namespace": Text(),
        "labels": Texts(droppable=True),
        "annotations": Texts(droppable=True),
        "finalizers": Items(of=Text(), keys=SET),
        "ownerReferences": Items(keys=("uid",)),
    }
)
_SELECTOR = Struct(fields={"matchLabels": Texts()})
_RESOURCES = Struct(fields={"limits": Quantities(), "requests": Quantities(), "claims": Items(keys=("name",))})
_TEXT_LIST = Items(of=Text())
_NAMED = Items(keys=("name",))

_PORT = Struct(defaults={"protocol": "TCP"})
_DIVISOR = Struct(fields={"divisor": Quantity()})
_ENV = Struct(
    fields={
        "name": Text(),
        "value": Text(),
        "valueFrom": Struct(fields={"resourceFieldRef": _DIVISOR}),
    }
)
_HEADERS = Struct(
    fields={"httpGet": Struct(fields={"httpHeaders": Items(of=Struct(fields={"name": Text(), "value": Text()}))})}
)
_PROBE = Struct(fields={**_HEADERS.fields, "exec": Struct(fields={"command": _TEXT_LIST})})
_CONTAINER = Struct(
    fields={
        "name": Text(),
        "image": Text(),
        "command": _TEXT_LIST,
        "args": _TEXT_LIST,
        "env": Items(of=_ENV, keys=("name",)),
        "ports": Items(of=_PORT, keys=("containerPort", "protocol")),
        "volumeMounts": Items(keys=("mountPath",)),
        "volumeDevices": Items(keys=("devicePath",)),
        "resources": _RESOURCES,
        "livenessProbe": _PROBE,
        "readinessProbe": _PROBE,
        "startupProbe": _PROBE,
        "lifecycle": Struct(fields={"postStart": _PROBE, "preStop": _PROBE}),
    }
)
_CONTAINERS = Items(of=_CONTAINER, keys=("name",))
_STORAGE = Struct(fields={"limits": Quantities(), "requests": Quantities()})
_CLAIM_SPEC = Struct(fields={"resources": _STORAGE, "selector": _SELECTOR})
_DOWNWARD = Struct(fields={"items": Items(of=Struct(fields={"resourceFieldRef": _DIVISOR}))})
_VOLUME = Struct(
    fields={
        "name": Text(),
        "emptyDir": Struct(fields={"sizeLimit": Quantity()}),
        "csi": Struct(fields={"volumeAttributes": Texts()}),
        "downwardAPI": _DOWNWARD,
        "projected": Struct(fields={"sources": Items(of=Struct(fields={"downwardAPI": _DOWNWARD}))}),
        "ephemeral": Struct(fields={"volumeClaimTemplate": Struct(fields={"metadata": METADATA, "spec": _CLAIM_SPEC})}),
    }
)
_TERM = Struct(fields={"labelSelector": _SELECTOR, "namespaceSelector": _SELECTOR})
_NEIGHBOURS = Struct(
    fields={
        "preferredDuringSchedulingIgnoredDuringExecution": Items(of=Struct(fields={"podAffinityTerm": _TERM})),
        "requiredDuringSchedulingIgnoredDuringExecution": Items(of=_TERM),
    }
)
POD = Struct(
    fields={
        "containers": _CONTAINERS,
        "initContainers": _CONTAINERS,
        "ephemeralContainers": _CONTAINERS,
        "volumes": Items(of=_VOLUME, keys=("name",)),
        "imagePullSecrets": _NAMED,
        "hostAliases": Items(keys=("ip",)),
        "topologySpreadConstraints": Items(
            of=Struct(fields={"labelSelector": _SELECTOR}), keys=("topologyKey", "whenUnsatisfiable")
        ),
        "schedulingGates": _NAMED,
        "resourceClaims": _NAMED,
        "nodeSelector": Texts(),
        "affinity": Struct(fields={"podAffinity": _NEIGHBOURS, "podAntiAffinity": _NEIGHBOURS}),
        "overhead": Quantities(),
        "resources": _RESOURCES,
    }
)


def _owner(*, selector: Shape, **more: Shape) -> Struct:
    """Return a kind that owns pods through `spec.template`."""
    template = Struct(fields={"metadata": METADATA, "spec": POD})
    return Struct(fields={"spec": Struct(fields={"selector": selector, "template": template, **more})})


_PEERS = Items(of=Struct(fields={"podSelector": _SELECTOR, "namespaceSelector": _SELECTOR}))
_CLAIM = Struct(fields={"metadata": METADATA, "spec": _CLAIM_SPEC})
_WORKLOAD = _owner(selector=_SELECTOR)
_WEBHOOK = Struct(
    fields={
        "clientConfig": Struct(fields={"caBundle": Bundle()}),
        "matchConditions": _NAMED,
        "namespaceSelector": _SELECTOR,
        "objectSelector": _SELECTOR,
    }
)
_WEBHOOKS = Struct(fields={"webhooks": Items(of=_WEBHOOK, keys=("name",))})
_LIMIT = Struct(
    fields={name: Quantities() for name in ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")}
)
_VALIDATING = Struct(fields={"spec": Struct(fields={"variables": _NAMED, "matchConditions": _NAMED})})
_MUTATING = Struct(fields={"spec": Struct(fields={"matchConditions": _NAMED})})
_CONVERSION = Struct(
    fields={
        "webhook": Struct(fields={"clientConfig": Struct(fields={"caBundle": Bundle()})}),
    }
)
_ADMISSION, _APPS, _RBAC = "admissionregistration.k8s.io", "apps", "rbac.authorization.k8s.io"

KINDS: Mapping[GroupKind, Struct] = {
    GroupKind("", "ConfigMap"): Struct(fields={"data": Texts()}),
    GroupKind("", "Secret"): Struct(fields={"data": Encoded(), "stringData": Texts(), "type": Text()}),
    GroupKind("", "Service"): Struct(
        fields={"spec": Struct(fields={"selector": Texts(), "ports": Items(of=_PORT, keys=("port", "protocol"))})}
    ),
    GroupKind("", "ServiceAccount"): Struct(fields={"secrets": _NAMED}),
    GroupKind("", "Pod"): Struct(fields={"spec": POD}),
    GroupKind("", "PodTemplate"): Struct(fields={"template": Struct(fields={"metadata": METADATA, "spec": POD})}),
    GroupKind("", "ReplicationController"): _owner(selector=Texts()),
    GroupKind("", "PersistentVolumeClaim"): Struct(fields={"spec": _CLAIM_SPEC}),
    GroupKind("", "PersistentVolume"): Struct(fields={"spec": Struct(fields={"capacity": Quantities()})}),
    GroupKind("", "ResourceQuota"): Struct(fields={"spec": Struct(fields={"hard": Quantities()})}),
    GroupKind("", "LimitRange"): Struct(fields={"spec": Struct(fields={"limits": Items(of=_LIMIT)})}),
    GroupKind(_APPS, "Deployment"): _WORKLOAD,
    GroupKind(_APPS, "ReplicaSet"): _WORKLOAD,
    GroupKind(_APPS, "DaemonSet"): _WORKLOAD,
    GroupKind(_APPS, "StatefulSet"): _owner(selector=_SELECTOR, volumeClaimTemplates=Items(of=_CLAIM)),
    GroupKind("batch", "Job"): _WORKLOAD,
    GroupKind("batch", "CronJob"): Struct(
        fields={
            "spec": Struct(
                fields={"schedule": Text(), "jobTemplate": Struct(fields={"metadata": METADATA, **_WORKLOAD.fields})}
            )
        }
    ),
    GroupKind("networking.k8s.io", "NetworkPolicy"): Struct(
        fields={
            "spec": Struct(
                fields={
                    "podSelector": _SELECTOR,
                    "ingress": Items(of=Struct(fields={"from": _PEERS})),
                    "egress": Items(of=Struct(fields={"to": _PEERS})),
                }
            )
        }
    ),
    GroupKind("policy", "PodDisruptionBudget"): Struct(fields={"spec": Struct(fields={"selector": _SELECTOR})}),
    GroupKind("node.k8s.io", "RuntimeClass"): Struct(fields={"overhead": Struct(fields={"podFixed": Quantities()})}),
    GroupKind("storage.k8s.io", "StorageClass"): Struct(fields={"parameters": Texts()}),
    GroupKind("storage.k8s.io", "VolumeAttributesClass"): Struct(fields={"parameters": Texts()}),
    GroupKind(_ADMISSION, "ValidatingWebhookConfiguration"): _WEBHOOKS,
    GroupKind(_ADMISSION, "MutatingWebhookConfiguration"): _WEBHOOKS,
    GroupKind(_ADMISSION, "ValidatingAdmissionPolicy"): _VALIDATING,
    GroupKind(_ADMISSION, "MutatingAdmissionPolicy"): _MUTATING,
    GroupKind("apiregistration.k8s.io", "APIService"): Struct(fields={"spec": Struct(fields={"caBundle": Bundle()})}),
    GroupKind("apiextensions.k8s.io", "CustomResourceDefinition"): Struct(
        fields={"spec": Struct(fields={"conversion": _CONVERSION})}
    ),
}
"""What is known of each kind besides its metadata."""

UNKNOWN = Struct()


@functools.cache
def find_shape(kind: GroupKind) -> Struct:
    """Return what is known of a kind, its metadata included."""
    return Struct(fields={**KINDS.get(kind, UNKNOWN).fields, "metadata": METADATA})
