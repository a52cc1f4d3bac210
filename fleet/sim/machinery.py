"""Controllers that belong to the API machinery: namespaces, definitions, owners and their dependents."""

from typing import Any, Final

from fleet.sim import crd
from fleet.sim.controller import Engine, Trigger, Work
from fleet.sim.deletion import FOREGROUND, ORPHAN, DeleteOptions, begin
from fleet.sim.reading import key_of
from fleet.sim.resource import Resource
from fleet.sim.storage import Collection, Event, Key, Object

_NAMESPACES: Final = ("", "namespaces")
_DEFINITIONS: Final = (crd.GROUP, crd.PLURAL)
ROOT_CA: Final = "kube-root-ca.crt"


def triggers() -> list[Trigger]:
    return [_on_namespace, _on_definition, _on_any]


def _on_namespace(collection: Collection, event: Event) -> list[tuple[Work, Key]]:
    if collection == _NAMESPACES:
        return [(keep_namespace, event.key)]
    if event.type == "DELETED" and event.key[0]:
        return [(keep_namespace, ("", event.key[0]))]
    return []


def _on_definition(collection: Collection, event: Event) -> list[tuple[Work, Key]]:
    if collection == _DEFINITIONS:
        return [(keep_definition, event.key)]
    if event.type == "DELETED":
        return [(keep_definition, ("", f"{collection[1]}.{collection[0]}"))]
    return []


def _on_any(collection: Collection, event: Event) -> list[tuple[Work, Key]]:
    metadata = event.obj["metadata"]
    if event.type == "MODIFIED" and "deletionTimestamp" not in metadata:
        return []
    keys = [("", owner["uid"]) for owner in metadata.get("ownerReferences") or ()]
    if event.type == "DELETED" or "deletionTimestamp" in metadata:
        keys.append(("", metadata["uid"]))
    return [(collect, key) for key in keys]


# Namespaces.


def keep_namespace(engine: Engine, key: Key) -> None:
    """Make a namespace Active and furnish it; empty and release one that is going."""
    namespace = engine.get("", "Namespace", key)
    if namespace is None:
        return
    if "deletionTimestamp" in namespace["metadata"]:
        _empty_namespace(engine, namespace)
        return
    if namespace.get("status", {}).get("phase") != "Active":
        namespace = engine.write(namespace, {"status": {"phase": "Active"}})
    for obj in _furniture(key[1]):
        if engine.get("", obj["kind"], key_of(obj)) is None:
            engine.create(obj)


def _furniture(namespace: str) -> list[Object]:
    certificate = "-----BEGIN CERTIFICATE-----\nc2ltdWxhdGVk\n-----END CERTIFICATE-----\n"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": ROOT_CA, "namespace": namespace},
            "data": {"ca.crt": certificate},
        },
    ]


def _empty_namespace(engine: Engine, namespace: Object) -> None:
    name = namespace["metadata"]["name"]
    left: dict[str, list[str]] = {}
    for resource, obj in _content(engine, name):
        if "deletionTimestamp" not in obj["metadata"]:
            begin(engine.state, resource, obj, DeleteOptions(policy="Background", grace_s=0))
    for resource, obj in _content(engine, name):
        left.setdefault(resource.qualified, []).extend(obj["metadata"].get("finalizers") or [])
    status = {"phase": "Terminating", "conditions": _namespace_conditions(engine, namespace, left)}
    if left:
        engine.write(namespace, {"status": status})
        return
    metadata = {**namespace["metadata"]}
    if metadata.get("finalizers"):
        engine.write(namespace, {"spec": {"finalizers": []}, "status": status}, subresource="finalize")
        return
    engine.state.storage.remove(_NAMESPACES, ("", name))


def _content(engine: Engine, namespace: str) -> list[tuple[Resource, Object]]:
    return [
        (resource, obj)
        for resource in engine.state.registry.collections()
        if resource.namespaced and "list" in resource.verbs
        for obj in engine.state.storage.items(resource.collection, namespace)
    ]


def _namespace_conditions(engine: Engine, namespace: Object, left: dict[str, list[str]]) -> list[dict[str, str]]:
    known = {c["type"]: c for c in namespace.get("status", {}).get("conditions") or ()}
    finalizers = sorted({f for names in left.values() for f in names})
    resources = ", ".join(f"{name} has {len(names) or 1} resource instances" for name, names in sorted(left.items()))
    remaining = ", ".join(f"{name} in 1 resource instances" for name in finalizers)
    wanted = [
        ("NamespaceDeletionDiscoveryFailure", False, "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "NamespaceDeletionContentFailure",
            False,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            bool(left),
            "SomeResourcesRemain" if left else "ContentRemoved",
            f"Some resources are remaining: {resources}" if left else "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            bool(finalizers),
            "SomeFinalizersRemain" if finalizers else "ContentHasNoFinalizers",
            f"Some content in the namespace has finalizers remaining: {remaining}"
            if finalizers
            else "All content-preserving finalizers finished",
        ),
    ]
    return [_condition(engine, known.get(said[0]), *said) for said in wanted]


