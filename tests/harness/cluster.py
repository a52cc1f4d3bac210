"""One API server in memory, with exactly what `reconcile` asks of one: a ClusterApi and Kinds that record every call."""

import asyncio
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fleet.errors import Cause, Conflict, FleetError, Invalid, NotFound
from fleet.kube.api import Applied, Deleted
from fleet.kube.discovery import Resource
from fleet.kube.gate import Priority
from fleet.kube.ownership import format_path
from fleet.kube.wire import Observed
from fleet.object import GroupKind, Gvk, Manifest, ObjectKey
from tests.harness.objects import Path, Stored, flatten, parse_path

CRD = GroupKind("apiextensions.k8s.io", "CustomResourceDefinition")
NAMESPACE = GroupKind("", "Namespace")
BUILT_IN = {
    NAMESPACE: ("v1", False),
    GroupKind("", "ConfigMap"): ("v1", True),
    GroupKind("", "Secret"): ("v1", True),
    GroupKind("", "ServiceAccount"): ("v1", True),
    GroupKind("", "Service"): ("v1", True),
    GroupKind("", "ResourceQuota"): ("v1", True),
    GroupKind("", "Pod"): ("v1", True),
    GroupKind("", "PersistentVolume"): ("v1", False),
    GroupKind("", "PersistentVolumeClaim"): ("v1", True),
    GroupKind("apps", "Deployment"): ("v1", True),
    GroupKind("batch", "Job"): ("v1", True),
    GroupKind("rbac.authorization.k8s.io", "ClusterRole"): ("v1", False),
    CRD: ("v1", False),
}
IMMUTABLE = {
    GroupKind("batch", "Job"): ("f:spec", "f:template"),
    GroupKind("", "Pod"): ("f:spec",),
    GroupKind("", "Service"): ("f:spec", "f:clusterIP"),
}

Call = tuple[str, ObjectKey]
Event = tuple[ObjectKey, Observed | None, Observed | None]


def resource(kind: GroupKind, version: str, *, namespaced: bool) -> Resource:
    """Describe a served kind."""
    return Resource(
        gvk=Gvk(kind.group, version, kind.kind),
        plural=f"{kind.kind.lower()}s",
        namespaced=namespaced,
        verbs=frozenset({"get", "list", "watch", "patch", "delete"}),
        served_versions=(version,),
    )


