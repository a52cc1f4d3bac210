"""Objects seen through their schema: owned fields, comparison, merge and removal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fleet.sim.conform import Kind, TypedError, element_schema, item_element, join_errors, kind_of, scalar_error
from fleet.sim.fields import FieldSet, Path, element_text, field_element
from fleet.sim.schema import DEDUCED, ListType, MapType, Scalar, Schema


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""There is no value at all, which is not the same as null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a second object changes against a first."""

    removed: FieldSet = field(default_factory=FieldSet)
    modified: FieldSet = field(default_factory=FieldSet)
    added: FieldSet = field(default_factory=FieldSet)

    def without(self, ignored: FieldSet) -> "Comparison":
        """Return the comparison with some fields and all below them left out."""
        return Comparison(
            removed=self.removed.without(ignored),
            modified=self.modified.without(ignored),
            added=self.added.without(ignored),
        )


# Fields of an object.


def field_set(schema: Schema, value: Any) -> FieldSet:
    """Return the fields a value sets, as their applier owns them."""
    found = FieldSet()
    _collect(schema, value, (), found)
    return found


def _collect(schema: Schema, value: Any, path: Path, found: FieldSet) -> None:
    kind = kind_of(schema, value)
    if kind == "scalar":
        found.insert(path)
    elif kind == "list":
        assert schema.list is not None
        if not schema.list.associative:
            found.insert(path)
        elif isinstance(value, list):
            _collect_items(schema.list, value, path, found)
    else:
        assert schema.map is not None
        if schema.map.atomic:
            found.insert(path)
        elif isinstance(value, dict):
            _collect_entries(schema.map, value, path, found)


def _collect_items(shape: ListType, value: list[Any], path: Path, found: FieldSet) -> None:
    elements = [item_element(shape, item) for item in value]
    for item, element in zip(value, elements, strict=True):
        below = (*path, element)
        if elements.count(element) == 1:
            _collect(shape.element, item, below, found)
        found.insert(below)


def _collect_entries(shape: MapType, value: dict[str, Any], path: Path, found: FieldSet) -> None:
    for name, inner in value.items():
        below = (*path, field_element(name))
        _collect(element_schema(shape, name), inner, below, found)
        if inner is None or inner == {} or name not in shape.fields:
            found.insert(below)


# Two values side by side.


def _sides(schema: Schema, left: Any, right: Any) -> list[Kind]:
    """Return as what a pair of values is read; two kinds if they do not agree, the right one last."""
    if right is ABSENT:
        return [kind_of(schema, left)]
    mine, theirs = kind_of(schema, left), kind_of(schema, right)
    return [theirs] if left is ABSENT or mine == theirs else [mine, theirs]


def _check_scalars(scalar: Scalar, left: Any, right: Any) -> None:
    errors = [
        f"{side}: {message}"
        for side, value in (("lhs", left), ("rhs", right))
        if value is not ABSENT and (message := scalar_error(scalar, value))
    ]
    if len(errors) == 2:
        raise TypedError(join_errors([("", error) for error in errors]))


