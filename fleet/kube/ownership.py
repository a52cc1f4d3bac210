"""managedFields: which fields are ours, what was taken from us, what was added beside us. Pure.

A set of field paths is a tree as in Kubernetes' FieldsV1. Source: structured-merge-diff's serialisation: `f:` a field, `k:`
a list item by keys, `v:` a set's value, `i:` an index, `.` the node itself.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from fleet.annotation import OPT_OUT_PREFIXES, RESTARTED_AT
from fleet.kube.wire import ManagedEntry
from fleet.object import encode_canonical

MANAGER = "fleet"
PREEXISTING = "fleet-preexisting"
BEFORE_FIRST_APPLY = "before-first-apply"
DIGEST_BYTES = 16
PARSED = 128
"""Sets kept parsed: one object's entries are asked several questions while it is handled, and never again."""

Path = tuple[str, ...]
Tree = dict[str, Any]
_SELF = "."


class FieldSet:
    """A set of field paths; immutable. Internally a tree in which a member always carries `.`."""

    __slots__ = ("_serialised", "tree")

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._serialised = b""

    @staticmethod
    @lru_cache(maxsize=PARSED)
    def parse(raw: bytes) -> "FieldSet":
        """Read fieldsV1. Bytes that are none make an empty set: such an entry owns nothing we could name."""
        try:
            decoded = msgspec.json.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            decoded = {}
        return FieldSet({k: _grow(v) for k, v in decoded.items() if k != _SELF} if isinstance(decoded, dict) else {})

    @classmethod
    def of(cls, paths: Sequence[Path]) -> "FieldSet":
        """Build a set from paths of fieldsV1 segments such as `("f:spec", "f:replicas")`."""
        tree: Tree = {}
        for path in paths:
            node = tree
            for segment in path:
                node = node.setdefault(segment, {})
            node[_SELF] = {}
        return cls(tree)

    def serialise(self) -> bytes:
        """Write canonical fieldsV1."""
        if not self._serialised:
            self._serialised = encode_canonical(_shrink(self.tree))
        return self._serialised

    @property
    def is_empty(self) -> bool:
        """Holds no path."""
        return not self.tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldSet) and self.tree == other.tree

    def __hash__(self) -> int:
        return hash(self.serialise())

    def __repr__(self) -> str:
        return f"FieldSet({', '.join(self.paths())})"

    def __contains__(self, path: Path) -> bool:
        node = self.find(path)
        return node is not None and _SELF in node

    def find(self, path: Path) -> Tree | None:
        """Return the tree below a path; None when no member is there or below."""
        node: Tree | None = self.tree
        for segment in path:
            node = node.get(segment) if node is not None else None
        return node

    def union(self, other: "FieldSet") -> "FieldSet":
        """Return the paths in either."""
        return FieldSet(_union(self.tree, other.tree))

    def intersection(self, other: "FieldSet") -> "FieldSet":
        """Return the paths in both."""
        return FieldSet(_intersection(self.tree, other.tree))

    def difference(self, other: "FieldSet") -> "FieldSet":
        """Return the paths of this set that the other does not hold; exact paths, not subtrees."""
        return FieldSet(_difference(self.tree, other.tree))

    def without(self, ignored: Sequence[str]) -> "FieldSet":
        """Drop subtrees named by JSON pointers.

        A segment that meets a list item may be `*` (every item), `[name="web"]` or `[name=web]` (the items with that
        key), or a number (an item that is tracked by its index).
        """
        tree = self.tree
        for pointer in ignored:
            if segments := parse_pointer(pointer):
                tree = _prune(tree, segments)
        return FieldSet(tree) if tree is not self.tree else self

    def members(self) -> Iterator[Path]:
        """Iterate over the paths as fieldsV1 segments, parents first."""
        yield from _members(self.tree, ())

    def leaves(self) -> Iterator[Path]:
        """Iterate over the deepest paths: a node whose children are in the set is not named itself."""
        for path in self.members():
            node = self.find(path)
            if node is not None and len(node) == 1:
                yield path

    def paths(self) -> list[str]:
        """Return the deepest paths as people read them, such as `.spec.containers[name="web"].image`, sorted."""
        return sorted(format_path(path) for path in self.leaves())


