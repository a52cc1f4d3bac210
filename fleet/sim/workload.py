"""Controllers of workloads: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, PersistentVolumeClaim, Service."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from fleet.sim.controller import Engine, Trigger, Work
from fleet.sim.deletion import DeleteOptions, begin
from fleet.sim.dependent import age_s, condition_of, labelled, owned, owner_reference, template_hash
from fleet.sim.deployment import keep_deployment
from fleet.sim.reading import key_of
from fleet.sim.storage import Collection, Event, Key, Object


def triggers() -> list[Trigger]:
    return [_on_workload, _on_owned, _on_node]


def _on_workload(collection: Collection, event: Event) -> list[tuple[Work, Key]]:
    work = _KEEPERS.get(collection)
    return [(work, event.key)] if work else []


def _on_owned(_: Collection, event: Event) -> list[tuple[Work, Key]]:
    namespace = event.key[0]
    work = []
    for reference in event.obj["metadata"].get("ownerReferences") or ():
        keeper = _KEEPERS.get(_PLURALS.get(reference["kind"], ("", "")))
        if keeper and reference.get("controller"):
            work.append((keeper, (namespace, reference["name"])))
    return work


def _on_node(collection: Collection, event: Event) -> list[tuple[Work, Key]]:
    return [(keep_all_daemons, ("", ""))] if collection == ("", "nodes") and event.type != "MODIFIED" else []


# Pods of an owner.


def _alive(pods: Iterable[Object]) -> list[Object]:
    phases = ("Succeeded", "Failed")
    return [
        p for p in pods if "deletionTimestamp" not in p["metadata"] and p.get("status", {}).get("phase") not in phases
    ]


def _pod(owner: Object, name: str, template: Object, node: str = "") -> Object:
    metadata = template.get("metadata") or {}
    spec = {**template["spec"], **({"nodeName": node} if node else {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **{part: metadata[part] for part in ("labels", "annotations") if metadata.get(part)},
            "name": name,
            "generateName": f"{owner['metadata']['name']}-",
            "namespace": owner["metadata"]["namespace"],
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": spec,
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    }


def is_ready(pod: Object) -> bool:
    return condition_of(pod, "Ready").get("status") == "True"


def _delete_pod(engine: Engine, pod: Object) -> None:
    begin(engine.state, engine.resource("", "Pod"), pod, DeleteOptions())


def _counts(pods: Sequence[Object], *names: str) -> dict[str, int]:
    ready = sum(is_ready(pod) for pod in pods)
    return {name: ready for name in names if ready}


def keep_replica_set(engine: Engine, key: Key) -> None:
    """Keep as many pods as a replica set wants."""
    owner = engine.get("apps", "ReplicaSet", key)
    if owner is None or "deletionTimestamp" in owner["metadata"]:
        return
    wanted = owner["spec"].get("replicas", 1)
    pods = _alive(owned(engine, "", "Pod", owner))
    for _ in range(wanted - len(pods)):
        name = f"{owner['metadata']['name']}-{engine.state.new_suffix()}"
        pods.append(engine.create(_pod(owner, name, owner["spec"]["template"])))
    surplus = sorted(pods, key=is_ready)[: max(len(pods) - wanted, 0)]
    for pod in surplus:
        _delete_pod(engine, pod)
    everything = owned(engine, "", "Pod", owner)
    pods = _alive(everything)
    status = {"replicas": len(pods), "observedGeneration": owner["metadata"]["generation"]}
    status["terminatingReplicas"] = sum("deletionTimestamp" in pod["metadata"] for pod in everything)
    status |= {"fullyLabeledReplicas": len(pods)} if pods else {}
    engine.write(owner, {"status": status | _counts(pods, "readyReplicas", "availableReplicas")})


# Stateful sets, daemon sets, jobs.


def keep_stateful_set(engine: Engine, key: Key) -> None:
    """Keep numbered pods; move them to a new template from the highest down, each after the one before is ready."""
    owner = engine.get("apps", "StatefulSet", key)
    if owner is None or "deletionTimestamp" in owner["metadata"]:
        return
    wanted = owner["spec"].get("replicas", 1)
    revision = f"{key[1]}-{template_hash(owner['spec']['template'])}"
    pods = {pod["metadata"]["name"]: pod for pod in owned(engine, "", "Pod", owner)}
    names = [f"{key[1]}-{number}" for number in range(wanted)]
    _grow(engine, owner, revision, names, pods)
    for name in sorted(set(pods) - set(names)):
        _delete_pod(engine, pods[name])
    _roll_one(engine, [pods[name] for name in names if name in pods], revision)
    _tell_stateful_set(engine, owner, revision)


def _grow(engine: Engine, owner: Object, revision: str, names: Sequence[str], pods: dict[str, Object]) -> None:
    """Create the pods that are missing; in order, each after the one before is ready, unless asked otherwise."""
    ordered = owner["spec"].get("podManagementPolicy") != "Parallel"
    for number, name in enumerate(names):
        if name not in pods:
            _claim(engine, owner, name)
            pods[name] = engine.create(_pod(owner, name, _numbered(owner, name, number, revision)))
        if ordered and not is_ready(pods[name]):
            return


def _numbered(owner: Object, name: str, number: int, revision: str) -> Object:
    """Return the template of one pod of a stateful set, with its identity and its claims."""
    spec = owner["spec"]
    identity = {"apps.kubernetes.io/pod-index": str(number), "statefulset.kubernetes.io/pod-name": name}
    template = labelled(spec["template"], {"controller-revision-hash": revision} | identity)
    claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates") or ()]
    volumes = [volume for volume in template["spec"].get("volumes") or () if volume["name"] not in claims]
    volumes += [{"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-{name}"}} for claim in claims]
    host = {"hostname": name} | ({"subdomain": spec["serviceName"]} if spec.get("serviceName") else {})
    return {**template, "spec": {**template["spec"], **host, **({"volumes": volumes} if volumes else {})}}


def _claim(engine: Engine, owner: Object, pod_name: str) -> None:
    for template in owner["spec"].get("volumeClaimTemplates") or ():
        name = f"{template['metadata']['name']}-{pod_name}"
        if engine.get("", "PersistentVolumeClaim", (owner["metadata"]["namespace"], name)) is None:
            metadata = {"name": name, "namespace": owner["metadata"]["namespace"]}
            head = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
            engine.create({**head, "spec": template["spec"], "status": {"phase": "Pending"}})


def _revision_of(pod: Object) -> str:
    return str(pod["metadata"].get("labels", {}).get("controller-revision-hash", ""))


def _roll_one(engine: Engine, pods: Sequence[Object], revision: str) -> None:
    moved = [pod for pod in pods if _revision_of(pod) == revision]
    if all(is_ready(pod) for pod in moved):
        for pod in reversed(pods):
            if _revision_of(pod) != revision:
                if "deletionTimestamp" not in pod["metadata"]:
                    _delete_pod(engine, pod)
                return


def _tell_stateful_set(engine: Engine, owner: Object, revision: str) -> None:
    pods = _alive(owned(engine, "", "Pod", owner))
    updated = [pod for pod in pods if _revision_of(pod) == revision]
    done = len(updated) == len(pods) == owner["spec"].get("replicas", 1) and all(is_ready(pod) for pod in pods)
    before = owner.get("status", {})
    current = revision if done or not before.get("currentRevision") else before["currentRevision"]
    on_current = [pod for pod in pods if _revision_of(pod) == current]
    status: dict[str, Any] = {
        "observedGeneration": owner["metadata"]["generation"],
        "replicas": len(pods),
        "currentRevision": current,
        "updateRevision": revision,
        "collisionCount": 0,
        "availableReplicas": sum(is_ready(pod) for pod in pods),
    }
    status |= {"currentReplicas": len(on_current)} if on_current else {}
    status |= {"updatedReplicas": len(updated)} if updated else {}
    engine.write(owner, {"status": status | _counts(pods, "readyReplicas")})


def keep_all_daemons(engine: Engine, _: Key) -> None:
    """Look at every daemon set again, as the nodes changed."""
    for owner in engine.items("apps", "DaemonSet"):
        engine.again(keep_daemon_set, key_of(owner))


def keep_daemon_set(engine: Engine, key: Key) -> None:
    """Keep one pod per node, of the present template."""
    owner = engine.get("apps", "DaemonSet", key)
    if owner is None or "deletionTimestamp" in owner["metadata"]:
        return
    digest = template_hash(owner["spec"]["template"])
    template = labelled(owner["spec"]["template"], {"controller-revision-hash": digest})
    nodes = [node["metadata"]["name"] for node in engine.items("", "Node")]
    by_node = {pod["spec"].get("nodeName"): pod for pod in _alive(owned(engine, "", "Pod", owner))}
    for node in nodes:
        if node not in by_node:
            engine.create(_pod(owner, f"{key[1]}-{engine.state.new_suffix()}", template, node))
        elif _revision_of(by_node[node]) != digest:
            _delete_pod(engine, by_node[node])
    pods = _alive(owned(engine, "", "Pod", owner))
    updated = sum(_revision_of(pod) == digest for pod in pods)
    ready = sum(is_ready(pod) for pod in pods)
    status = {
        "currentNumberScheduled": len(pods),
        "numberMisscheduled": 0,
        "desiredNumberScheduled": len(nodes),
        "numberReady": ready,
        "observedGeneration": owner["metadata"]["generation"],
    }
    optional = {"updatedNumberScheduled": updated, "numberAvailable": ready, "numberUnavailable": len(nodes) - ready}
    engine.write(owner, {"status": status | {name: count for name, count in optional.items() if count}})


def keep_job(engine: Engine, key: Key) -> None:
    """Run a job's pods until enough have succeeded or too many have failed."""
    job = engine.get("batch", "Job", key)
    if job is None or "deletionTimestamp" in job["metadata"]:
        return
    if job["spec"].get("suspend"):
        _suspend(engine, job)
        return
    if condition_of(job, "Complete") or condition_of(job, "Failed"):
        _expire_job(engine, job)
        return
    pods = owned(engine, "", "Pod", job)
    phases = [pod.get("status", {}).get("phase") for pod in pods]
    done, failed, active = phases.count("Succeeded"), phases.count("Failed"), len(_alive(pods))
    completions = job["spec"].get("completions") or 1
    over = failed > job["spec"].get("backoffLimit", 6)
    if done < completions and not over:
        for _ in range(min(job["spec"].get("parallelism", 1), completions - done) - active):
            engine.create(_pod(job, f"{key[1]}-{engine.state.new_suffix()}", job["spec"]["template"]))
            active += 1
    status: dict[str, Any] = {"startTime": job.get("status", {}).get("startTime") or engine.state.timestamp()}
    counts = {"active": active, "ready": 0, "succeeded": done, "failed": failed, "terminating": 0}
    status |= {name: count for name, count in counts.items() if count or name in ("ready", "terminating")}
    status["uncountedTerminatedPods"] = {}
    if over or done >= completions:
        status |= _job_end(engine, over=over)
    engine.write(job, {"status": status})


