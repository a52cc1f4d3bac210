"""Custom resources against the openAPIV3Schema of their definition: pruning, defaults and validation.

Rules written in CEL (``x-kubernetes-validations``) are not evaluated.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fleet.sim import wire
from fleet.sim.cause import Cause, cause, invalid, required
from fleet.sim.schema import Object
from fleet.sim.wire import Reading

Document = Mapping[str, Any]

_ENVELOPE: Final = ("apiVersion", "kind", "metadata")


# Pruning.


def prune(document: Document, obj: Object) -> Reading:
    """Return the object without fields its definition does not name; the envelope stays as it is."""
    reading = Reading(obj={name: obj[name] for name in _ENVELOPE if name in obj})
    rest = {name: value for name, value in obj.items() if name not in _ENVELOPE}
    reading.obj |= _prune_entries(document, rest, "", reading.unknown)
    return reading


def _prune(document: Document, value: Any, path: str, unknown: list[str]) -> Any:
    if isinstance(value, list):
        items = document.get("items") or _KEEP
        return [_prune(items, item, f"{path}[{n}]", unknown) for n, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if not document.get("x-kubernetes-embedded-resource"):
        return _prune_entries(document, value, path, unknown)
    envelope = {name: value[name] for name in _ENVELOPE if name in value}
    if isinstance(envelope.get("metadata"), dict):
        metadata = wire.read_metadata(envelope["metadata"])
        unknown += (f"{path}.{name}" for name in metadata.unknown)
        envelope["metadata"] = metadata.obj
    rest = {name: inner for name, inner in value.items() if name not in _ENVELOPE}
    return envelope | _prune_entries(document, rest, path, unknown)


_KEEP: Final[Document] = {"x-kubernetes-preserve-unknown-fields": True}


def _prune_entries(document: Document, value: Object, path: str, unknown: list[str]) -> Object:
    kept = {}
    for name in sorted(value):
        below = f"{path}.{name}" if path else name
        inner = _below(document, name)
        if inner is None:
            unknown.append(below)
        else:
            kept[name] = _prune(inner, value[name], below, unknown)
    return kept


def _below(document: Document, name: str) -> Document | None:
    """Return the schema of a member, None if it is not known."""
    found: Document | None = (document.get("properties") or {}).get(name)
    if found is not None:
        return found
    more = document.get("additionalProperties")
    if isinstance(more, Mapping):
        return more
    return _KEEP if more is True or document.get("x-kubernetes-preserve-unknown-fields") else None


# Defaults.


def with_defaults(document: Document, obj: Object) -> Object:
    """Return the object with defaults, and without nulls where neither null nor a default is allowed."""
    filled: Object = copy.deepcopy(obj)
    _fill(document, filled)
    return filled


def _fill(document: Document, value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _fill(document.get("items") or {}, item)
    if not isinstance(value, dict):
        return
    for name, inner in (document.get("properties") or {}).items():
        if "default" in inner and (name not in value or (value[name] is None and not inner.get("nullable"))):
            value[name] = copy.deepcopy(inner["default"])
    for name in list(value):
        below = _below(document, name)
        if below is None:
            continue
        if value[name] is None and not below.get("nullable") and below is not _KEEP:
            if not below.get("x-kubernetes-preserve-unknown-fields"):
                del value[name]
            continue
        _fill(below, value[name])


# Validation.


def check(document: Document, obj: Object) -> list[Cause]:
    """Return what is wrong with an object, in the server's words and order."""
    body = {name: value for name, value in obj.items() if name != "metadata"}
    trimmed = {**document, "required": [name for name in document.get("required") or () if name != "metadata"]}
    return [*_check(trimmed, body, ""), *_duplicates(document, body, "")]


_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
}


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and value.is_integer():
        return "integer"
    return next((name for name in ("object", "array", "string", "boolean", "integer") if _TYPES[name](value)), "number")