def _condition(engine: Engine, known: dict[str, str] | None, *said: Any) -> dict[str, str]:
    kind, holds, reason, message = said
    value = "True" if holds else "False"
    same = known is not None and known["status"] == value
    at = known["lastTransitionTime"] if known is not None and same else engine.state.timestamp()
    return {"type": kind, "status": value, "lastTransitionTime": at, "reason": reason, "message": message}


# Definitions.


def keep_definition(engine: Engine, key: Key) -> None:
    """Establish and serve a definition; take one that is going away with all its objects."""
    definition = engine.get(crd.GROUP, "CustomResourceDefinition", key)
    if definition is None:
        return
    if "deletionTimestamp" in definition["metadata"]:
        _end_definition(engine, definition)
        return
    wanted = crd.accepted_status(engine.state, definition)
    definition = engine.write(definition, {"status": wanted})
    crd.serve(engine.state, definition)


def _end_definition(engine: Engine, definition: Object) -> None:
    finalizers = definition["metadata"].get("finalizers") or []
    if crd.CLEANUP not in finalizers:
        return
    conditions = [c for c in definition.get("status", {}).get("conditions") or () if c["type"] != "Terminating"]
    if len(conditions) == len(definition.get("status", {}).get("conditions") or ()):
        status = {
            **definition.get("status", {}),
            "conditions": [*conditions, crd.terminating_condition(engine.state.timestamp())],
        }
        definition = engine.write(definition, {"status": status})
    spec = definition["spec"]
    collection = (spec["group"], spec["names"]["plural"])
    resource = engine.state.registry.find_any(spec["group"], spec["names"]["kind"])
    if resource is not None:
        for obj in engine.state.storage.items(collection):
            if "deletionTimestamp" not in obj["metadata"]:
                begin(engine.state, resource, obj, DeleteOptions())
    if engine.state.storage.items(collection):
        return
    engine.state.storage.close_streams(collection)
    crd.withdraw(engine.state, definition)
    _release(engine, definition, crd.CLEANUP)


def _release(engine: Engine, obj: Object, finalizer: str) -> None:
    """Take a finalizer off, and the object away when it was the last of one that is going."""
    left = [name for name in obj["metadata"].get("finalizers") or () if name != finalizer]
    if not left and "deletionTimestamp" in obj["metadata"]:
        engine.remove(obj)
        return
    metadata: dict[str, Any] = {name: value for name, value in obj["metadata"].items() if name != "finalizers"}
    engine.write(obj, {"metadata": metadata | ({"finalizers": left} if left else {})}, subresource="")


# Owners and dependents.


def collect(engine: Engine, key: Key) -> None:
    """Bring the dependents of one uid in line: delete, orphan, or wait for them."""
    uid = key[1]
    owner, dependents = _family(engine, uid)
    if owner is None:
        for resource, obj in dependents:
            _lose_owner(engine, resource, obj, uid)
        return
    finalizers = owner["metadata"].get("finalizers") or ()
    if ORPHAN in finalizers:
        for _, obj in dependents:
            _drop_reference(engine, obj, uid)
        _release(engine, owner, ORPHAN)
    elif FOREGROUND in finalizers:
        for resource, obj in dependents:
            if "deletionTimestamp" not in obj["metadata"]:
                begin(engine.state, resource, obj, DeleteOptions(policy="Foreground"))
        if not any(_blocks(obj, uid) for _, obj in _family(engine, uid)[1]):
            _release(engine, owner, FOREGROUND)


def _family(engine: Engine, uid: str) -> tuple[Object | None, list[tuple[Resource, Object]]]:
    storage = engine.state.storage
    served = {resource.collection: resource for resource in engine.state.registry.collections()}
    place = storage.kinship.place(uid)
    dependents = []
    for collection, key in storage.kinship.dependents(uid):
        obj = storage.get(collection, key)
        if obj is not None and collection in served:
            dependents.append((served[collection], obj))
    return (storage.get(*place) if place else None), dependents


def _blocks(obj: Object, uid: str) -> bool:
    references = obj["metadata"].get("ownerReferences") or ()
    return any(r["uid"] == uid and r.get("blockOwnerDeletion") for r in references)


def _lose_owner(engine: Engine, resource: Resource, obj: Object, uid: str) -> None:
    owners = [reference["uid"] for reference in obj["metadata"]["ownerReferences"]]
    if any(engine.state.storage.kinship.place(owner) for owner in owners):
        _drop_reference(engine, obj, uid)
    elif "deletionTimestamp" not in obj["metadata"]:
        begin(engine.state, resource, obj, DeleteOptions(policy="Background"))


def _drop_reference(engine: Engine, obj: Object, uid: str) -> None:
    left = [r for r in obj["metadata"].get("ownerReferences") or () if r["uid"] != uid]
    metadata: dict[str, Any] = {name: value for name, value in obj["metadata"].items() if name != "ownerReferences"}
    engine.write(obj, {"metadata": metadata | ({"ownerReferences": left} if left else {})}, subresource="")
