"""What a target's run needs from other rooms, declared here by the one who needs it."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from fleet.kube.api import Applied, Deleted
from fleet.kube.discovery import Resource
from fleet.kube.gate import Priority
from fleet.kube.wire import Observed
from fleet.object import Adopt, GroupKind, Gvk, Manifest, ObjectKey, TargetId
from fleet.store.ledger import Entry, Lease


class Leases(Protocol):
    """A session exists only inside `hold`."""

    def hold(self, cluster: str) -> AbstractAsyncContextManager[Lease]:
        """Take the cluster; a ledger write with an older epoch is refused from then on."""
        ...


class Ledger(Protocol):
    """What fleet applied to a target; intent is written before the act, result after."""

    async def load_cluster(self, cluster: str) -> dict[TargetId, dict[ObjectKey, Entry]]:
        """Read every target's rows of one cluster."""
        ...

    async def intend(self, target: TargetId, keys: Sequence[ObjectKey], lease: Lease) -> None:
        """Note that these objects are about to be written. Idempotent. Raises: LeaseLost."""
        ...

    async def record(self, target: TargetId, entries: Sequence[Entry], gone: Sequence[ObjectKey], lease: Lease) -> None:
        """Replace rows by results; `gone` rows are dropped. Idempotent. Raises: LeaseLost."""
        ...

    async def rebuild(self, rows: Mapping[TargetId, Mapping[ObjectKey, Entry]], lease: Lease) -> None:
        """Store what was found in the cluster of a lost ledger, all or nothing. Raises: LeaseLost."""
        ...

    async def hand_over(self, source: TargetId, to: TargetId, keys: Sequence[ObjectKey], lease: Lease) -> None:
        """Move rows between targets of one cluster in one transaction."""
        ...


class ClusterApi(Protocol):
    """Requests to one API server. Every call has a deadline and raises KubeError."""

    async def apply(
        self,
        m: Manifest,
        *,
        priority: Priority,
        dry_run: bool = False,
        force: bool | None = None,
        whole: bool = False,
    ) -> Applied:
        """Server-side apply: unforced, then forced with the overridden managers recorded; `force` True skips the first.

        `whole` asks for the object's body in the answer.
        """
        ...

    async def delete(self, key: ObjectKey, uid: str, *, priority: Priority, propagation: str = "Background") -> Deleted:
        """Delete with a uid precondition."""
        ...

    async def get_metadata(self, key: ObjectKey, *, priority: Priority) -> Observed | None:
        """Read metadata; None when the object is absent."""
        ...

    async def get(self, key: ObjectKey, *, priority: Priority, version: str = "") -> Observed | None:
        """Read the whole object (`body` set), at the server's preferred version unless told."""
        ...

    async def list_metadata(self, kind: GroupKind, namespace: str, *, priority: Priority) -> list[Observed]:
        """List metadata of one kind in one namespace (empty: all)."""
        ...

    async def patch_planned(
        self,
        key: ObjectKey,
        plan: Callable[[Observed], Sequence[Mapping[str, object]] | None],
        *,
        priority: Priority,
        observed: Observed | None = None,
    ) -> Observed:
        """Patch by what `plan` makes of the newest metadata; planned again when a race is lost."""
        ...


class Kinds(Protocol):
    """What the API server serves."""

    def resource(self, kind: GroupKind) -> Resource | None:
        """Return the kind at its preferred version."""
        ...

    def kinds(self) -> Sequence[GroupKind]:
        """Return every kind that is served."""
        ...

    def resource_for(self, gvk: Gvk) -> Resource | None:
        """Return the kind if it is served at this version."""
        ...

    async def refresh(self) -> None:
        """Ask the server again."""
        ...

    async def schema_hash(self, group: str, version: str) -> str:
        """Return the hash of `/openapi/v3` for a group and version; empty when it is not there."""
        ...


class Unsealer(Protocol):
    """Opens sealed manifests on their way to one cluster; others are given back as they are."""

    def version(self, cluster: str) -> Hashable:
        """Return a value that is another one once a key of a cluster changed: what did not open may open, or no more."""
        ...

    async def weigh(self, m: Manifest, cluster: str) -> bytes:
        """Return the keyed digest of what a sealed manifest opens to. Raises: SealError."""
        ...

    async def open(self, m: Manifest, cluster: str) -> Manifest:
        """Return the manifest with its values opened, to be dropped after the request.

        Its digest stays that of what was given. Raises: SealError.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreRule:
    """Fields that belong to others. Empty strings match everything; paths are JSON pointers."""

    kind: str
    paths: tuple[str, ...]
    group: str = ""
    namespace: str = ""
    name: str = ""

    def matches(self, key: ObjectKey) -> bool:
        """Tell whether the rule speaks of this object."""
        return (
            self.kind == key.kind
            and self.group in ("", key.group)
            and self.namespace in ("", key.namespace)
            and self.name in ("", key.name)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an App document says about writing: the part of it that a target's run needs."""

    namespace: str = ""
    prune: bool = True
    on_remove_prune: bool = True
    adopt: Adopt = Adopt.UNOWNED
    repair: bool = True
    """False: drift is shown and left (`drift: report`)."""
    write: bool = True
    """False: plan and show only (`apply: report`)."""
    drift_managers: tuple[str, ...] = ("kubectl*",)
    ignore: tuple[IgnoreRule, ...] = ()
    allow_namespaces: tuple[str, ...] = ()
    """Globs; empty allows all."""
    allow_cluster_scoped: bool = True
    allow_kinds: tuple[str, ...] = ()
    """Kinds such as `Deployment` or `Deployment.apps`; empty allows all."""
