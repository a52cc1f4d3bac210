"""What the inventory says about a target beyond its manifests; kept in the store for when its App document is gone."""

from dataclasses import dataclass, field

import msgspec

from fleet.inventory.schema import AppSpec, Impersonate
from fleet.inventory.value import Target
from fleet.kube.credential import Impersonation
from fleet.reconcile.port import IgnoreRule, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """How a target is reconciled, and as whom."""

    policy: Policy = field(default_factory=Policy)
    user: str = ""
    """Whom to act as; empty is whoever the cluster's credential says."""
    groups: tuple[str, ...] = ()

    @property
    def impersonation(self) -> Impersonation | None:
        """Whom to act as, for the client."""
        return Impersonation(user=self.user, groups=self.groups) if self.user else None

    def encode(self) -> str:
        """Write for the store."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> "Brief":
        """Read from the store; fields that a newer fleet wrote are passed over."""
        return msgspec.json.decode(text, type=cls)


def brief_of(target: Target) -> Brief:
    """Read what an App and its Cluster say about a target."""
    chosen: Impersonate | None = target.app.spec.impersonate or target.cluster.spec.impersonate
    return Brief(
        policy=policy_of(target.app.spec),
        user=chosen.username if chosen else "",
        groups=chosen.groups if chosen else (),
    )


def policy_of(spec: AppSpec) -> Policy:
    """Read the part of an App that a target's run needs."""
    allow = spec.allow
    return Policy(
        namespace=spec.namespace or "",
        prune=spec.prune,
        on_remove_prune=spec.on_remove == "prune",
        adopt=spec.adopt,
        repair=spec.drift == "repair",
        write=spec.apply == "auto",
        drift_managers=spec.drift_managers,
        ignore=tuple(
            IgnoreRule(
                kind=rule.kind,
                paths=rule.paths,
                group=rule.group or "",
                namespace=rule.namespace or "",
                name=rule.name or "",
            )
            for rule in spec.ignore
        ),
        allow_namespaces=(allow.namespaces or ()) if allow else (),
        allow_cluster_scoped=allow.cluster_scoped if allow else True,
        allow_kinds=(allow.kinds or ()) if allow else (),
    )
