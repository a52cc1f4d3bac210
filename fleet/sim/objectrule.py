"""What the API server asks of kinds that run nothing: configuration, network, storage, access."""

import base64
import ipaddress
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleet.sim import naming, quantity
from fleet.sim.cause import Causes, duplicate, forbidden, invalid, not_found, one_of, required, too_long, unsupported
from fleet.sim.workloadrule import check_selector

Struct = Mapping[str, Any]

_DATA_LIMIT_BYTES: Final = 1024 * 1024
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_NODE_PORTS: Final = range(30000, 32768)
_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_PRIORITY_LIMIT: Final = 1_000_000_000


# Configuration.


def check_config_map(config_map: Struct) -> Causes:
    data, binary = config_map.get("data") or {}, config_map.get("binaryData") or {}
    for key in sorted(data):
        yield from naming.check(f"data[{key}]", key, naming.config_key_faults)
        if key in binary:
            yield invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    for key in sorted(binary):
        yield from naming.check(f"binaryData[{key}]", key, naming.config_key_faults)
    size = sum(len(text.encode()) for text in data.values())
    size += sum(len(base64.b64decode(text)) for text in binary.values())
    if size > _DATA_LIMIT_BYTES:
        yield too_long("[]", _DATA_LIMIT_BYTES)


_NEEDED: Final[Mapping[str, Sequence[str]]] = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def check_secret(secret: Struct) -> Causes:
    data: Mapping[str, str] = secret.get("data") or {}
    for key in sorted(data):
        yield from naming.check(f"data[{key}]", key, naming.config_key_faults)
    if sum(len(base64.b64decode(text)) for text in data.values()) > _DATA_LIMIT_BYTES:
        yield too_long("data", _DATA_LIMIT_BYTES)
    kind = secret.get("type", "")
    for key in _NEEDED.get(kind, ()):
        if key not in data:
            yield required(f"data[{key}]")
        elif kind.startswith("kubernetes.io/dockerc") and not _is_map(base64.b64decode(data[key])):
            yield invalid(f"data[{key}]", "<secret contents redacted>", "it is no JSON object")


