"""The real control planes and the simulated pods do what the other tests of this directory rely on."""

import json
import re
from typing import Any

import pytest

from fleet.sim.behaviour import Behaviour, Kind
from fleet.sim.pod import Rules, labelled
from fleet.sim.real import ControlPlane, RealError
from tests.cluster.conftest import MakeNamespace
from tests.cluster.site import Site, until


def deployment(name: str, image: str = "shop:1", **annotations: str) -> dict[str, Any]:
    """Write a Deployment of two pods."""
    labels = {"app": name}
    metadata = {"labels": labels, "annotations": {f"sim.fleet/{key}": value for key, value in annotations.items()}}
    template = {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": image}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


async def create(plane: ControlPlane, path: str, body: Any) -> None:
    """Create an object, which must work."""
    reply = await plane.request("POST", path, body)
    assert reply.code == 201, reply.body


async def pods(plane: ControlPlane, namespace: str) -> list[Any]:
    """List the pods of a namespace."""
    reply = await plane.request("GET", f"/api/v1/namespaces/{namespace}/pods")
    return list(reply.body["items"])


async def ready_replicas(plane: ControlPlane, namespace: str, name: str) -> int:
    """Read how many pods of a Deployment are ready."""
    reply = await plane.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
    return int(reply.body["status"].get("readyReplicas", 0))


def is_ready(pod: Any) -> bool:
    """Read a pod's Ready condition."""
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))


async def waiting_pods(plane: ControlPlane, namespace: str, reason: str) -> list[Any]:
    """List the pods of which a container waits for `reason`."""
    return [
        pod
        for pod in await pods(plane, namespace)
        if any(
            each["state"].get("waiting", {}).get("reason") == reason
            for each in pod["status"].get("containerStatuses", [])
        )
    ]


async def test_version_is_semver(plane: ControlPlane) -> None:
    """Clients can parse what the server calls itself."""
    reply = await plane.request("GET", "/version")
    assert re.fullmatch(r"v\d+\.\d+\.\d+", reply.body["gitVersion"])
    assert (reply.body["major"], reply.body["minor"]) == tuple(reply.body["gitVersion"][1:].split(".")[:2])


async def test_planes_are_independent(planes: list[ControlPlane], make_namespace: MakeNamespace) -> None:
    """What is written to one is not in the other, although both share an etcd; neither trusts the other's users."""
    one, other = planes
    name = await make_namespace(one)
    assert (await one.request("GET", f"/api/v1/namespaces/{name}")).code == 200
    assert (await other.request("GET", f"/api/v1/namespaces/{name}")).code == 404
    assert one.ca_pem != other.ca_pem
    assert one.etcd_prefix != other.etcd_prefix
    uids = [(await each.request("GET", "/api/v1/namespaces/kube-system")).body["metadata"]["uid"] for each in planes]
    assert uids[0] != uids[1]


async def test_kubectl_speaks_to_its_own_plane(plane: ControlPlane, namespace: str) -> None:
    """kubectl applies from stdin, and its complaints arrive."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "it"}, "data": {"key": "value"}}
    await plane.kubectl("apply", "--namespace", namespace, "-f", "-", stdin=json.dumps(body))
    printed = await plane.kubectl("get", "configmap", "it", "--namespace", namespace, "-o", "jsonpath={.data.key}")
    assert printed == "value"
    with pytest.raises(RealError, match="NotFound"):
        await plane.kubectl("get", "configmap", "absent", "--namespace", namespace)
    assert plane.kubeconfig_path.stat().st_mode & 0o777 == 0o600


async def test_tokens_name_an_admin_and_a_guest(plane: ControlPlane, namespace: str) -> None:
    """The admin's token may everything; the guest's is known but may nothing."""
    options = (
        f"--server={plane.url}",
        f"--certificate-authority={plane.root / 'server-ca.crt'}",
        "--kubeconfig=/dev/null",
    )
    command = ("get", "secrets", "--namespace", namespace, *options)
    await plane.kubectl(*command, f"--token={plane.admin_token}")
    with pytest.raises(RealError, match='User "guest" cannot list resource "secrets"'):
        await plane.kubectl(*command, f"--token={plane.guest_token}")


async def test_deployment_becomes_ready(plane: ControlPlane, namespace: str) -> None:
    """Pods are scheduled, report ready, and go when the Deployment goes."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    await create(plane, path, deployment("shop"))

    async def all_ready() -> bool:
        return await ready_replicas(plane, namespace, "shop") == 2

    await until(all_ready)
    first, *_ = await pods(plane, namespace)
    assert first["status"]["phase"] == "Running"
    assert first["spec"]["nodeName"] == "sim-node"
    await plane.request("DELETE", f"{path}/shop")

    async def gone() -> bool:
        return not await pods(plane, namespace)

    await until(gone)


