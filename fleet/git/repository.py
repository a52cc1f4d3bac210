"""One remote kept at hand: polled, fetched when something new is there, and its last good commits remembered.

A poll asks the remote for the few refs that matter and ends there when nothing moved. Whatever goes wrong, what was good
stays good: a document's revision changes only to a commit that is here, complete, and allowed to follow the one before.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from fleet import metric
from fleet.aio import Pulse, as_fleet_error
from fleet.child import Workers
from fleet.clock import Clock, jitter
from fleet.errors import After, FetchFailed, FleetError, HistoryRewritten, RevisionMissing, SourceError
from fleet.git.http import HttpRemote
from fleet.git.order import DAMAGED, CommitInfo, Good, Holdings
from fleet.git.ref import HEADS, TAGS, Choice, choose, describe, describe_name, explain_missing, list_prefixes
from fleet.git.remote import PathRemote, Remote, local_path
from fleet.git.store import Store
from fleet.inventory.schema import Repository
from fleet.net.reach import Reach
from fleet.object import short

MOST_LIST_S = 20.0
"""A remote that answers no question about its refs for so long is down, however long a fetch may take."""
FIRST_RETRY_S = 5.0
MOST_RETRY_S = 300.0
LEAST_RETRY_CAP_S = 60.0
_IDLE_S = 3600.0
_SPREAD = 0.1

_POLLS = metric.counter("fleet_git_polls_total", "Polls of Git remotes, by outcome.", "outcome")
_FETCHES = metric.counter("fleet_git_fetches_total", "Fetches from Git remotes: polls that found something new.")
_RECEIVED = metric.counter("fleet_git_received_bytes_total", "Bytes of packs received from Git remotes.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is known of one Repository document."""

    name: str
    store: str
    """Path of the clone for readers; the same for the life of the mirror."""
    revision: str = ""
    """The last good commit; empty when there is none yet."""
    ref: str = ""
    """Full name of the ref that `revision` came from; empty for a commit named by its sha."""
    error: FleetError | None = None
    checked_at: datetime | None = None
    """When the remote last answered."""


