"""Workloads whose pods are replaced when a Secret that they use changes. Pure.

A pod reads most of its Secrets once, when it starts. The pod template of a workload with `fleet/restart:
on-secret-change` gets a digest of them as an annotation, so that a change of a value is a change of the template. The
digest is keyed, with another key for each cluster: it says nothing of the values, not even that two clusters have the same.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from fleet.annotation import SECRETS
from fleet.object import GroupKind, Manifest, ObjectKey, encode_canonical
from fleet.render.normalize import digest_body

WORKLOADS = frozenset(GroupKind("apps", kind) for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"))
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")


def secrets_of(m: Manifest) -> frozenset[ObjectKey]:
    """Return the Secrets that the pods of a workload use; empty for other kinds.

    Source: core/v1 PodSpec: `env`, `envFrom`, `volumes` (also projected) and `imagePullSecrets`.
    """
    if m.key.group_kind not in WORKLOADS:
        return frozenset()
    spec = _get(msgspec.json.decode(m.body), "spec", "template", "spec")
    names = _names(spec) if isinstance(spec, dict) else ()
    return frozenset(ObjectKey("", "Secret", m.key.namespace, name) for name in names if isinstance(name, str))


def mark_restart(m: Manifest, used: Mapping[ObjectKey, bytes], *, cluster: str, digest_key: bytes) -> Manifest:
    """Return a workload with the digest of the Secrets that its pods use in its pod template.

    `used` holds their keyed digests.
    """
    body = msgspec.json.decode(m.body)
    metadata = body["spec"]["template"].setdefault("metadata", {})
    metadata.setdefault("annotations", {})[SECRETS] = _digest(used, cluster, digest_key)
    encoded = encode_canonical(body)
    return replace(m, body=encoded, digest=digest_body(encoded, digest_key))


def _digest(used: Mapping[ObjectKey, bytes], cluster: str, digest_key: bytes) -> str:
    pepper = hashlib.blake2b(cluster.encode(), key=digest_key, person=b"fleet-restart", digest_size=32).digest()
    digest = hashlib.blake2b(key=pepper, digest_size=8)
    for key, value in sorted(used.items()):
        digest.update(f"{key.name}\0{len(value)}\0".encode() + value)
    return digest.hexdigest()


def _names(spec: Mapping[str, Any]) -> Iterator[Any]:
    for field in _CONTAINERS:
        for container in _items(spec, field):
            yield from (_get(entry, "valueFrom", "secretKeyRef", "name") for entry in _items(container, "env"))
            yield from (_get(entry, "secretRef", "name") for entry in _items(container, "envFrom"))
    for volume in _items(spec, "volumes"):
        yield _get(volume, "secret", "secretName")
        yield from (_get(source, "secret", "name") for source in _items(_get(volume, "projected"), "sources"))
    yield from (_get(entry, "name") for entry in _items(spec, "imagePullSecrets"))


def _items(value: Any, field: str) -> list[Any]:
    found = _get(value, field)
    return found if isinstance(found, list) else []


def _get(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
