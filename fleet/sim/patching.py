"""JSON Patch, JSON Merge Patch and strategic merge patch: from a document and a patch to a new document."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fleet.sim.schema import Field, Schema
from fleet.sim.typed import equal


class PatchFailed(Exception):
    """The patch cannot be applied to this document; the server does not say why."""

    def __init__(self) -> None:
        super().__init__("the server rejected our request due to an error in our request")


class BadPatch(Exception):
    """The patch is none; the text is the server's."""


def merge_patch(document: Any, patch: Any) -> Any:
    """Return the document with an RFC 7396 patch applied."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


# JSON Patch.

_Holder = dict[str, Any]


def json_patch(document: Any, operations: Any) -> Any:
    """Return the document with an RFC 6902 patch applied; a `replace` may create the member of an object, as upstream.

    Raises:
        BadPatch: this is no list of operations.
        PatchFailed: a test does not hold, or a path does not exist.
    """
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise BadPatch(
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        )
    holder = {"": copy.deepcopy(document)}
    for operation in operations:
        run = _OPERATIONS.get(str(operation.get("op")))
        if run is None:
            raise PatchFailed
        run(holder, operation)
    return holder[""]


def _parent(holder: _Holder, path: Any) -> tuple[Any, str]:
    """Return the container a path ends in, and the last part of the path."""
    if not isinstance(path, str):
        raise PatchFailed
    *above, last = ("", *(part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]))
    node: Any = holder
    for part in above:
        node = _child(node, part)
        if not isinstance(node, (dict, list)):
            raise PatchFailed
    return node, last


def _child(node: Any, part: str) -> Any:
    return node.get(part) if isinstance(node, dict) else node[_index(part, len(node) - 1)]


def _index(part: str, highest: int) -> int:
    if not part.isdigit() or int(part) > highest:
        raise PatchFailed
    return int(part)


def _add(holder: _Holder, operation: Mapping[str, Any]) -> None:
    parent, last = _parent(holder, operation.get("path"))
    value = copy.deepcopy(operation.get("value"))
    if isinstance(parent, dict):
        parent[last] = value
    else:
        parent.insert(len(parent) if last == "-" else _index(last, len(parent)), value)


def _take(holder: _Holder, path: Any) -> Any:
    parent, last = _parent(holder, path)
    if isinstance(parent, dict):
        if last not in parent:
            raise PatchFailed
        return parent.pop(last)
    return parent.pop(_index(last, len(parent) - 1))


def _remove(holder: _Holder, operation: Mapping[str, Any]) -> None:
    _take(holder, operation.get("path"))


def _replace(holder: _Holder, operation: Mapping[str, Any]) -> None:
    parent, last = _parent(holder, operation.get("path"))
    value = copy.deepcopy(operation.get("value"))
    if isinstance(parent, dict):
        parent[last] = value
    else:
        parent[_index(last, len(parent) - 1)] = value


def _move(holder: _Holder, operation: Mapping[str, Any]) -> None:
    _add(holder, {**operation, "value": _take(holder, operation.get("from"))})


def _copy(holder: _Holder, operation: Mapping[str, Any]) -> None:
    parent, last = _parent(holder, operation.get("from"))
    _add(holder, {**operation, "value": _child(parent, last)})


def _test(holder: _Holder, operation: Mapping[str, Any]) -> None:
    parent, last = _parent(holder, operation.get("path"))
    if not equal(_child(parent, last), operation.get("value")):
        raise PatchFailed


_OPERATIONS: Final[Mapping[str, Callable[[_Holder, Mapping[str, Any]], None]]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}

# Strategic merge patch.

_PATCH: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_DELETE_PREFIX: Final = "$deleteFromPrimitiveList/"
_ORDER_PREFIX: Final = "$setElementOrder/"


def strategic_merge(schema: Schema, document: Any, patch: Any) -> Any:
    """Return the document with a strategic merge patch applied, lists merged by the keys the schema names.

    Raises:
        BadPatch: a directive is none, or an item lacks its key.
    """
    if not isinstance(patch, dict):
        raise BadPatch("Invalid JSON Patch")
    return _merge_struct(schema, document, patch)


def _merge_struct(schema: Schema | None, document: Any, patch: Mapping[str, Any]) -> dict[str, Any]:
    directive = patch.get(_PATCH)
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != _PATCH}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise BadPatch(f"Unknown patch type found: {directive}")
    merged = dict(document) if isinstance(document, dict) else {}
    if _RETAIN in patch:
        merged = {name: value for name, value in merged.items() if name in patch[_RETAIN]}
    for name, value in patch.items():
        if name.startswith(_DELETE_PREFIX):
            field_name = name.removeprefix(_DELETE_PREFIX)
            merged[field_name] = [item for item in merged.get(field_name) or () if item not in value]
    for name, value in patch.items():
        if not name.startswith("$"):
            _merge_entry(schema, merged, name, value, patch.get(f"{_ORDER_PREFIX}{name}"))
    for name, value in patch.items():
        if name.startswith(_ORDER_PREFIX) and name.removeprefix(_ORDER_PREFIX) not in patch:
            _order_only(schema, merged, name.removeprefix(_ORDER_PREFIX), value)
    return merged


def _field(schema: Schema | None, name: str) -> Field | None:
    if schema is None or schema.map is None:
        return None
    found = schema.map.fields.get(name)
    return found if found is not None or schema.map.element is None else Field(schema.map.element)


def _merge_entry(schema: Schema | None, merged: dict[str, Any], name: str, value: Any, order: Any) -> None:
    if value is None:
        merged.pop(name, None)
        return
    found = _field(schema, name)
    inner = found.schema if found is not None else None
    if isinstance(value, dict):
        if value.get(_PATCH) == "delete":
            merged.pop(name, None)
        else:
            merged[name] = _merge_struct(inner, merged.get(name), value)
    elif isinstance(value, list) and found is not None and found.merges:
        merged[name] = _merge_list(found, merged.get(name) or [], value, order)
    else:
        merged[name] = copy.deepcopy(value)


def _order_only(schema: Schema | None, merged: dict[str, Any], name: str, order: Sequence[Any]) -> None:
    found = _field(schema, name)
    if found is not None and found.merges and isinstance(merged.get(name), list):
        merged[name] = _ordered(found.merge_key, merged[name], merged[name], order)


def _merge_list(found: Field, document: list[Any], patch: list[Any], order: Any) -> list[Any]:
    key = found.merge_key
    if not key:
        merged = [*document, *(item for item in patch if item not in document)]
        return _ordered(key, merged, document, order) if order is not None else merged
    if any(isinstance(item, dict) and item.get(_PATCH) == "replace" for item in patch):
        return [item for item in patch if not (isinstance(item, dict) and item.get(_PATCH) == "replace")]
    merged = list(document)
    element = found.schema.list.element if found.schema.list is not None else None
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise BadPatch(f"map: {_go_map(item)} does not contain declared merge key: {key}")
        _merge_item(element, merged, item, key)
    return _ordered(key, merged, document, order) if order is not None else merged


def _merge_item(element: Schema | None, merged: list[Any], item: Mapping[str, Any], key: str) -> None:
    at = [n for n, known in enumerate(merged) if equal(known.get(key), item[key])]
    if item.get(_PATCH) == "delete":
        for n in reversed(at):
            del merged[n]
    elif at:
        merged[at[0]] = _merge_struct(element, merged[at[0]], item)
    else:
        merged.append(_merge_struct(element, {}, item))


def _ordered(key: str, merged: list[Any], document: list[Any], order: Sequence[Any]) -> list[Any]:
    """Order the items the patch names as it says; others stay behind the ones they followed in the document."""

    def name_of(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    wanted = [name_of(item) for item in order]
    named = sorted((item for item in merged if name_of(item) in wanted), key=lambda item: wanted.index(name_of(item)))
    others = [item for item in merged if name_of(item) not in wanted]
    before = [name_of(item) for item in document]
    out: list[Any] = []
    for item in named:
        while others and _precedes(name_of(others[0]), name_of(item), before):
            out.append(others.pop(0))
        out.append(item)
    return [*out, *others]


def _precedes(one: Any, other: Any, before: list[Any]) -> bool:
    return one in before and other in before and before.index(one) < before.index(other)


def _go_map(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    return f"map[{' '.join(f'{name}:{value}' for name, value in sorted(item.items()))}]"