def _is_map(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


# Network.


def check_service(service: Struct) -> Causes:
    spec = service["spec"]
    ports, kind = spec.get("ports") or (), spec["type"]
    if not ports and kind != "ExternalName" and spec.get("clusterIP") != "None":
        yield required("spec.ports")
    if kind == "ExternalName" and not spec.get("externalName"):
        yield required("spec.externalName")
    yield from _check_ports(ports)
    yield from naming.check_labels("spec.selector", spec.get("selector"))
    yield from one_of("spec.sessionAffinity", spec["sessionAffinity"], ("ClientIP", "None"))
    yield from one_of("spec.type", kind, ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"))
    for n, address in enumerate(spec.get("clusterIPs") or ()):
        if address != "None" and not _is_address(address):
            why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            yield invalid(f"spec.clusterIPs[{n}]", address, why)


def _check_ports(ports: Sequence[Struct]) -> Causes:
    names: set[str] = set()
    numbers: set[tuple[Any, ...]] = set()
    for n, port in enumerate(ports):
        yield from _check_port(port, f"spec.ports[{n}]", names, alone=len(ports) == 1)
        number = (port.get("protocol"), port.get("port"))
        if number in numbers:
            said = {"Name": "", "Protocol": number[0], "AppProtocol": None, "Port": number[1]}
            yield duplicate(f"spec.ports[{n}]", said | {"TargetPort": 0, "NodePort": 0})
        numbers.add(number)


def _check_port(port: Struct, path: str, names: set[str], *, alone: bool) -> Causes:
    name = port.get("name", "")
    if not name and not alone:
        yield required(f"{path}.name")
    elif name:
        yield from naming.check(f"{path}.name", name, naming.label_faults)
        if name in names:
            yield duplicate(f"{path}.name", name)
        names.add(name)
    yield from naming.check_port(f"{path}.port", port.get("port", 0))
    yield from one_of(f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
    yield from naming.check_port_or_name(f"{path}.targetPort", port["targetPort"])
    if port.get("nodePort") and port["nodePort"] not in _NODE_PORTS:
        why = "provided port is not in the valid range. The range of valid ports is 30000-32767"
        yield invalid(f"{path}.nodePort", port["nodePort"], why)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check_ingress(ingress: Struct) -> Causes:
    spec = ingress["spec"]
    if not spec.get("defaultBackend") and not spec.get("rules"):
        yield invalid("spec", None, "either `defaultBackend` or `rules` must be specified")
    if spec.get("defaultBackend"):
        yield from _check_backend(spec["defaultBackend"], "spec.defaultBackend")
    for n, rule in enumerate(spec.get("rules") or ()):
        path, host = f"spec.rules[{n}]", rule.get("host", "").removeprefix("*.")
        if host:
            yield from naming.check(f"{path}.host", host, naming.subdomain_faults)
        if rule.get("http") is not None and not rule["http"].get("paths"):
            yield required(f"{path}.http.paths")
        for m, route in enumerate((rule.get("http") or {}).get("paths") or ()):
            yield from _check_route(route, f"{path}.http.paths[{m}]")


def _check_route(route: Struct, path: str) -> Causes:
    kind, place = route.get("pathType"), route.get("path", "")
    if not kind:
        yield required(f"{path}.pathType", "pathType must be specified")
        return
    if kind not in ("Exact", "ImplementationSpecific", "Prefix"):
        yield unsupported(f"{path}.pathType", kind, ("Exact", "ImplementationSpecific", "Prefix"))
    elif not place.startswith("/") and (place or kind != "ImplementationSpecific"):
        yield invalid(f"{path}.path", place, "must be an absolute path")
    yield from _check_backend(route.get("backend") or {}, f"{path}.backend")


def _check_backend(backend: Struct, path: str) -> Causes:
    service = backend.get("service")
    if service is None:
        return
    if not service.get("name"):
        yield required(f"{path}.service.name")
    else:
        yield from naming.check(f"{path}.service.name", service["name"], naming.label_faults)
    port = service.get("port") or {}
    if not port.get("name") and not port.get("number"):
        yield required(path, "port name or number is required")


def check_network_policy(policy: Struct) -> Causes:
    spec = policy["spec"]
    yield from check_selector("spec.podSelector", spec.get("podSelector") or {})
    for way, peers in (("ingress", "from"), ("egress", "to")):
        for n, rule in enumerate(spec.get(way) or ()):
            for m, port in enumerate(rule.get("ports") or ()):
                if "port" in port:
                    yield from naming.check_port_or_name(f"spec.{way}[{n}].ports[{m}].port", port["port"])
            for m, peer in enumerate(rule.get(peers) or ()):
                if not peer:
                    yield required(f"spec.{way}[{n}].{peers}[{m}]", "must specify a peer")
    for n, kind in enumerate(spec.get("policyTypes") or ()):
        yield from one_of(f"spec.policyTypes[{n}]", kind, ("Ingress", "Egress"))


# Storage.


def check_claim(claim: Struct) -> Causes:
    spec = claim["spec"]
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    for mode in spec.get("accessModes") or ():
        yield from one_of("spec.accessModes", mode, _MODES)
    wanted = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if wanted is None:
        yield required("spec.resources[storage]")
    elif quantity.magnitude(wanted) <= 0:
        yield invalid("spec.resources[storage]", wanted, "must be greater than zero")


def check_volume(volume: Struct) -> Causes:
    spec = volume["spec"]
    for name in ("accessModes", "capacity"):
        if not spec.get(name):
            yield required(f"spec.{name}")
    if list(spec.get("capacity") or ()) != ["storage"]:
        yield unsupported("spec.capacity", spec.get("capacity"), ("storage",))


def check_storage_class(storage_class: Struct) -> Causes:
    if not storage_class.get("provisioner"):
        yield required("provisioner")


def check_priority_class(priority: Struct) -> Causes:
    if priority.get("value", 0) > _PRIORITY_LIMIT and not priority["metadata"]["name"].startswith("system-"):
        yield forbidden("value", f"maximum allowed value of a user defined priority is {_PRIORITY_LIMIT}")


# Access.


def check_rules(role: Struct) -> Causes:
    yield from _check_rules(role, namespaced=True)


def check_cluster_rules(role: Struct) -> Causes:
    yield from _check_rules(role, namespaced=False)


def _check_rules(role: Struct, *, namespaced: bool) -> Causes:
    for n, rule in enumerate(role.get("rules") or ()):
        path = f"rules[{n}]"
        if not rule.get("verbs"):
            yield required(f"{path}.verbs", "verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            if namespaced:
                why = "namespaced rules cannot apply to non-resource URLs"
                yield invalid(f"{path}.nonResourceURLs", rule["nonResourceURLs"], why)
            continue
        if not rule.get("apiGroups"):
            yield required(f"{path}.apiGroups", "resource rules must supply at least one api group")
        if not rule.get("resources"):
            yield required(f"{path}.resources", "resource rules must supply at least one resource")


def check_binding(binding: Struct) -> Causes:
    yield from _check_binding(binding, ("Role", "ClusterRole"), namespaced=True)


def check_cluster_binding(binding: Struct) -> Causes:
    yield from _check_binding(binding, ("ClusterRole",), namespaced=False)


def _check_binding(binding: Struct, roles: Sequence[str], *, namespaced: bool) -> Causes:
    role = binding["roleRef"]
    yield from one_of("roleRef.kind", role.get("kind", ""), roles)
    if not role.get("name"):
        yield required("roleRef.name")
    for n, subject in enumerate(binding.get("subjects") or ()):
        kind, path = subject.get("kind", ""), f"subjects[{n}]"
        if not subject.get("name"):
            yield required(f"{path}.name")
        if kind == "ServiceAccount" and not namespaced and not subject.get("namespace"):
            yield required(f"{path}.namespace")
        yield from one_of(f"{path}.kind", kind, ("ServiceAccount", "User", "Group"))


def check_definition(definition: Struct) -> Causes:
    """Check a CustomResourceDefinition, except for its schemas."""
    spec = definition["spec"]
    names, group = spec["names"], spec.get("group", "")
    if definition["metadata"]["name"] != f"{names.get('plural', '')}.{group}":
        yield invalid("metadata.name", definition["metadata"]["name"], 'must be spec.names.plural+"."+spec.group')
    if not group:
        yield required("spec.group")
    if not spec.get("scope"):
        yield required("spec.scope")
    else:
        yield from one_of("spec.scope", spec["scope"], ("Cluster", "Namespaced"))
    versions = spec.get("versions") or []
    yield from _check_versions(versions)
    for name in ("plural", "singular", "kind", "listKind"):
        if not names.get(name):
            yield required(f"spec.names.{name}")


def _check_versions(versions: Sequence[Struct]) -> Causes:
    shown = [_version_in_go(version) for version in versions] or None
    names = [version.get("name", "") for version in versions]
    if len(set(names)) != len(names):
        yield invalid("spec.versions", shown, "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield invalid("spec.versions", shown, "must have exactly one version marked as storage version")
    for n, version in enumerate(versions):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        path = f"spec.versions[{n}].schema.openAPIV3Schema"
        if schema is None:
            yield required(path)
        else:
            # The server moves the schema of an only version to the top before it looks at it.
            yield from _check_structural(schema, path if versions[1:] else "spec.validation.openAPIV3Schema")


def _version_in_go(version: Struct) -> dict[str, Any]:
    shown = {name.capitalize(): version.get(name) for name in ("name", "served", "storage")} | {"Deprecated": False}
    rest = ("DeprecationWarning", "Schema", "Subresources", "AdditionalPrinterColumns", "SelectableFields")
    return shown | dict.fromkeys(rest)


def _check_structural(document: Struct, path: str) -> Causes:
    """Check that a schema is structural: it says of everything what type it is."""
    free = document.get("x-kubernetes-preserve-unknown-fields") or document.get("x-kubernetes-int-or-string")
    if not document.get("type") and not free:
        yield required(f"{path}.type", "must not be empty for specified object fields")
    for name, inner in sorted((document.get("properties") or {}).items()):
        yield from _check_structural(inner, f"{path}.properties[{name}]")
    if isinstance(document.get("additionalProperties"), Mapping):
        yield from _check_structural(document["additionalProperties"], f"{path}.additionalProperties")
    if isinstance(document.get("items"), Mapping):
        yield from _check_structural(document["items"], f"{path}.items")
    for key in document.get("x-kubernetes-list-map-keys") or ():
        if key not in ((document.get("items") or {}).get("properties") or {}):
            yield not_found(f"{path}.x-kubernetes-list-map-keys", key)
