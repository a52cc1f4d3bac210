"""Sets of field paths, as managedFields holds them.

A path element is kept as the server writes it: ``f:name`` a field, ``k:{...}`` an item of a keyed list, ``v:...`` a
value of a set, ``i:n`` an index.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

Path = tuple[str, ...]

_ESCAPED: Final = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def field_element(name: str) -> str:
    return f"f:{name}"


def key_element(keys: Mapping[str, Any]) -> str:
    return f"k:{_compact(dict(sorted(keys.items())))}"


def value_element(value: Any) -> str:
    return f"v:{_compact(value)}"


def _compact(value: Any) -> str:
    """Write JSON as Go does: no spaces, HTML characters escaped, whole floats without a fraction."""
    text = json.dumps(_whole(value), separators=(",", ":"), ensure_ascii=False)
    return text.translate(_ESCAPED)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return {name: _whole(inner) for name, inner in value.items()} if isinstance(value, dict) else value


_RANKS: Final = {"f": 0, "k": 1, "v": 2, "i": 3}


@lru_cache(maxsize=65536)
def element_order(element: str) -> tuple[Any, ...]:
    """Return the sort key of a path element: fields, keys, values, indexes."""
    rank, rest = _RANKS[element[0]], element[2:]
    if rank == 0:
        return (rank, rest)
    if rank == 1:
        return (rank, *((name, _value_order(value)) for name, value in sorted(json.loads(rest).items())))
    return (rank, _value_order(json.loads(rest)))


def _value_order(value: Any) -> tuple[int, Any]:
    if isinstance(value, bool):
        return (2, value)
    if isinstance(value, (int, float)):
        return (0, value)
    return (1, value) if isinstance(value, str) else (3, json.dumps(value, sort_keys=True))


@lru_cache(maxsize=65536)
def element_text(element: str) -> str:
    """Return a path element as messages show it: ``.name``, ``[name="x"]``, ``[="x"]``, ``[0]``."""
    kind, rest = element[0], element[2:]
    if kind == "f":
        return f".{rest}"
    if kind == "k":
        return "[" + ",".join(f"{name}={_shown(value)}" for name, value in sorted(json.loads(rest).items())) + "]"
    return f"[={_shown(json.loads(rest))}]" if kind == "v" else f"[{rest}]"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def path_text(path: Iterable[str]) -> str:
    """Return a path as conflict messages show it."""
    return "".join(element_text(element) for element in path)


class FieldSet:
    """A set of paths: a trie whose members are paths that end here. Operations return new sets and may share parts."""

    __slots__ = ("children", "members")

    def __init__(self, members: Iterable[str] = (), children: "Mapping[str, FieldSet] | None" = None) -> None:
        self.members = set(members)
        self.children: dict[str, FieldSet] = dict(children or {})

    @classmethod
    def of(cls, *paths: Path) -> "FieldSet":
        """Return the set of some paths."""
        made = cls()
        for path in paths:
            made.insert(path)
        return made

    @classmethod
    def parse(cls, fields_v1: Mapping[str, Any]) -> "FieldSet":
        """Read fieldsV1; elements of unknown kinds are skipped.

        Raises:
            ValueError: an element cannot be read.
        """
        return _parse(fields_v1)[0] or cls()

    def serialise(self) -> dict[str, Any]:
        """Return fieldsV1 in the server's order."""
        written: dict[str, Any] = {}
        for element in sorted(self.members | self.children.keys(), key=element_order):
            child = self.children.get(element)
            inner = child.serialise() if child is not None else {}
            written[element] = {".": {}, **inner} if inner and element in self.members else inner
        return written

    def insert(self, path: Path) -> None:
        """Add a path in place; the empty path is no member."""
        if not path:
            return
        node = self
        for element in path[:-1]:
            node = node.children.setdefault(element, FieldSet())
        node.members.add(path[-1])

    def __contains__(self, path: Path) -> bool:
        node = self
        for element in path[:-1]:
            found = node.children.get(element)
            if found is None:
                return False
            node = found
        return bool(path) and path[-1] in node.members

    def __bool__(self) -> bool:
        return bool(self.members) or any(self.children.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldSet) and set(self.paths()) == set(other.paths())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"FieldSet({[path_text(path) for path in self.paths()]})"

    def __or__(self, other: "FieldSet") -> "FieldSet":
        children = dict(self.children)
        for element, child in other.children.items():
            mine = children.get(element)
            children[element] = child if mine is None else mine | child
        return FieldSet(self.members | other.members, children)

    def __and__(self, other: "FieldSet") -> "FieldSet":
        pairs = ((e, child & other.children[e]) for e, child in self.children.items() if e in other.children)
        return FieldSet(self.members & other.members, {e: both for e, both in pairs if both})

    def __sub__(self, other: "FieldSet") -> "FieldSet":
        """Take away exactly the other's paths; what lies below them stays."""
        children = {}
        for element, child in self.children.items():
            theirs = other.children.get(element)
            left = child if theirs is None else child - theirs
            if left:
                children[element] = left
        return FieldSet(self.members - other.members, children)

    def without(self, other: "FieldSet") -> "FieldSet":
        """Take away the other's paths and all that lies below them."""
        children = {}
        for element, child in self.children.items():
            if element in other.members:
                continue
            theirs = other.children.get(element)
            left = child if theirs is None else child.without(theirs)
            if left:
                children[element] = left
        return FieldSet(self.members - other.members, children)

    def leaves(self) -> "FieldSet":
        """Return the paths below which there is none."""
        children = {element: child.leaves() for element, child in self.children.items()}
        return FieldSet(self.members - self.children.keys(), children)

    def at(self, element: str) -> "FieldSet":
        """Return what lies below an element."""
        return self.children.get(element) or FieldSet()

    def paths(self, prefix: Path = ()) -> Iterator[Path]:
        """Yield all paths in the server's order: at each level the members, then what lies below."""
        for element in sorted(self.members, key=element_order):
            yield (*prefix, element)
        for element in sorted(self.children, key=element_order):
            yield from self.children[element].paths((*prefix, element))


def _parse(node: Mapping[str, Any]) -> tuple[FieldSet | None, bool]:
    made: FieldSet | None = None
    member = False
    for key, inner in node.items():
        if key == ".":
            member = True
            continue
        if len(key) < 2 or key[1] != ":":
            raise ValueError(f"missing colon: {key}")
        if key[0] not in _RANKS:
            continue
        element = _canonical(key)
        below, is_member = _parse(inner)
        if made is None:
            made = FieldSet()
        if is_member:
            made.members.add(element)
        if below is not None:
            made.children[element] = below
    return made, member or made is None


def _canonical(key: str) -> str:
    if key[0] == "k":
        return key_element(json.loads(key[2:]))
    return value_element(json.loads(key[2:])) if key[0] == "v" else key
