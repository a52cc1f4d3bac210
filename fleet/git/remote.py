"""Where commits come from: a repository on this machine, or one behind HTTP (`fleet.git.http`).

A remote is asked for its refs by the hub, and for commits by libgit2 in a worker, which is given an address on this
machine: a path, or a relay. Credentials and the real network stay with the hub.
"""

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from fleet.child import Workers
from fleet.git import order
from fleet.git.order import ListOrder, decode, encode


class Remote(Protocol):
    """A Git remote. Used by one `Mirror`, one call at a time."""

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    async def list_refs(self, prefixes: Sequence[str]) -> Mapping[str, str]:
        """Return commits by full ref name, annotated tags peeled; at least all refs that begin with one of `prefixes`.

        Raises: FetchFailed, ChildError.
        """
        ...

    def relay(self) -> AbstractAsyncContextManager[str]:
        """Return the address that libgit2 fetches from, valid inside the context.

        Raises: FetchFailed, in place of what libgit2 made of it, when the remote was the reason.
        """
        ...

    async def close(self) -> None:
        """Let connections go; the next use opens them again."""
        ...


class PathRemote:
    """A repository in a directory of this machine. Never changed; only workers look into it."""

    def __init__(self, path: Path, *, workers: Workers, timeout_s: float) -> None:
        self._path = path
        self._workers = workers
        self._timeout_s = timeout_s
        self._attempts = itertools.count(1)

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    async def list_refs(self, prefixes: Sequence[str]) -> Mapping[str, str]:
        """Return commits by full ref name.

        Raises: FetchFailed, ChildError.
        """
        asked = ListOrder(path=self.name, prefixes=list(prefixes), attempt=next(self._attempts))
        return decode(await self._workers.call(order.LIST, encode(asked), deadline_s=self._timeout_s), dict[str, str])

    @asynccontextmanager
    async def relay(self) -> AsyncIterator[str]:
        """Return the path itself: libgit2 may read it without any listener in between."""
        yield self.name

    async def close(self) -> None:
        """Nothing is open."""


def local_path(url: str) -> Path | None:
    """Return the directory that a repository's URL names; None for one that is elsewhere.

    >>> local_path("file:///srv/git/a%20b"), local_path("/srv/git/a"), local_path("https://git.example.com/a")
    (PosixPath('/srv/git/a b'), PosixPath('/srv/git/a'), None)
    """
    if "://" not in url:
        return Path(url)
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None
