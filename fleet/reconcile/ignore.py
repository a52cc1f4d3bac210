"""Fields that belong to others: what of a manifest is sent once its object exists. Pure.

On create everything is sent. Afterwards an ignored path that another manager holds is left out, and one that only we
hold is sent with its live value: leaving it out would remove it (`replicas` would become 1).
"""

from collections.abc import Sequence
from typing import Any

from fleet.kube.ownership import FieldSet, own_entry, parse_pointer
from fleet.kube.wire import ManagedEntry
from fleet.object import ObjectKey
from fleet.reconcile.drift import REPLICAS, matching
from fleet.reconcile.port import IgnoreRule


def ignored_pointers(
    rules: Sequence[IgnoreRule], key: ObjectKey, scaled_by: str, drift_managers: Sequence[str]
) -> tuple[str, ...]:
    """List the JSON pointers that are not ours to set on one object.

    Replicas are yielded to whoever writes the `scale` subresource, unless that is a drift manager (a person).

    >>> ignored_pointers([], ObjectKey("apps", "Deployment", "a", "b"), "kube-controller-manager", ["kubectl*"])
    ('/spec/replicas',)
    """
    pointers = [pointer for rule in rules if rule.matches(key) for pointer in rule.paths]
    if scaled_by and not matching([scaled_by], drift_managers):
        pointers.append(REPLICAS)
    return tuple(dict.fromkeys(pointers))


def holders(managed: Sequence[ManagedEntry], pointer: str) -> list[str]:
    """Name the managers other than us that hold a path or something below it."""
    own = own_entry(managed)
    names = []
    for entry in managed:
        fields = FieldSet.parse(entry.fields)
        if entry is not own and fields.without([pointer]) != fields:
            names.append(entry.manager)
    return names


def yield_fields(
    desired: dict[str, Any], live: dict[str, Any], managed: Sequence[ManagedEntry], pointers: Sequence[str]
) -> dict[str, Any]:
    """Return `desired` as it may be sent to an existing object. The arguments are not changed."""
    for pointer in pointers:
        segments = parse_pointer(pointer)
        if segments:
            desired = _rewrite(desired, live, segments, held=bool(holders(managed, pointer)))
    return desired


_ABSENT: Any = object()


def _rewrite(desired: Any, live: Any, segments: Sequence[str], *, held: bool) -> Any:
    """Replace the value at `segments` by the live one, or drop it when it is held by others or not there."""
    head, rest = segments[0], segments[1:]

    def below(value: Any, other: Any) -> Any:
        if rest:
            return _rewrite(value, other, rest, held=held)
        return _ABSENT if held else other

    if isinstance(desired, dict):
        if head not in desired:
            return desired
        other = live.get(head, _ABSENT) if isinstance(live, dict) else _ABSENT
        value = below(desired[head], other)
        kept = {name: child for name, child in desired.items() if name != head}
        return kept if value is _ABSENT else {**kept, head: value}
    if isinstance(desired, list):
        items = [
            below(item, _counterpart(item, index, live)) if _selects(head, item, index) else item
            for index, item in enumerate(desired)
        ]
        return [item for item in items if item is not _ABSENT]
    return desired


def _selects(segment: str, item: Any, index: int) -> bool:
    if segment == "*":
        return True
    if segment.startswith("[") and segment.endswith("]"):
        name, _, text = segment[1:-1].partition("=")
        return isinstance(item, dict) and str(item.get(name)) == text.strip('"')
    return segment == str(index)


def _counterpart(item: Any, index: int, live: Any) -> Any:
    """Find the live list item that a desired one stands for: by its key, else by its place."""
    if not isinstance(live, list):
        return _ABSENT
    keys = [name for name in _ITEM_KEYS if isinstance(item, dict) and name in item]
    if not keys:
        return live[index] if index < len(live) else _ABSENT
    return next((o for o in live if isinstance(o, dict) and o.get(keys[0]) == item[keys[0]]), _ABSENT)


_ITEM_KEYS = ("name", "mountPath", "key", "containerPort", "port")
