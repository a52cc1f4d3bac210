"""libgit2 as fleet uses it: settings that depend on no machine, opening a clone, and its errors made ours.

Imported in worker processes only (and inline in simulated runs): the hub never loads libgit2.
"""

import contextlib
from collections.abc import Iterator
from functools import cache

import pygit2
from pygit2.enums import ConfigLevel, RepositoryOpenFlag

from fleet.errors import RevisionMissing, SourceError
from fleet.git.order import DAMAGED
from fleet.object import short

CONNECT_TIMEOUT_MS = 10_000
SERVER_TIMEOUT_MS = 30_000
MOST_PACK_OBJECTS = 5_000_000
MOST_OPEN_PACKS = 128
WINDOW_BYTES = 32 << 20
MOST_MAPPED_BYTES = 256 << 20
"""libgit2 would map gigabytes; a worker's address space is limited."""


@cache
def configure() -> None:
    """Set libgit2's process-wide options once: no configuration of the machine or user, strict hashes, timeouts."""
    settings = pygit2.settings
    for level in (ConfigLevel.PROGRAMDATA, ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL):
        settings.search_path[level] = ""
    settings.enable_strict_hash_verification(True)
    settings.enable_fsync_gitdir(True)
    settings.server_connect_timeout = CONNECT_TIMEOUT_MS
    settings.server_timeout = SERVER_TIMEOUT_MS
    settings.pack_max_objects = MOST_PACK_OBJECTS
    settings.mwindow_file_limit = MOST_OPEN_PACKS
    settings.mwindow_size = WINDOW_BYTES
    settings.mwindow_mapped_limit = MOST_MAPPED_BYTES
    # a volume is often owned by another uid than the process; the hub alone decides which directory is opened
    settings.owner_validation = False


def open_repository(path: str) -> pygit2.Repository:
    """Open the repository that is exactly at `path`.

    Raises: SourceError (`CloneDamaged`).
    """
    configure()
    with reading(path):
        return pygit2.Repository(path, RepositoryOpenFlag.NO_SEARCH)


def find_commit(repository: pygit2.Repository, revision: str) -> pygit2.Commit:
    """Return a commit by its full sha.

    Raises: RevisionMissing; SourceError (`CloneDamaged`).
    """
    with reading(repository.path):
        found: object = repository.get(revision)
    if not isinstance(found, pygit2.Commit):
        raise RevisionMissing(f"commit {short(revision)} is not in the clone")
    return found


def require_tree(found: object) -> pygit2.Tree:
    """Return a directory; nothing forces the sender of a pack to name one where its mode says so.

    Raises: ValueError.
    """
    if not isinstance(found, pygit2.Tree):
        raise ValueError(f"a {type(found).__name__.lower()} stands where a directory should")
    return found


class Objects:
    """The objects of a repository by id: what `fleet.git.tree` reads."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._repository = open_repository(path)

    def root(self, revision: str) -> str:
        """Return the id of a commit's root directory."""
        return str(find_commit(self._repository, revision).tree_id)

    def entries(self, oid: str) -> list[tuple[bytes, int, str]]:
        """Return name, mode and id of what a directory holds."""
        with reading(self._path):
            tree = require_tree(self._repository[oid])
            return [(entry.raw_name or b"", int(entry.filemode), str(entry.id)) for entry in tree]

    def size(self, oid: str) -> int:
        """Return an object's size from its header, without reading it."""
        with reading(self._path):
            return self._repository.odb.read_header(oid)[1]

    def load(self, oid: str) -> bytes:
        """Return an object's bytes."""
        with reading(self._path):
            return self._repository[oid].read_raw()


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Translate what libgit2 says when a clone is missing, truncated or corrupt.

    Raises: SourceError (`CloneDamaged`).
    """
    try:
        yield
    except (pygit2.GitError, KeyError, ValueError, OSError) as error:
        raise SourceError(
            f"the clone at {path} cannot be read ({error}); it is fetched anew", reason=DAMAGED
        ) from error