def _grow(node: Any) -> Tree:
    if not isinstance(node, dict) or not node:
        return {_SELF: {}}
    return {key: {} if key == _SELF else _grow(child) for key, child in node.items()}


def _shrink(node: Tree) -> Tree:
    if len(node) == 1 and _SELF in node:
        return {}
    return {key: _shrink(child) for key, child in node.items()}


def _union(a: Tree, b: Tree) -> Tree:
    return {key: _union(a.get(key, {}), b.get(key, {})) for key in (*a, *(k for k in b if k not in a))}


def _intersection(a: Tree, b: Tree) -> Tree:
    both = {key: _intersection(child, b[key]) for key, child in a.items() if key in b}
    return {key: child for key, child in both.items() if child or key == _SELF}


def _difference(a: Tree, b: Tree) -> Tree:
    left = {key: _difference(child, b.get(key, {})) for key, child in a.items() if key != _SELF}
    kept = {key: child for key, child in left.items() if child}
    if _SELF in a and _SELF not in b:
        kept[_SELF] = {}
    return kept


def _prune(node: Tree, segments: Sequence[str]) -> Tree:
    kept: Tree = {}
    for key, child in node.items():
        if key != _SELF and _segment_matches(key, segments[0]):
            if len(segments) == 1:
                continue
            child = _prune(child, segments[1:])  # noqa: PLW2901 - the pruned child takes its place
            if not child:
                continue
        kept[key] = child
    return kept


def _members(node: Tree, at: Path) -> Iterator[Path]:
    if at and _SELF in node:
        yield at
    for key, child in node.items():
        if key != _SELF:
            yield from _members(child, (*at, key))


def parse_pointer(pointer: str) -> tuple[str, ...]:
    """Split a JSON pointer.

    >>> parse_pointer("/metadata/annotations/example.com~1note")
    ('metadata', 'annotations', 'example.com/note')
    """
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _segment_matches(key: str, wanted: str) -> bool:
    kind, value = key[:2], key[2:]
    if kind == "f:":
        return value == wanted
    if wanted == "*":
        return True
    if kind == "i:":
        return value == wanted
    if kind == "k:" and wanted.startswith("[") and wanted.endswith("]"):
        name, _, text = wanted[1:-1].partition("=")
        keys = msgspec.json.decode(value)
        return name in keys and str(keys[name]) == text.strip('"')
    return False


def format_path(path: Path) -> str:
    """Write a path as people and the API server's own conflict messages do.

    >>> format_path(("f:spec", "f:containers", 'k:{"name":"web"}', "f:image"))
    '.spec.containers[name="web"].image'
    """
    return "".join(_format_segment(segment) for segment in path)


def _format_segment(segment: str) -> str:
    kind, value = segment[:2], segment[2:]
    if kind == "k:":
        keys = msgspec.json.decode(value)
        return "[" + ",".join(f"{name}={msgspec.json.encode(v).decode()}" for name, v in sorted(keys.items())) + "]"
    if kind == "v:":
        return f"[={value}]"
    return f"[{value}]" if kind == "i:" else f".{value}"


def own_entry(managed: Sequence[ManagedEntry]) -> ManagedEntry | None:
    """Return the entry of our server-side apply; None when we never applied the object."""
    return next((e for e in managed if e.manager == MANAGER and e.operation == "Apply" and not e.subresource), None)


def own_fields(managed: Sequence[ManagedEntry]) -> FieldSet | None:
    """Return the fields we own by server-side apply; None without an entry."""
    entry = own_entry(managed)
    return FieldSet.parse(entry.fields) if entry else None


def owned_digest(managed: Sequence[ManagedEntry], ignored: Sequence[str] = ()) -> bytes:
    """Return 16 bytes that change when somebody takes a value we own; empty without an entry of ours.

    `ignored` are JSON pointers left out of it.
    """
    own = own_fields(managed)
    return digest_fields(own.without(ignored)) if own is not None else b""


def digest_fields(fields: FieldSet) -> bytes:
    """Return the 16 bytes that stand for a set of fields."""
    return hashlib.sha256(fields.serialise()).digest()[:DIGEST_BYTES]


class Lost(NamedTuple):
    """A path that was ours and is not any more. `manager` is empty when nobody holds it: it was removed."""

    path: str
    manager: str
    at: str
    """RFC 3339, or empty: the server does not always know."""