async def test_crash_shows_exit_code_and_message(plane: ControlPlane, namespace: str) -> None:
    """A pod told to crash is in CrashLoopBackOff, and says how it ended the last time."""
    wish = {"behaviour": "crash", "exit-code": "42", "message": "no database", "restarts": "7"}
    await create(plane, f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment("shop", **wish))
    pod, *_ = await until(lambda: waiting_pods(plane, namespace, "CrashLoopBackOff"))
    container = pod["status"]["containerStatuses"][0]
    assert container["restartCount"] == 7
    assert container["lastState"]["terminated"]["exitCode"] == 42
    assert container["lastState"]["terminated"]["message"] == "no database"
    assert await ready_replicas(plane, namespace, "shop") == 0

    async def warned() -> bool:
        reply = await plane.request("GET", f"/api/v1/namespaces/{namespace}/events?fieldSelector=reason=BackOff")
        return pod["metadata"]["name"] in {each["involvedObject"]["name"] for each in reply.body["items"]}

    await until(warned)


async def test_missing_image_backs_off(plane: ControlPlane, namespace: str) -> None:
    """An image tag alone stages an image that cannot be pulled; a good tag heals the Deployment."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    await create(plane, path, deployment("shop", image="shop:2-missing"))
    pod, *_ = await until(lambda: waiting_pods(plane, namespace, "ImagePullBackOff"))
    assert pod["status"]["phase"] == "Pending"
    assert "shop:2-missing" in pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
    await plane.kubectl("set", "image", "deployment/shop", "main=shop:3", "--namespace", namespace)
    await plane.kubectl("rollout", "status", "deployment/shop", "--namespace", namespace, "--timeout=45s")


async def test_pending_pod_says_why(plane: ControlPlane, namespace: str) -> None:
    """A pod told to stay pending has no node, and the reason as the scheduler gives it."""
    wish = {"behaviour": "pending", "message": "0/3 nodes are available"}
    await create(plane, f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment("shop", **wish))

    async def unschedulable() -> list[Any]:
        return [pod for pod in await pods(plane, namespace) if pod["status"].get("conditions")]

    pod, *_ = await until(unschedulable)
    (condition,) = pod["status"]["conditions"]
    assert (condition["reason"], condition["message"]) == ("Unschedulable", "0/3 nodes are available")
    assert "nodeName" not in pod["spec"]


async def test_slow_pod_becomes_ready_later(plane: ControlPlane, namespace: str) -> None:
    """A slow pod runs for a while before it is ready."""
    wish = {"behaviour": "slow", "delay": "2"}
    await create(plane, f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment("shop", **wish))

    async def starting() -> bool:
        listed = await pods(plane, namespace)
        return any(each["status"]["phase"] == "Running" for each in listed) and not is_ready(listed[0])

    async def all_ready() -> bool:
        return await ready_replicas(plane, namespace, "shop") == 2

    await until(starting)
    await until(all_ready)


async def test_rules_reach_running_pods(plane: ControlPlane, namespace: str, rules: Rules) -> None:
    """A rule turns ready pods bad, and taking it back heals them."""
    await create(plane, f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment(f"shop-{namespace}"))
    name = f"shop-{namespace}"

    async def all_ready() -> bool:
        return await ready_replicas(plane, namespace, name) == 2

    async def none_ready() -> bool:
        return await ready_replicas(plane, namespace, name) == 0

    await until(all_ready)
    take_back = rules.add(labelled(app=name), Behaviour(kind=Kind.CRASH, exit_code=3))
    await until(none_ready)
    take_back()
    await until(all_ready)


async def test_job_succeeds_or_fails(plane: ControlPlane, namespace: str) -> None:
    """A Job's pods end: with success, or as told."""
    for name, image in (("good", "task:1"), ("bad", "task:crash")):
        pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]}
        spec = {"backoffLimit": 0, "template": {"spec": pod}}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
        await create(plane, f"/apis/batch/v1/namespaces/{namespace}/jobs", job)
    for name, condition in (("good", "Complete"), ("bad", "Failed")):
        await plane.kubectl("wait", f"job/{name}", f"--for=condition={condition}", "-n", namespace, "--timeout=45s")


