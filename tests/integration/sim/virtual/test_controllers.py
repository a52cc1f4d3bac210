"""The small controllers: workloads become what they should, or show why they do not."""

import asyncio
from typing import Any

from fleet.sim.cluster import SimCluster
from fleet.sim.storage import Object


def deployment(name: str, *, replicas: int = 2, image: str = "app:1", **annotations: str) -> Object:
    labels = {"app": name}
    marks = {f"sim.fleet/{key}": value for key, value in annotations.items()}
    pod = {"containers": [{"name": "main", "image": image}]}
    template = {"metadata": {"labels": labels, "annotations": marks}, "spec": pod}
    return workload(
        "Deployment", name, {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    )


def workload(kind: str, name: str, spec: dict[str, Any], api_version: str = "apps/v1") -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def conditions(obj: Object) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c.get("reason", "")) for c in obj["status"].get("conditions", ())}


def reason_of(cluster: SimCluster, labels: str) -> set[str]:
    """Why the containers of the picked pods wait."""
    return {
        status["state"]["waiting"]["reason"]
        for pod in cluster.list("v1", "Pod", "default", labels=labels)
        for status in pod["status"].get("containerStatuses", ())
        if "waiting" in status["state"]
    }


async def test_deployment_becomes_available(cluster: SimCluster) -> None:
    """A deployment first progresses, then is available, with as many ready pods as it wants."""
    cluster.create(deployment("web"))
    await asyncio.sleep(0.01)
    progressing = cluster.get("apps/v1", "Deployment", "default", "web")
    assert conditions(progressing)["Available"] == ("False", "MinimumReplicasUnavailable")
    assert conditions(progressing)["Progressing"] == ("True", "ReplicaSetUpdated")
    await asyncio.sleep(1)
    done = cluster.get("apps/v1", "Deployment", "default", "web")
    assert conditions(done) == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }
    assert done["status"]["observedGeneration"] == done["metadata"]["generation"] == 1
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    assert [done["status"][count] for count in counts] == [2, 2, 2, 2]
    assert len(cluster.list("v1", "Pod", "default", labels="app=web")) == 2


async def test_rollout_replaces_pods(cluster: SimCluster) -> None:
    """A new template leads to new pods; the old ones go."""
    cluster.create(deployment("web"))
    await asyncio.sleep(1)
    before = {pod["metadata"]["name"] for pod in cluster.list("v1", "Pod", "default")}
    cluster.kubectl().set_image("web", "main", "app:2")
    await asyncio.sleep(1)
    pods = cluster.list("v1", "Pod", "default")
    assert not before & {pod["metadata"]["name"] for pod in pods}
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"app:2"}
    live = cluster.get("apps/v1", "Deployment", "default", "web")
    assert live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
    assert conditions(live)["Progressing"] == ("True", "NewReplicaSetAvailable")


async def test_crashing_image_stops_a_rollout(cluster: SimCluster) -> None:
    """Pods of a crashing template never get ready, say why, and the old pods stay; the deadline passes."""
    cluster.create(deployment("web"))
    await asyncio.sleep(1)
    cluster.kubectl().set_image("web", "main", "app:crash")
    await asyncio.sleep(5)
    assert reason_of(cluster, "app=web") == {"CrashLoopBackOff"}
    live = cluster.get("apps/v1", "Deployment", "default", "web")
    assert live["status"]["readyReplicas"] == 2
    assert conditions(live)["Progressing"] == ("True", "ReplicaSetUpdated")
    warnings = [event["reason"] for event in cluster.list("v1", "Event", "default")]
    assert "BackOff" in warnings
    await asyncio.sleep(700)
    live = cluster.get("apps/v1", "Deployment", "default", "web")
    assert conditions(live)["Progressing"] == ("False", "ProgressDeadlineExceeded")


async def test_behaviours(cluster: SimCluster) -> None:
    """An annotation on the pod template decides how its pods behave."""
    for how in ("crash", "image", "pending", "slow"):
        cluster.create(deployment(how, replicas=1, behaviour=how))
    await asyncio.sleep(0.5)
    assert reason_of(cluster, "app=crash") == {"CrashLoopBackOff"}
    assert reason_of(cluster, "app=image") == {"ImagePullBackOff"}
    (pending,) = cluster.list("v1", "Pod", "default", labels="app=pending")
    assert conditions(pending)["PodScheduled"] == ("False", "Unschedulable")
    (slow,) = cluster.list("v1", "Pod", "default", labels="app=slow")
    assert conditions(slow)["Ready"][0] == "False"
    await asyncio.sleep(10)
    (slow,) = cluster.list("v1", "Pod", "default", labels="app=slow")
    assert conditions(slow)["Ready"][0] == "True"