def lost(before: FieldSet, after: Sequence[ManagedEntry]) -> list[Lost]:
    """Return which of our paths were taken, and by whom, by path."""
    now = own_fields(after) or FieldSet({})
    others = [(entry, FieldSet.parse(entry.fields)) for entry in after if entry is not own_entry(after)]
    taken = []
    for path in before.difference(now).leaves():
        holder = _holder(path, others)
        taken.append(Lost(format_path(path), holder.manager if holder else "", (holder.time or "") if holder else ""))
    return sorted(taken)


def _holder(path: Path, others: Sequence[tuple[ManagedEntry, FieldSet]]) -> ManagedEntry | None:
    """Find who holds a path, or the atomic parent that swallowed it; the latest of several."""
    for length in range(len(path), 0, -1):
        holding = [entry for entry, fields in others if path[:length] in fields]
        exact = length == len(path)
        holding = [e for e in holding if exact or _is_leaf(FieldSet.parse(e.fields), path[:length])]
        if holding:
            return max(holding, key=lambda entry: entry.time or "")
    return None


def _is_leaf(fields: FieldSet, path: Path) -> bool:
    node = fields.find(path)
    return node is not None and len(node) == 1


def managers_of(managed: Sequence[ManagedEntry]) -> dict[str, str]:
    """Return who holds each field, by the field's path as people read it; of several the latest."""
    held: dict[str, str] = {}
    for entry in sorted(managed, key=lambda entry: entry.time or ""):
        held |= dict.fromkeys(FieldSet.parse(entry.fields).paths(), entry.manager)
    return held


def foreign_additions(
    managed: Sequence[ManagedEntry], drift_managers: Sequence[str], ignored: Sequence[str] = ()
) -> FieldSet:
    """Return the fields that drift managers added beside ours and that a repair would remove.

    `drift_managers` are globs, `ignored` JSON pointers. Not among the fields: what existed before our first apply, what belongs to subresources or to
    another API version, finalizers, owner references, status, a restart's mark, and opt-out annotations.
    """
    own = own_entry(managed)
    if own is None:
        return FieldSet({})
    ours = FieldSet.parse(own.fields)
    added = FieldSet({})
    for entry in managed:
        if _is_foldable(entry, own, drift_managers):
            added = added.union(foldable(FieldSet.parse(entry.fields), ignored))
    return added.difference(ours)


def _is_foldable(entry: ManagedEntry, own: ManagedEntry, drift_managers: Sequence[str]) -> bool:
    return (
        not entry.subresource
        and entry.api_version == own.api_version
        and entry is not own
        and is_drift_manager(entry.manager, drift_managers)
    )


def is_drift_manager(manager: str, drift_managers: Sequence[str]) -> bool:
    """Tell whether a manager's additions are undone. Ours never are; `before-first-apply` only when named literally.

    >>> is_drift_manager("kubectl-edit", ["kubectl*"]), is_drift_manager("fleet-preexisting", ["*"])
    (True, False)
    """
    if manager in (MANAGER, PREEXISTING, BEFORE_FIRST_APPLY):
        return manager == BEFORE_FIRST_APPLY and manager in drift_managers
    return any(fnmatchcase(manager, glob) for glob in drift_managers)


def foldable(fields: FieldSet, ignored: Sequence[str] = ()) -> FieldSet:
    """Leave out what is never folded, and the containers that hold it: taking those would take their content."""
    open_to_us = set(fields.without(ignored).members()) if ignored else None
    exempt = {p for p in fields.members() if _is_exempt(p) or (open_to_us is not None and p not in open_to_us)}
    containers = {path[:length] for path in exempt for length in range(1, len(path))}
    return FieldSet.of([p for p in fields.members() if p not in containers and p not in exempt])


def _is_exempt(path: Path) -> bool:
    if path[0] == "f:status" or path[:2] in (("f:metadata", "f:finalizers"), ("f:metadata", "f:ownerReferences")):
        return True
    if path[-1] == f"f:{RESTARTED_AT}" and "f:template" in path:
        return True
    return (
        len(path) == 3
        and path[:2] == ("f:metadata", "f:annotations")
        and path[2].startswith(tuple(f"f:{prefix}" for prefix in OPT_OUT_PREFIXES))
    )


