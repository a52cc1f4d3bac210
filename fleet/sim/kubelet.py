"""The life of pods: scheduled, started, ready; or pending, crashing, without an image, slow, on demand.

A pod behaves as its annotation `sim.fleet/behaviour` says (`ready`, `slow`, `pending`, `crash`, `image`), else an image
whose reference contains `crash` crashes and one that contains `missing` cannot be pulled, else it becomes ready.
"""

from typing import Any, Final

from fleet.sim.controller import Engine, Trigger, Work
from fleet.sim.storage import Collection, Event, Key, Object

BEHAVIOUR: Final = "sim.fleet/behaviour"
SLOW_FACTOR: Final = 40
"""A slow pod takes this many times as long to become ready."""
_BY_IMAGE: Final = {"crash": "crash", "missing": "image"}


def triggers() -> list[Trigger]:
    return [_on_pod]


def _on_pod(collection: Collection, event: Event) -> list[tuple[Work, Key]]:
    if collection != ("", "pods") or event.type == "DELETED":
        return []
    new = event.type == "ADDED" or ("deletionTimestamp" in event.obj["metadata"]) != (
        event.previous is not None and "deletionTimestamp" in event.previous["metadata"]
    )
    return [(place, event.key)] if new else []


def behaviour_of(pod: Object) -> str:
    """Return how a pod is asked to behave."""
    asked = (pod["metadata"].get("annotations") or {}).get(BEHAVIOUR)
    if asked:
        return str(asked)
    images = [container.get("image", "") for container in pod["spec"]["containers"]]
    return next((how for word, how in _BY_IMAGE.items() for image in images if word in image), "ready")


def place(engine: Engine, key: Key) -> None:
    """Put a new pod on a node, or start its end."""
    pod = engine.get("", "Pod", key)
    if pod is None:
        return
    if "deletionTimestamp" in pod["metadata"]:
        engine.again(bury, key, after_s=engine.pace_s)
        return
    if behaviour_of(pod) == "pending":
        message = "0/1 nodes are available: 1 Insufficient cpu."
        unscheduled = _condition(engine, "PodScheduled", "False", "Unschedulable", message)
        engine.write(pod, {"status": {"phase": "Pending", "conditions": [unscheduled], "qosClass": "BestEffort"}})
        warn(engine, pod, "FailedScheduling", message)
        return
    if not pod["spec"].get("nodeName"):
        nodes = engine.items("", "Node")
        name = engine.state.rng.choice(nodes)["metadata"]["name"] if nodes else "node-0"
        pod = engine.write(pod, {"spec": {**pod["spec"], "nodeName": name}}, subresource="binding")
    _tell(engine, pod, "Pending", {"waiting": {"reason": "ContainerCreating"}})
    engine.again(start, key, after_s=engine.pace_s)


def start(engine: Engine, key: Key) -> None:
    """Let the containers of a pod come up, or fail to."""
    pod = engine.get("", "Pod", key)
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return
    how = behaviour_of(pod)
    if how == "image":
        image = pod["spec"]["containers"][0]["image"]
        text = f'Back-off pulling image "{image}": ErrImagePull: not found'
        _tell(engine, pod, "Pending", {"waiting": {"reason": "ImagePullBackOff", "message": text}})
        warn(engine, pod, "Failed", f'Failed to pull image "{image}": not found')
    elif how == "crash":
        _crash(engine, pod)
    elif how == "slow":
        _tell(engine, pod, "Running", {"running": {"startedAt": engine.state.timestamp()}})
        engine.again(finish_start, key, after_s=engine.pace_s * SLOW_FACTOR)
    else:
        finish_start(engine, key)


def finish_start(engine: Engine, key: Key) -> None:
    """Make a pod ready."""
    pod = engine.get("", "Pod", key)
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return
    _tell(engine, pod, "Running", {"running": {"startedAt": engine.state.timestamp()}}, ready=True)
    if _is_task(pod):
        engine.again(succeed, key, after_s=engine.pace_s)


def succeed(engine: Engine, key: Key) -> None:
    """End a pod that was meant to end."""
    pod = engine.get("", "Pod", key)
    if pod is not None and "deletionTimestamp" not in pod["metadata"]:
        _tell(engine, pod, "Succeeded", {"terminated": {"exitCode": 0, "reason": "Completed"}})


def bury(engine: Engine, key: Key) -> None:
    """Take a pod away that has been asked to go, once nothing holds it."""
    pod = engine.get("", "Pod", key)
    if pod is not None and "deletionTimestamp" in pod["metadata"] and not pod["metadata"].get("finalizers"):
        engine.remove(pod)


def _is_task(pod: Object) -> bool:
    return any(reference["kind"] == "Job" for reference in pod["metadata"].get("ownerReferences") or ())


def _crash(engine: Engine, pod: Object) -> None:
    ended = {"exitCode": 1, "reason": "Error", "finishedAt": engine.state.timestamp()}
    if _is_task(pod) and pod["spec"].get("restartPolicy") == "Never":
        _tell(engine, pod, "Failed", {"terminated": ended})
        return
    name = pod["spec"]["containers"][0]["name"]
    where = f"{name} in pod {pod['metadata']['name']}_{pod['metadata']['namespace']}({pod['metadata']['uid']})"
    text = f"back-off 10s restarting failed container={where}"
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": text}}
    _tell(engine, pod, "Running", waiting, last={"terminated": ended}, restarts=1)
    warn(engine, pod, "BackOff", f"Back-off restarting failed container {where}")


def _tell(
    engine: Engine,
    pod: Object,
    phase: str,
    state: dict[str, Any],
    *,
    ready: bool = False,
    last: dict[str, Any] | None = None,
    restarts: int = 0,
) -> None:
    done = phase == "Succeeded"
    reason = "" if ready else "PodCompleted" if done else "ContainersNotReady"
    value = "True" if ready else "False"
    conditions = [
        _condition(engine, "PodScheduled", "True"),
        _condition(engine, "Initialized", "True"),
        _condition(engine, "ContainersReady", value, reason),
        _condition(engine, "Ready", value, reason),
    ]
    containers = [
        {
            "name": container["name"],
            "image": container.get("image", ""),
            "imageID": "",
            "ready": ready,
            "started": ready,
            "restartCount": restarts,
            "state": state,
            "lastState": last or {},
        }
        for container in pod["spec"]["containers"]
    ]
    status = {
        "phase": phase,
        "conditions": conditions,
        "containerStatuses": containers,
        "hostIP": "10.0.0.1",
        "podIP": f"10.0.1.{engine.state.rng.randint(1, 254)}",
        "startTime": pod.get("status", {}).get("startTime") or engine.state.timestamp(),
        "observedGeneration": pod["metadata"].get("generation", 1),
        "qosClass": "BestEffort",
    }
    engine.write(pod, {"status": status})


def _condition(engine: Engine, kind: str, value: str, reason: str = "", message: str = "") -> dict[str, Any]:
    said = {name: text for name, text in (("reason", reason), ("message", message)) if text}
    return {"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": engine.state.timestamp()} | said


def warn(engine: Engine, obj: Object, reason: str, message: str) -> None:
    """Record a Warning event about an object."""
    metadata = obj["metadata"]
    now = engine.state.timestamp()
    suffix = f"{engine.state.rng.getrandbits(64):016x}"
    engine.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{suffix}", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": obj["apiVersion"],
                "kind": obj["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "reason": reason,
            "message": message,
            "type": "Warning",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": "kubelet"},
            "reportingComponent": "kubelet",
            "reportingInstance": "",
        }
    )