async def test_daemon_set_finds_a_node(plane: ControlPlane, namespace: str) -> None:
    """There is one node, and a DaemonSet runs on it."""
    body = deployment("agent") | {"kind": "DaemonSet"}
    del body["spec"]["replicas"]
    await create(plane, f"/apis/apps/v1/namespaces/{namespace}/daemonsets", body)
    await plane.kubectl("rollout", "status", "daemonset/agent", "--namespace", namespace, "--timeout=45s")


@pytest.mark.parametrize("grace_s", [0.0, 1.0])
async def test_server_comes_back_with_its_data(plane: ControlPlane, namespace: str, grace_s: float) -> None:
    """A server that was stopped or killed answers again at the same address, and its pods live on."""
    url, pid = plane.url, plane.pid
    await plane.stop(grace_s=grace_s)
    with pytest.raises(OSError, match="refused"):
        await plane.request("GET", "/version")
    await plane.start()
    assert plane.url == url
    assert plane.pid != pid
    assert (await plane.request("GET", f"/api/v1/namespaces/{namespace}")).code == 200
    await create(plane, f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment("shop"))

    async def all_ready() -> bool:
        return await ready_replicas(plane, namespace, "shop") == 2

    await until(all_ready)


async def test_restart_and_compaction_forget_the_past(site: Site, plane: ControlPlane, namespace: str) -> None:
    """A restarted server answers a watch from an old version with 410, and after a compaction an exact list too."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    old = (await plane.request("GET", path)).body["metadata"]["resourceVersion"]
    await create(plane, path, {"metadata": {"name": "it"}})
    exact = f"{path}?resourceVersion={old}&resourceVersionMatch=Exact"
    assert (await plane.request("GET", exact)).code == 200
    site.compact()
    await plane.stop(grace_s=0)
    await plane.start()
    assert (await plane.request("GET", exact)).code == 410
    event = (await plane.request("GET", f"{path}?watch=1&resourceVersion={old}&timeoutSeconds=5")).body
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


async def test_frozen_server_does_not_answer(plane: ControlPlane, namespace: str) -> None:
    """A paused server takes connections and says nothing; afterwards it goes on as if nothing was."""
    await plane.pause()
    try:
        with pytest.raises(TimeoutError):
            await plane.request("GET", "/version", timeout_s=0.5)
    finally:
        await plane.resume()
    assert (await plane.request("GET", f"/api/v1/namespaces/{namespace}")).code == 200


async def test_one_plane_stops_alone(planes: list[ControlPlane]) -> None:
    """A stopped cluster leaves the others running."""
    one, other = planes
    await one.stop(grace_s=0)
    assert (await other.request("GET", "/readyz")).code == 200
    await one.start()


async def test_left_stopped_runs_for_the_next_test(site: Site, plane: ControlPlane) -> None:
    """A test that fails between stop and start does not spoil those after it."""
    await plane.stop(grace_s=0)
    assert site.planes(1) == [plane]
    assert (await plane.request("GET", "/readyz")).code == 200
