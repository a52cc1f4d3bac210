"""Simulated controllers in virtual time: what becomes of workloads, seen as a client would see it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fleet.sim.cluster import SimCluster
from fleet.sim.loop import run_virtual
from fleet.sim.storage import Object

MAIN = {"name": "main", "image": "shop:1"}


def pods(image: str = "shop:1", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [MAIN | {"image": image}]} | spec}


def named(api_version: str, kind: str) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "web", "namespace": "default"}}


def workload(kind: str, **spec: Any) -> Object:
    selected = {"selector": {"matchLabels": {"app": "web"}}, "template": pods()}
    return named("apps/v1", kind) | {"spec": selected | spec}


def condition(obj: Object, kind: str) -> tuple[str, str]:
    """Status and reason of a condition."""
    found = next(c for c in obj["status"]["conditions"] if c["type"] == kind)
    return found["status"], found["reason"]


def see(cluster: SimCluster, kind: str = "Deployment") -> Object:
    return cluster.get(*cluster.kind(kind), "default", "web")


def staged(*steps: Callable[[SimCluster], object], seconds: float = 30.0) -> SimCluster:
    """Take steps on a new cluster, each followed by some virtual seconds."""

    async def play() -> SimCluster:
        cluster = SimCluster("one", seed=1, nodes=2)
        for step in steps:
            step(cluster)
            await asyncio.sleep(seconds)
        await cluster.close()
        return cluster

    return run_virtual(play())


def test_deployment_becomes_available() -> None:
    """Pods of a deployment become ready, and it says so for its generation."""
    cluster = staged(lambda c: c.apply(workload("Deployment", replicas=3)))
    status = see(cluster)["status"]
    assert [status[n] for n in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")] == [3] * 4
    assert status["observedGeneration"] == 1
    assert condition(see(cluster), "Progressing") == ("True", "NewReplicaSetAvailable")
    assert condition(see(cluster), "Available") == ("True", "MinimumReplicasAvailable")


def test_deployment_rolls() -> None:
    """A new template replaces all pods, and scaling leaves them alone."""
    cluster = staged(
        lambda c: c.apply(workload("Deployment", replicas=2)),
        lambda c: c.kubectl().set_image("web", "main", "shop:2"),
        lambda c: c.kubectl().scale("Deployment", "web", 3),
    )
    assert {pod["spec"]["containers"][0]["image"] for pod in cluster.list("v1", "Pod", "default")} == {"shop:2"}
    assert see(cluster)["status"]["replicas"] == 3
    sizes = sorted(s["spec"]["replicas"] for s in cluster.list("apps/v1", "ReplicaSet", "default"))
    assert sizes == [0, 3]


def test_crashing_template_harms_nothing() -> None:
    """A template that crashes never takes more than the bounds allow, and in the end the deadline is exceeded."""
    cluster = staged(
        lambda c: c.apply(workload("Deployment", replicas=2)),
        lambda c: c.kubectl().set_image("web", "main", "shop:2-crash"),
        seconds=700.0,
    )
    status = see(cluster)["status"]
    assert (status["availableReplicas"], status["updatedReplicas"], status["replicas"]) == (2, 1, 3)
    assert condition(see(cluster), "Progressing") == ("False", "ProgressDeadlineExceeded")
    broken = [p for p in cluster.list("v1", "Pod", "default") if p["spec"]["containers"][0]["image"] == "shop:2-crash"]
    (state,) = [s["state"]["waiting"]["reason"] for p in broken for s in p["status"]["containerStatuses"]]
    assert state == "CrashLoopBackOff"


def test_paused_deployment_observes() -> None:
    """A paused deployment starts nothing, but shows that it saw its spec."""
    cluster = staged(lambda c: c.apply(workload("Deployment", replicas=1, paused=True)))
    assert see(cluster)["status"]["observedGeneration"] == 1
    assert condition(see(cluster), "Progressing") == ("Unknown", "DeploymentPaused")
    assert cluster.list("v1", "Pod", "default") == []


def test_stateful_set_waits_for_each_pod() -> None:
    """Stateful pods come in order: one that crashes holds those after it."""
    crashing = pods("shop:1-crash")
    cluster = staged(lambda c: c.apply(workload("StatefulSet", replicas=3, template=crashing)))
    assert [pod["metadata"]["name"] for pod in cluster.list("v1", "Pod", "default")] == ["web-0"]
    healthy = staged(lambda c: c.apply(workload("StatefulSet", replicas=3)))
    assert [pod["metadata"]["name"] for pod in healthy.list("v1", "Pod", "default")] == ["web-0", "web-1", "web-2"]
    status = see(healthy, "StatefulSet")["status"]
    assert status["readyReplicas"] == 3
    assert status["currentRevision"] == status["updateRevision"]


def test_stateful_pods_own_their_claims() -> None:
    """Each pod gets a volume claim of its own, which is bound."""
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"metadata": {"name": "data"}, "spec": wanted}
    cluster = staged(lambda c: c.apply(workload("StatefulSet", replicas=1, volumeClaimTemplates=[claim])))
    (only,) = cluster.list("v1", "PersistentVolumeClaim", "default")
    assert (only["metadata"]["name"], only["status"]["phase"]) == ("data-web-0", "Bound")
    (pod,) = cluster.list("v1", "Pod", "default")
    assert pod["spec"]["volumes"][-1]["persistentVolumeClaim"]["claimName"] == "data-web-0"


def test_daemon_set_runs_everywhere() -> None:
    """One pod on each node; the server counts the templates."""
    cluster = staged(
        lambda c: c.apply(workload("DaemonSet")),
        lambda c: c.kubectl().set_image("web", "main", "a:2", kind="DaemonSet"),
    )
    daemon_set = see(cluster, "DaemonSet")
    assert daemon_set["status"]["numberReady"] == daemon_set["status"]["updatedNumberScheduled"] == 2
    assert daemon_set["metadata"]["annotations"]["deprecated.daemonset.template.generation"] == "2"


@pytest.mark.parametrize(("image", "end"), [("shop:1", "Complete"), ("shop:1-crash", "Failed")])
def test_job_ends(image: str, end: str) -> None:
    """A job completes, or fails once its pods failed too often."""
    job = named("batch/v1", "Job")
    job["spec"] = {"backoffLimit": 1, "template": pods(image, restartPolicy="Never")}
    cluster = staged(lambda c: c.apply(job))
    assert condition(see(cluster, "Job"), end)[0] == "True"


def test_suspended_job() -> None:
    """A suspended job starts nothing and says so."""
    job = named("batch/v1", "Job")
    job["spec"] = {"suspend": True, "template": pods(restartPolicy="Never")}
    cluster = staged(lambda c: c.apply(job))
    assert condition(see(cluster, "Job"), "Suspended") == ("True", "JobSuspended")
    assert cluster.list("v1", "Pod", "default") == []


def test_budget_counts_its_pods() -> None:
    """A disruption budget tells how many of its pods may be missing."""
    budget = named("policy/v1", "PodDisruptionBudget")
    budget["spec"] = {"maxUnavailable": "50%", "selector": {"matchLabels": {"app": "web"}}}
    cluster = staged(lambda c: c.apply(budget), lambda c: c.apply(workload("Deployment", replicas=3)))
    status = see(cluster, "PodDisruptionBudget")["status"]
    assert (status["expectedPods"], status["currentHealthy"], status["desiredHealthy"]) == (3, 3, 1)
    assert condition(see(cluster, "PodDisruptionBudget"), "DisruptionAllowed")[0] == "True"


def test_balanced_service_gets_an_address() -> None:
    """A service of type LoadBalancer is not left waiting."""
    service = named("v1", "Service")
    service["spec"] = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}
    cluster = staged(lambda c: c.apply(service))
    assert see(cluster, "Service")["status"]["loadBalancer"]["ingress"][0]["ip"].startswith("203.0.113.")


def test_deleting_an_owner_takes_its_pods() -> None:
    """Everything below a deleted deployment goes with it."""
    cluster = staged(
        lambda c: c.apply(workload("Deployment", replicas=2)), lambda c: c.kubectl().delete("Deployment", "web")
    )
    assert cluster.find("apps/v1", "Deployment", "default", "web") is None
    assert cluster.list("apps/v1", "ReplicaSet", "default") == cluster.list("v1", "Pod", "default") == []
