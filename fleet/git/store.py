"""The hub's hands on a store: each question or change is one job of a worker."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from fleet.child import Job, Workers
from fleet.errors import ChildTimeout, FetchFailed
from fleet.git import order
from fleet.git.order import CURRENT, CommitInfo, Good, Holdings, Order, decode, encode

T = TypeVar("T")

QUESTION_S = 30.0
"""Deadline of a job that reads or writes refs. Long histories take a second."""


class Store:
    """A directory with a bare clone, reached through workers. One writer at a time."""

    def __init__(self, directory: Path, *, workers: Workers, timeout_s: float) -> None:
        self.path = str(directory.absolute() / CURRENT)
        """What readers of the clone open; stays the same when the clone is replaced."""
        self._directory = str(directory.absolute())
        self._workers = workers
        self._timeout_s = timeout_s
        self._attempts = itertools.count(1)

    async def open(self, commits: Collection[str]) -> Holdings:
        """Return what the store holds. Raises: SourceError (`CloneDamaged`), ChildError."""
        asked = order.OpenOrder(store=self._directory, commits=sorted(commits), attempt=next(self._attempts))
        return await self._call(order.OPEN, asked, Holdings, self._timeout_s)

    async def fetch(
        self, url: str, *, refs: Collection[str], commits: Collection[str], search: Collection[str], fresh: bool
    ) -> order.Fetched:
        """Bring refs and commits of the remote at `url` into the store.

        Raises: FetchFailed; SourceError (`CloneDamaged`); ChildCrashed.
        """
        asked = order.FetchOrder(
            store=self._directory,
            url=url,
            refs=sorted(refs),
            commits=sorted(commits),
            search=sorted(search),
            fresh=fresh,
            attempt=next(self._attempts),
        )
        try:
            return await self._call(order.FETCH, asked, order.Fetched, self._timeout_s)
        except ChildTimeout as error:
            raise FetchFailed(
                f"fetching took longer than {self._timeout_s:g} s and was stopped; raise --git-timeout-s"
                " if the repository is large",
                reason="Timeout",
            ) from error

    async def accept(self, good: Mapping[str, Good], keep: Collection[str]) -> Holdings:
        """Put commits in force and keep others reachable. Raises: SourceError (`CloneDamaged`), ChildError."""
        asked = order.AcceptOrder(
            store=self._directory, good=dict(sorted(good.items())), keep=sorted(keep), attempt=next(self._attempts)
        )
        return await self._call(order.ACCEPT, asked, Holdings)

    async def contains(self, older: str, newer: str) -> bool:
        """Tell whether `newer` is `older` or has it in its history. Raises: SourceError, ChildError."""
        asked = order.PairOrder(store=self._directory, older=older, newer=newer, attempt=next(self._attempts))
        return await self._call(order.CONTAINS, asked, bool)

    async def find(self, prefix: str) -> str:
        """Return the one commit whose sha begins so. Raises: SourceError, ChildError."""
        asked = order.FindOrder(store=self._directory, prefix=prefix, attempt=next(self._attempts))
        return await self._call(order.FIND, asked, str)

    async def describe(self, revisions: Sequence[str]) -> Sequence[CommitInfo]:
        """Return what is known of each commit that is here. Raises: SourceError, ChildError."""
        asked = order.CommitsOrder(store=self._directory, commits=list(revisions), attempt=next(self._attempts))
        return await self._call(order.DESCRIBE, asked, list[CommitInfo])

    async def _call(self, job: Job, asked: Order, kind: type[T], deadline_s: float = QUESTION_S) -> T:
        return decode(await self._workers.call(job, encode(asked), deadline_s=deadline_s), kind)