def _check(document: Document, value: Any, path: str) -> Iterator[Cause]:
    if value is None and document.get("nullable"):
        return
    wanted = _wanted(document)
    if wanted and not _fits(wanted, value):
        got = _type_of(value)
        message = f'Invalid value: "{got}": {path} in body must be of type {",".join(wanted)}: "{got}"'
        yield cause("FieldValueTypeInvalid", path, message)
        if wanted == ["integer"] and got == "number":
            said = f"Checked value must be of type integer (default format) in {path}"
            yield cause("FieldValueInvalid", "<nil>", f'Invalid value: "": {said}')
        return
    yield from _check_enum(document, value, path)
    if isinstance(value, dict):
        yield from _check_object(document, value, path)
    elif isinstance(value, list):
        yield from _check_array(document, value, path)
    elif isinstance(value, str):
        yield from _check_string(document, value, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _check_number(document, value, path)
    yield from _check_junctors(document, value, path)


def _wanted(document: Document) -> list[str]:
    if document.get("x-kubernetes-int-or-string"):
        return ["integer", "string"]
    return [document["type"]] if document.get("type") else []


def _fits(wanted: Sequence[str], value: Any) -> bool:
    got = _type_of(value)
    return got in wanted or (got == "integer" and "number" in wanted)


def _check_enum(document: Document, value: Any, path: str) -> Iterator[Cause]:
    allowed = document.get("enum")
    if allowed is not None and value not in allowed:
        listed = ", ".join(f'"{name}"' for name in allowed)
        shown = json.dumps(value, ensure_ascii=False)
        yield cause("FieldValueNotSupported", path, f"Unsupported value: {shown}: supported values: {listed}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check_object(document: Document, value: Object, path: str) -> Iterator[Cause]:
    low, high = document.get("minProperties"), document.get("maxProperties")
    if low is not None and len(value) < low:
        yield invalid(path, len(value), f"{path} in body should have at least {low} properties")
    if high is not None and len(value) > high:
        yield cause("FieldValueTooMany", path, f"Too many: {len(value)}: must have at most {high} items")
    if document.get("x-kubernetes-embedded-resource"):
        for name in ("apiVersion", "kind"):
            if not value.get(name):
                yield required(_join(path, name))
    for name in sorted(value):
        below = _below(document, name)
        if below is not None:
            yield from _check(below, value[name], _join(path, name))
    for name in document.get("required") or ():
        if name not in value:
            yield required(_join(path, name))


def _check_array(document: Document, value: list[Any], path: str) -> Iterator[Cause]:
    low, high = document.get("minItems"), document.get("maxItems")
    for n, item in enumerate(value):
        yield from _check(document.get("items") or {}, item, f"{path}[{n}]")
    if low is not None and len(value) < low:
        yield invalid(path, len(value), f"{path} in body should have at least {low} items")
    if high is not None and len(value) > high:
        yield cause("FieldValueTooMany", path, f"Too many: {len(value)}: must have at most {high} items")


def _check_string(document: Document, value: str, path: str) -> Iterator[Cause]:
    low, high, pattern = document.get("minLength"), document.get("maxLength"), document.get("pattern")
    if high is not None and len(value) > high:
        yield cause("FieldValueTooLong", path, f"Too long: may not be more than {high} bytes")
        return
    if low is not None and len(value) < low:
        yield invalid(path, value, f"{path} in body should be at least {low} chars long")
        return
    if pattern and not re.search(pattern, value):
        yield invalid(path, value, f"{path} in body should match '{pattern}'")
    if document.get("format") == "date-time" and not _is_time(value):
        message = f'Invalid value: "{value}": {path} in body must be of type date-time: "{value}"'
        yield cause("FieldValueTypeInvalid", path, message)


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return "T" in text.upper()


def _check_number(document: Document, value: float, path: str) -> Iterator[Cause]:
    low, high, step = document.get("minimum"), document.get("maximum"), document.get("multipleOf")
    if high is not None:
        strict = bool(document.get("exclusiveMaximum"))
        if value > high or (strict and value == high):
            words = "less than" if strict else "less than or equal to"
            yield invalid(path, value, f"{path} in body should be {words} {high}")
    if low is not None:
        strict = bool(document.get("exclusiveMinimum"))
        if value < low or (strict and value == low):
            words = "greater than" if strict else "greater than or equal to"
            yield invalid(path, value, f"{path} in body should be {words} {low}")
    if step and value % step:
        yield invalid(path, value, f"{path} in body should be a multiple of {step}")


def _check_junctors(document: Document, value: Any, path: str) -> Iterator[Cause]:
    for inner in document.get("allOf") or ():
        yield from _check(inner, value, path)
    holds = [not list(_check(inner, value, path)) for inner in document.get("anyOf") or ()]
    if holds and not any(holds):
        yield invalid("<nil>", "", f'"{path}" must validate at least one schema (anyOf)')
    holds = [not list(_check(inner, value, path)) for inner in document.get("oneOf") or ()]
    if holds and sum(holds) != 1:
        found = "Found none valid" if not any(holds) else f"Found {sum(holds)} valid alternatives"
        yield invalid("<nil>", "", f'"{path}" must validate one and only one schema (oneOf). {found}')
    if "not" in document and not list(_check(document["not"], value, path)):
        yield invalid("<nil>", "", f'"{path}" must not validate the schema (not)')


def _duplicates(document: Document, value: Any, path: str) -> Iterator[Cause]:
    """Yield what appears twice in sets and keyed lists."""
    if isinstance(value, dict):
        for name in sorted(value):
            below = _below(document, name)
            if below is not None:
                yield from _duplicates(below, value[name], _join(path, name))
    if not isinstance(value, list):
        return
    kind = document.get("x-kubernetes-list-type")
    keys = document.get("x-kubernetes-list-map-keys") or ()
    seen = []
    for n, item in enumerate(value):
        member = item
        if kind == "map" and isinstance(item, dict):
            member = {key: item[key] for key in keys if key in item}
        if kind in ("set", "map") and member in seen:
            shown = json.dumps(member, separators=(",", ":"), ensure_ascii=False)
            yield cause("FieldValueDuplicate", f"{path}[{n}]", f"Duplicate value: {shown}")
        seen.append(member)
        yield from _duplicates(document.get("items") or {}, item, f"{path}[{n}]")