class Mirror:
    """One remote, shared by every Repository document that names it with the same credentials (`remote_key`)."""

    def __init__(
        self,
        remote: Remote,
        *,
        directory: Path,
        workers: Workers,
        clock: Clock,
        timeout_s: float,
        on_change: Callable[[Snapshot], None],
    ) -> None:
        """`directory` belongs to this mirror alone; `timeout_s` bounds a fetch.

        `on_change` is called in the loop whenever a snapshot's revision, ref or error changed; not for `checked_at`.
        """
        self._remote = remote
        self._store = Store(directory, workers=workers, timeout_s=timeout_s)
        self._clock = clock
        self._list_s = min(timeout_s, MOST_LIST_S)
        self._on_change = on_change
        self._documents: dict[str, Repository] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._good: dict[str, Good] = {}
        self._present: set[str] = set()
        self._kept: frozenset[str] = frozenset()
        self._is_kept = True
        self._is_open = self._exists = self._is_damaged = False
        self._search = _Search()
        self._lineage: dict[tuple[str, str], bool] = {}
        self._lock = asyncio.Lock()
        self._wake = Pulse()
        self._polls = self._failures = self._follows = 0
        self._due_s = 0.0

    def follow(self, repositories: Sequence[Repository]) -> None:
        """Follow exactly these documents, all of this remote, and poll now. May be called at any time.

        A new document's snapshot is there at once, with what the store already holds for it; `on_change` is not called
        for it here.
        """
        wanted = {repository.name: repository for repository in repositories}
        if wanted == self._documents:
            return
        self._documents = wanted
        self._snapshots = {name: self._snapshots.get(name) or self._first_snapshot(name) for name in wanted}
        self._follows += 1
        self._due_s = 0.0
        self._wake.set()

    def snapshot(self, name: str) -> Snapshot:
        """Return what is known of a followed document.

        Raises: KeyError.
        """
        return self._snapshots[name]

    async def run(self) -> None:
        """Poll until cancelled: each `interval` (the shortest of the documents'), later after failures.

        Cancelled: connections are closed; the store is as the last finished step left it.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                pause_s = self._due_s - loop.time()
                if pause_s > 0:
                    await self._wake.wait(pause_s)
                else:
                    await self.sync()
        finally:
            await self._remote.close()

    async def sync(self) -> None:
        """Poll now and return when that poll has ended; callers at the same time share one poll.

        Errors are in the snapshots, not raised. Cancelled: the poll is broken off, for others that wait the next begins.
        """
        before = self._polls
        async with self._lock:
            if self._polls == before:
                self._polls += 1
                await self._poll()

    async def contains(self, older: str, newer: str) -> bool:
        """Tell whether `newer` is `older` or has it in its history.

        Raises: RevisionMissing, SourceError, ChildError.
        """
        if older == newer:
            return True
        if (older, newer) not in self._lineage:
            self._lineage[older, newer] = await self._store.contains(older, newer)
        return self._lineage[older, newer]

    async def find(self, prefix: str) -> str:
        """Return the full sha of the one commit here that begins with `prefix` (4 to 40 hex digits).

        Raises: RevisionMissing, SourceError, ChildError.
        """
        return await self._store.find(prefix)

    async def describe(self, revisions: Sequence[str]) -> Sequence[CommitInfo]:
        """Return who wrote each commit and why, in the order asked; those that are not here are left out.

        Raises: SourceError, ChildError.
        """
        return await self._store.describe(revisions)

    async def keep(self, revisions: Sequence[str]) -> None:
        """Keep exactly these commits besides the good ones: a clone that is replaced gets them too.

        One that is not here is fetched by the next poll if the remote still has it. Failing is the next poll's affair.
        """
        self._kept = frozenset(revisions)
        self._is_kept = False
        if self._lock.locked() or not self._is_open:
            return  # the poll at work, or the first one, does it at its end
        async with self._lock:
            try:
                await self._keep()
            except FleetError as error:
                self._notice(error)
        self._hurry()

    def distrust(self) -> None:
        """Take note that a reader found the clone damaged: the next poll, which comes now, replaces it."""
        self._is_damaged = True
        self._due_s = 0.0
        self._wake.set()

    # -- polling

    async def _poll(self) -> None:
        follows = self._follows
        try:
            await self._open()
            if self._documents:
                await self._update()
            await self._keep()
        except Exception as error:  # noqa: BLE001 - a mirror contains its own failures
            failure = as_fleet_error(error, f"repository {self._remote.name}")
            self._notice(failure)
            self._failures += 1
            _POLLS.labels("failed").inc()
            for name in list(self._snapshots):
                self._publish(name, error=failure)
            self._due_s = self._now_s() + self._retry_in_s(failure)
        else:
            self._failures = 0
            _POLLS.labels("answered").inc()
            self._due_s = self._now_s() + self._interval_s()
        if follows != self._follows:
            self._due_s = 0.0
        self._wake.set()

    async def _open(self) -> None:
        """Read what the store holds, without the remote, so that work can go on while it is down."""
        if self._is_open:
            return
        holdings = await self._store.open(self._kept)
        self._is_damaged = holdings.damaged
        self._take(holdings)
        self._good = dict(holdings.good)
        self._is_open = True
        for name in list(self._snapshots):
            self._publish(name)

    async def _update(self) -> None:
        try:
            await self._update_once()
        except SourceError as error:
            if error.reason != DAMAGED or self._is_damaged:
                raise
            self._is_damaged = True
            await self._update_once()

    async def _update_once(self) -> None:
        documents = tuple(self._documents.values())
        refs = await self._list(sorted({p for d in documents for p in list_prefixes(d.spec.ref)}))
        checked_at = self._clock.now()
        choices, errors = await self._choose(documents, refs)
        if await self._needs_fetch(choices):
            choices = await self._fetch(choices)
        # a document that is not admitted keeps its own; so does one that is not followed just now, should it come back
        good = dict(self._good)
        for document in documents:
            if document.name in choices:
                try:
                    good[document.name] = await self._admit(document, choices[document.name])
                except (RevisionMissing, HistoryRewritten) as error:
                    errors[document.name] = error
        if good != self._good:
            await self._accept(good)
        for document in documents:
            self._publish(document.name, error=errors.get(document.name), checked_at=checked_at)

    async def _choose(
        self, documents: Sequence[Repository], refs: Mapping[str, str]
    ) -> tuple[dict[str, Choice], dict[str, FleetError]]:
        choices: dict[str, Choice] = {}
        errors: dict[str, FleetError] = {}
        for document in documents:
            try:
                choices[document.name] = choose(document.spec.ref, refs)
            except RevisionMissing as error:
                hint = explain_missing(document.spec.ref, await self._list([HEADS, TAGS]))
                errors[document.name] = RevisionMissing(error.message + hint)
        return choices, errors

    async def _needs_fetch(self, choices: Mapping[str, Choice]) -> bool:
        """Tell whether there is anything to fetch; asks for all refs only when a commit has to be searched."""
        commits = self._wanted_commits(choices)
        named = {choice.revision for choice in choices.values() if not choice.ref}
        if self._search.open(commits) or commits & named:
            self._search.look_in(await self._list([HEADS, TAGS]))
        news = any(choice.ref and choice.revision not in self._present for choice in choices.values())
        return news or self._is_damaged or not self._exists or bool(self._search.open(commits))

    def _wanted_commits(self, choices: Mapping[str, Choice]) -> set[str]:
        """Return commits that no followed ref needs to lead to, and that are not here."""
        named = {choice.revision for choice in choices.values() if not choice.ref}
        good = {self._good[name].revision for name in self._documents if name in self._good}
        wanted = named | self._kept | good
        return wanted if self._is_damaged else wanted - self._present

    async def _fetch(self, choices: Mapping[str, Choice]) -> dict[str, Choice]:
        """Fetch, into a new clone when the one here is damaged, and return the choices as they are now."""
        fresh = self._is_damaged
        refs = {choice.ref for choice in choices.values() if choice.ref}
        commits = self._wanted_commits(choices)
        async with self._remote.relay() as url:
            fetched = await self._store.fetch(
                url,
                refs=refs,
                commits=commits,
                search=self._search.refs if self._search.open(commits) else (),
                fresh=fresh,
            )
        _FETCHES.inc()
        _RECEIVED.inc(fetched.received_bytes)
        self._is_damaged = False
        self._is_kept = False
        before = self._present
        self._take(fetched.holdings)
        lost = {good.revision for good in self._good.values()} & (before - self._present)
        if lost and not fresh:
            # it would pass for a history that was rewritten
            raise SourceError("the clone has lost a commit", reason=DAMAGED)
        self._search.close(commits - self._present)
        tips = fetched.holdings.tips
        # the ref may have moved on, or gone, between the listing and the fetch
        return {name: replace(c, revision=tips.get(c.ref, c.revision)) for name, c in choices.items()}

    async def _admit(self, document: Repository, choice: Choice) -> Good:
        """Return the choice as the document's good commit.

        Raises: RevisionMissing; HistoryRewritten.
        """
        good = self._good.get(document.name)
        wanted = Good(choice.ref, choice.revision)
        if good == wanted:
            return wanted
        if choice.revision not in self._present:
            what = describe_name(choice.ref) if choice.ref else describe(document.spec.ref)
            raise RevisionMissing(f"{what} is not in the remote: neither in a branch nor in a tag")
        if good is None or good.ref != choice.ref or document.spec.allow_rewrites:
            return wanted
        if not await self._follows_on(good.revision, choice.revision):
            verb = "was moved" if choice.ref.startswith(TAGS) else "was rewritten"
            raise HistoryRewritten(
                f"{describe_name(choice.ref)} {verb}: {short(choice.revision)} does not contain {short(good.revision)},"
                " which stays in force; restore it, or set allowRewrites: true in the repository's spec"
            )
        return wanted

    async def _follows_on(self, older: str, newer: str) -> bool:
        try:
            return await self.contains(older, newer)
        except RevisionMissing as error:
            if older in self._present:
                raise SourceError("the clone has lost a commit", reason=DAMAGED) from error
            return False  # a clone fetched anew has no trace of a commit that was rewritten away

    async def _list(self, prefixes: Sequence[str]) -> Mapping[str, str]:
        try:
            async with asyncio.timeout(self._list_s):
                return await self._remote.list_refs(prefixes)
        except TimeoutError as error:
            raise FetchFailed(
                f"{self._remote.name} did not answer within {self._list_s:g} s", reason="Timeout"
            ) from error

    async def _keep(self) -> None:
        if not self._is_kept and self._exists and not self._is_damaged:
            await self._accept(self._good)

    async def _accept(self, good: dict[str, Good]) -> None:
        kept = self._kept
        self._take(await self._store.accept(good, kept))
        self._good = good
        self._is_kept = kept == self._kept  # somebody may have asked for others meanwhile

    # -- state

    def _take(self, holdings: Holdings) -> None:
        self._exists = holdings.exists
        self._present = {*holdings.tips.values(), *holdings.commits}

    def _notice(self, error: FleetError) -> None:
        if error.reason == DAMAGED:
            self._is_damaged = True

    def _first_snapshot(self, name: str) -> Snapshot:
        good = self._good.get(name, Good("", ""))
        return Snapshot(name=name, store=self._store.path, revision=good.revision, ref=good.ref)

    def _publish(self, name: str, *, error: FleetError | None = None, checked_at: datetime | None = None) -> None:
        before = self._snapshots.get(name)
        if before is None:
            return  # nobody follows it any more
        good = self._good.get(name, Good("", ""))
        after = Snapshot(
            name=name,
            store=self._store.path,
            revision=good.revision,
            ref=good.ref,
            error=error,
            checked_at=checked_at or before.checked_at,
        )
        self._snapshots[name] = after
        if _shown(before) != _shown(after):
            self._on_change(after)

    def _hurry(self) -> None:
        """Let the next poll come now when a kept commit is still to be fetched."""
        if self._search.open(self._kept - self._present):
            self._due_s = 0.0
            self._wake.set()

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _interval_s(self) -> float:
        shortest = min((document.spec.interval for document in self._documents.values()), default=_IDLE_S)
        return jitter(self._clock, shortest, _SPREAD)

    def _retry_in_s(self, failure: FleetError) -> float:
        if isinstance(failure.retry, After):
            return failure.retry.seconds
        interval_s = min((document.spec.interval for document in self._documents.values()), default=_IDLE_S)
        first_s = min(interval_s, FIRST_RETRY_S)
        most_s = min(max(interval_s, LEAST_RETRY_CAP_S), MOST_RETRY_S)
        return jitter(self._clock, min(first_s * 2 ** min(self._failures - 1, 20), most_s))


class _Search:
    """Commits that were looked for in all the remote's refs and not found: looked for again only when a ref changed."""

    def __init__(self) -> None:
        self.refs: Mapping[str, str] = {}
        self._unfound: set[str] = set()

    def look_in(self, refs: Mapping[str, str]) -> None:
        """Take the refs that the remote has now."""
        if refs != self.refs:
            self._unfound.clear()
        self.refs = refs

    def open(self, commits: set[str] | frozenset[str]) -> set[str]:
        """Return those of `commits` that may be found."""
        return set(commits) - self._unfound

    def close(self, unfound: set[str]) -> None:
        """Take note that these were not found."""
        self._unfound |= unfound