def _maps(left: Any, right: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return (left if isinstance(left, dict) else {}), (right if isinstance(right, dict) else {})


def _lists(left: Any, right: Any) -> tuple[list[Any], list[Any]]:
    return (left if isinstance(left, list) else []), (right if isinstance(right, list) else [])


def _names(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    return [*left, *(name for name in right if name not in left)]


# Merge.


def merge(schema: Schema, live: Any, applied: Any) -> Any:
    """Return the live value with all that is applied laid over it.

    Raises:
        TypedError: the applied value names an item twice.
    """
    merged = _merge(schema, live, applied)
    return None if merged is ABSENT else merged


def _merge(schema: Schema, left: Any, right: Any) -> Any:
    merged: Any = ABSENT
    for kind in _sides(schema, left, right):
        merged = _merge_as(kind, schema, left, right)
    return merged


def _merge_as(kind: Kind, schema: Schema, left: Any, right: Any) -> Any:
    chosen = left if right is ABSENT else right
    if kind == "scalar":
        _check_scalars(schema.scalar, left, right)
        return chosen
    if kind == "map":
        assert schema.map is not None
        mine, theirs = _maps(left, right)
        return chosen if schema.map.atomic or not (mine or theirs) else _merge_maps(schema.map, mine, theirs)
    assert schema.list is not None
    mine_list, their_list = _lists(left, right)
    if not schema.list.associative or not (mine_list or their_list):
        return chosen
    return _merge_lists(schema.list, mine_list, their_list)


def _merge_maps(shape: MapType, left: dict[str, Any], right: dict[str, Any]) -> Any:
    out = {}
    for name in _names(left, right):
        inner = _merge(element_schema(shape, name), left.get(name, ABSENT), right.get(name, ABSENT))
        if inner is not ABSENT:
            out[name] = inner
    return out or ABSENT


def _merge_lists(shape: ListType, left: list[Any], right: list[Any]) -> Any:
    """Merge items by key: the right side's order wins for what both have, the left's own items keep their place."""
    theirs = _index(shape, right)
    mine = _index(shape, left, duplicates=True)
    left_elements = [item_element(shape, item) for item in left]
    right_elements = list(theirs)
    shared = [element for element in right_elements if element in mine]
    order = _interleave(left_elements, right_elements, shared)
    out = []
    for source, position in order:
        element = (left_elements if source == "left" else right_elements)[position]
        if source == "left":
            inner = _merge(shape.element, left[position], ABSENT)
        else:
            inner = _merge(shape.element, mine.get(element, ABSENT), theirs[element])
        if inner is not ABSENT:
            out.append(inner)
    return out or ABSENT


def _index(shape: ListType, items: list[Any], *, duplicates: bool = False) -> dict[str, Any]:
    indexed: dict[str, Any] = {}
    errors = []
    for item in items:
        element = item_element(shape, item)
        if element in indexed:
            if not duplicates:
                errors.append(("", f"duplicate entries for key {element_text(element)}"))
            indexed[element] = None
        else:
            indexed[element] = item
    if errors:
        raise TypedError(join_errors(errors))
    return indexed


def _interleave(left: list[str], right: list[str], shared: list[str]) -> list[tuple[Literal["left", "right"], int]]:
    """Return which item comes next: one of the left's own, or one of the right's (merged with the left's twin)."""
    order: list[tuple[Literal["left", "right"], int]] = []
    in_right, merged = set(right), set()
    waiting = list(shared)
    awaited = waiting.pop(0) if waiting else None
    i = j = 0
    while i < len(left) or j < len(right):
        if i < len(left) and j < len(right):
            if left[i] == right[j]:
                merged.add(left[i])
                order.append(("right", j))
                i, j = i + 1, j + 1
                awaited = waiting.pop(0) if waiting else None
                continue
            if left[i] in in_right and awaited is not None and awaited != left[i]:
                i += 1
                continue
        if i < len(left):
            if left[i] not in in_right:
                order.append(("left", i))
                i += 1
                continue
            if left[i] in merged:
                i += 1
        if j < len(right):
            merged.add(right[j])
            order.append(("right", j))
            if awaited == right[j]:
                awaited = waiting.pop(0) if waiting else None
            j += 1
    return order


# Comparison.


def compare(schema: Schema, old: Any, new: Any) -> Comparison:
    """Return what the new value removes, modifies and adds."""
    comparison = Comparison()
    _compare(schema, old, new, (), comparison)
    return comparison


def _compare(schema: Schema, left: Any, right: Any, path: Path, into: Comparison) -> None:
    leaf = False
    for kind in _sides(schema, left, right):
        leaf = _COMPARE[kind](schema, left, right, path, into)
    if leaf:
        return
    if left is ABSENT:
        into.added.insert(path)
    elif right is ABSENT:
        into.removed.insert(path)


def _compare_as_scalar(schema: Schema, left: Any, right: Any, path: Path, into: Comparison) -> bool:
    _check_scalars(schema.scalar, left, right)
    _compare_leaf(left, right, path, into)
    return True


def _compare_as_map(schema: Schema, left: Any, right: Any, path: Path, into: Comparison) -> bool:
    assert schema.map is not None
    mine, theirs = _maps(left, right)
    if schema.map.atomic or not (mine or theirs):
        _compare_leaf(left, right, path, into)
        return True
    for name in _names(mine, theirs):
        below = (*path, field_element(name))
        inner = element_schema(schema.map, name)
        _compare(inner, mine.get(name, ABSENT), theirs.get(name, ABSENT), below, into)
    return False


def _compare_as_list(schema: Schema, left: Any, right: Any, path: Path, into: Comparison) -> bool:
    assert schema.list is not None
    mine, theirs = _lists(left, right)
    if not schema.list.associative or not (mine or theirs):
        _compare_leaf(left, right, path, into)
        return True
    _compare_lists(schema.list, mine, theirs, path, into)
    return False


_COMPARE: Final[Mapping[Kind, Callable[[Schema, Any, Any, Path, Comparison], bool]]] = {
    "scalar": _compare_as_scalar,
    "map": _compare_as_map,
    "list": _compare_as_list,
}
"""Each compares a pair, and returns whether it is a leaf."""


def _compare_leaf(left: Any, right: Any, path: Path, into: Comparison) -> None:
    if left is ABSENT:
        into.added.insert(path)
    elif right is ABSENT:
        into.removed.insert(path)
    elif not equal(left, right):
        into.modified.insert(path)


def equal(left: Any, right: Any) -> bool:
    """Compare JSON values; unlike in Python true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(value, right[name]) for name, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def _compare_lists(shape: ListType, left: list[Any], right: list[Any], path: Path, into: Comparison) -> None:
    mine, theirs = _grouped(shape, left), _grouped(shape, right)
    for element in [*mine, *(e for e in theirs if e not in mine)]:
        below = (*path, element)
        old, new = mine.get(element, []), theirs.get(element, [])
        if len(old) <= 1 and len(new) <= 1:
            _compare(shape.element, old[0] if old else ABSENT, new[0] if new else ABSENT, below, into)
        elif len(old) > 1 and len(new) > 1:
            if not equal(old, new):
                into.modified.insert(below)
        elif len(old) > 1:
            if new:
                _compare(shape.element, ABSENT, new[0], below, into)
            into.removed.insert(below)
        else:
            if old:
                _compare(shape.element, old[0], ABSENT, below, into)
            into.added.insert(below)


def _grouped(shape: ListType, items: list[Any]) -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = {}
    for item in items:
        grouped.setdefault(item_element(shape, item), []).append(item)
    return grouped


# Removal.


def remove(schema: Schema, value: Any, fields: FieldSet) -> Any:
    """Return a value without some fields and all below them; None if nothing is left."""
    kind = kind_of(schema, value)
    if kind == "scalar":
        return value
    if kind == "list":
        assert schema.list is not None
        return _remove_items(schema.list, value, fields) if isinstance(value, list) else None
    assert schema.map is not None
    return _remove_entries(schema.map, value, fields) if isinstance(value, dict) else None


def _remove_items(shape: ListType, value: list[Any], fields: FieldSet) -> Any:
    if not shape.associative:
        return None
    out = []
    for item in value:
        element = item_element(shape, item)
        if element in fields.members:
            continue
        below = fields.at(element)
        out.append(remove(shape.element, item, below) if below else item)
    return out or None


def _remove_entries(shape: MapType, value: dict[str, Any], fields: FieldSet) -> Any:
    if shape.atomic:
        return None
    out = {}
    for name, inner in value.items():
        element = field_element(name)
        if element in fields.members:
            continue
        below = fields.at(element)
        out[name] = remove(element_schema(shape, name), inner, below) if below else inner
    return out or None


# Sets seen through a schema.


def with_named_fields(schema: Schema | None, fields: FieldSet) -> FieldSet:
    """Return the set with every declared field that has members below it a member too."""
    members = set(fields.members)
    children = {}
    for element, child in fields.children.items():
        below: Schema | None = None
        if schema is not None and element.startswith("f:") and schema.map is not None:
            found = schema.map.fields.get(element[2:])
            below = found.schema if found is not None else schema.map.element
            if found is not None:
                members.add(element)
        elif schema is not None and element.startswith("k:") and schema.list is not None:
            below = schema.list.element
        children[element] = with_named_fields(below, child)
    return FieldSet(members, children)


def reconciled(schema: Schema, fields: FieldSet) -> FieldSet:
    """Return an old set as the schema of today reads it: what became atomic is owned as a whole."""
    remove_below, add = FieldSet(), FieldSet()

    def visit(node: Schema, inner: FieldSet | None, path: Path, atomic: bool) -> None:
        if node.map is not None:
            if node.map.element is DEDUCED and not node.map.fields:
                return
            if node.map.atomic and not atomic:
                if inner:
                    remove_below.insert(path)
                    add.insert(path)
                return
            if inner is not None:
                _descend(inner, path, _map_below(node.map), visit)
        elif node.list is not None and not node.scalar:
            if not node.list.associative and not atomic:
                remove_below.insert(path)
                add.insert(path)
            elif inner is not None:
                element = node.list.element
                _descend(inner, path, lambda _: element, visit)

    visit(schema, fields, (), atomic=False)
    return (fields.without(remove_below) | add) if add else fields


_Visit = Callable[[Schema, FieldSet | None, Path, bool], None]


def _map_below(shape: MapType) -> Callable[[str], Schema | None]:
    def below(element: str) -> Schema | None:
        found = shape.fields.get(element[2:]) if element.startswith("f:") else None
        return found.schema if found is not None else shape.element

    return below


def _descend(inner: FieldSet, path: Path, below: Callable[[str], Schema | None], visit: _Visit) -> None:
    for element in [*(e for e in inner.children if e not in inner.members), *inner.members]:
        node = below(element)
        if node is not None:
            child = inner.children.get(element)
            visit(node, child, (*path, element), element in inner.members and child is None)
