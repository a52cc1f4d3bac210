"""The files of one commit, read from the object store: nothing is ever checked out.

A path is looked up entry by entry. A symbolic link is followed only inside the tree and at most `MOST_HOPS` times, so
that no content of a repository can name a file of this machine. Every lookup is recorded in `Tree.reads`: two revisions
with equal reads give equal answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from fleet.errors import PathMissing, TreeRefused
from fleet.object import short

MOST_HOPS = 5
MOST_BLOB_BYTES = 1 << 20
MOST_LINK_BYTES = 4096
MOST_ENTRIES = 100_000
REFUSED = "refused"
"""Stands in `ids` for a path that is not followed."""

_DIRECTORY, _LINK, _SUBMODULE = 0o040000, 0o120000, 0o160000
_LFS_MARK = b"version https://git-lfs.github.com/spec/"
_LFS_MOST_BYTES = 1024


class EntryKind(StrEnum):
    """What stands at a path, links followed."""

    FILE = "file"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or directory of a tree. `size` is 0 for a directory; `mode` is Git's (0o100755 = executable)."""

    kind: EntryKind
    oid: str
    size: int
    mode: int


@dataclass(frozen=True, slots=True)
class WalkLimits:
    """How far `Tree.walk` goes before it refuses."""

    most_files: int = 5000
    most_depth: int = 32


class Objects(Protocol):
    """An object store by id."""

    def root(self, revision: str) -> str:
        """Return the id of a commit's root directory."""
        ...

    def entries(self, oid: str) -> Sequence[tuple[bytes, int, str]]:
        """Return name, mode and id of what a directory holds."""
        ...

    def size(self, oid: str) -> int:
        """Return an object's size without reading it."""
        ...

    def load(self, oid: str) -> bytes:
        """Return an object's bytes."""
        ...


class _Place:
    """A directory on the way down from the root."""

    __slots__ = ("name", "oid")

    def __init__(self, name: str, oid: str) -> None:
        self.name = name
        self.oid = oid


class Tree:
    """One commit's files by path from the root (itself the empty string). Use from one thread at a time."""

    def __init__(self, objects: Objects, revision: str, *, most_blob_bytes: int = MOST_BLOB_BYTES) -> None:
        self.revision = revision
        self.reads: dict[str, str] = {}
        """Object id of everything looked up, by path; empty where nothing was found."""
        self._objects = objects
        self._most_blob_bytes = most_blob_bytes
        self._directories: dict[str, dict[str, tuple[int, str]]] = {}
        self._root = objects.root(revision)

    def resolve(self, path: str) -> Entry | None:
        """Return what is at `path`, links followed; None where there is nothing.

        Raises: TreeRefused for a path or link out of the tree, a link to nothing, too many links, a submodule.
        """
        parts = _split(path)
        found = self._descend([_Place("", self._root)], parts, _Hops(path))
        entry = None if found is None else self._describe(*found)
        self.reads["/".join(parts)] = entry.oid if entry else ""
        return entry

    def read(self, path: str) -> bytes:
        """Return a file's bytes.

        Raises: PathMissing; TreeRefused, also for a file over the limit, an LFS pointer, and a directory.
        """
        entry = self._require(path)
        if entry.kind is not EntryKind.FILE:
            raise TreeRefused(f"{path or 'the root'} is a directory, not a file")
        if entry.size > self._most_blob_bytes:
            raise TreeRefused(
                f"{path} has {entry.size} bytes; at most {self._most_blob_bytes} are read", reason="BlobTooLarge"
            )
        data = self._objects.load(entry.oid)
        if len(data) < _LFS_MOST_BYTES and data.startswith(_LFS_MARK):
            raise TreeRefused(
                f"{path} is a Git LFS pointer; commit the file itself (LFS is not supported)", reason="LfsPointer"
            )
        return data

    def listing(self, path: str) -> Sequence[str]:
        """Return the names in a directory, sorted by code point.

        Raises: PathMissing; TreeRefused, also for a file.
        """
        entry = self._require(path)
        if entry.kind is not EntryKind.DIRECTORY:
            raise TreeRefused(f"{path} is a file, not a directory")
        return sorted(self._entries(entry.oid))

    def walk(self, path: str, limits: WalkLimits | None = None) -> Iterator[tuple[str, Entry]]:
        """Yield every file below a directory with its path, directories in listing order, links followed.

        Raises: PathMissing; TreeRefused, also beyond `limits`.
        """
        limits = limits or WalkLimits()
        for number, found in enumerate(self._walk("/".join(_split(path)), limits.most_depth), start=1):
            if number > limits.most_files:
                raise TreeRefused(f"{path or 'the root'} holds more than {limits.most_files} files")
            yield found

    def _walk(self, path: str, depth: int) -> Iterator[tuple[str, Entry]]:
        if depth < 0:
            raise TreeRefused(f"{path} is nested too deeply, or a link leads back into itself")
        for name in self.listing(path):
            below = f"{path}/{name}" if path else name
            entry = self._require(below)
            if entry.kind is EntryKind.DIRECTORY:
                yield from self._walk(below, depth - 1)
            else:
                yield below, entry

    def _require(self, path: str) -> Entry:
        entry = self.resolve(path)
        if entry is None:
            raise PathMissing(f"there is no {path} in revision {short(self.revision)}")
        return entry

    def _describe(self, mode: int, oid: str) -> Entry:
        if mode == _DIRECTORY:
            return Entry(EntryKind.DIRECTORY, oid, 0, mode)
        return Entry(EntryKind.FILE, oid, self._objects.size(oid), mode)

    def _descend(self, places: list[_Place], parts: Sequence[str], hops: "_Hops") -> tuple[int, str] | None:
        """Walk `parts` from the last of `places`, which afterwards ends at the directory reached (or holding the file)."""
        for at, part in enumerate(parts):
            if part == "..":
                if len(places) == 1:
                    raise TreeRefused(f"{hops.path} leads out of the repository by a link", reason="LinkEscapes")
                places.pop()
                continue
            found = self._entries(places[-1].oid).get(part)
            if found is not None and found[0] == _LINK:
                found = self._follow(places, part, found[1], hops)
            elif found is not None and found[0] == _DIRECTORY:
                places.append(_Place(part, found[1]))
            if found is None:
                return None
            if found[0] == _SUBMODULE:
                where = "/".join([place.name for place in places[1:]] + [part])
                raise TreeRefused(f"{where} is a submodule; submodules are not followed", reason="Submodule")
            if found[0] != _DIRECTORY:
                return found if at == len(parts) - 1 else None
        return _DIRECTORY, places[-1].oid

    def _follow(self, places: list[_Place], name: str, oid: str, hops: "_Hops") -> tuple[int, str]:
        """Walk a link's target from the directory that holds it; `places` ends where the target does."""
        where = "/".join([place.name for place in places[1:]] + [name])
        hops.take(where)
        found = self._descend(places, self._read_target(where, oid), hops)
        if found is None:
            raise TreeRefused(f"{where} is a link to something that is not in the repository", reason="LinkDangling")
        return found

    def _read_target(self, where: str, oid: str) -> list[str]:
        if self._objects.size(oid) > MOST_LINK_BYTES:
            raise TreeRefused(f"{where} is a link with a target that is too long")
        try:
            target = self._objects.load(oid).decode()
        except UnicodeDecodeError:
            raise TreeRefused(f"{where} is a link whose target is not UTF-8") from None
        if not target or target.startswith("/") or "\\" in target or "\0" in target:
            raise TreeRefused(f"{where} is a link out of the repository", reason="LinkEscapes")
        return [part for part in target.split("/") if part not in ("", ".")]

    def _entries(self, oid: str) -> dict[str, tuple[int, str]]:
        """Return a directory's entries; parsed once per tree object."""
        if oid not in self._directories:
            found = self._objects.entries(oid)
            if len(found) > MOST_ENTRIES:
                raise TreeRefused(
                    f"a directory of revision {short(self.revision)} has more than {MOST_ENTRIES} entries"
                )
            self._directories[oid] = {_decode_name(name): (mode, child) for name, mode, child in found}
        return self._directories[oid]


