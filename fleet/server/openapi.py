"""The OpenAPI 3.1 document, made from the table of operations and the shapes that they take and answer. Pure."""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

import fleet
from fleet.server.answer import ProblemDocument
from fleet.server.api import OPERATIONS
from fleet.server.operation import PREFIX, Operation

DOCUMENT_PATH = f"{PREFIX}/openapi.json"

_REASONS = {
    400: "A parameter, a field or the body is wrong",
    401: "No token, or one that is unknown, expired or revoked",
    403: "The token's role or environments do not suffice",
    404: "Something that is named is not there",
    409: "It cannot be done as things are now",
    413: "The body is larger than 64 KiB",
    415: "The body is not application/json",
    421: "The hub does not answer to this Host; see --allowed-hosts",
    422: "Files in Git do not become manifests",
    500: "A bug; the hub's log has it",
    502: "A cluster or a remote answered with an error",
    503: "Not now",
    504: "It took too long, or a cluster did not answer in time",
}


class Plain(NamedTuple):
    """A route beside the API: what it is and what it answers."""

    path: str
    summary: str
    content: str = "text/plain"
    statuses: tuple[int, ...] = (200,)
    parameters: tuple[str, ...] = ()


_PROBE = (200, 503)
PLAIN_ROUTES = (
    Plain("/", "The status page", "text/html", parameters=("app", "cluster", "environment", "state", "label")),
    Plain("/livez", "Whether the process should live on", statuses=_PROBE, parameters=("verbose", "exclude")),
    Plain("/livez/{check}", "One check of it", statuses=(*_PROBE, 404), parameters=("verbose",)),
    Plain(
        "/readyz",
        "Whether the hub is ready; a dead cluster is no matter",
        statuses=_PROBE,
        parameters=("verbose", "exclude"),
    ),
    Plain("/readyz/{check}", "One check of it", statuses=(*_PROBE, 404), parameters=("verbose",)),
    Plain("/healthz", "Both of these", statuses=_PROBE, parameters=("verbose", "exclude")),
    Plain("/healthz/{check}", "One check of it", statuses=(*_PROBE, 404), parameters=("verbose",)),
    Plain("/metrics", "Metrics, as Prometheus reads them"),
    Plain(DOCUMENT_PATH, "This document", "application/json"),
    Plain("/v1/seal/keys", "The signed list of public sealing keys", "application/yaml", statuses=(200, 409)),
    Plain(
        "/v1/clusters/{name}/cert.pem",
        "The certificate that kubeseal --cert takes",
        "application/x-pem-file",
        statuses=(200, 404, 409),
    ),
)


@functools.cache
def document() -> dict[str, Any]:
    """Return the document. It is the same for every hub of this version."""
    schemas = _Schemas(OPERATIONS)
    paths: dict[str, dict[str, Any]] = {}
    for plain in PLAIN_ROUTES:
        paths.setdefault(plain.path, {})["get"] = _describe_plain(plain)
    for operation in OPERATIONS:
        paths.setdefault(PREFIX + operation.path, {})[operation.method.lower()] = _describe(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fleet",
            "version": fleet.__version__,
            "description": "What the hub shows and lets people do.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


class _Schemas:
    """JSON Schemas of every shape, under readable names."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        shapes: list[Any] = [ProblemDocument]
        for operation in operations:
            shapes += [operation.answers, operation.takes]
        self._shapes = list(dict.fromkeys(shapes))
        refs, components = msgspec.json.schema_components(self._shapes, ref_template="#/components/schemas/{name}")
        self._refs = dict(zip(self._shapes, _rename(refs), strict=True))
        all_components = _rename(components)
        queries = {o.takes.__name__ for o in operations if not o.has_body}
        self._queries = {name: all_components[name] for name in queries}
        self.components = {name: schema for name, schema in all_components.items() if name not in queries}

    def ref(self, shape: Any) -> Any:
        """Return a reference to a shape."""
        return self._refs[shape]

    def query(self, shape: type[msgspec.Struct]) -> Mapping[str, Any]:
        """Return the schemas of the parameters that a query string takes, by name."""
        properties: Mapping[str, Any] = self._queries[shape.__name__]["properties"]
        return properties


def _rename(value: Any) -> Any:
    """Name a page of rows `RowPage` where msgspec has `Page_Row_`."""
    return msgspec.json.decode(re.sub(rb"\bPage_(\w+)_(?=\")", rb"\1Page", msgspec.json.encode(value)))


def _describe(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"Needs role {operation.needs.value}.",
        "security": [{"bearer": []}] if operation.needs != "viewer" else [{}, {"bearer": []}],
        "parameters": _path_parameters(operation.path),
        "responses": {str(operation.status): _answer(operation, schemas), **_refusals(operation, schemas)},
    }
    if operation.has_body:
        described["requestBody"] = {"content": {"application/json": {"schema": schemas.ref(operation.takes)}}}
    else:
        described["parameters"] += [_parameter(name, s) for name, s in schemas.query(operation.takes).items()]
    if operation.streams:
        header = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "integer"}}
        described["parameters"].append({**header, "description": "Resume a stream after this number."})
    return described


def _answer(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schemas.ref(operation.answers)}}
    if operation.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": operation.summary, "content": content}


def _refusals(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    always = {400, 401, 403, 421, 500, 503, 504, *((413, 415) if operation.has_body else ())}
    content = {"application/problem+json": {"schema": schemas.ref(ProblemDocument)}}
    statuses = sorted(always | set(operation.refusals))
    return {str(status): {"description": _REASONS[status], "content": content} for status in statuses}


def _describe_plain(plain: Plain) -> dict[str, Any]:
    query = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in plain.parameters]
    content = {plain.content: {"schema": {"type": "object" if plain.content == "application/json" else "string"}}}
    return {
        "operationId": "plain" + re.sub(r"\W+", "_", plain.path),
        "summary": plain.summary,
        "parameters": [*_path_parameters(plain.path), *query],
        "responses": {str(status): {"description": plain.summary, "content": content} for status in plain.statuses},
    }


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _parameter(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a query parameter; its schema keeps what is about the value."""
    value = {key: item for key, item in schema.items() if key != "description"}
    return {"name": name, "in": "query", "description": schema.get("description", ""), "schema": value}
