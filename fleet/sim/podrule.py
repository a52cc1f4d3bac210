"""What the API server asks of a pod and of a pod template."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleet.sim import naming, quantity
from fleet.sim.cause import Causes, at_least, duplicate, forbidden, invalid, not_found, one_of, required

Struct = Mapping[str, Any]

_DNS: Final = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_RESTARTS: Final = ("Always", "OnFailure", "Never")
_PULLS: Final = ("Always", "IfNotPresent", "Never")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_SOURCES: Final = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "grpc")
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_PROBE_NUMBERS: Final = (
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
)
_STANDARD_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")


def check_template(template: Struct, path: str) -> Causes:
    """Check a pod template."""
    metadata = template.get("metadata") or {}
    yield from naming.check_labels(f"{path}.labels", metadata.get("labels"))
    yield from naming.check_annotations(f"{path}.annotations", metadata.get("annotations"))
    yield from check_spec(template.get("spec") or {}, f"{path}.spec")


def check_spec(spec: Struct, path: str) -> Causes:
    """Check a pod spec."""
    volumes = {volume.get("name", "") for volume in spec.get("volumes") or ()}
    yield from _check_volumes(spec.get("volumes") or (), f"{path}.volumes")
    containers = spec.get("containers") or ()
    if not containers:
        yield required(f"{path}.containers")
    yield from _check_containers(containers, f"{path}.containers", volumes, set())
    taken = {container.get("name", "") for container in containers}
    yield from _check_containers(spec.get("initContainers") or (), f"{path}.initContainers", volumes, taken)
    yield from one_of(f"{path}.restartPolicy", spec.get("restartPolicy", ""), _RESTARTS)
    yield from one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy", ""), _DNS)
    yield from naming.check_labels(f"{path}.nodeSelector", spec.get("nodeSelector"))
    yield from at_least(f"{path}.activeDeadlineSeconds", spec.get("activeDeadlineSeconds"), 1)
    for name in filter(None, (spec.get("serviceAccountName"),)):
        yield from naming.check(f"{path}.serviceAccountName", name, naming.subdomain_faults)
    yield from _check_tolerations(spec.get("tolerations") or (), f"{path}.tolerations")


def _check_volumes(volumes: Sequence[Struct], path: str) -> Causes:
    seen: set[str] = set()
    for n, volume in enumerate(volumes):
        name = volume.get("name", "")
        if not name:
            yield required(f"{path}[{n}].name")
        elif name in seen:
            yield duplicate(f"{path}[{n}].name", name)
        else:
            yield from naming.check(f"{path}[{n}].name", name, naming.label_faults)
        seen.add(name)
        yield from _check_source(volume, f"{path}[{n}]")


_NAMED_SOURCES: Final = (("configMap", "name"), ("secret", "secretName"), ("persistentVolumeClaim", "claimName"))


def _check_source(volume: Struct, path: str) -> Causes:
    for more in [source for source in volume if source != "name"][1:]:
        yield forbidden(f"{path}.{more}", "may not specify more than 1 volume type")
    for source, name in _NAMED_SOURCES:
        if source in volume and not volume[source].get(name):
            yield required(f"{path}.{source}.{name}")


def _check_containers(containers: Sequence[Struct], path: str, volumes: set[str], taken: set[str]) -> Causes:
    seen = set(taken)
    for n, container in enumerate(containers):
        name = container.get("name", "")
        if not name:
            yield required(f"{path}[{n}].name")
        else:
            yield from naming.check(f"{path}[{n}].name", name, naming.label_faults)
        if name and name in seen:
            yield duplicate(f"{path}[{n}].name", name)
        seen.add(name)
        yield from _check_container(container, f"{path}[{n}]", volumes)


def _check_container(container: Struct, path: str, volumes: set[str]) -> Causes:
    if not container.get("image"):
        yield required(f"{path}.image")
    yield from one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy", ""), _PULLS)
    yield from _check_ports(container.get("ports") or (), f"{path}.ports")
    for n, variable in enumerate(container.get("env") or ()):
        yield from _check_variable(variable, f"{path}.env[{n}]")
    yield from _check_mounts(container.get("volumeMounts") or (), f"{path}.volumeMounts", volumes)
    for name in _PROBES:
        if name in container:
            yield from _check_probe(name, container[name], f"{path}.{name}")
    yield from _check_resources(container.get("resources") or {}, f"{path}.resources")


def _check_ports(ports: Sequence[Struct], path: str) -> Causes:
    seen: set[str] = set()
    for n, port in enumerate(ports):
        name, number = port.get("name"), port.get("containerPort", 0)
        if name:
            yield from list(naming.check(f"{path}[{n}].name", name, naming.port_name_faults))[:1]
            if name in seen:
                yield duplicate(f"{path}[{n}].name", name)
            seen.add(name)
        if not number:
            yield required(f"{path}[{n}].containerPort")
        else:
            yield from naming.check_port(f"{path}[{n}].containerPort", number)
        yield from one_of(f"{path}[{n}].protocol", port.get("protocol", ""), _PROTOCOLS)


def _check_variable(variable: Struct, path: str) -> Causes:
    name = variable.get("name", "")
    if not name:
        yield required(f"{path}.name")
    elif not re.fullmatch(r"[ -<>-~]+", name):
        why = "a valid environment variable name must consist only of printable ASCII characters other than '='"
        yield invalid(f"{path}.name", name, why)
    source = variable.get("valueFrom")
    if source is None:
        return
    if not any(kind in source for kind in _SOURCES):
        listed = ", ".join(f"`{kind}`" for kind in _SOURCES[:-1])
        yield invalid(f"{path}.valueFrom", "", f"must specify one of: {listed} or `{_SOURCES[-1]}`")
    elif variable.get("value"):
        yield invalid(f"{path}.valueFrom", "", "may not be specified when `value` is not empty")
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if kind in source:
            yield from _check_reference(source[kind], f"{path}.valueFrom.{kind}")


def _check_reference(reference: Struct, path: str) -> Causes:
    yield from naming.check(f"{path}.name", reference.get("name", ""), naming.subdomain_faults)
    if not reference.get("key"):
        yield required(f"{path}.key")


def _check_mounts(mounts: Sequence[Struct], path: str, volumes: set[str]) -> Causes:
    seen: set[str] = set()
    for n, mount in enumerate(mounts):
        if not mount.get("name"):
            yield required(f"{path}[{n}].name")
        elif mount["name"] not in volumes:
            yield not_found(f"{path}[{n}].name", mount["name"])
        place = mount.get("mountPath", "")
        if not place:
            yield required(f"{path}[{n}].mountPath")
        elif place in seen:
            yield invalid(f"{path}[{n}].mountPath", place, "must be unique")
        seen.add(place)


def _check_probe(name: str, probe: Struct, path: str) -> Causes:
    handlers = [kind for kind in _HANDLERS if kind in probe]
    if not handlers:
        yield required(path, "must specify a handler type")
    for more in handlers[1:]:
        yield forbidden(f"{path}.{more}", "may not specify more than 1 handler type")
    for kind in ("httpGet", "tcpSocket"):
        if kind in handlers[:1]:
            yield from naming.check_port_or_name(f"{path}.{kind}.port", probe[kind].get("port", 0))
    for number in _PROBE_NUMBERS:
        yield from at_least(f"{path}.{number}", probe.get(number), 0)
    if name != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        yield invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")


def _check_resources(resources: Struct, path: str) -> Causes:
    limits = resources.get("limits") or {}
    for part in ("limits", "requests"):
        for name, amount in sorted((resources.get(part) or {}).items()):
            yield from _check_amount(name, amount, f"{path}.{part}[{name}]")
    for name, amount in sorted((resources.get("requests") or {}).items()):
        if name in limits and quantity.magnitude(amount) > quantity.magnitude(limits[name]):
            yield invalid(f"{path}.requests", amount, f"must be less than or equal to {name} limit of {limits[name]}")


def _check_amount(name: str, amount: str, path: str) -> Causes:
    if "/" not in name and name not in _STANDARD_RESOURCES and not name.startswith("hugepages-"):
        yield invalid(path, name, "must be a standard resource type or fully qualified")
        yield invalid(path, name, "must be a standard resource for containers")
    if quantity.magnitude(amount) < 0:
        yield invalid(path, amount, "must be greater than or equal to 0")


def _check_tolerations(tolerations: Sequence[Struct], path: str) -> Causes:
    for n, toleration in enumerate(tolerations):
        operator, key = toleration.get("operator", ""), toleration.get("key", "")
        if key:
            yield from naming.check(f"{path}[{n}].key", key, naming.key_faults)
        elif operator != "Exists":
            why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            yield invalid(f"{path}[{n}].operator", operator, why)
        if operator:
            yield from one_of(f"{path}[{n}].operator", operator, ("Equal", "Exists"))
