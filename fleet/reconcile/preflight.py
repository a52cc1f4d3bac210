"""Would a release be taken? What a run would write is sent as a dry run: the server checks all, and keeps nothing.

A refusal is a value. What only the release itself can bring, and what trying again may mend, is `Unverified`: listed,
and no failure. Totals cannot be tried: ten Pods that fit a quota one by one may not fit it together.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import msgspec

from fleet.aio import as_fleet_error, spawn
from fleet.errors import FleetError, Forbidden, Invalid, KubeError, NotFound, SealError
from fleet.kube.gate import Priority
from fleet.object import GroupKind, Manifest, ObjectKey, TargetId
from fleet.reconcile.carry import CRD, Site, as_sent, is_cluster_failure, may_recreate
from fleet.reconcile.plan import FAILURES, SEALED, WRITES, Action, Change, Plan

NAMESPACE = GroupKind("", "Namespace")
QUOTA = GroupKind("", "ResourceQuota")
ADMISSION = "admissionregistration.k8s.io"
RBAC = "rbac.authorization.k8s.io"
NO_DRY_RUN = "does not support dry run"
"""What a server says when a webhook has side effects and was therefore not asked. Source: apiserver, `NewDryRunUnsupportedErr`."""
FINAL = (Forbidden, Invalid, NotFound, SealError)
"""Errors that trying again does not mend."""


class Outcome(StrEnum):
    """What is known of a write before it is made."""

    OK = "ok"
    REFUSED = "refused"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What would become of one object; `reason` and `message` say why it is refused or cannot be told."""

    change: Change
    outcome: Outcome = Outcome.OK
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What would become of one release on one cluster, object by object, sorted by key."""

    target: TargetId
    release: int
    trials: tuple[Trial, ...] = ()
    trouble: FleetError | None = None
    """Why nothing could be tried."""
    refused: bool = False
    """With `trouble`: the release cannot be had for this cluster; else it could not be asked."""

    @property
    def outcome(self) -> Outcome:
        """The worst that was found."""
        found = {trial.outcome for trial in self.trials}
        if self.trouble is not None:
            found.add(Outcome.REFUSED if self.refused else Outcome.UNVERIFIED)
        return next((each for each in (Outcome.REFUSED, Outcome.UNVERIFIED) if each in found), Outcome.OK)

    def explain(self) -> str:
        """Say in one line what was found: the first object of the worst outcome, and how many more there are.

        The cluster is left to whoever names several of which the same was found.
        """
        if self.trouble is not None:
            return str(self.trouble)
        if self.outcome is Outcome.OK:
            return ""
        worst = [trial for trial in self.trials if trial.outcome is self.outcome]
        more = f" (and {len(worst) - 1} more)" if len(worst) > 1 else ""
        why = ": ".join(filter(None, (worst[0].reason, worst[0].message)))
        return f"{worst[0].change.key}: {why}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """What is not in the cluster yet, and comes with the release or with other releases on their way to it."""

    kinds: frozenset[GroupKind] = frozenset()
    namespaces: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    """Names of objects that the release creates."""
    quotas: frozenset[str] = frozenset()
    """Namespaces whose quota it changes."""
    rules: bool = False
    """It changes admission rules."""
    rights: bool = False
    """It changes who may do what."""


def coming_with(manifests: Iterable[Manifest]) -> Coming:
    """Say what manifests bring that others may wait for. Pure."""
    kinds: set[GroupKind] = set()
    keys: list[ObjectKey] = []
    for m in manifests:
        keys.append(m.key)
        if m.key.group_kind == CRD:
            kinds |= _defined(m)
    return Coming(
        kinds=frozenset(kinds),
        namespaces=frozenset(key.name for key in keys if key.group_kind == NAMESPACE),
        names=frozenset(key.name for key in keys),
        quotas=frozenset(key.namespace for key in keys if key.group_kind == QUOTA),
        rules=any(key.group == ADMISSION for key in keys),
        rights=any(key.group == RBAC for key in keys),
    )


def _defined(m: Manifest) -> set[GroupKind]:
    spec: Any = msgspec.json.decode(m.body).get("spec") or {}
    kind = (spec.get("names") or {}).get("kind")
    return {GroupKind(spec.get("group", ""), kind)} if kind else set()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    site: Site
    own: Coming
    others: Coming
    hidden: Mapping[ObjectKey, FleetError]


async def try_plan(site: Site, plan: Plan, others: Coming, hidden: Mapping[ObjectKey, FleetError]) -> Sequence[Trial]:
    """Try every write of a plan; nothing is written.

    `others`: what other apps are to bring to the cluster; `hidden`: why objects could not be looked up.

    Raises: KubeError when the cluster as a whole fails.
    """
    own = coming_with(c.manifest for c in plan.changes if c.manifest is not None and c.action in WRITES)
    wanted = coming_with(c.manifest for c in plan.changes if c.manifest is not None and c.reason not in FAILURES)
    own = replace(own, kinds=wanted.kinds, namespaces=wanted.namespaces)
    question = _Question(site=site, own=own, others=others, hidden=hidden)
    async with asyncio.TaskGroup() as group:
        tasks = [spawn(group, f"try/{c.key}", _try_one(question, c)) for c in plan.changes]
    results = [task.result() for task in tasks]
    cut_off = [found for found in results if isinstance(found, FleetError)]
    if cut_off:
        raise cut_off[0]
    return [found for found in results if isinstance(found, Trial)]


async def _try_one(question: _Question, change: Change) -> Trial | FleetError:
    if change.action not in WRITES and change.action is not Action.HAND_OVER:
        return _judge_skip(question, change)
    assert change.manifest is not None
    try:
        await _dry_run(question.site, change, change.manifest)
    except FleetError as error:
        return error if is_cluster_failure(error) else _judge(question, change, change.manifest, error)
    except Exception as error:  # noqa: BLE001 - a bug with one object hides nothing of the others
        bug = as_fleet_error(error, f"try/{change.key}")
        return Trial(change=change, outcome=Outcome.UNVERIFIED, reason=bug.reason, message=bug.message)
    return Trial(change=change)


async def _dry_run(site: Site, change: Change, manifest: Manifest) -> None:
    opened = await site.unsealer.open(manifest, site.target.cluster)
    sent = await as_sent(site, change, opened, Priority.AUDIT)
    await site.api.apply(sent, priority=Priority.AUDIT, dry_run=True, force=True)


def _judge_skip(question: _Question, change: Change) -> Trial:
    """Say of an object that a run would not write whether that keeps the release from being complete."""
    if change.action is not Action.SKIP or change.reason == "OptedOut" or change.manifest is None:
        return Trial(change=change)
    if change.reason == "MissingKind":
        return _judge_kind(question, change)
    if (error := question.hidden.get(change.key)) is not None:
        return _judge(question, change, change.manifest, error)
    outcome = Outcome.REFUSED if change.reason in FAILURES | SEALED else Outcome.UNVERIFIED
    return Trial(change=change, outcome=outcome, reason=change.reason, message=change.message)


def _judge_kind(question: _Question, change: Change) -> Trial:
    kind = change.key.group_kind
    if kind in question.own.kinds | question.others.kinds:
        return _unverified(change, "ComesWithRelease", f"its kind {kind} comes with the same or another release")
    message = f"the cluster serves no {kind}, and no app brings its CRD; install it first or add it to the app"
    return Trial(change=change, outcome=Outcome.REFUSED, reason="MissingKind", message=message)


def _judge(question: _Question, change: Change, manifest: Manifest, error: FleetError) -> Trial:
    """Tell a refusal from what cannot be known beforehand."""
    why = _comes_later(question, change, error)
    if why:
        return _unverified(change, "ComesWithRelease", f"{why}, so that it cannot be tried beforehand")
    if NO_DRY_RUN in error.message:
        return _unverified(change, "DryRunUnsupported", error.message)
    if error.reason == "ImmutableField" and may_recreate(change, manifest):
        return _unverified(change, "Recreated", "it cannot be changed: it would be deleted and made anew")
    if error.reason == "NamespaceTerminating" or not isinstance(error, FINAL):
        return _unverified(change, error.reason, error.message)
    return Trial(change=change, outcome=Outcome.REFUSED, reason=error.reason, message=error.message)


def _unverified(change: Change, reason: str, message: str) -> Trial:
    return Trial(change=change, outcome=Outcome.UNVERIFIED, reason=reason, message=message)


def _comes_later(question: _Question, change: Change, error: FleetError) -> str:
    """Say what the release brings or changes that would end this failure; empty for nothing."""
    own, others, key = question.own, question.others, change.key
    if isinstance(error, NotFound) and error.what == "namespace":
        there = key.namespace in own.namespaces | others.namespaces
        return f"its namespace {key.namespace} comes with the same or another release" if there else ""
    if key.group_kind in own.kinds and error.reason in ("SchemaMismatch", "VersionNotServed", "Invalid", "BadRequest"):
        return f"the same release changes the definition of {key.group_kind}"
    if error.reason == "QuotaExceeded":
        return f"the same release changes the quota of {key.namespace}" if key.namespace in own.quotas else ""
    if error.reason == "AdmissionDenied":
        return "the same release changes admission rules" if own.rules else ""
    if isinstance(error, Forbidden) and not error.reason.startswith("Namespace") and own.rights:
        return "the same release changes who may do what"
    if isinstance(error, KubeError) and "not found" in error.message:
        named = next((name for name in sorted(own.names) if f'"{name}" not found' in error.message), "")
        return f"it needs {named}, which comes with the same release" if named else ""
    return ""
