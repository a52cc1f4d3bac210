"""Scheduler and kubelet of a simulated cluster: each pod goes through its life as `fleet.sim.behaviour` decides."""

from datetime import UTC, datetime

from fleet.sim.behaviour import Bind, Remove, Report, Wait, Warned, next_step, own_behaviour
from fleet.sim.controller import Engine, Trigger, Work
from fleet.sim.deletion import DeleteOptions, begin
from fleet.sim.storage import Collection, Event, Key, Object


def triggers() -> list[Trigger]:
    return [_on_pod]


def _on_pod(collection: Collection, event: Event) -> list[tuple[Work, Key]]:
    if collection != ("", "pods") or event.type == "DELETED":
        return []
    going = "deletionTimestamp" in event.obj["metadata"]
    was_going = event.previous is not None and "deletionTimestamp" in event.previous["metadata"]
    return [(tend, event.key)] if event.type == "ADDED" or going != was_going else []


def tend(engine: Engine, key: Key) -> None:
    """Do the next thing for a pod, and come back for the one after it."""
    pod = engine.get("", "Pod", key)
    if pod is None:
        return
    step = next_step(pod, own_behaviour(pod), age_s=_age_s(engine, pod), now=engine.state.timestamp())
    match step:
        case None:
            return
        case Bind():
            node = engine.state.rng.choice(engine.items("", "Node") or [{"metadata": {"name": "node-0"}}])
            spec = {**pod["spec"], "nodeName": node["metadata"]["name"]}
            engine.write(pod, {"spec": spec}, subresource="binding")
        case Report(status=status, warning=warning):
            engine.write(pod, {"status": {**pod.get("status", {}), **status}})
            if warning is not None:
                _warn(engine, pod, warning)
        case Remove():
            engine.again(bury, key, after_s=engine.pace_s)
            return
        case Wait(for_s=seconds):
            engine.again(tend, key, after_s=seconds)
            return
    engine.again(tend, key, after_s=engine.pace_s)


def bury(engine: Engine, key: Key) -> None:
    """Let a pod go that was asked to, as far as its finalizers do."""
    pod = engine.get("", "Pod", key)
    if pod is not None and "deletionTimestamp" in pod["metadata"]:
        begin(engine.state, engine.resource("", "Pod"), pod, DeleteOptions(grace_s=0))


def _age_s(engine: Engine, pod: Object) -> float:
    born = datetime.strptime(pod["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return (engine.state.now() - born).total_seconds()


def _warn(engine: Engine, pod: Object, warning: Warned) -> None:
    metadata = pod["metadata"]
    now = engine.state.timestamp()
    subject = {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion")}
    engine.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{engine.state.rng.getrandbits(64):016x}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", **subject},
            "reason": warning.reason,
            "message": warning.message,
            "type": "Warning",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": "kubelet"},
            "reportingComponent": "kubelet",
            "reportingInstance": "",
        }
    )
