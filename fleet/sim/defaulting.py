"""Defaults of the built-in kinds, type by type."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

from fleet.sim import quantity
from fleet.sim.schema import Object, Schema

Struct = dict[str, Any]
Setter = Callable[[Struct], None]


def with_defaults(schema: Schema, obj: Object) -> Object:
    """Return the object, read by its schema before, with the defaults of everything in it."""
    filled: Object = copy.deepcopy(obj)
    _visit(schema, filled)
    return filled


def _visit(schema: Schema, value: Any) -> None:
    if schema.list is not None and isinstance(value, list):
        for item in value:
            _visit(schema.list.element, item)
    if schema.map is None or not isinstance(value, dict):
        return
    for name, found in schema.map.fields.items():
        if found.default is not None and name not in value:
            value[name] = found.default
    setter = _SETTERS.get(schema.name)
    if setter is not None:
        setter(value)
    if schema.map.element is not None and schema.map.element.wire == "q":
        _round(value)
    for name, inner in value.items():
        if name in schema.map.fields:
            _visit(schema.map.fields[name].schema, inner)


def _round(resources: Struct) -> None:
    for name, amount in resources.items():
        resources[name] = quantity.canonical(amount, finest=-3)


def _fill(struct: Struct, **defaults: Any) -> None:
    for name, value in defaults.items():
        struct.setdefault(name, value)


# Pods.


def _pod(pod: Struct) -> None:
    spec = pod["spec"]
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = container.setdefault("resources", {})
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **resources.get("requests", {})}
        if spec.get("hostNetwork"):
            for port in container.get("ports") or ():
                port.setdefault("hostPort", port["containerPort"])
    spec.setdefault("enableServiceLinks", True)


def _pod_spec(spec: Struct) -> None:
    _fill(
        spec,
        dnsPolicy="ClusterFirst",
        restartPolicy="Always",
        securityContext={},
        terminationGracePeriodSeconds=30,
        schedulerName="default-scheduler",
    )
    if "serviceAccountName" in spec or "serviceAccount" in spec:
        name = spec.get("serviceAccountName") or spec["serviceAccount"]
        spec |= {"serviceAccountName": name, "serviceAccount": name}


_VOLUME_KEYS: Final = frozenset({"name"})


def _volume(volume: Struct) -> None:
    if volume.keys() <= _VOLUME_KEYS:
        volume["emptyDir"] = {}
    image = volume.get("image")
    if image is not None:
        image.setdefault("pullPolicy", _pull_policy(image.get("reference", "")))


def _pull_policy(image: str) -> str:
    if "@" in image:
        return "IfNotPresent"
    _, mark, tag = image.rpartition("/")[2].partition(":")
    return "Always" if not mark or tag == "latest" else "IfNotPresent"


def _container(container: Struct) -> None:
    _fill(
        container,
        imagePullPolicy=_pull_policy(container.get("image", "")),
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
    )


def _probe(probe: Struct) -> None:
    _fill(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)


def _mode(source: Struct) -> None:
    source.setdefault("defaultMode", 0o644)


# The rest of the core group.


def _service(service: Struct) -> None:
    spec = service["spec"]
    _fill(spec, sessionAffinity="None", type="ClusterIP")
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        client.setdefault("timeoutSeconds", 10800)
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port["port"]
    outside = spec["type"] in ("NodePort", "LoadBalancer") or (spec["type"] == "ClusterIP" and spec.get("externalIPs"))
    if outside:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for ingress in service["status"]["loadBalancer"].get("ingress") or ():
            if ingress.get("ip"):
                ingress.setdefault("ipMode", "VIP")


def _namespace(namespace: Struct) -> None:
    name = namespace["metadata"].get("name")
    if name:
        namespace["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
    namespace["status"].setdefault("phase", "Active")


def _persistent_volume(volume: Struct) -> None:
    volume["status"].setdefault("phase", "Pending")
    _fill(volume["spec"], persistentVolumeReclaimPolicy="Retain", volumeMode="Filesystem")


def _claim(claim: Struct) -> None:
    claim["status"].setdefault("phase", "Pending")


def _limit(item: Struct) -> None:
    if item["type"] != "Container":
        return
    default = {**item.get("max", {}), **item.get("default", {})}
    request = {**item.get("min", {}), **default, **item.get("defaultRequest", {})}
    for name, value in (("default", default), ("defaultRequest", request)):
        if value:
            item[name] = value


def _node_status(status: Struct) -> None:
    if "capacity" in status:
        status.setdefault("allocatable", dict(status["capacity"]))


def _replication_controller(controller: Struct) -> None:
    labels = controller["spec"].get("template", {}).get("metadata", {}).get("labels")
    if labels:
        controller["spec"].setdefault("selector", dict(labels))
        controller["metadata"].setdefault("labels", dict(labels))


# Workloads.


def _deployment(deployment: Struct) -> None:
    spec = deployment["spec"]
    _fill(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec["strategy"]
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _fill(strategy.setdefault("rollingUpdate", {}), maxUnavailable="25%", maxSurge="25%")


def _daemon_set(daemon_set: Struct) -> None:
    spec = daemon_set["spec"]
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec["updateStrategy"]
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _fill(strategy.setdefault("rollingUpdate", {}), maxUnavailable=1, maxSurge=0)


def _stateful_set(stateful_set: Struct) -> None:
    spec = stateful_set["spec"]
    _fill(spec, podManagementPolicy="OrderedReady", replicas=1, revisionHistoryLimit=10)
    strategy = spec["updateStrategy"]
    if "type" not in strategy:
        strategy["type"] = "RollingUpdate"
        strategy.setdefault("rollingUpdate", {})
    if strategy["type"] == "RollingUpdate" and "rollingUpdate" in strategy:
        _fill(strategy["rollingUpdate"], partition=0)
    policy = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    _fill(policy, whenDeleted="Retain", whenScaled="Retain")
    for claim in spec.get("volumeClaimTemplates") or ():
        claim |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}


def _replica_set(replica_set: Struct) -> None:
    replica_set["spec"].setdefault("replicas", 1)


_NO_LIMIT: Final = 2**31 - 1


def _job(job: Struct) -> None:
    spec = job["spec"]
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    labels = spec["template"]["metadata"].get("labels")
    if labels:
        job["metadata"].setdefault("labels", dict(labels))
    _fill(
        spec,
        parallelism=1,
        backoffLimit=_NO_LIMIT if "backoffLimitPerIndex" in spec else 6,
        completionMode="NonIndexed",
        suspend=False,
        podReplacementPolicy="Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed",
        manualSelector=False,
    )


def _cron_job(cron_job: Struct) -> None:
    _fill(
        cron_job["spec"],
        concurrencyPolicy="Allow",
        suspend=False,
        successfulJobsHistoryLimit=3,
        failedJobsHistoryLimit=1,
    )


# Autoscaling.


def _scaling_rules(given: Struct | None, *, up: bool) -> Struct:
    policies = [{"type": "Pods", "value": 4, "periodSeconds": 15}] if up else []
    rules: Struct = {
        "selectPolicy": "Max",
        "policies": [*policies, {"type": "Percent", "value": 100, "periodSeconds": 15}],
    }
    return ({"stabilizationWindowSeconds": 0} if up else {}) | rules | (given or {})


def _autoscaler(autoscaler: Struct) -> None:
    spec = autoscaler["spec"]
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    if "behavior" in spec:
        behavior = spec["behavior"]
        behavior["scaleUp"] = _scaling_rules(behavior.get("scaleUp"), up=True)
        behavior["scaleDown"] = _scaling_rules(behavior.get("scaleDown"), up=False)


# Network, access, machinery.


def _network_policy(policy: Struct) -> None:
    spec = policy["spec"]
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def _ingress_class(ingress_class: Struct) -> None:
    parameters = ingress_class["spec"].get("parameters")
    if parameters is not None:
        parameters.setdefault("scope", "Cluster")


_RBAC: Final = "rbac.authorization.k8s.io"


def _binding(binding: Struct) -> None:
    if not binding["roleRef"].get("apiGroup"):
        binding["roleRef"]["apiGroup"] = _RBAC


def _subject(subject: Struct) -> None:
    if subject["kind"] in ("User", "Group"):
        subject.setdefault("apiGroup", _RBAC)


def _storage_class(storage_class: Struct) -> None:
    _fill(storage_class, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _webhook(webhook: Struct) -> None:
    _fill(webhook, failurePolicy="Fail", timeoutSeconds=10)
    _matching(webhook)


def _mutating_webhook(webhook: Struct) -> None:
    _webhook(webhook)
    webhook.setdefault("reinvocationPolicy", "Never")


def _matching(resources: Struct) -> None:
    _fill(resources, matchPolicy="Equivalent", namespaceSelector={}, objectSelector={})


def _definition(definition: Struct) -> None:
    spec = definition["spec"]
    names = spec["names"]
    kind = names.get("kind", "")
    names.setdefault("singular", kind.lower())
    if kind:
        names.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {"strategy": "None"})


def _set(**defaults: Any) -> Setter:
    def setter(struct: Struct) -> None:
        _fill(struct, **copy.deepcopy(defaults))

    return setter


_SETTERS: Final[Mapping[str, Setter]] = {
    "admissionregistration.v1.MatchResources": _matching,
    "admissionregistration.v1.MutatingWebhook": _mutating_webhook,
    "admissionregistration.v1.NamedRuleWithOperations": _set(scope="*"),
    "admissionregistration.v1.RuleWithOperations": _set(scope="*"),
    "admissionregistration.v1.ServiceReference": _set(port=443),
    "admissionregistration.v1.ValidatingAdmissionPolicySpec": _set(failurePolicy="Fail"),
    "admissionregistration.v1.ValidatingWebhook": _webhook,
    "apiextensions.v1.CustomResourceDefinition": _definition,
    "apiextensions.v1.ServiceReference": _set(port=443),
    "apiregistration.v1.ServiceReference": _set(port=443),
    "apps.v1.DaemonSet": _daemon_set,
    "apps.v1.Deployment": _deployment,
    "apps.v1.ReplicaSet": _replica_set,
    "apps.v1.StatefulSet": _stateful_set,
    "autoscaling.v2.HorizontalPodAutoscaler": _autoscaler,
    "batch.v1.CronJob": _cron_job,
    "batch.v1.Job": _job,
    "batch.v1.PodFailurePolicyOnPodConditionsPattern": _set(status="True"),
    "core.v1.ConfigMapVolumeSource": _mode,
    "core.v1.Container": _container,
    "core.v1.DownwardAPIVolumeSource": _mode,
    "core.v1.EndpointPort": _set(protocol="TCP"),
    "core.v1.EphemeralContainer": _container,
    "core.v1.HTTPGetAction": _set(path="/", scheme="HTTP"),
    "core.v1.HostPathVolumeSource": _set(type=""),
    "core.v1.LimitRangeItem": _limit,
    "core.v1.Namespace": _namespace,
    "core.v1.NodeStatus": _node_status,
    "core.v1.ObjectFieldSelector": _set(apiVersion="v1"),
    "core.v1.PersistentVolume": _persistent_volume,
    "core.v1.PersistentVolumeClaim": _claim,
    "core.v1.PersistentVolumeClaimSpec": _set(volumeMode="Filesystem"),
    "core.v1.Pod": _pod,
    "core.v1.PodSpec": _pod_spec,
    "core.v1.Probe": _probe,
    "core.v1.ProjectedVolumeSource": _mode,
    "core.v1.ReplicationController": _replication_controller,
    "core.v1.Secret": _set(type="Opaque"),
    "core.v1.SecretVolumeSource": _mode,
    "core.v1.Service": _service,
    "core.v1.ServiceAccountTokenProjection": _set(expirationSeconds=3600),
    "core.v1.Volume": _volume,
    "discovery.v1.EndpointPort": _set(name="", protocol="TCP"),
    "networking.v1.IngressClass": _ingress_class,
    "networking.v1.NetworkPolicy": _network_policy,
    "networking.v1.NetworkPolicyPort": _set(protocol="TCP"),
    "rbac.v1.ClusterRoleBinding": _binding,
    "rbac.v1.RoleBinding": _binding,
    "rbac.v1.Subject": _subject,
    "scheduling.v1.PriorityClass": _set(preemptionPolicy="PreemptLowerPriority"),
    "storage.v1.StorageClass": _storage_class,
}
