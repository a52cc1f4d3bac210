"""One API request: what its path, query and headers ask for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import yaml

from fleet.sim import status
from fleet.sim.resource import Registry, Resource
from fleet.sim.selector import Selection, parse_fields, parse_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The resource, object or subresource a path names."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A parsed request for a resource."""

    verb: str
    target: Target
    query: Mapping[str, str]
    user: str
    user_agent: str = ""
    accept: str = ""
    content_type: str = ""
    body: bytes = b""

    @property
    def resource(self) -> Resource:
        return self.target.resource

    @property
    def key(self) -> tuple[str, str]:
        return (self.target.namespace, self.target.name)

    def flag(self, name: str) -> bool:
        return self.query.get(name, "") in ("1", "true", "True")

    @property
    def dry_run(self) -> bool:
        asked = self.query.get("dryRun", "")
        if asked not in ("", "All"):
            message = f'Unsupported value: ["{asked}"]: supported values: "All"'
            cause = {"reason": "FieldValueNotSupported", "message": message, "field": "dryRun"}
            raise status.invalid("meta.k8s.io", f"{self.verb.capitalize()}Options", "", [cause])
        return asked == "All"

    @property
    def manager(self) -> str:
        """The field manager: as asked, else the product name of the user agent."""
        return self.query.get("fieldManager") or self.user_agent.partition("/")[0][:128] or "unknown"

    def selection(self) -> Selection:
        """Return what namespace and selectors pick.

        Raises:
            ApiError: 400, a selector that cannot be understood.
        """
        return Selection(
            self.target.namespace,
            parse_labels(self.query.get("labelSelector", "")),
            parse_fields(self.query.get("fieldSelector", ""), self.resource),
        )

    def decode(self) -> Any:
        """Return the body as JSON or YAML.

        Raises:
            ApiError: 400, the body cannot be parsed.
        """
        return decode_body(self.body, self.content_type)


YAML_TYPES: Final = ("application/yaml", "application/apply-patch+yaml")


def decode_body(body: bytes, content_type: str) -> Any:
    """Parse a body; JSON is tried first, also where YAML is allowed."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if content_type.partition(";")[0].strip() not in YAML_TYPES:
            raise status.bad_request(f"couldn't get version/kind; json parse error: {error}") from error
    try:
        return yaml.safe_load(body)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise status.bad_request(f"error decoding YAML: {error}") from error


def find_target(registry: Registry, path: str) -> Target:
    """Return what a path under /api/v1 or /apis/GROUP/VERSION names.

    Raises:
        ApiError: 404, in plain text for a group version that is not served, else as a Status.
    """
    parts = [part for part in path.split("/") if part]
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    if not registry.has_version(group, version):
        raise status.resource_not_found() if registry.has_builtin_group(group) else status.page_not_found()
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and not _namespace_subresource(rest):
        namespace, rest = rest[1], rest[2:]
    resource = registry.find(group, version, rest[0])
    if resource is None or len(rest) > 3 or (namespace and not resource.namespaced):
        raise status.resource_not_found() if registry.has_builtin_group(group) else status.page_not_found()
    name, subresource = (*rest[1:], "", "")[:2]
    if subresource and not _has_subresource(resource, subresource):
        raise status.resource_not_found()
    if name and resource.namespaced and not namespace:
        raise status.resource_not_found()
    return Target(resource=resource, namespace=namespace, name=name, subresource=subresource)


def _namespace_subresource(rest: list[str]) -> bool:
    return len(rest) == 3 and rest[2] in ("status", "finalize")


def _has_subresource(resource: Resource, subresource: str) -> bool:
    if subresource == "status":
        return resource.has_status
    if subresource == "scale":
        return resource.scale is not None
    extra = {"Pod": ("binding", "eviction", "log"), "Namespace": ("finalize",), "ServiceAccount": ("token",)}
    return not resource.custom and subresource in extra.get(resource.kind, ())


def verb_of(method: str, target: Target, query: Mapping[str, str]) -> str:
    """Return the API verb of an HTTP method on a target.

    Raises:
        ApiError: 405.
    """
    if method in ("GET", "HEAD"):
        watching = query.get("watch", "") in ("1", "true", "True")
        return "watch" if watching and not target.subresource else "get" if target.name else "list"
    verbs = (
        {"PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        if target.name
        else {"POST": "create", "DELETE": "deletecollection"}
    )
    if target.resource.namespaced and not target.namespace and method == "POST":
        verbs = {}
    if target.subresource in ("binding", "eviction", "token"):
        verbs = {"POST": "create"}
    verb = verbs.get(method, "")
    if not verb or (verb not in target.resource.verbs and not target.subresource):
        raise status.method_not_allowed()
    return verb
