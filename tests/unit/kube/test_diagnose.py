"""Why a workload is not there, from its pods."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fleet.kube.diagnose import Diagnosis, diagnose, newest_warning
from fleet.kube.gate import Priority
from fleet.object import GroupKind

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def pod(name: str = "web-1", *, template: str = "new", **status: Any) -> dict[str, Any]:
    """Write a pod."""
    return {"metadata": {"name": name, "labels": {"pod-template-hash": template}}, "status": status}


def waiting(reason: str, message: str = "", /, **last: Any) -> dict[str, Any]:
    """Write the status of a container that waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": "main", "ready": False, "state": state, "lastState": {"terminated": last} if last else {}}


READY = {"name": "main", "ready": True, "state": {"running": {}}, "lastState": {}}
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available",
    "lastTransitionTime": "2026-01-01T11:59:50Z",
}


@pytest.mark.parametrize(
    ("container", "reason", "message", "exit_code"),
    [
        (waiting("CrashLoopBackOff", "back-off", exitCode=3), "CrashLoopBackOff", "exit code 3", 3),
        (
            waiting("CrashLoopBackOff", "back-off", exitCode=1, message="no\nconfig"),
            "CrashLoopBackOff",
            "exit code 1: no config",
            1,
        ),
        (waiting("CrashLoopBackOff", "", exitCode=137, reason="OOMKilled"), "OOMKilled", "memory", 137),
        (waiting("ImagePullBackOff", "Back-off pulling x"), "ImagePullBackOff", "Back-off pulling x", None),
        (waiting("ErrImagePull", "not found"), "ErrImagePull", "not found", None),
        (waiting("CreateContainerConfigError", 'secret "s"'), "CreateContainerConfigError", 'secret "s"', None),
    ],
)
def test_containers(container: dict[str, Any], reason: str, message: str, exit_code: int | None) -> None:
    """A container that cannot run is named with its reason, its last exit code and what it said."""
    found = diagnose([pod(containerStatuses=[READY, container])], "new", NOW, 30)
    assert found is not None
    assert (found.pod, found.container, found.reason, found.exit_code) == ("web-1", "main", reason, exit_code)
    assert message in found.message


def test_init_containers_count() -> None:
    """An init container that fails keeps the pod from running."""
    found = diagnose([pod(initContainerStatuses=[waiting("CrashLoopBackOff", exitCode=1)])], "new", NOW, 30)
    assert found is not None
    assert found.reason == "CrashLoopBackOff"


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing", ""])
def test_starting_is_not_failing(reason: str) -> None:
    """A container on its way up is nothing to report."""
    assert diagnose([pod(containerStatuses=[waiting(reason)])], "new", NOW, 30) is None


def test_old_templates_and_leaving_pods_do_not_count() -> None:
    """The old version's trouble, and a pod that is being deleted, say nothing of the new version."""
    broken = [waiting("CrashLoopBackOff", exitCode=1)]
    old = pod("web-0", template="old", containerStatuses=broken)
    leaving = pod("web-1", containerStatuses=broken)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T11:00:00Z"
    assert diagnose([old, leaving], "new", NOW, 30) is None
    assert diagnose([old], None, NOW, 30) is not None


def test_stateful_pods_are_known_by_revision() -> None:
    """A StatefulSet's pods carry `name-hash`."""
    stateful = pod(containerStatuses=[waiting("CrashLoopBackOff", exitCode=1)])
    stateful["metadata"]["labels"] = {"controller-revision-hash": "db-7c9f"}
    assert diagnose([stateful], "db-7c9f", NOW, 30) is not None
    assert diagnose([stateful], "db-1111", NOW, 30) is None


def test_unschedulable_has_a_grace() -> None:
    """An autoscaler may bring a node in a moment: first a time to look again, then a failure."""
    pending = pod(conditions=[UNSCHEDULABLE])
    early = diagnose([pending], "new", NOW, 30)
    assert early == Diagnosis(pod="web-1", recheck_at=NOW + timedelta(seconds=20))
    late = diagnose([pending], "new", NOW + timedelta(seconds=20), 30)
    assert late is not None
    assert (late.reason, late.message) == ("Unschedulable", "0/3 nodes are available")


def test_failures_win_over_waiting() -> None:
    """One failed pod is told rather than another that may still be scheduled."""
    pods = [pod("a", conditions=[UNSCHEDULABLE]), pod("b", containerStatuses=[waiting("ErrImagePull")])]
    found = diagnose(pods, "new", NOW, 30)
    assert found is not None
    assert found.pod == "b"


def test_healthy_and_empty() -> None:
    """Nothing wrong is None."""
    assert diagnose([], "new", NOW, 30) is None
    assert diagnose([pod(containerStatuses=[READY]), {}, {"metadata": None, "status": None}], "new", NOW, 30) is None


class Events:
    """Answers with given events and remembers what it was asked."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.events = list(events)
        self.asked = ""

    async def list_objects(
        self, kind: GroupKind, namespace: str, *, field_selector: str = "", most: int = 0, priority: Priority
    ) -> list[dict[str, Any]]:
        self.asked = f"{kind} {namespace} {field_selector}"
        return self.events


async def test_newest_warning() -> None:
    """The newest of a pod's warnings is told, whichever time field it has."""
    events = Events(
        {"reason": "Old", "message": "old", "lastTimestamp": "2026-01-01T00:00:00Z"},
        {"reason": "FailedMount", "message": "no\nvolume", "eventTime": "2026-01-03T00:00:00.000000Z"},
        {"reason": "Mid", "message": "mid", "series": {"lastObservedTime": "2026-01-02T00:00:00.000000Z"}},
    )
    assert await newest_warning(events, "n", "web-1") == "FailedMount: no volume"
    assert events.asked == "Event n involvedObject.kind=Pod,involvedObject.name=web-1,type=Warning"
    assert await newest_warning(Events(), "n", "web-1") == ""
