"""Why a workload is not there yet, read from its pods. Pure, but for the look-up of a pod's newest warning."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from fleet.kube.gate import Priority
from fleet.object import GroupKind

TEMPLATE_LABELS = ("pod-template-hash", "controller-revision-hash")
"""What a Deployment's, and what a StatefulSet's or DaemonSet's pods carry of the template they were made from."""
MOST_MESSAGE = 256
EVENT = GroupKind("", "Event")

_WAITING_FAILURES = {
    "CrashLoopBackOff": "CrashLoopBackOff",
    "ImagePullBackOff": "ImagePullBackOff",
    "ErrImagePull": "ErrImagePull",
    "ErrImageNeverPull": "ErrImagePull",
    "InvalidImageName": "InvalidImageName",
    "CreateContainerConfigError": "CreateContainerConfigError",
    "CreateContainerError": "CreateContainerConfigError",
    "RunContainerError": "RunContainerError",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is wrong with one pod. An empty `reason` means: not failed yet, look again at `recheck_at`."""

    pod: str
    container: str = ""
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    recheck_at: datetime | None = None


def diagnose(
    pods: Sequence[Mapping[str, Any]], template_hash: str | None, now: datetime, grace_s: float
) -> Diagnosis | None:
    """Return the worst that the pods of a workload show; None when they show nothing wrong.

    With a `template_hash` only pods of that template count: an old pod's trouble says nothing of the new version. A pod
    that cannot be scheduled is a failure only after `grace_s`.
    """
    waiting: Diagnosis | None = None
    for pod in sorted(pods, key=_name):
        if not _counts(pod, template_hash):
            continue
        found = _diagnose_containers(pod) or _diagnose_scheduling(pod, now, grace_s)
        if found and found.reason:
            return found
        waiting = waiting or found
    return waiting


def _name(pod: Mapping[str, Any]) -> str:
    return str((pod.get("metadata") or {}).get("name", ""))


def _counts(pod: Mapping[str, Any], template_hash: str | None) -> bool:
    metadata = pod.get("metadata") or {}
    if metadata.get("deletionTimestamp"):
        return False
    labels = metadata.get("labels") or {}
    hashes = [labels[name] for name in TEMPLATE_LABELS if name in labels]
    return template_hash is None or not hashes or any(_same_template(h, template_hash) for h in hashes)


def _same_template(label: str, template_hash: str) -> bool:
    """A StatefulSet's label is `name-hash`, a Deployment's the hash alone."""
    return label == template_hash or label.endswith(f"-{template_hash}") or template_hash.endswith(f"-{label}")


def _containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _diagnose_containers(pod: Mapping[str, Any]) -> Diagnosis | None:
    for container in _containers(pod):
        state, last = container.get("state") or {}, container.get("lastState") or {}
        ended = last.get("terminated") or state.get("terminated") or {}
        waiting = state.get("waiting") or {}
        reason = _WAITING_FAILURES.get(str(waiting.get("reason", "")), "")
        if ended.get("reason") == "OOMKilled" and not container.get("ready"):
            reason = "OOMKilled"
        if not reason:
            continue
        return Diagnosis(
            pod=_name(pod),
            container=str(container.get("name", "")),
            reason=reason,
            message=_explain(reason, waiting, ended),
            exit_code=ended.get("exitCode"),
        )
    return None


def _explain(reason: str, waiting: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    if reason == "OOMKilled":
        return "it used more memory than its limit; raise resources.limits.memory"
    if reason == "CrashLoopBackOff" and ended:
        told = str(ended.get("message") or "").strip()
        return _cut(f"exit code {ended.get('exitCode', '?')}" + (f": {told}" if told else ""))
    return _cut(str(waiting.get("message") or waiting.get("reason") or ""))


def _diagnose_scheduling(pod: Mapping[str, Any], now: datetime, grace_s: float) -> Diagnosis | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            since = _parse_at(condition.get("lastTransitionTime")) or now
            due = since + timedelta(seconds=grace_s)
            if now < due:
                return Diagnosis(pod=_name(pod), recheck_at=due)
            message = _cut(str(condition.get("message") or "no node takes the pod"))
            return Diagnosis(pod=_name(pod), reason="Unschedulable", message=message)
    return None


def _parse_at(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_MESSAGE else line[: MOST_MESSAGE - 1] + "…"


class Lister(Protocol):
    """Lists whole objects (KubeApi)."""

    async def list_objects(
        self, kind: GroupKind, namespace: str, *, field_selector: str = "", most: int = 0, priority: Priority
    ) -> list[dict[str, Any]]:
        """List decoded objects."""
        ...


async def newest_warning(api: Lister, namespace: str, pod: str) -> str:
    """Return `Reason: message` of the newest Warning event about a pod; empty for none. Raises: KubeError."""
    found = await api.list_objects(
        EVENT,
        namespace,
        field_selector=f"involvedObject.kind=Pod,involvedObject.name={pod},type=Warning",
        most=100,
        priority=Priority.AUDIT,
    )
    if not found:
        return ""
    newest = max(found, key=_event_time)
    return _cut(f"{newest.get('reason', '')}: {newest.get('message', '')}")


def _event_time(event: Mapping[str, Any]) -> str:
    """RFC 3339 in UTC sorts as text; micro-second times compare a little early, which is good enough here."""
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event.get("firstTimestamp")
        or ""
    )
