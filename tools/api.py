"""The HTTP reference, made from the OpenAPI document of the server."""

import ast
import inspect
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

Schema = Mapping[str, Any]


def describe_http() -> str:
    """Return tables of every operation and of every shape that answers and bodies have."""
    from fleet.server.api import OPERATIONS
    from fleet.server.openapi import document

    api = document()
    needs = {(f"/api/v1{each.path}", each.method.lower()): each.needs.value for each in OPERATIONS}
    operations = ["## Operations", "", "| operation | role | what | takes | answers |", "|---|---|---|---|---|"]
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            role = needs.get((path, method), "")
            cells = (f"`{method.upper()} {path}`", role, operation["summary"], _takes(operation), _answers(operation))
            operations.append(f"| {' | '.join(cells)} |")
    return "\n".join([*operations, *_shapes(api["components"]["schemas"])])


def _takes(operation: Schema) -> str:
    names = [f"`{each['name']}`" for each in operation.get("parameters", ()) if each["in"] == "query"]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    return ", ".join([*names, *([_type(body)] if body else [])])


def _answers(operation: Schema) -> str:
    good = next(reply for code, reply in operation["responses"].items() if code.startswith("2"))
    content: Mapping[str, Schema] = good["content"]
    kind = next(iter(content))
    schema = content[kind].get("schema", {})
    return _type(schema) if "$ref" in schema else f"`{kind}`"


def _shapes(schemas: Mapping[str, Schema]) -> Iterator[str]:
    meanings = _attribute_docs()
    yield from ("", "## Shapes", "", "`?` marks what may be left out of a body; answers have every field.")
    for name, schema in sorted(schemas.items()):
        if name.endswith("Page"):
            continue  # items and continue, as said above
        yield from ("", f"### {name}", "", *([_one_line(schema["description"]), ""] if "description" in schema else []))
        if "enum" in schema:
            yield f"One of {', '.join(f'`{word}`' for word in schema['enum'])}."
            continue
        required = set(schema.get("required", ())) if name.endswith("Body") else set(schema["properties"])
        yield from ("| field | type | meaning |", "|---|---|---|")
        for field, value in schema.get("properties", {}).items():
            mark = "" if field in required else "?"
            meaning = value.get("description") or meanings.get((name, field), "")
            yield f"| `{field}`{mark} | {_type(value)} | {_one_line(meaning)} |"


def _attribute_docs() -> dict[tuple[str, str], str]:
    """Return what the text below an attribute says, by class and attribute; schemas do not carry it."""
    from fleet.hub import view
    from fleet.server import model
    from fleet.store import event, token

    modules: tuple[ModuleType, ...] = (view, model, event, token)
    found: dict[tuple[str, str], str] = {}
    for module in modules:
        for shape in ast.parse(inspect.getsource(module)).body:
            if isinstance(shape, ast.ClassDef):
                found |= {(shape.name, name): text for name, text in _documented(shape)}
    return found


def _documented(shape: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for node, after in zip(shape.body, shape.body[1:], strict=False):
        match node, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                yield name, text


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        item = name.removesuffix("Page")
        return f"list of [{item}](#{item.lower()})" if item != name else f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(filter(None, map(_type, schema["anyOf"])))
    match schema.get("type", ""):
        case "array":
            return f"list of {_type(schema['items'])}"
        case "object":
            inner = schema.get("additionalProperties")
            return f"map of {_type(inner)}" if isinstance(inner, dict) else "object"
        case str() as word:
            return str(schema.get("format") or word)
        case words:
            return " or ".join(words)


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
