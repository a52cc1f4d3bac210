"""The controller of Deployments: one replica set per template, rolled within its bounds."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleet.sim.controller import Engine
from fleet.sim.dependent import age_s, changed_condition, condition_of, labelled, owned, owner_reference, template_hash
from fleet.sim.reading import key_of
from fleet.sim.rolling import bounds, next_sizes, sized
from fleet.sim.storage import Key, Object

REVISION: Final = "deployment.kubernetes.io/revision"
HASH: Final = "pod-template-hash"


def keep_deployment(engine: Engine, key: Key) -> None:
    """Roll a deployment's pods to its template, one replica set per template, and tell how far it is."""
    deployment = engine.get("apps", "Deployment", key)
    if deployment is None or "deletionTimestamp" in deployment["metadata"]:
        return
    digest = template_hash(deployment["spec"]["template"])
    sets = owned(engine, "apps", "ReplicaSet", deployment)
    new = next((s for s in sets if s["metadata"]["labels"].get(HASH) == digest), None)
    old = [s for s in sets if s is not new]
    if new is not None or not deployment["spec"].get("paused"):
        grown, shrunk = next_sizes(deployment["spec"], sized(new), [sized(s) for s in old])
        new = new or engine.create(_replica_set(deployment, digest, _next_revision(sets), grown))
        new = _resize(engine, new, grown)
        old = [_resize(engine, s, size) for s, size in zip(old, shrunk, strict=True)]
    _tell_deployment(engine, deployment, new, old)


def _resize(engine: Engine, owner: Object, replicas: int) -> Object:
    return engine.write(owner, {"spec": {**owner["spec"], "replicas": replicas}}, subresource="")


def _next_revision(sets: Sequence[Object]) -> int:
    return max((int(s["metadata"]["annotations"].get(REVISION, "0")) for s in sets), default=0) + 1


def _replica_set(deployment: Object, digest: str, revision: int, replicas: int) -> Object:
    spec = deployment["spec"]
    template = labelled(spec["template"], {HASH: digest})
    selector = {**spec["selector"], "matchLabels": {**spec["selector"].get("matchLabels", {}), HASH: digest}}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{deployment['metadata']['name']}-{digest}",
            "namespace": deployment["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
            "annotations": {REVISION: str(revision)},
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    }


def _tell_deployment(engine: Engine, deployment: Object, new: Object | None, old: Sequence[Object]) -> None:
    statuses = [s.get("status", {}) for s in ([new] if new else []) + [*old]]
    wanted = deployment["spec"].get("replicas", 1)
    counts = _counts(statuses, updated=statuses[0].get("replicas", 0) if new else 0, wanted=wanted)
    status = {name: count for name, count in counts.items() if count}
    status["terminatingReplicas"] = sum(each.get("terminatingReplicas", 0) for each in statuses)
    status["observedGeneration"] = deployment["metadata"]["generation"]
    available = _available(engine, deployment, enough=counts["availableReplicas"] >= bounds(deployment["spec"]).least)
    if new is None:
        paused = ("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
        progress = changed_condition(engine, condition_of(deployment, "Progressing"), paused)
    else:
        done = counts["updatedReplicas"] == counts["replicas"] == wanted <= statuses[0].get("availableReplicas", 0)
        progress = _progressing(engine, deployment, status, new["metadata"]["name"], done=done)
        if not done and progress["status"] == "True":
            engine.again(keep_deployment, key_of(deployment), after_s=_deadline_s(deployment))
    engine.write(deployment, _revised(deployment, new) | {"status": {**status, "conditions": [available, progress]}})


def _counts(statuses: Sequence[Mapping[str, Any]], *, updated: int, wanted: int) -> dict[str, int]:
    names = ("replicas", "readyReplicas", "availableReplicas")
    counts = {name: sum(status.get(name, 0) for status in statuses) for name in names}
    missing = max(wanted - counts["availableReplicas"], 0)
    return counts | {"updatedReplicas": updated, "unavailableReplicas": missing}


def _revised(deployment: Object, new: Object | None) -> dict[str, Any]:
    """Return metadata with the revision, which the real controller writes together with the status."""
    if new is None:
        return {}
    metadata = deployment["metadata"]
    annotations = {**(metadata.get("annotations") or {}), REVISION: new["metadata"]["annotations"][REVISION]}
    return {"metadata": {**metadata, "annotations": annotations}}


def _deadline_s(deployment: Object) -> float:
    return float(deployment["spec"].get("progressDeadlineSeconds") or 600)


def _available(engine: Engine, deployment: Object, *, enough: bool) -> dict[str, str]:
    if enough:
        reason, message = "MinimumReplicasAvailable", "Deployment has minimum availability."
    else:
        reason, message = "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
    before = condition_of(deployment, "Available")
    return changed_condition(engine, before, ("Available", "True" if enough else "False", reason, message))


def _progressing(
    engine: Engine, deployment: Object, status: Mapping[str, Any], name: str, *, done: bool
) -> dict[str, str]:
    before = condition_of(deployment, "Progressing")
    if done:
        message = f'ReplicaSet "{name}" has successfully progressed.'
        return changed_condition(engine, before, ("Progressing", "True", "NewReplicaSetAvailable", message))
    known = {name: value for name, value in deployment.get("status", {}).items() if name != "conditions"}
    moved = known != dict(status) or not before or before["reason"] == "NewReplicaSetAvailable"
    if not moved and before["status"] == "False":
        return before
    if not moved and age_s(engine, before["lastUpdateTime"]) >= _deadline_s(deployment):
        message = f'ReplicaSet "{name}" has timed out progressing.'
        return changed_condition(engine, before, ("Progressing", "False", "ProgressDeadlineExceeded", message))
    message = f'ReplicaSet "{name}" is progressing.'
    if not moved:
        return before
    fresh = changed_condition(engine, before, ("Progressing", "True", "ReplicaSetUpdated", message))
    return {**fresh, "lastUpdateTime": engine.state.timestamp()}
