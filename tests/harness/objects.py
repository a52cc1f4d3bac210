"""An object as its leaves, with who owns each: server-side apply small enough to be read at once.

Lists whose items all have a `name` are maps by name, every other list is one value. Paths are fieldsV1 segments.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fleet.kube.ownership import FieldSet
from fleet.kube.wire import Observed, decode_observed
from fleet.object import Gvk, ObjectKey

Path = tuple[str, ...]
Leaves = dict[Path, Any]
UNTRACKED = frozenset({("f:apiVersion",), ("f:kind",), ("f:metadata", "f:name"), ("f:metadata", "f:namespace")})
TIME = "2026-01-01T00:00:00Z"


def flatten(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Iterate over the leaves of a decoded object."""
    if isinstance(value, Mapping) and value:
        for name, child in value.items():
            yield from flatten(child, (*path, f"f:{name}"))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) and "name" in item for item in value):
        for item in value:
            yield from flatten(item, (*path, "k:" + msgspec.json.encode({"name": item["name"]}).decode()))
    else:
        yield path, value


def unflatten(leaves: Leaves) -> Any:
    """Undo `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        node = tree
        for segment in path[:-1]:
            node = node.setdefault(segment, {})
        node[path[-1]] = value
    return _grow(tree)


def _grow(node: Any) -> Any:
    if not isinstance(node, dict) or not node:
        return node
    if all(name.startswith("k:") for name in node):
        return [_grow(child) for child in node.values()]
    return {name.removeprefix("f:"): _grow(child) for name, child in node.items()}


def parse_path(dotted: str) -> Path:
    """Read `spec/containers/[web]/image`; a segment in brackets is a list item by name.

    >>> parse_path("spec/containers/[web]/image")[2]
    'k:{"name":"web"}'
    """
    return tuple(
        "k:" + msgspec.json.encode({"name": part[1:-1]}).decode() if part.startswith("[") else f"f:{part}"
        for part in dotted.split("/")
    )


@dataclass
class Manager:
    """One entry of managedFields."""

    name: str
    operation: str
    subresource: str = ""
    paths: set[Path] = field(default_factory=set)


@dataclass
class Stored:
    """An object on the fake server."""

    gvk: Gvk
    key: ObjectKey
    uid: str
    rv: int
    leaves: Leaves
    managers: list[Manager] = field(default_factory=list)
    generation: int = 1
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    owner: str = ""
    """`Kind/name` of a controller."""
    status: dict[str, Any] | None = None

    def manager(self, name: str, operation: str, subresource: str = "") -> Manager:
        """Find an entry, or add it."""
        for entry in self.managers:
            if (entry.name, entry.operation, entry.subresource) == (name, operation, subresource):
                return entry
        self.managers.append(Manager(name, operation, subresource))
        return self.managers[-1]

    def holders(self, path: Path, but: Manager) -> list[Manager]:
        """Other entries that hold a path."""
        return [entry for entry in self.managers if entry is not but and path in entry.paths]

    def apply(self, name: str, wanted: Leaves) -> list[tuple[Path, str]]:
        """Apply by server-side apply with force; return what was taken from whom."""
        entry, overridden = self.manager(name, "Apply"), []
        tracked = {path: value for path, value in wanted.items() if path not in UNTRACKED}
        for path in entry.paths - tracked.keys():
            if not self.holders(path, entry):
                self.leaves.pop(path, None)
        for path, value in tracked.items():
            if path not in self.leaves or self.leaves[path] != value:
                overridden += [(path, other.name) for other in self.holders(path, entry)]
                self._take(path, entry)
            self.leaves[path] = value
        entry.paths = set(tracked)
        self._tidy()
        return overridden

    def update(self, name: str, values: Mapping[Path, Any], remove: Iterable[Path] = (), subresource: str = "") -> None:
        """Write fields as an ordinary update does: what changes is taken from everybody."""
        entry = self.manager(name, "Update", subresource)
        for path, value in values.items():
            if path not in self.leaves or self.leaves[path] != value:
                self._take(path, entry)
                entry.paths.add(path)
                self.leaves[path] = value
        for path in remove:
            self._take(path, entry)
            entry.paths.discard(path)
            self.leaves.pop(path, None)
        self._tidy()

    def _take(self, path: Path, entry: Manager) -> None:
        for other in self.managers:
            if other is not entry:
                other.paths.discard(path)

    def _tidy(self) -> None:
        self.managers = [entry for entry in self.managers if entry.paths]

    def body(self) -> dict[str, Any]:
        """Write the object as the server would send it."""
        body: dict[str, Any] = unflatten(self.leaves)
        metadata = body.setdefault("metadata", {})
        metadata.update(
            name=self.key.name,
            uid=self.uid,
            resourceVersion=str(self.rv),
            generation=self.generation,
            creationTimestamp=TIME,
            managedFields=[self._entry(entry) for entry in self.managers],
        )
        if self.key.namespace:
            metadata["namespace"] = self.key.namespace
        if self.deleting:
            metadata["deletionTimestamp"] = TIME
        if self.finalizers:
            metadata["finalizers"] = list(self.finalizers)
        if self.owner:
            kind, _, name = self.owner.partition("/")
            metadata["ownerReferences"] = [{"kind": kind, "name": name, "controller": True}]
        status = {"status": self.status} if self.status is not None else {}
        return {**body, "apiVersion": self.gvk.api_version, "kind": self.gvk.kind, **status}

    def _entry(self, entry: Manager) -> dict[str, Any]:
        encoded = {
            "manager": entry.name,
            "operation": entry.operation,
            "apiVersion": self.gvk.api_version,
            "fieldsType": "FieldsV1",
            "time": TIME,
            "fieldsV1": msgspec.json.decode(FieldSet.of(sorted(entry.paths)).serialise()),
        }
        return {**encoded, "subresource": entry.subresource} if entry.subresource else encoded

    def observed(self, *, whole: bool) -> Observed:
        """Decode it as a client does."""
        return decode_observed(msgspec.json.encode(self.body()), self.gvk, whole=whole)

    def spec(self) -> Mapping[Path, Any]:
        """What counts for the generation."""
        return {path: value for path, value in self.leaves.items() if path[0] != "f:metadata"}

    def patch(self, operations: Iterable[Mapping[str, Any]]) -> None:
        """Carry out the JSON patches that fleet sends: managedFields, resourceVersion, labels."""
        for operation in operations:
            if operation["path"] == "/metadata/managedFields":
                self.managers = [_decode_entry(entry) for entry in operation["value"]]
            elif operation["op"] == "remove":
                segments = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
                self.update("fleet-patch", {}, [tuple(f"f:{part}" for part in segments)])


def _decode_entry(entry: Mapping[str, Any]) -> Manager:
    fields = FieldSet.parse(msgspec.json.encode(entry["fieldsV1"]))
    return Manager(entry["manager"], entry["operation"], entry.get("subresource", ""), set(fields.members()))


Listener = Callable[[ObjectKey, Stored | None, Stored | None], None]
