"""Writing with somebody's rights: what they may do is asked before it is done, and what is missing is named at once.

Without this the first of five missing verbs would be found, and then, after somebody granted it, the second.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fleet.aio import spawn
from fleet.errors import FleetError, Forbidden, KubeError
from fleet.kube.api import Applied, Deleted, KubeApi
from fleet.kube.credential import Impersonation
from fleet.kube.discovery import Discovery
from fleet.kube.gate import Priority
from fleet.kube.wire import Observed
from fleet.object import GroupKind, Manifest, ObjectKey

VERBS = ("get", "list", "create", "patch", "delete")
"""What fleet does to objects."""
READ = frozenset({"get"})
LIST = frozenset({"list"})
WRITE = frozenset({"create", "patch"})
DELETE = frozenset({"delete"})
ASK_AGAIN_S = 5.0
"""How long a refusal is believed: many objects of one kind ask at the same time."""


def advice(cluster: str) -> str:
    """Say which command prints the rights that are needed."""
    return f"fleet cluster manifests {cluster} prints the RBAC that the hub and its apps need"


def explain(error: FleetError, cluster: str) -> FleetError:
    """Add to a refusal by RBAC where the rights come from; other errors stay as they are."""
    if not isinstance(error, Forbidden) or error.reason != Forbidden.default_reason or advice(cluster) in error.message:
        return error
    return Forbidden(
        f"{error.message}; {advice(cluster)}",
        status=error.status,
        causes=error.causes,
        subject=error.subject,
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    """Which verbs are missing, and until when that is believed."""

    missing: frozenset[str]
    until: float


class Rights:
    """What one identity may do in one cluster, asked once per kind and namespace of a connection."""

    def __init__(self, api: KubeApi, discovery: Discovery, who: Impersonation | None, cluster: str) -> None:
        self._api = api
        self._discovery = discovery
        self._who = f"as {who.user}" if who is not None else "as this hub"
        self._cluster = cluster
        self._everything: bool | None = None
        self._answers: dict[tuple[GroupKind, str], _Answer] = {}
        self._locks: dict[tuple[GroupKind, str], asyncio.Lock] = {}
        self._lock = asyncio.Lock()

    async def require(self, kind: GroupKind, namespace: str, verbs: frozenset[str]) -> None:
        """Refuse what would be refused. Raises: Forbidden naming every missing verb; KubeError."""
        missing = await self._missing(kind, namespace)
        if missing & verbs:
            raise self._refusal(kind, namespace, missing)

    async def find_missing(self, kind: GroupKind, namespace: str, error: Forbidden) -> Forbidden:
        """Return what is missing when a call was refused although it seemed allowed."""
        if error.reason != Forbidden.default_reason:
            return error
        self._everything = False
        self._answers.pop((kind, namespace), None)
        missing = await self._missing(kind, namespace)
        if missing:
            return self._refusal(kind, namespace, missing)
        explained = explain(error, self._cluster)
        assert isinstance(explained, Forbidden)
        return explained

    def _refusal(self, kind: GroupKind, namespace: str, missing: frozenset[str]) -> Forbidden:
        verbs = ", ".join(verb for verb in VERBS if verb in missing)
        where = f"in namespace {namespace}" if namespace else "at the cluster scope"
        what = f"{self._plural(kind)}.{kind.group}".rstrip(".")
        return Forbidden(f"no right to {verbs} {what} {where} {self._who}; {advice(self._cluster)}", status=403)

    def _plural(self, kind: GroupKind) -> str:
        resource = self._discovery.resource(kind)
        return resource.plural if resource is not None else ""

    async def _missing(self, kind: GroupKind, namespace: str) -> frozenset[str]:
        if await self._may_everything() or not self._plural(kind):
            return frozenset()
        key, loop = (kind, namespace), asyncio.get_running_loop()
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self._answers.get(key)
            if known is None or (known.missing and loop.time() > known.until):
                missing = await self._ask(kind, namespace)
                known = self._answers[key] = _Answer(missing, loop.time() + ASK_AGAIN_S)
        return known.missing

    async def _may_everything(self) -> bool:
        """Spare an administrator the questions."""
        async with self._lock:
            if self._everything is None:
                self._everything = await self._can("*", "*", "*", "")
            return self._everything

    async def _ask(self, kind: GroupKind, namespace: str) -> frozenset[str]:
        async def ask(verb: str) -> bool:
            return await self._can(verb, kind.group, self._plural(kind), namespace)

        try:
            async with asyncio.TaskGroup() as group:
                asked = {verb: spawn(group, f"may/{verb} {kind}", ask(verb)) for verb in VERBS}
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return frozenset(verb for verb, task in asked.items() if not task.result())

    async def _can(self, verb: str, group: str, plural: str, namespace: str) -> bool:
        """Ask the server; one that does not answer such questions is found out by trying."""
        try:
            return await self._api.can_i(verb, group, plural, namespace)
        except Forbidden as error:
            if "selfsubjectaccessreviews" not in error.message:
                raise explain(error, self._cluster) from None
            return verb != "*"


class Tenant:
    """A KubeApi under one identity, for the objects of targets."""

    def __init__(self, api: KubeApi, rights: Rights) -> None:
        self._api = api
        self._rights = rights

    async def apply(
        self,
        m: Manifest,
        *,
        priority: Priority,
        dry_run: bool = False,
        force: bool | None = None,
        whole: bool = False,
    ) -> Applied:
        """Write a manifest; see KubeApi. Raises: KubeError."""
        await self._rights.require(m.key.group_kind, m.key.namespace, WRITE)
        try:
            return await self._api.apply(m, priority=priority, dry_run=dry_run, force=force, whole=whole)
        except Forbidden as error:
            raise await self._explain(m.key, error) from None

    async def delete(self, key: ObjectKey, uid: str, *, priority: Priority, propagation: str = "Background") -> Deleted:
        """Delete exactly the object with this uid. Raises: KubeError."""
        await self._rights.require(key.group_kind, key.namespace, DELETE)
        try:
            return await self._api.delete(key, uid, priority=priority, propagation=propagation)
        except Forbidden as error:
            raise await self._explain(key, error) from None

    async def get_metadata(self, key: ObjectKey, *, priority: Priority) -> Observed | None:
        """Read an object's metadata; None when it is absent. Raises: KubeError."""
        await self._rights.require(key.group_kind, key.namespace, READ | WRITE)
        try:
            return await self._api.get_metadata(key, priority=priority)
        except Forbidden as error:
            raise await self._explain(key, error) from None

    async def get(self, key: ObjectKey, *, priority: Priority, version: str = "") -> Observed | None:
        """Read a whole object; None when it is absent. Raises: KubeError."""
        await self._rights.require(key.group_kind, key.namespace, READ)
        try:
            return await self._api.get(key, priority=priority, version=version)
        except Forbidden as error:
            raise await self._explain(key, error) from None

    async def list_metadata(self, kind: GroupKind, namespace: str, *, priority: Priority) -> list[Observed]:
        """List the metadata of one kind in a namespace (empty: everywhere). Raises: KubeError."""
        await self._rights.require(kind, namespace, LIST | WRITE)
        try:
            return await self._api.list_metadata(kind, namespace, priority=priority)
        except Forbidden as error:
            raise await self._rights.find_missing(kind, namespace, error) from None

    async def patch_json(
        self, key: ObjectKey, patch: Sequence[Mapping[str, object]], *, priority: Priority
    ) -> Observed:
        """Send a JSON patch. Raises: KubeError."""
        try:
            return await self._api.patch_json(key, patch, priority=priority)
        except Forbidden as error:
            raise await self._explain(key, error) from None

    async def patch_planned(
        self,
        key: ObjectKey,
        plan: Callable[[Observed], Sequence[Mapping[str, object]] | None],
        *,
        priority: Priority,
        observed: Observed | None = None,
    ) -> Observed:
        """Patch an object by what `plan` makes of its newest metadata. Raises: KubeError."""
        try:
            return await self._api.patch_planned(key, plan, priority=priority, observed=observed)
        except Forbidden as error:
            raise await self._explain(key, error) from None

    async def _explain(self, key: ObjectKey, error: Forbidden) -> KubeError:
        return await self._rights.find_missing(key.group_kind, key.namespace, error)


class Tenants:
    """The identities that the targets of one connection write with."""

    def __init__(self, api: KubeApi, discovery: Discovery, cluster: str) -> None:
        self._api = api
        self._discovery = discovery
        self._cluster = cluster
        self._known: dict[Impersonation | None, Tenant] = {}

    def of(self, who: Impersonation | None) -> Tenant:
        """Return the API as somebody; None is the hub itself."""
        if who not in self._known:
            api = self._api.acting_as(who) if who is not None else self._api
            self._known[who] = Tenant(api, Rights(api, self._discovery, who, self._cluster))
        return self._known[who]