class _Hops:
    """Counts the links followed for one path."""

    __slots__ = ("left", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.left = MOST_HOPS

    def take(self, where: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise TreeRefused(
                f"{self.path} goes through more than {MOST_HOPS} links, the last at {where}; is it a loop?",
                reason="LinkLoop",
            )


def _split(path: str) -> list[str]:
    """Return a path's parts.

    Raises: TreeRefused for one that could lead out of the tree.
    """
    if path.startswith("/") or "\\" in path or "\0" in path or ".." in path.split("/"):
        raise TreeRefused(f"{path!r} is not a path inside the repository", reason="PathEscapes")
    return [part for part in path.split("/") if part not in ("", ".")]


def _decode_name(raw: bytes) -> str:
    """Return a file name.

    Raises: TreeRefused for one that no Git client writes, or that another system would read as a path.
    """
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise TreeRefused(f"the file name {raw!r} is not UTF-8") from None
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise TreeRefused(f"the file name {name!r} is not followed")
    return name


def open_tree(repository_path: str, revision: str, *, most_blob_bytes: int = MOST_BLOB_BYTES) -> Tree:
    """Open a commit of the bare clone at `repository_path`.

    Raises: RevisionMissing; SourceError (`CloneDamaged`).
    """
    # only a process that opens a tree loads libgit2: the hub imports this module for its words
    from fleet.git import library

    return Tree(library.Objects(repository_path), revision, most_blob_bytes=most_blob_bytes)


def ids(repository_path: str, revision: str, paths: Sequence[str]) -> list[str]:
    """Return what `Tree.reads` would hold for each path at a revision; `REFUSED` for one that is not followed.

    Raises: RevisionMissing; SourceError (`CloneDamaged`).
    """
    tree = open_tree(repository_path, revision)
    return [_id(tree, path) for path in paths]


def _id(tree: Tree, path: str) -> str:
    try:
        entry = tree.resolve(path)
    except TreeRefused:
        return REFUSED
    return entry.oid if entry else ""