JsonPatch = list[dict[str, Any]]


def plan_preexisting(managed: Sequence[ManagedEntry], drift_managers: Sequence[str], rv: int) -> JsonPatch | None:
    """Plan to mark what drift managers held before our first apply as `fleet-preexisting`, so that no repair removes it.

    Their entries and `before-first-apply` are renamed, less the paths our own entry holds. `rv` makes a race a 409.
    None when there is nothing to do or we have no entry yet.
    """
    own = own_fields(managed)
    if own is None or not rv:
        return None
    renamed = [
        e
        for e in managed
        if not e.subresource and (e.manager == BEFORE_FIRST_APPLY or is_drift_manager(e.manager, drift_managers))
    ]
    if not renamed:
        return None
    kept = [e for e in managed if e not in renamed and not (e.manager == PREEXISTING and not e.subresource)]
    earlier = [e for e in managed if e.manager == PREEXISTING and not e.subresource]
    merged: dict[str, ManagedEntry] = {}
    for entry in (*earlier, *renamed):
        fields = FieldSet.parse(entry.fields)
        if entry in renamed:
            fields = fields.difference(own)
        if entry.api_version in merged:
            fields = fields.union(FieldSet.parse(merged[entry.api_version].fields))
        if not fields.is_empty:
            merged[entry.api_version] = msgspec.structs.replace(
                entry, manager=PREEXISTING, operation="Update", fields=fields.serialise()
            )
    return _patch([*kept, *merged.values()], rv)


def plan_served(
    managed: Sequence[ManagedEntry], is_served: Callable[[str], bool], api_version: str, rv: int
) -> JsonPatch | None:
    """Plan to move entries of versions that are no longer served to `api_version`, with the fields they hold.

    With one of them a server refuses every apply of a custom resource. None when there are none.
    """
    if not rv or all(is_served(entry.api_version) for entry in managed):
        return None
    moved: dict[tuple[str, str, str, str], ManagedEntry] = {}
    for entry in managed:
        now = entry if is_served(entry.api_version) else msgspec.structs.replace(entry, api_version=api_version)
        identity = (now.manager, now.operation, now.subresource, now.api_version)
        if identity in moved:
            fields = FieldSet.parse(moved[identity].fields).union(FieldSet.parse(now.fields))
            now = msgspec.structs.replace(now, fields=fields.serialise())
        moved[identity] = now
    return _patch(list(moved.values()), rv)


def plan_fold(
    managed: Sequence[ManagedEntry], drift_managers: Sequence[str], rv: int, ignored: Sequence[str] = ()
) -> JsonPatch | None:
    """Plan to take over what drift managers added, so that the next apply removes it.

    Their entries are folded into ours, except what `foreign_additions` never names, which stays theirs. `rv` makes a
    race a 409. None when they added nothing.
    """
    own = own_entry(managed)
    if own is None or not rv or foreign_additions(managed, drift_managers, ignored).is_empty:
        return None
    ours = FieldSet.parse(own.fields)
    rest: list[ManagedEntry] = []
    for entry in managed:
        if entry is own:
            continue
        if not _is_foldable(entry, own, drift_managers):
            rest.append(entry)
            continue
        fields = FieldSet.parse(entry.fields)
        folded = foldable(fields, ignored)
        ours = ours.union(folded)
        left = fields.difference(folded)
        if not left.is_empty:
            rest.append(msgspec.structs.replace(entry, fields=left.serialise()))
    return _patch([msgspec.structs.replace(own, fields=ours.serialise()), *rest], rv)


def _patch(entries: Sequence[ManagedEntry], rv: int) -> JsonPatch:
    """Write the patch. The resourceVersion is replaced, not tested: a stale one is then a 409, and not a 422."""
    return [
        {"op": "replace", "path": "/metadata/managedFields", "value": [_encode_entry(entry) for entry in entries]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": str(rv)},
    ]


def _encode_entry(entry: ManagedEntry) -> Mapping[str, Any]:
    encoded: dict[str, Any] = {
        "manager": entry.manager,
        "operation": entry.operation,
        "apiVersion": entry.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": msgspec.json.decode(entry.fields),
    }
    if entry.time:
        encoded["time"] = entry.time
    if entry.subresource:
        encoded["subresource"] = entry.subresource
    return encoded
