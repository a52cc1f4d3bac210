"""The shape of objects: which fields exist, how lists and maps merge, what the wire form of a value is.

Shapes of built-in kinds come from the table beside this module, shapes of custom resources from their definition.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

Object = dict[str, Any]
Scalar = Literal["", "numeric", "string", "boolean", "untyped"]
Presence = Literal["omitted", "pointer", "always"]

_TABLE: Final = Path(__file__).with_name("kinds.txt")


@dataclass(slots=True, eq=False)
class Schema:
    """A node: what a value may be. More than one of scalar, list and map means that the value decides.

    `wire` tells how a scalar is written: s, n, f, b, y (base64), t (time), q (quantity), i (integer or string).
    `name` is the type's name in the table, if it has one.
    """

    scalar: Scalar = ""
    list: "ListType | None" = None
    map: "MapType | None" = None
    wire: str = ""
    name: str = ""


@dataclass(slots=True, eq=False)
class ListType:
    """A list: atomic, or a set (associative without keys), or items found by their keys."""

    element: Schema
    associative: bool = False
    keys: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class MapType:
    """A struct (named fields), a map (any key), or both. No element: other keys are errors."""

    fields: dict[str, "Field"] = field(default_factory=dict)
    element: Schema | None = None
    atomic: bool = False


@dataclass(slots=True, eq=False)
class Field:
    """A named field: its shape, its default where it is a list key, how it is written and how it is patched."""

    schema: Schema
    default: Any = None
    presence: Presence = "pointer"
    merges: bool = False
    retains_keys: bool = False
    merge_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One list of a kind: where it is, how it merges and by which keys."""

    path: str
    type: Literal["atomic", "set", "map"]
    keys: tuple[str, ...] = ()


OPAQUE: Final = Schema("untyped")
"""Any value, owned as a whole."""
OPAQUE.list = ListType(OPAQUE)
OPAQUE.map = MapType(element=OPAQUE, atomic=True)

DEDUCED: Final = Schema("untyped", list=ListType(OPAQUE))
"""Any value; maps in it are owned key by key."""
DEDUCED.map = MapType(element=DEDUCED)


def builtin(group: str, version: str, kind: str) -> Schema:
    """Return the shape of a built-in kind; kinds that are not in the table may hold anything."""
    api_version = f"{group}/{version}" if group else version
    return _table().get((api_version, kind), _anything())


def from_openapi(document: Mapping[str, Any]) -> Schema:
    """Return the shape of a custom resource from its openAPIV3Schema."""
    properties = {name: value for name, value in (document.get("properties") or {}).items() if name != "metadata"}
    root = {**document, "properties": {"apiVersion": _STRING, "kind": _STRING, **properties}}
    schema = _from_document(root, preserve=False)
    assert schema.map is not None
    schema.map.fields["metadata"] = Field(object_meta())
    return schema


@cache
def object_meta() -> Schema:
    """Return the shape of metadata."""
    return _types()["meta.v1.ObjectMeta"]


def table() -> dict[tuple[str, str], list[Listing]]:
    """Return every list of every built-in kind by (apiVersion, kind), to compare with what a server publishes."""
    return {kind: list(_listings(schema)) for kind, schema in _table().items()}


def _listings(schema: Schema, path: str = "", seen: tuple[int, ...] = ()) -> Iterator[Listing]:
    if id(schema) in seen or schema in (OPAQUE, DEDUCED):
        return
    seen = (*seen, id(schema))
    if schema.list is not None:
        kind: Literal["atomic", "set", "map"] = "atomic"
        if schema.list.associative:
            kind = "map" if schema.list.keys else "set"
        yield Listing(path=path, type=kind, keys=schema.list.keys)
        yield from _listings(schema.list.element, f"{path}[]", seen)
    if schema.map is not None:
        for name, found in schema.map.fields.items():
            yield from _listings(found.schema, f"{path}.{name}", seen)
        if schema.map.element is not None:
            yield from _listings(schema.map.element, f"{path}{{}}", seen)


# Custom resources.

_STRING: Final = {"type": "string"}
_SCALARS: Final[Mapping[str, tuple[Scalar, str]]] = {
    "integer": ("numeric", "n"),
    "number": ("numeric", "f"),
    "boolean": ("boolean", "b"),
    "string": ("string", "s"),
}
_PLAIN_FORMATS: Final = ("", "byte")


def _from_document(document: Mapping[str, Any], *, preserve: bool) -> Schema:
    preserve = preserve or document.get("x-kubernetes-preserve-unknown-fields") is True
    kind = document.get("type", "")
    if document.get("x-kubernetes-embedded-resource"):
        document = _embedded(document)
    if kind in _SCALARS:
        scalar, wire = _SCALARS[kind]
        if kind == "string" and document.get("format", "") not in _PLAIN_FORMATS:
            scalar = "untyped"
        return Schema(scalar, wire=wire)
    if kind == "array":
        return Schema(list=_list_type(document, preserve=preserve))
    if kind == "object":
        return Schema(map=_map_type(document, preserve=preserve))
    wire = "i" if document.get("x-kubernetes-int-or-string") else ""
    return Schema(
        "untyped",
        list=_list_type(document, preserve=preserve),
        map=_map_type(document, preserve=preserve),
        wire=wire,
    )


