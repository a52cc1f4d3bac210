"""Whether a value fits its schema, and how the items of its lists are told apart."""

from collections.abc import Iterator
from typing import Any, Literal

from fleet.sim.fields import element_text, key_element, value_element
from fleet.sim.schema import DEDUCED, ListType, MapType, Scalar, Schema


class TypedError(Exception):
    """A value does not fit its schema; the text is the server's."""


Kind = Literal["map", "scalar", "list"]


def kind_of(schema: Schema, value: Any) -> Kind:
    """Return as what a value is read, where the schema allows several."""
    if schema.scalar and isinstance(value, (str, int, float)):
        return "scalar"
    if schema.list is not None and isinstance(value, list):
        return "list"
    if schema.map is not None:
        return "map"
    return "scalar" if schema.scalar else "list"


def element_schema(shape: MapType, name: str) -> Schema:
    """Return the schema of a member, known or not."""
    found = shape.fields.get(name)
    if found is not None:
        return found.schema
    return shape.element or DEDUCED


# Path elements of list items.


def item_element(shape: ListType, item: Any) -> str:
    """Return the path element of an item of a set or keyed list.

    Raises:
        TypedError: the item has no key, or cannot be a member.
    """
    return _keyed(shape, item) if shape.keys else _valued(item)


def _keyed(shape: ListType, item: Any) -> str:
    if item is None:
        raise TypedError("associative list with keys may not have a null element")
    if not isinstance(item, dict):
        raise TypedError("associative list with keys may not have non-map elements")
    fields = shape.element.map.fields if shape.element.map is not None else {}
    keys = {}
    for name in shape.keys:
        default = fields[name].default if name in fields else None
        if name in item:
            keys[name] = item[name]
        elif default is not None:
            keys[name] = default
    if not keys:
        quoted = " ".join(f'"{name}"' for name in shape.keys)
        raise TypedError(
            f"associative list with keys has an element that omits all key fields [{quoted}] "
            "(and doesn't have default values for any key fields)"
        )
    return key_element(keys)


def _valued(item: Any) -> str:
    if isinstance(item, dict):
        raise TypedError("associative list without keys has an element that's a map type")
    if isinstance(item, list):
        raise TypedError("not supported: associative list with lists as elements")
    if item is None:
        raise TypedError("associative list without keys has an element that's an explicit null")
    return value_element(item)


# Validation.


def validate(schema: Schema, value: Any, *, duplicates: bool = False) -> None:
    """Check a value against its schema; `duplicates` allows the same key twice, as objects once stored may have it.

    Raises:
        TypedError: with the server's words.
    """
    errors = list(_errors(schema, value, "", duplicates))
    if errors:
        raise TypedError(join_errors(errors))


def join_errors(errors: list[tuple[str, str]]) -> str:
    """Return (path, message) pairs as the server prints them."""
    lines = [f"{path}: {message}" if path else message for path, message in errors]
    return lines[0] if len(lines) == 1 else "\n".join(["errors:", *(f"  {line}" for line in lines)])


def _errors(schema: Schema, value: Any, path: str, duplicates: bool) -> Iterator[tuple[str, str]]:
    kind = kind_of(schema, value)
    if kind == "scalar":
        message = scalar_error(schema.scalar, value)
        if message:
            yield path, message
    elif value is None:
        return
    elif kind == "list":
        assert schema.list is not None
        if not isinstance(value, list):
            yield path, f"expected list, got {_go(value)}"
            return
        yield from _list_errors(schema.list, value, path, duplicates)
    else:
        assert schema.map is not None
        if not isinstance(value, dict):
            yield path, f"expected map, got {_go(value)}"
            return
        yield from _map_errors(schema.map, value, path, duplicates)


def _map_errors(shape: MapType, value: dict[str, Any], path: str, duplicates: bool) -> Iterator[tuple[str, str]]:
    for name, inner in value.items():
        below = f"{path}.{name}"
        if name not in shape.fields and shape.element is None:
            yield below, "field not declared in schema"
            return
        yield from _errors(element_schema(shape, name), inner, below, duplicates)


def _list_errors(shape: ListType, value: list[Any], path: str, duplicates: bool) -> Iterator[tuple[str, str]]:
    seen = set()
    for index, item in enumerate(value):
        if not shape.associative:
            yield from _errors(shape.element, item, f"{path}[{index}]", duplicates)
            continue
        try:
            element = item_element(shape, item)
        except TypedError as error:
            yield path, f"element {index}: {error}"
            return
        if element in seen and not duplicates:
            yield path, f"duplicate entries for key {element_text(element)}"
        seen.add(element)
        yield from _errors(shape.element, item, f"{path}{element_text(element)}", duplicates)


def scalar_error(scalar: Scalar, value: Any) -> str:
    """Return what is wrong with a scalar, in the server's words; empty for nothing."""
    if value is None:
        return ""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if scalar == "numeric":
        return "" if number else f"expected numeric (int or float), got {_go_type(value)}"
    if scalar == "string":
        return "" if isinstance(value, str) else f"expected string, got {_go_detailed(value)}"
    if scalar == "boolean":
        return "" if isinstance(value, bool) else f"expected boolean, got {_go(value)}"
    fits = number or isinstance(value, (str, bool))
    return "" if fits else f"expected any scalar, got {_go(value)}"


def _go_type(value: Any) -> str:
    names = {bool: "bool", int: "int64", float: "float64", str: "string", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}")


def _go_detailed(value: Any) -> str:
    return f"&value.valueUnstructured{{Value:{_go_syntax(value)}}}"


def _go_syntax(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return element_text(value_element(value))[2:-1]
    if isinstance(value, list):
        return f"[]interface {{}}{{{', '.join(map(_go_syntax, value))}}}"
    if isinstance(value, dict):
        inner = ", ".join(f"{_go_syntax(k)}:{_go_syntax(v)}" for k, v in sorted(value.items()))
        return f"map[string]interface {{}}{{{inner}}}"
    return "interface {}(nil)" if value is None else str(value)


def _go(value: Any) -> str:
    return f"&{{{_go_plain(value)}}}"


def _go_plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{' '.join(map(_go_plain, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{k}:{_go_plain(v)}' for k, v in sorted(value.items()))}]"
    return "<nil>" if value is None else str(value)
