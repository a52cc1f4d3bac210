"""How a simulated pod behaves, and the status that shows it: pure.

A pod says how it wants to behave, so that manifests alone can stage a failure:

- annotation (or label) `sim.fleet/behaviour`: `ready` (the default), `slow`, `crash`, `image` or `pending`;
- annotations `sim.fleet/exit-code`, `sim.fleet/message`, `sim.fleet/restarts`, `sim.fleet/delay` (seconds) refine it;
- without these, an image tag that contains `crash`, `missing` or `slow`, as in `shop:2-crash`.

Put them on the pod template. `ready` of a pod that does not restart (a Job's) means that it succeeds.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

PREFIX: Final = "sim.fleet"
_BACK_OFF: Final = "back-off 5m0s restarting failed container"

Pod = Mapping[str, Any]
"""A pod as the API server shows it, decoded."""


class Kind(StrEnum):
    """What becomes of a pod."""

    READY = "ready"
    SLOW = "slow"  # runs at once, ready after a delay
    CRASH = "crash"  # CrashLoopBackOff; a pod that never restarts fails
    IMAGE = "image"  # ImagePullBackOff
    PENDING = "pending"  # no node takes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What becomes of a pod, in detail. `delay_s` counts from when the pod is first seen."""

    kind: Kind = Kind.READY
    exit_code: int = 1
    message: str = ""
    restarts: int = 3
    delay_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """Schedule the pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """What a Warning event says."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Write this status, and the event that goes with it."""

    status: Mapping[str, Any]
    warning: Warned | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """The containers have stopped: let the object go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to do before `for_s` seconds have passed."""

    for_s: float


Step = Bind | Report | Remove | Wait


def own_behaviour(pod: Pod) -> Behaviour:
    """Read how a pod wants to behave; what it says wrongly counts as not said."""
    metadata = pod["metadata"]
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    labels: Mapping[str, str] = metadata.get("labels") or {}
    said = annotations.get(f"{PREFIX}/behaviour") or labels.get(f"{PREFIX}/behaviour")
    kind = Kind(said) if said in set(Kind) else _kind_by_image(pod["spec"].get("containers") or [])
    default = Behaviour()
    return Behaviour(
        kind=kind,
        exit_code=int(_number(annotations.get(f"{PREFIX}/exit-code"), default.exit_code)),
        message=annotations.get(f"{PREFIX}/message", default.message),
        restarts=int(_number(annotations.get(f"{PREFIX}/restarts"), default.restarts)),
        delay_s=_number(annotations.get(f"{PREFIX}/delay"), default.delay_s),
    )


def next_step(pod: Pod, behaviour: Behaviour, *, age_s: float, now: str) -> Step | None:
    """Decide the one thing to do for a pod, or None when it is as it should be.

    `age_s`: seconds since the pod was first seen. `now`: RFC 3339, for the timestamps of a new status.
    """
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    if metadata.get("deletionTimestamp"):
        # With no grace left only finalizers hold the object, and those are not ours.
        return None if metadata.get("deletionGracePeriodSeconds") == 0 else Remove()
    if status.get("phase") in ("Succeeded", "Failed") or spec.get("schedulingGates"):
        return None
    if not spec.get("nodeName") and behaviour.kind is not Kind.PENDING:
        return Bind()
    page = _Page(pod, behaviour, now)
    wanted = page.on_node(age_s) if spec.get("nodeName") else page.unscheduled()
    if not shows(status, wanted):
        return Report(status=wanted, warning=page.warning())
    if behaviour.kind is Kind.SLOW and age_s < behaviour.delay_s:
        return Wait(for_s=behaviour.delay_s - age_s)
    return None


