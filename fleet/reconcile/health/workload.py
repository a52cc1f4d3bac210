"""Workloads: what runs pods."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from fleet.object import GroupKind
from fleet.reconcile.health.generic import conditions, text
from fleet.reconcile.health.verdict import CURRENT, Health, Verdict, failed, progressing

Rule = Callable[[Mapping[str, Any], datetime], Verdict]
_NO_DEADLINE = 2147483647
UNSCHEDULABLE_GRACE = timedelta(seconds=30)


def _first(steps: Sequence[tuple[bool, str]]) -> Verdict | None:
    """Return the first step that is not done."""
    return next((progressing(message) for open_, message in steps if open_), None)


def _parts(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return body.get("spec") or {}, body.get("status") or {}


def _is_observed(body: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    generation = (body.get("metadata") or {}).get("generation", 0)
    return bool(status.get("observedGeneration", 0) >= generation)


def assess_deployment(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a Deployment: every replica is of the new template, available, and no old one is left."""
    spec, status = _parts(body)
    known = conditions(body)
    progress = known.get("Progressing", {})
    if progress.get("reason") == "ProgressDeadlineExceeded":
        return failed(text(progress), "ProgressDeadlineExceeded")
    failure = known.get("ReplicaFailure", {})
    if failure.get("status") == "True":
        return failed(text(failure), "ReplicaFailure")
    wanted, total = spec.get("replicas", 1), status.get("replicas", 0)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    ready = status.get("readyReplicas", 0)
    deadline = spec.get("progressDeadlineSeconds", _NO_DEADLINE)
    done = progress.get("status") == "True" and progress.get("reason") == "NewReplicaSetAvailable"
    return (
        _first(
            [
                (not _is_observed(body, status), "its controller has not seen it yet"),
                (wanted > total, f"{total} of {wanted} replicas exist"),
                (wanted > updated, f"{updated} of {wanted} replicas are of the new version"),
                (total > wanted, f"{total - wanted} old replicas are still ending"),
                (updated > available, f"{available} of {updated} replicas are available"),
                (wanted > ready, f"{ready} of {wanted} replicas are ready"),
                (deadline != _NO_DEADLINE and not done, text(progress, "the new version is not available yet")),
                (known.get("Available", {}).get("status") != "True", "it is not available"),
            ]
        )
        or CURRENT
    )


def assess_statefulset(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a StatefulSet; with a partition only the replicas above it count as updated."""
    spec, status = _parts(body)
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return CURRENT
    wanted, total, ready = spec.get("replicas", 1), status.get("replicas", 0), status.get("readyReplicas", 0)
    partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
    updated = status.get("updatedReplicas", 0)
    steps = [
        (not _is_observed(body, status), "its controller has not seen it yet"),
        (wanted > total, f"{total} of {wanted} replicas exist"),
        (wanted > ready, f"{ready} of {wanted} replicas are ready"),
        (total > wanted, f"{total - wanted} replicas are still ending"),
    ]
    if partition:
        steps.append((updated < wanted - partition, f"{updated} of {wanted - partition} replicas are updated"))
        return _first(steps) or CURRENT
    current = status.get("currentReplicas", 0)
    steps += [
        (wanted > current, f"{current} of {wanted} replicas are of the current revision"),
        (status.get("currentRevision") != status.get("updateRevision"), "the update is still rolling out"),
    ]
    return _first(steps) or CURRENT


def assess_daemonset(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a DaemonSet: every node that should run it runs the new template."""
    spec, status = _parts(body)
    if (spec.get("updateStrategy") or {}).get("type") == "OnDelete":
        return CURRENT
    wanted = status.get("desiredNumberScheduled")
    if wanted is None or not _is_observed(body, status):
        return progressing("its controller has not seen it yet")
    names = ("currentNumberScheduled", "updatedNumberScheduled", "numberAvailable", "numberReady")
    words = ("are scheduled", "are of the new version", "are available", "are ready")
    steps = [
        (wanted > status.get(n, 0), f"{status.get(n, 0)} of {wanted} pods {w}")
        for n, w in zip(names, words, strict=True)
    ]
    return _first(steps) or CURRENT


def assess_replicaset(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a ReplicaSet."""
    spec, status = _parts(body)
    failure = conditions(body).get("ReplicaFailure", {})
    if failure.get("status") == "True":
        return progressing(text(failure), "ReplicaFailure")
    wanted, total = spec.get("replicas", 1), status.get("replicas", 0)
    names = ("fullyLabeledReplicas", "availableReplicas", "readyReplicas")
    steps = [(wanted > status.get(name, 0), f"{status.get(name, 0)} of {wanted} {name}") for name in names]
    return _first([*steps, (total > wanted, f"{total - wanted} replicas are still ending")]) or CURRENT


def assess_job(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a Job: only its end counts, as in Flux; a gate must not pass while it runs."""
    spec, status = _parts(body)
    known = conditions(body)
    if known.get("Complete", {}).get("status") == "True":
        return Verdict(CURRENT.health, "Completed", "ran to its end")
    failure = known.get("Failed", {})
    if failure.get("status") == "True":
        return failed(text(failure, "the job failed"), str(failure.get("reason") or "JobFailed"))
    if spec.get("suspend"):
        return Verdict(CURRENT.health, "Suspended", "suspended")
    if not status.get("startTime"):
        return progressing("it has not started")
    return progressing(f"{status.get('active', 0)} pods running, {status.get('succeeded', 0)} succeeded")


def is_ended(body: Mapping[str, Any]) -> bool:
    """Tell whether a Job is Complete or Failed: it will never run again by itself."""
    known = conditions(body)
    return any(known.get(name, {}).get("status") == "True" for name in ("Complete", "Failed"))


def assess_pod(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a bare pod."""
    _, status = _parts(body)
    phase = status.get("phase")
    if phase == "Succeeded":
        return CURRENT
    if phase == "Failed":
        return failed(str(status.get("message") or status.get("reason") or "the pod failed"), "PodFailed")
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason", ""))
        if reason.startswith("Err") or reason.endswith(("BackOff", "Error")):
            return failed(f"container {container.get('name')}: {waiting.get('message') or reason}", reason)
    known = conditions(body)
    ready, scheduled = known.get("Ready", {}), known.get("PodScheduled", {})
    if phase == "Running" and ready.get("status") == "True":
        return CURRENT
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return _assess_unschedulable(scheduled, now)
    return progressing(text(ready, f"phase {phase or 'unknown'}"))


def _assess_unschedulable(scheduled: Mapping[str, Any], now: datetime) -> Verdict:
    """A node may be on its way: only after a grace it is a failure."""
    since = scheduled.get("lastTransitionTime")
    until = datetime.fromisoformat(str(since)) + UNSCHEDULABLE_GRACE if since else now
    if now < until:
        return Verdict(Health.IN_PROGRESS, "Unschedulable", text(scheduled), until)
    return failed(text(scheduled), "Unschedulable")


RULES: dict[GroupKind, Rule] = {
    GroupKind("apps", "Deployment"): assess_deployment,
    GroupKind("apps", "StatefulSet"): assess_statefulset,
    GroupKind("apps", "DaemonSet"): assess_daemonset,
    GroupKind("apps", "ReplicaSet"): assess_replicaset,
    GroupKind("batch", "Job"): assess_job,
    GroupKind("", "Pod"): assess_pod,
}