def _embedded(document: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = dict(document.get("properties") or {})
    for name, shape in (("apiVersion", _STRING), ("kind", _STRING), ("metadata", {"type": "object"})):
        properties.setdefault(name, shape)
    return {**document, "properties": properties}


def _list_type(document: Mapping[str, Any], *, preserve: bool) -> ListType:
    items = document.get("items")
    element = OPAQUE if items is None else _from_document(items, preserve=preserve)
    kind = document.get("x-kubernetes-list-type", "atomic")
    keys = tuple(document.get("x-kubernetes-list-map-keys") or ()) if kind == "map" else ()
    return ListType(element, associative=kind != "atomic", keys=keys)


def _map_type(document: Mapping[str, Any], *, preserve: bool) -> MapType:
    properties = document.get("properties") or {}
    fields = {
        name: Field(_from_document(value, preserve=preserve), default=value.get("default"))
        for name, value in properties.items()
    }
    if document.get("x-kubernetes-embedded-resource"):
        fields["metadata"] = Field(object_meta())
    more = document.get("additionalProperties")
    element = None
    if isinstance(more, Mapping):
        element = _from_document(more, preserve=preserve)
    elif more is True or (more is None and (preserve or not properties)):
        element = DEDUCED
    return MapType(fields, element, atomic=document.get("x-kubernetes-map-type") == "atomic")


# The table of built-in kinds.


def _anything() -> Schema:
    fields = {name: Field(Schema("string", wire="s")) for name in ("apiVersion", "kind")}
    fields["metadata"] = Field(object_meta(), presence="always")
    return Schema(map=MapType(fields, element=DEDUCED))


@cache
def _table() -> dict[tuple[str, str], Schema]:
    kinds = {}
    for name, api_version, _ in _entries():
        if api_version:
            kinds[api_version, name.rpartition(".")[2]] = _types()[name]
    return kinds


@cache
def _types() -> dict[str, Schema]:
    """Read the table in two passes, since types name each other freely and some name themselves."""
    types = {name: Schema(map=MapType(), name=name) for name, _, _ in _entries()}
    for name, api_version, text in _entries():
        shape = types[name].map
        assert shape is not None
        if api_version:
            shape.fields |= {tag: Field(Schema("string", wire="s")) for tag in ("apiVersion", "kind")}
        for entry in filter(None, text.split("; ")):
            field_name, made = _read_field(entry, types)
            shape.fields[field_name] = made
        if not shape.fields:
            shape.element = DEDUCED
    return types


@cache
def _entries() -> list[tuple[str, str, str]]:
    """Return (type, apiVersion or empty, its fields as one text) for each entry of the table."""
    entries: list[tuple[str, str, str]] = []
    for line in _TABLE.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith(" "):
            name, api_version, text = entries[-1]
            entries[-1] = (name, api_version, f"{text} {line.strip()}".strip())
        else:
            name, _, api_version = line.partition(" = ")
            entries.append((name, api_version, ""))
    return entries


_FIELD: Final = re.compile(
    r"(?P<name>[^ ]+?)(?P<flag>[+*]?) (?P<type>[^@= ]+)(?:@(?P<patch>[mr]*)(?::(?P<key>\w+))?)?(?:=(?P<default>.+))?"
)
_PRESENCE: Final[Mapping[str, Presence]] = {"": "omitted", "+": "always", "*": "pointer"}


def _read_field(entry: str, types: Mapping[str, Schema]) -> tuple[str, Field]:
    found = _FIELD.fullmatch(entry)
    assert found is not None, entry
    default = found["default"]
    patch = found["patch"] or ""
    return found["name"], Field(
        _read_type(found["type"], types),
        default=_literal(default) if default else None,
        presence=_PRESENCE[found["flag"]],
        merges="m" in patch,
        retains_keys="r" in patch,
        merge_key=found["key"] or "",
    )


def _literal(text: str) -> Any:
    return text.strip('"') if text.startswith('"') else int(text) if text.isdigit() else text == "true"


_WIRE: Final[Mapping[str, Scalar]] = {
    "s": "string",
    "y": "string",
    "n": "numeric",
    "f": "numeric",
    "b": "boolean",
    "t": "untyped",
    "q": "untyped",
    "i": "untyped",
}


_GENERIC: Final = {"any": OPAQUE, "*": DEDUCED}


def _read_type(text: str, types: Mapping[str, Schema]) -> Schema:
    if text in _WIRE:
        return Schema(_WIRE[text], wire=text)
    if text in _GENERIC:
        return _GENERIC[text]
    inner = text[1:-1]
    if text.startswith("["):
        element, mark, keys = inner.rpartition(":")
        named = tuple(keys.split(",")) if mark and keys else ()
        return Schema(list=ListType(_read_type(element if mark else inner, types), associative=bool(mark), keys=named))
    if text.startswith("{"):
        return Schema(map=MapType(element=_read_type(inner, types)))
    if text.startswith("!"):
        whole = _read_type(text[1:], types)
        assert whole.map is not None
        return Schema(map=MapType(whole.map.fields, whole.map.element, atomic=True), name=whole.name)
    return types[text]
