"""libgit2 as fleet uses it: settings that depend on no machine, opening a clone, and its errors made ours.

Imported in worker processes only (and inline in simulated runs).
"""

import contextlib
from collections.abc import Iterator
from functools import cache

import pygit2
from pygit2.enums import ConfigLevel, RepositoryOpenFlag

from fleet.errors import RevisionMissing, SourceError

DAMAGED = "CloneDamaged"
"""Reason of a clone that cannot be read; the next fetch replaces it."""

CONNECT_TIMEOUT_MS = 10_000
SERVER_TIMEOUT_MS = 30_000
MOST_PACK_OBJECTS = 5_000_000
MOST_OPEN_PACKS = 128


@cache
def configure() -> None:
    """Set libgit2's process-wide options once: no configuration of the machine or user, strict hashes, timeouts."""
    settings = pygit2.settings
    for level in (ConfigLevel.PROGRAMDATA, ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL):
        settings.search_path[level] = ""
    settings.enable_strict_hash_verification(True)
    settings.server_connect_timeout = CONNECT_TIMEOUT_MS
    settings.server_timeout = SERVER_TIMEOUT_MS
    settings.pack_max_objects = MOST_PACK_OBJECTS
    settings.mwindow_file_limit = MOST_OPEN_PACKS
    # a volume is often owned by another uid than the process; the hub alone decides which directory is opened
    settings.owner_validation = False


def open_clone(path: str) -> pygit2.Repository:
    """Open the repository that is exactly at `path`.

    Raises: SourceError (`CloneDamaged`).
    """
    configure()
    with reading(path):
        return pygit2.Repository(path, RepositoryOpenFlag.NO_SEARCH)


def find_commit(repository: pygit2.Repository, revision: str) -> pygit2.Commit:
    """Return a commit by its full sha.

    Raises: RevisionMissing.
    """
    with reading(repository.path):
        found: object = repository.get(revision)
    if not isinstance(found, pygit2.Commit):
        raise RevisionMissing(f"commit {revision[:7]} is not in the clone")
    return found


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