def _suspend(engine: Engine, job: Object) -> None:
    if not condition_of(job, "Suspended"):
        now = engine.state.timestamp()
        said = {"type": "Suspended", "status": "True", "lastProbeTime": now, "lastTransitionTime": now}
        said |= {"reason": "JobSuspended", "message": "Job suspended"}
        engine.write(job, {"status": {**job.get("status", {}), "conditions": [said]}})


def _job_end(engine: Engine, *, over: bool) -> dict[str, Any]:
    now = engine.state.timestamp()
    kinds = ("FailureTarget", "Failed") if over else ("SuccessCriteriaMet", "Complete")
    why = (
        ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        if over
        else ("CompletionsReached", "Reached expected number of succeeded pods")
    )
    conditions = [
        {
            "type": kind,
            "status": "True",
            "lastProbeTime": now,
            "lastTransitionTime": now,
            "reason": why[0],
            "message": why[1],
        }
        for kind in kinds
    ]
    return {"conditions": conditions} | ({} if over else {"completionTime": now})


def _expire_job(engine: Engine, job: Object) -> None:
    ttl_s = job["spec"].get("ttlSecondsAfterFinished")
    if ttl_s is None:
        return
    ended = (condition_of(job, "Complete") or condition_of(job, "Failed"))["lastTransitionTime"]
    left_s = ttl_s - age_s(engine, ended)
    if left_s > 0:
        engine.again(keep_job, key_of(job), after_s=left_s)
    else:
        begin(engine.state, engine.resource("batch", "Job"), job, DeleteOptions(policy="Foreground"))