def shows(status: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether `status` says what `wanted` does, timestamps and conditions of others aside."""
    ours = {each["type"] for each in wanted["conditions"]}
    return _essence(status, ours) == _essence(wanted, ours)


class _Page:
    """Writes one status."""

    def __init__(self, pod: Pod, behaviour: Behaviour, now: str) -> None:
        self._pod = pod
        self._spec = pod["spec"]
        self._old: Mapping[str, Any] = pod.get("status") or {}
        self._behaviour = behaviour
        self._now = now
        self._endless = self._spec.get("restartPolicy", "Always") == "Always"

    def on_node(self, age_s: float) -> dict[str, Any]:
        match self._behaviour.kind:
            case Kind.CRASH if self._spec.get("restartPolicy") == "Never":
                return self._finished("Failed")
            case Kind.CRASH:
                return self._bound("Running", ready=False, state=self._back_off(), last=self._terminated("Error"))
            case Kind.IMAGE:
                return self._bound("Pending", ready=False, image_pull=True)
            case Kind.PENDING:
                return self._bound("Pending", ready=False, state=_waiting("ContainerCreating"))
            case Kind.SLOW if age_s < self._behaviour.delay_s:
                # A Job's pod takes its time working, any other one starting.
                return self._bound("Running", ready=not self._endless)
            case _:
                return self._bound("Running", ready=True) if self._endless else self._finished("Succeeded")

    def unscheduled(self) -> dict[str, Any]:
        why = self._unschedulable()
        condition = self._condition("PodScheduled", met=False, reason="Unschedulable", message=why)
        return {"phase": "Pending", "conditions": self._with_others([condition])}

    def warning(self) -> Warned | None:
        """Say what a kubelet or scheduler would put in an event."""
        metadata, container = self._pod["metadata"], self._spec["containers"][0]
        match self._behaviour.kind:
            case Kind.CRASH:
                where = f"{container['name']} in pod {metadata['name']}_{metadata['namespace']}({metadata['uid']})"
                return Warned(reason="BackOff", message=f"Back-off restarting failed container {where}")
            case Kind.IMAGE:
                image = container.get("image", "")
                return Warned(reason="Failed", message=f'Failed to pull image "{image}": {image}: not found')
            case Kind.PENDING:
                return Warned(reason="FailedScheduling", message=self._unschedulable())
            case _:
                return None

    def _unschedulable(self) -> str:
        return self._behaviour.message or "0/1 nodes are available: 1 Insufficient cpu."

    def _finished(self, phase: str) -> dict[str, Any]:
        reason, failed = ("Completed", False) if phase == "Succeeded" else ("Error", True)
        state = self._terminated(reason)
        if not failed:
            state["terminated"]["exitCode"] = 0
        return self._bound(phase, ready=False, state=state, reason="PodCompleted" if not failed else "PodFailed")

    def _bound(
        self,
        phase: str,
        *,
        ready: bool,
        state: Mapping[str, Any] | None = None,
        last: Mapping[str, Any] | None = None,
        image_pull: bool = False,
        reason: str = "ContainersNotReady",
    ) -> dict[str, Any]:
        names = [each["name"] for each in self._spec["containers"]]
        why = "" if ready else reason
        message = "" if ready else f"containers with unready status: [{' '.join(names)}]"
        status: dict[str, Any] = {
            "phase": phase,
            "conditions": self._with_others(
                [
                    self._condition("PodScheduled", met=True),
                    self._condition("Initialized", met=True),
                    self._condition("ContainersReady", met=ready, reason=why, message=message),
                    self._condition("Ready", met=ready, reason=why, message=message),
                ]
            ),
            "startTime": self._old.get("startTime") or self._now,
            "hostIP": "192.0.2.1",
            "podIP": _address(self._pod["metadata"]["uid"]),
            "podIPs": [{"ip": _address(self._pod["metadata"]["uid"])}],
            "containerStatuses": [
                self._container(
                    each,
                    ready=ready,
                    state=_image_back_off(each) if image_pull else state or {"running": {"startedAt": self._now}},
                    last=last,
                )
                for each in self._spec["containers"]
            ],
        }
        if inits := self._spec.get("initContainers"):
            status["initContainerStatuses"] = [self._init_container(each) for each in inits]
        return status

    def _container(
        self, container: Mapping[str, Any], *, ready: bool, state: Mapping[str, Any], last: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        image = container.get("image", "")
        running = "running" in state
        return {
            "name": container["name"],
            "image": image,
            "imageID": "" if "waiting" in state and not last else f"{image}@sha256:{_hash(image)}",
            "ready": ready,
            "started": running,
            "restartCount": self._behaviour.restarts if last else 0,
            "state": dict(state),
            "lastState": dict(last or {}),
        }

    def _init_container(self, container: Mapping[str, Any]) -> dict[str, Any]:
        if container.get("restartPolicy") == "Always":  # a sidecar
            return self._container(container, ready=True, state={"running": {"startedAt": self._now}}, last=None)
        done = {"exitCode": 0, "reason": "Completed", "startedAt": self._now, "finishedAt": self._now}
        return self._container(container, ready=True, state={"terminated": done}, last=None)

    def _back_off(self) -> dict[str, Any]:
        metadata = self._pod["metadata"]
        return _waiting("CrashLoopBackOff", f"{_BACK_OFF} of pod {metadata['namespace']}/{metadata['name']}")

    def _terminated(self, reason: str) -> dict[str, Any]:
        detail: dict[str, Any] = {
            "exitCode": self._behaviour.exit_code,
            "reason": reason,
            "startedAt": self._now,
            "finishedAt": self._now,
        }
        if self._behaviour.message:
            detail["message"] = self._behaviour.message
        return {"terminated": detail}

    def _condition(self, kind: str, *, met: bool, reason: str = "", message: str = "") -> dict[str, Any]:
        """Write a condition; it keeps its transition time while its status stays."""
        status = "True" if met else "False"
        before = next((each for each in self._old.get("conditions") or [] if each["type"] == kind), None)
        since = before.get("lastTransitionTime") if before and before["status"] == status else None
        condition = {"type": kind, "status": status, "lastTransitionTime": since or self._now}
        return condition | {key: value for key, value in (("reason", reason), ("message", message)) if value}

    def _with_others(self, ours: list[dict[str, Any]]) -> list[dict[str, Any]]:
        mine = {each["type"] for each in ours}
        return ours + [each for each in self._old.get("conditions") or [] if each["type"] not in mine]


def _essence(status: Mapping[str, Any], condition_types: set[str]) -> object:
    conditions = {
        each["type"]: (each["status"], each.get("reason", ""), each.get("message", ""))
        for each in status.get("conditions") or []
        if each["type"] in condition_types
    }
    containers = [
        (each["name"], each.get("image"), each.get("ready"), each.get("restartCount", 0), _state(each, "state"),
         _state(each, "lastState"))
        for each in status.get("containerStatuses") or []
    ]  # fmt: skip
    return status.get("phase"), conditions, containers


def _state(container: Mapping[str, Any], field: str) -> list[tuple[str, Any, Any, Any]]:
    return [
        (name, detail.get("reason"), detail.get("message"), detail.get("exitCode"))
        for name, detail in (container.get(field) or {}).items()
        if detail is not None
    ]


def _waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def _image_back_off(container: Mapping[str, Any]) -> dict[str, Any]:
    image = container.get("image", "")
    return _waiting("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {image}: not found')


def _kind_by_image(containers: Sequence[Mapping[str, Any]]) -> Kind:
    tags = [container.get("image", "").rpartition("/")[2].partition(":")[2] for container in containers]
    for word, kind in (("crash", Kind.CRASH), ("missing", Kind.IMAGE), ("slow", Kind.SLOW)):
        if any(word in tag for tag in tags):
            return kind
    return Kind.READY


def _number(text: str | None, default: float) -> float:
    try:
        return float(text) if text else default
    except ValueError:
        return default


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _address(uid: str) -> str:
    """Make up a pod's address: the same one every time it is asked for."""
    first, second = hashlib.sha256(uid.encode()).digest()[:2]
    return f"10.244.{first}.{second}"