@dataclass(repr=False)
class FakeCluster:
    """The server. `calls` are the requests in order; `refuse` fails the next ones of an object."""

    calls: list[Call] = field(default_factory=list)
    objects: dict[ObjectKey, Stored] = field(default_factory=dict)
    on_event: Callable[[Event], None] = lambda _: None
    refusals: dict[Call, list[FleetError]] = field(default_factory=dict)
    hold_deletions: bool = False
    """Deletions stay pending, as with finalizers, until `finish_deletion`."""

    def __post_init__(self) -> None:
        self._rv = 100
        self._uids = 0
        self._definitions = dict(BUILT_IN)
        self._served = dict(BUILT_IN)
        self._schemas = 0
        for name in ("default", "fleet-system", "shop"):
            self.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, "kube-apiserver")

    # what tests do to the cluster

    def seed(self, body: Mapping[str, Any], manager: str = "kubectl-client-side-apply", **more: Any) -> ObjectKey:
        """Create an object as somebody else."""
        stored = self._make(body, **more)
        stored.update(manager, {p: v for p, v in flatten(body) if p not in (("f:apiVersion",), ("f:kind",))})
        self._store(None, stored)
        return stored.key

    def edit(
        self,
        key: ObjectKey,
        manager: str = "kubectl-edit",
        **values: Any,
    ) -> None:
        """Change fields by hand; names are paths such as `data/k`."""
        self.write(key, manager, {parse_path(path): value for path, value in values.items()})

    def scale(self, key: ObjectKey, manager: str, replicas: int) -> None:
        """Write the scale subresource."""
        self.write(key, manager, {parse_path("spec/replicas"): replicas}, subresource="scale")

    def write(
        self,
        key: ObjectKey,
        manager: str,
        values: Mapping[Path, Any],
        remove: Iterable[Path] = (),
        subresource: str = "",
    ) -> None:
        """Change fields named by their paths."""
        before, after = self.objects[key], self._copy(key)
        after.update(manager, values, remove, subresource)
        self._store(before, after)

    def annotate(self, key: ObjectKey, name: str, value: str, manager: str = "kubectl-annotate") -> None:
        """Set an annotation by hand."""
        self.write(key, manager, {("f:metadata", "f:annotations", f"f:{name}"): value})

    def unlabel(self, key: ObjectKey, name: str) -> None:
        """Take a label off by hand."""
        self.write(key, "kubectl-label", {}, [("f:metadata", "f:labels", f"f:{name}")])

    def set_status(self, key: ObjectKey, **status: Any) -> None:
        """Write status as a controller does."""
        before, after = self.objects[key], self._copy(key)
        after.status = {**(after.status or {}), **status}
        self._store(before, after)

    def remove(self, key: ObjectKey) -> None:
        """Delete by hand, at once."""
        before = self.objects.pop(key)
        self._rv += 1
        self._emit(before, None)

    def finish_deletion(self, key: ObjectKey) -> None:
        """Let the last finalizer go."""
        assert self.objects[key].deleting
        self.remove(key)

    def refuse(self, verb: str, key: ObjectKey, *errors: FleetError) -> None:
        """Answer the next requests of a kind about an object with errors."""
        self.refusals.setdefault((verb, key), []).extend(errors)

    def serve(self, kind: GroupKind, *, namespaced: bool = True) -> None:
        """Serve a custom kind, as if somebody had made its definition."""
        self._definitions[kind] = self._served[kind] = ("v1", namespaced)

    def unserve(self, kind: GroupKind) -> None:
        """Stop serving a kind; its objects go with it."""
        del self._definitions[kind], self._served[kind]
        for key in [key for key in self.objects if key.group_kind == kind]:
            del self.objects[key]

    def body(self, key: ObjectKey) -> dict[str, Any]:
        """Return an object decoded."""
        return self.objects[key].body()

    def value(self, key: ObjectKey, path: str) -> Any:
        """Return one leaf; None when it is not there."""
        return self.objects[key].leaves.get(parse_path(path))

    def owners(self, key: ObjectKey, path: str) -> list[str]:
        """Name the managers of one leaf."""
        return sorted(m.name for m in self.objects[key].managers if parse_path(path) in m.paths)

    def drain(self) -> list[Call]:
        """Return the calls since the last drain."""
        calls, self.calls = self.calls, []
        return calls

    # Kinds

    def resource(self, kind: GroupKind) -> Resource | None:
        """Return the kind if it was served at the last refresh."""
        known = self._served.get(kind)
        return resource(kind, known[0], namespaced=known[1]) if known else None

    def kinds(self) -> tuple[GroupKind, ...]:
        """Return what was served at the last refresh."""
        return tuple(self._served)

    def resource_for(self, gvk: Gvk) -> Resource | None:
        """Return the kind at a version."""
        found = self.resource(gvk.group_kind)
        return found if found is not None and found.gvk == gvk else None

    async def refresh(self) -> None:
        """Learn of new definitions."""
        self.calls.append(("refresh", ObjectKey("", "", "", "")))
        self._served = dict(self._definitions)

    async def schema_hash(self, group: str, version: str) -> str:
        """Return a hash that changes with each definition."""
        return str(self._schemas) if any(kind.group == group for kind in self._definitions) else ""

    # ClusterApi

    async def apply(
        self,
        m: Manifest,
        *,
        priority: Priority,
        dry_run: bool = False,
        force: bool | None = None,
        whole: bool = False,
    ) -> Applied:
        """Server-side apply with force; a dry run stores nothing."""
        await self._enter("apply", m.key)
        self._check(m)
        body = msgspec.json.decode(m.body)
        before = self.objects.get(m.key)
        after = self._make(body) if before is None else self._copy(m.key)
        overridden = after.apply("fleet", dict(flatten(body)))
        if before is not None:
            self._check_immutable(before, after)
        if dry_run:
            return Applied(observed=after.observed(whole=whole), created=before is None)
        self._store(before, after)
        causes = tuple(
            Cause("FieldManagerConflict", format_path(path), f'conflict with "{name}"') for path, name in overridden
        )
        observed = self.objects[m.key].observed(whole=whole)
        return Applied(observed=observed, created=before is None, overridden=causes)

    async def delete(self, key: ObjectKey, uid: str, *, priority: Priority, propagation: str = "Background") -> Deleted:
        """Delete with a uid precondition."""
        await self._enter("delete", key)
        before = self.objects.get(key)
        if before is None:
            return Deleted(gone=True)
        if before.uid != uid:
            raise Conflict("the UID in the precondition does not match", status=409, subject=str(key))
        if not before.finalizers and not self.hold_deletions:
            self.remove(key)
            return Deleted(gone=True)
        after = self._copy(key)
        after.deleting = True
        self._store(before, after)
        return Deleted(gone=False)

    async def get_metadata(self, key: ObjectKey, *, priority: Priority) -> Observed | None:
        """Read metadata."""
        await self._enter("get", key)
        return self.objects[key].observed(whole=False) if key in self.objects else None

    async def get(self, key: ObjectKey, *, priority: Priority, version: str = "") -> Observed | None:
        """Read the whole object; every version of it is the same here."""
        await self._enter("get", key)
        return self.objects[key].observed(whole=True) if key in self.objects else None

    async def list_metadata(self, kind: GroupKind, namespace: str, *, priority: Priority) -> list[Observed]:
        """List one kind."""
        await self._enter("list", ObjectKey(kind.group, kind.kind, namespace, ""))
        return [
            stored.observed(whole=False)
            for key, stored in self.objects.items()
            if key.group_kind == kind and namespace in ("", key.namespace)
        ]

    async def patch_planned(
        self,
        key: ObjectKey,
        plan: Callable[[Observed], Sequence[Mapping[str, object]] | None],
        *,
        priority: Priority,
        observed: Observed | None = None,
    ) -> Observed:
        """Patch by what `plan` makes of the newest metadata."""
        if observed is None and await self.get_metadata(key, priority=priority) is None:
            raise NotFound("it is gone", subject=str(key))
        patch = plan(self.objects[key].observed(whole=False))
        if patch is not None:
            await self._enter("patch", key)
            before, after = self.objects[key], self._copy(key)
            after.patch(patch)
            self._store(before, after)
        return self.objects[key].observed(whole=False)

    # inside

    async def _enter(self, verb: str, key: ObjectKey) -> None:
        self.calls.append((verb, key))
        await asyncio.sleep(0)
        if queue := self.refusals.get((verb, key)):
            raise queue.pop(0)

    def _check(self, m: Manifest) -> None:
        if m.key.group_kind not in self._definitions:
            raise NotFound("the API server does not serve this kind", what="kind", subject=str(m.key))
        if m.key.namespace and ObjectKey("", "Namespace", "", m.key.namespace) not in self.objects:
            raise NotFound(f'namespaces "{m.key.namespace}" not found', what="namespace", subject=str(m.key))

    def _check_immutable(self, before: Stored, after: Stored) -> None:
        prefix = IMMUTABLE.get(after.key.group_kind)
        if prefix is None:
            return
        old, new = (
            {path: value for path, value in each.leaves.items() if path[: len(prefix)] == prefix}
            for each in (before, after)
        )
        if old != new:
            raise Invalid("field is immutable", status=422, reason="ImmutableField", subject=str(after.key))

    def _make(self, body: Mapping[str, Any], **more: Any) -> Stored:
        group, _, version = body["apiVersion"].rpartition("/")
        metadata = body["metadata"]
        key = ObjectKey(group, body["kind"], metadata.get("namespace", ""), metadata["name"])
        self._uids += 1
        return Stored(
            gvk=Gvk(group, version, body["kind"]),
            key=key,
            uid=f"00000000-0000-4000-8000-{self._uids:012d}",
            rv=0,
            leaves={},
            **more,
        )

    def _copy(self, key: ObjectKey) -> Stored:
        return copy.deepcopy(self.objects[key])

    def _store(self, before: Stored | None, after: Stored) -> None:
        """Keep a new state; an equal one keeps its resourceVersion and is no event."""
        if before is not None and before == after:
            return
        if before is not None and before.spec() != after.spec():
            after.generation += 1
        self._rv += 1
        after.rv = self._rv
        self.objects[after.key] = after
        self._define(before, after)
        self._emit(before, after)

    def _define(self, before: Stored | None, after: Stored) -> None:
        if after.key.group_kind != CRD or (before is not None and before.generation == after.generation):
            return
        spec = after.body()["spec"]
        self._schemas += 1
        kind = GroupKind(spec["group"], spec["names"]["kind"])
        self._definitions[kind] = (spec["versions"][0]["name"], spec["scope"] == "Namespaced")

    def _emit(self, before: Stored | None, after: Stored | None) -> None:
        known = after or before
        assert known is not None
        old = before.observed(whole=True) if before is not None else None
        new = after.observed(whole=True) if after is not None else None
        self.on_event((known.key, old, new))