# What is not a workload but must look alive.


def keep_claim(engine: Engine, key: Key) -> None:
    """Bind a volume claim."""
    claim = engine.get("", "PersistentVolumeClaim", key)
    if claim is None or "deletionTimestamp" in claim["metadata"] or claim.get("status", {}).get("phase") == "Bound":
        return
    claim = engine.write(
        claim, {"spec": {**claim["spec"], "volumeName": f"pvc-{claim['metadata']['uid']}"}}, subresource=""
    )
    capacity = claim["spec"].get("resources", {}).get("requests", {})
    status = {"phase": "Bound", "accessModes": claim["spec"].get("accessModes", []), "capacity": capacity}
    engine.write(claim, {"status": status})


def keep_service(engine: Engine, key: Key) -> None:
    """Give a service what it waits for: a balancer's address, and an endpoint slice if it selects pods."""
    service = engine.get("", "Service", key)
    if service is None or "deletionTimestamp" in service["metadata"]:
        return
    balancer = service.get("status", {}).get("loadBalancer") or {}
    if service["spec"].get("type") == "LoadBalancer" and not balancer.get("ingress"):
        address = f"203.0.113.{engine.state.rng.randint(1, 254)}"
        engine.write(service, {"status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}}})
    if service["spec"].get("selector") and not owned(engine, "discovery.k8s.io", "EndpointSlice", service):
        _slice(engine, service, key)


def _slice(engine: Engine, service: Object, key: Key) -> None:
    """Create the endpoint slice of a service; it copies the service's labels."""
    labels = {
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": key[1],
    }
    metadata = {
        "name": f"{key[1]}-{engine.state.new_suffix()}",
        "generateName": f"{key[1]}-",
        "namespace": key[0],
        "labels": {**(service["metadata"].get("labels") or {}), **labels},
        "ownerReferences": [owner_reference(service)],
    }
    head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
    engine.create({**head, "addressType": "IPv4", "endpoints": [], "ports": []})


_PLURALS: Final[dict[str, Collection]] = {
    "Deployment": ("apps", "deployments"),
    "ReplicaSet": ("apps", "replicasets"),
    "StatefulSet": ("apps", "statefulsets"),
    "DaemonSet": ("apps", "daemonsets"),
    "Job": ("batch", "jobs"),
    "PersistentVolumeClaim": ("", "persistentvolumeclaims"),
    "Service": ("", "services"),
}
_KEEPERS: Final[dict[Collection, Work]] = {
    ("apps", "deployments"): keep_deployment,
    ("apps", "replicasets"): keep_replica_set,
    ("apps", "statefulsets"): keep_stateful_set,
    ("apps", "daemonsets"): keep_daemon_set,
    ("batch", "jobs"): keep_job,
    ("", "persistentvolumeclaims"): keep_claim,
    ("", "services"): keep_service,
}
