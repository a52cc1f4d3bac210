"""A commit's files as rendering asks for them, with a mark for each answer. Child side only.

`fleet.git.tree` finds and refuses; here is kept what mattered about each path: a file's id, a directory's id where its
names were listed, and otherwise only that a directory, or nothing, stood there.
"""

from collections.abc import Iterable, Sequence

from fleet.errors import TreeRefused
from fleet.git.tree import Entry, EntryKind, Tree
from fleet.render.source import Node

DIRECTORY = "directory"
"""Mark of a directory of which only its being one mattered."""


class GitFiles:
    """`fleet.render.source.Files` over a tree; `marks` grows by every path asked for."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.marks: dict[str, str] = {}

    def kind(self, path: str) -> Node:
        """Tell what is at `path`."""
        entry = self._tree.resolve(path)
        is_directory = entry is not None and entry.kind is EntryKind.DIRECTORY
        self.marks.setdefault(path, DIRECTORY if is_directory else make_mark(entry))
        return Node.DIRECTORY if is_directory else Node.FILE if entry else Node.NOTHING

    def list(self, path: str) -> Sequence[str]:
        """Return the names in a directory, sorted."""
        names = self._tree.listing(path)
        self.marks[path] = make_mark(self._tree.resolve(path))
        return names

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        data = self._tree.read(path)
        self.marks[path] = make_mark(self._tree.resolve(path))
        return data


def make_mark(entry: Entry | None) -> str:
    """Return what tells this very file or directory from any other; empty for nothing."""
    return f"{DIRECTORY} {entry.oid}" if entry and entry.kind is EntryKind.DIRECTORY else entry.oid if entry else ""


def read_marks(tree: Tree, paths: Iterable[str]) -> dict[str, str]:
    """Return the mark of each path; one that the tree refuses is unlike any that was read."""
    return {path: _read_mark(tree, path) for path in paths}


def _read_mark(tree: Tree, path: str) -> str:
    try:
        return make_mark(tree.resolve(path))
    except TreeRefused:
        return "refused"


def is_same(known: str, now: str) -> bool:
    """Tell whether a mark from a render still holds where `read_marks` says `now`."""
    return known == now or (known == DIRECTORY and now.startswith(f"{DIRECTORY} "))