def _shown(snapshot: Snapshot) -> tuple[str, str, str, str]:
    error = snapshot.error
    return snapshot.revision, snapshot.ref, error.reason if error else "", str(error) if error else ""


def remote_key(repository: Repository) -> Hashable:
    """Return what is equal for documents that share one remote: the same address with the same credentials."""
    return repository.spec.url.rstrip("/"), repository.spec.auth


def store_name(repository: Repository) -> str:
    """Return the name of the directory that holds a remote's clone: equal exactly for equal `remote_key`s."""
    auth = repository.spec.auth.model_dump_json() if repository.spec.auth else ""
    digest = hashlib.sha256(f"{repository.spec.url.rstrip('/')}\0{auth}".encode()).hexdigest()
    last = re.sub(r"[^A-Za-z0-9._-]+", "-", repository.spec.url.rstrip("/").rpartition("/")[2])
    return f"{last.strip('.-')[:40] or 'repository'}-{digest[:12]}"


def build_remote(repository: Repository, reach: Reach, *, workers: Workers, timeout_s: float) -> Remote:
    """Return the remote of a document. Files with credentials are read when they are used."""
    path = local_path(repository.spec.url)
    if path is not None:
        return PathRemote(path, workers=workers, timeout_s=min(timeout_s, MOST_LIST_S))
    return HttpRemote(repository.spec.url, auth=repository.spec.auth, reach=reach)
