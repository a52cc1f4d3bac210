"""Built-in objects as they come back from the server: what it does not know is gone, what is empty is left out.

The server reads a request into a fixed structure and writes that structure out again. This module does the same by
the schema: a value of the wrong type is an error, an unknown field is dropped and reported, an empty one follows the
rules of its field, quantities get their canonical form.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fleet.sim import quantity
from fleet.sim.schema import DEDUCED, OPAQUE, Field, MapType, Object, Schema, object_meta


class Malformed(Exception):
    """A value cannot be read into its field; the text is the server's."""


@dataclass(slots=True, kw_only=True)
class Reading:
    """An object read by its schema, and the paths of fields that nobody knows."""

    obj: Object
    unknown: list[str] = field(default_factory=list)


def read(schema: Schema, obj: Object) -> Reading:
    """Return the object as the server would write it out again, before defaults.

    Raises:
        Malformed: a value is of the wrong type.
    """
    reading = Reading(obj={})
    found = _read(schema, obj, "", reading.unknown)
    assert isinstance(found, dict)
    reading.obj = found
    return reading


def read_metadata(metadata: Object) -> Reading:
    """Return the metadata of an object of any kind as the server would write it out again.

    Raises:
        Malformed: a value is of the wrong type.
    """
    reading = Reading(obj={})
    shape = object_meta().map
    assert shape is not None
    if not isinstance(metadata, dict):
        raise Malformed(_mismatch(metadata, "metadata", "v1.ObjectMeta"))
    reading.obj = _read_struct(shape, metadata, "ObjectMeta", reading.unknown)
    reading.unknown = [name.replace("ObjectMeta", "metadata", 1) for name in reading.unknown]
    return reading


_ZEROS: Final[Mapping[str, Any]] = {"s": "", "y": "", "n": 0, "f": 0, "b": False, "t": None, "q": "0", "i": 0}


def _read(schema: Schema, value: Any, path: str, unknown: list[str]) -> Any:
    if schema is OPAQUE or schema is DEDUCED or value is None:
        return value
    if schema.list is not None:
        if not isinstance(value, list):
            raise Malformed(_mismatch(value, path, "[]"))
        element = schema.list.element
        return [_or_zero(element, _read(element, item, f"{path}[{n}]", unknown)) for n, item in enumerate(value)]
    if schema.map is not None:
        if not isinstance(value, dict):
            raise Malformed(_mismatch(value, path, schema.name or "map"))
        return _read_struct(schema.map, value, path, unknown)
    return _read_scalar(schema.wire, value, path)


def _read_struct(shape: MapType, value: Object, path: str, unknown: list[str]) -> Object:
    if not shape.fields:
        element = shape.element
        assert element is not None
        return {name: _or_zero(element, _read(element, v, f"{path}.{name}", unknown)) for name, v in value.items()}
    out = {}
    for name, found in shape.fields.items():
        inner = _read(found.schema, value.get(name), f"{path}.{name}", unknown)
        kept = _kept(found, inner)
        if kept is not None:
            out[name] = kept
        elif found.presence == "always" and found.schema.list is not None:
            out[name] = None
    for name in value:
        if name not in shape.fields:
            if shape.element is not None:
                out[name] = value[name]
            else:
                unknown.append(f"{path}.{name}".lstrip("."))
    return out


def _kept(found: Field, value: Any) -> Any:
    """Return what is written for a field, None for nothing."""
    if found.presence == "pointer":
        return value
    schema = found.schema
    struct = schema.map is not None and bool(schema.map.fields)
    if found.presence == "always":
        if struct:
            return value if value is not None else _read_struct(_fields_of(schema), {}, "", [])
        return value if value not in (None, [], {}) else _ZEROS.get(schema.wire)
    if value is None or value in ([], {}):
        return None
    return None if not isinstance(value, (dict, list)) and value == _ZEROS.get(schema.wire, "") else value


def _fields_of(schema: Schema) -> MapType:
    assert schema.map is not None
    return schema.map


def _or_zero(schema: Schema, value: Any) -> Any:
    """Return the zero value for a null inside a list or a map of scalars."""
    if value is not None or schema in (OPAQUE, DEDUCED):
        return value
    if schema.wire:
        return _ZEROS[schema.wire]
    return _read_struct(_fields_of(schema), {}, "", []) if schema.map is not None else value


_GO_TYPES: Final[Mapping[str, str]] = {"s": "string", "y": "string", "n": "int32", "f": "float64", "b": "bool"}
_GO_KINDS: Final[tuple[tuple[type, str], ...]] = (
    (bool, "bool"),
    (int, "number"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)


def _mismatch(value: Any, path: str, wanted: str) -> str:
    got = next(name for kind, name in _GO_KINDS if isinstance(value, kind))
    return f"json: cannot unmarshal {got} into Go struct field {path.lstrip('.')} of type {wanted}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_FITS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "s": lambda value: isinstance(value, str),
    "y": lambda value: isinstance(value, str),
    "t": lambda value: isinstance(value, str),
    "n": lambda value: _is_number(value) and float(value).is_integer(),
    "f": _is_number,
    "b": lambda value: isinstance(value, bool),
    "i": lambda value: isinstance(value, str) or (_is_number(value) and float(value).is_integer()),
    "q": lambda value: isinstance(value, str) or _is_number(value),
}


def _read_scalar(wire: str, value: Any, path: str) -> Any:
    if wire and not _FITS[wire](value):
        raise Malformed(_mismatch(value, path, _GO_TYPES.get(wire, "string")))
    if wire == "q":
        try:
            return quantity.canonical(value)
        except quantity.BadQuantity as error:
            raise Malformed(str(error)) from None
    if wire == "y":
        _check_base64(value)
    return int(value) if wire in ("n", "i") and isinstance(value, float) else value


def _check_base64(text: str) -> None:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        bad = next((n for n, mark in enumerate(text) if not (mark.isalnum() or mark in "+/=")), len(text))
        raise Malformed(f"illegal base64 data at input byte {bad}") from None
