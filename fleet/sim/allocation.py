"""What the server gives new objects out of its own stock: addresses, selectors, first states."""

from typing import Any, Final

from fleet.sim.resource import Resource
from fleet.sim.state import State
from fleet.sim.storage import Object
from fleet.sim.workloadrule import CONTROLLER_UID

_TEMPLATE_GENERATION: Final = "deprecated.daemonset.template.generation"
_JOB_NAME: Final = "batch.kubernetes.io/job-name"
_FIRST_STATUS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("", "Namespace"): {"phase": "Active"},
    ("", "PersistentVolumeClaim"): {"phase": "Pending"},
    ("", "Pod"): {"phase": "Pending", "qosClass": "BestEffort"},
    ("", "Service"): {"loadBalancer": {}},
    ("apps", "DaemonSet"): {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    },
    ("apps", "Deployment"): {},
    ("apps", "ReplicaSet"): {"replicas": 0},
    ("apps", "StatefulSet"): {"replicas": 0, "availableReplicas": 0},
    ("batch", "CronJob"): {},
    ("batch", "Job"): {},
    ("autoscaling", "HorizontalPodAutoscaler"): {"desiredReplicas": 0, "currentMetrics": None},
    ("networking.k8s.io", "Ingress"): {"loadBalancer": {}},
    ("policy", "PodDisruptionBudget"): {
        "disruptionsAllowed": 0,
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "expectedPods": 0,
    },
}


def allocate(state: State, resource: Resource, obj: Object) -> Object:
    """Return a new object with what only the server can give it."""
    first = _FIRST_STATUS.get((resource.group, resource.kind))
    if first is not None:
        obj = {**obj, "status": dict(first)}
    if resource.custom:
        return obj
    if resource.kind == "Service":
        return _give_addresses(state, obj)
    if resource.kind == "Job":
        return _give_selector(obj)
    if resource.kind == "Namespace":
        return _mark_namespace(obj)
    return _with_template_generation(obj, 1) if resource.kind == "DaemonSet" else obj


def keep_allocated(resource: Resource, live: Object, obj: Object) -> Object:
    """Return an update with the addresses it leaves out taken from the live object."""
    if resource.kind != "Service" or resource.group or obj["spec"].get("type") == "ExternalName":
        return obj
    kept = {name: live["spec"][name] for name in ("clusterIP", "clusterIPs") if name in live["spec"]}
    return {**obj, "spec": kept | obj["spec"]}


def count_template(resource: Resource, live: Object, obj: Object) -> Object:
    """Return an update of a DaemonSet with its annotation that counts the templates."""
    if resource.kind != "DaemonSet" or resource.custom:
        return obj
    before = (live["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION, "1")
    changed = obj["spec"].get("template") != live["spec"].get("template")
    return _with_template_generation(obj, int(before) + changed)


def _with_template_generation(obj: Object, number: int) -> Object:
    annotations = {**(obj["metadata"].get("annotations") or {}), _TEMPLATE_GENERATION: str(number)}
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


def _give_addresses(state: State, service: Object) -> Object:
    spec = dict(service["spec"])
    if spec.get("type") == "ExternalName":
        return service
    if not spec.get("clusterIP"):
        spec["clusterIP"] = _free_address(state)
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        spec["ports"] = [{"nodePort": _free_port(state), **port} for port in spec.get("ports") or ()]
    return {**service, "spec": spec}


def _services(state: State) -> list[Object]:
    return state.storage.items(("", "services"))


def _free_address(state: State) -> str:
    taken = {service["spec"].get("clusterIP") for service in _services(state)}
    while (address := f"10.96.{state.rng.randint(0, 255)}.{state.rng.randint(1, 254)}") in taken:
        continue
    return address


def _free_port(state: State) -> int:
    taken = {port.get("nodePort") for service in _services(state) for port in service["spec"].get("ports") or ()}
    while (port := state.rng.randint(30000, 32767)) in taken:
        continue
    return port


def _give_selector(job: Object) -> Object:
    spec = job["spec"]
    if spec.get("manualSelector"):
        return job
    uid, name = job["metadata"]["uid"], job["metadata"]["name"]
    labels = {CONTROLLER_UID: uid, _JOB_NAME: name, "controller-uid": uid, "job-name": name}
    template = spec["template"]
    metadata = template.get("metadata") or {}
    template = {**template, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}}
    asked = spec.get("selector") or {}
    selector = {**asked, "matchLabels": {**(asked.get("matchLabels") or {}), CONTROLLER_UID: uid}}
    own = {"labels": job["metadata"].get("labels") or template["metadata"]["labels"]}
    whole = {**spec, "selector": selector, "template": template}
    return {**job, "metadata": {**job["metadata"], **own}, "spec": whole}


def _mark_namespace(namespace: Object) -> Object:
    metadata = namespace["metadata"]
    labels = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
    spec = {"finalizers": ["kubernetes"]}
    return {**namespace, "metadata": {**metadata, "labels": labels}, "spec": spec}