async def test_scaling_and_deleting(cluster: SimCluster) -> None:
    """Pods follow the scale; a deleted deployment takes its replica sets and pods along."""
    cluster.create(deployment("web", replicas=1))
    await asyncio.sleep(1)
    cluster.kubectl().scale("Deployment", "web", 3)
    await asyncio.sleep(1)
    assert len(cluster.list("v1", "Pod", "default")) == 3
    cluster.kubectl().scale("Deployment", "web", 0)
    await asyncio.sleep(1)
    assert cluster.list("v1", "Pod", "default") == []
    cluster.kubectl().scale("Deployment", "web", 1)
    cluster.kubectl().delete("Deployment", "web")
    await asyncio.sleep(1)
    assert cluster.list("v1", "Pod", "default") == cluster.list("apps/v1", "ReplicaSet", "default") == []


async def test_stateful_set(cluster: SimCluster) -> None:
    """A stateful set has numbered pods and their claims, and moves to a new template pod by pod."""
    pod = {"containers": [{"name": "main", "image": "db:1"}]}
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    spec = {
        "replicas": 2,
        "serviceName": "db",
        "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod},
        "volumeClaimTemplates": [claim],
    }
    cluster.create(workload("StatefulSet", "db", spec))
    await asyncio.sleep(1)
    assert [p["metadata"]["name"] for p in cluster.list("v1", "Pod", "default")] == ["db-0", "db-1"]
    claims = cluster.list("v1", "PersistentVolumeClaim", "default")
    assert [(c["metadata"]["name"], c["status"]["phase"]) for c in claims] == [
        ("data-db-0", "Bound"),
        ("data-db-1", "Bound"),
    ]
    cluster.kubectl().set_image("db", "main", "db:2", kind="StatefulSet")
    await asyncio.sleep(3)
    status = cluster.get("apps/v1", "StatefulSet", "default", "db")["status"]
    assert status["currentRevision"] == status["updateRevision"]
    assert (status["readyReplicas"], status["updatedReplicas"]) == (2, 2)


async def test_daemon_set(cluster: SimCluster) -> None:
    """A daemon set has one pod per node."""
    template = {"metadata": {"labels": {"app": "log"}}, "spec": {"containers": [{"name": "main", "image": "log:1"}]}}
    cluster.create(workload("DaemonSet", "log", {"selector": {"matchLabels": {"app": "log"}}, "template": template}))
    await asyncio.sleep(1)
    status = cluster.get("apps/v1", "DaemonSet", "default", "log")["status"]
    assert [status[n] for n in ("desiredNumberScheduled", "numberReady", "numberAvailable")] == [1, 1, 1]


def job(name: str, image: str, **spec: Any) -> Object:
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]}
    return workload("Job", name, {"template": {"spec": pod}} | spec, "batch/v1")


async def test_jobs(cluster: SimCluster) -> None:
    """A job completes; one that keeps failing fails; one with a time to live goes after it."""
    cluster.create(job("good", "task:1", ttlSecondsAfterFinished=60))
    cluster.create(job("bad", "task:crash", backoffLimit=1))
    await asyncio.sleep(5)
    assert conditions(cluster.get("batch/v1", "Job", "default", "good"))["Complete"] == ("True", "CompletionsReached")
    assert conditions(cluster.get("batch/v1", "Job", "default", "bad"))["Failed"] == ("True", "BackoffLimitExceeded")
    await asyncio.sleep(60)
    assert cluster.find("batch/v1", "Job", "default", "good") is None


async def test_endpoint_slices_copy_labels(cluster: SimCluster) -> None:
    """A service's endpoint slice carries the service's labels and belongs to it."""
    service = workload("Service", "web", {"selector": {"app": "web"}, "ports": [{"port": 80}]}, "v1")
    service["metadata"]["labels"] = {"fleet/hub": "x"}
    cluster.create(service)
    await asyncio.sleep(1)
    (piece,) = cluster.list("discovery.k8s.io/v1", "EndpointSlice", "default")
    assert piece["metadata"]["labels"]["fleet/hub"] == "x"
    assert piece["metadata"]["ownerReferences"][0]["controller"] is True
