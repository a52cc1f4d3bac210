"""The child's side of Git: one function per job of `fleet.git.order`. Each may be killed at any point."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pygit2

from fleet.errors import FetchFailed, RevisionMissing, SourceError
from fleet.git.clone import KEPT, TIP, Clone, install, open_current, read_good, remove_leftovers, start
from fleet.git.library import configure, find_commit, reading
from fleet.git.order import (
    CURRENT,
    DAMAGED,
    AcceptOrder,
    CommitInfo,
    CommitsOrder,
    Fetched,
    FetchOrder,
    FindOrder,
    Good,
    Holdings,
    ListOrder,
    OpenOrder,
    PairOrder,
    decode,
    encode,
)

MOST_SUBJECT = 200
_PREFIX = re.compile(r"[0-9a-f]{4,40}")


def list_refs(payload: bytes) -> bytes:
    """Return commits by ref of a repository on this machine; annotated tags peeled, refs to anything else left out.

    Raises: FetchFailed.
    """
    order = decode(payload, ListOrder)
    configure()
    if not Path(order.path).is_dir():
        raise FetchFailed(f"there is no directory {order.path}", reason="RepositoryNotFound")
    try:
        repository = pygit2.Repository(order.path, pygit2.enums.RepositoryOpenFlag.NO_SEARCH)
        return encode(dict(_peel(repository, tuple(order.prefixes))))
    except (pygit2.GitError, OSError) as error:
        raise FetchFailed(f"{order.path} is not a Git repository that can be read ({error})") from error


def _peel(repository: pygit2.Repository, prefixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name in repository.references:
        if name.startswith(prefixes):
            try:
                yield name, str(repository.lookup_reference(name).peel(pygit2.Commit).id)
            except (pygit2.GitError, KeyError):
                # somebody deleted it meanwhile, or it is a tag of a file
                continue


def open_store(payload: bytes) -> bytes:
    """Return what a store holds, after reading all that is in force there."""
    order = decode(payload, OpenOrder)
    store = Path(order.store)
    try:
        clone = open_current(store)
        if clone is None:
            return encode(Holdings(exists=False))
        holdings = clone.hold(order.commits)
        _verify(clone, [good.revision for good in holdings.good.values()])
    except SourceError:
        return encode(Holdings(exists=False, damaged=True, good=_salvage(store)))
    return encode(holdings)


def _salvage(store: Path) -> dict[str, Good]:
    """Return what was in force in a damaged clone: rewritten history is to be noticed even then."""
    try:
        return read_good(store / CURRENT)
    except SourceError:
        return {}


def _verify(clone: Clone, revisions: Sequence[str]) -> None:
    try:
        for revision in sorted(set(revisions)):
            clone.verify(revision)
    except RevisionMissing as error:
        raise SourceError(f"the clone at {clone.path} has lost a commit", reason=DAMAGED) from error


def fetch(payload: bytes) -> bytes:
    """Carry out a `FetchOrder`; what is good stays as it is.

    Raises: FetchFailed; SourceError (`CloneDamaged`) when the clone, and not the remote, is the reason.
    """
    order = decode(payload, FetchOrder)
    store = Path(order.store)
    current = None if order.fresh else open_current(store)
    clone = current or start(store)
    remove = current is not None
    if remove:
        remove_leftovers(store)
        clone.tidy()
    transfer = _Transfer(clone, order)
    transfer.run()
    _check_new(clone, order)
    if current is None:
        install(store, clone)
    holdings = Clone(store / CURRENT).hold(order.commits)
    return encode(Fetched(holdings=holdings, received_bytes=transfer.received_bytes, objects=transfer.objects))


def _check_new(clone: Clone, order: FetchOrder) -> None:
    tips = clone.tips()
    try:
        _verify(clone, [tips[ref] for ref in order.refs if ref in tips])
    except SourceError as error:
        if not order.fresh:
            raise
        raise FetchFailed(f"the remote did not send all that its commits name ({error.message})") from error


class _Transfer:
    """One fetch order at work."""

    def __init__(self, clone: Clone, order: FetchOrder) -> None:
        self._clone = clone
        self._order = order
        self.received_bytes = 0
        self.objects = 0

    def run(self) -> None:
        """Fetch the refs, then the commits: by sha where the remote allows it, else by all it has."""
        order, clone = self._order, self._clone
        clone.forget_tips(order.refs)
        if order.refs:
            self._fetch(order.refs)
        for revision in order.commits:
            if not clone.has(revision):
                self._ask_for(revision)
        if order.search and not all(clone.has(revision) for revision in order.commits):
            self._fetch(order.search)

    def _ask_for(self, revision: str) -> None:
        try:
            self._pull([f"+{revision}:{KEPT}{revision}"])
        except pygit2.GitError:
            # most servers hand out only what a ref names; it may still be in the history of one
            return

    def _fetch(self, refs: Sequence[str]) -> None:
        try:
            self._pull([f"+{ref}:{TIP}{ref.removeprefix('refs/')}" for ref in refs])
        except pygit2.GitError as error:
            good = self._clone.read_good()
            _verify(self._clone, [entry.revision for entry in good.values()])
            raise FetchFailed(f"the fetch broke off ({error})") from error

    def _pull(self, refspecs: list[str]) -> None:
        # a remote without a name brings no tags that were not asked for
        remote = self._clone.repository.remotes.create_anonymous(self._order.url)
        progress = remote.fetch(refspecs, callbacks=_Callbacks(self._order.most_bytes))
        self.received_bytes += progress.received_bytes
        self.objects += progress.received_objects


class _Callbacks(pygit2.RemoteCallbacks):
    """Ends a transfer that is too large."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._most_bytes = most_bytes

    def transfer_progress(self, stats: pygit2.remotes.TransferProgress) -> None:
        if stats.received_bytes > self._most_bytes:
            raise FetchFailed(
                f"the remote sends more than {self._most_bytes >> 20} MiB; keep large files out of the repository",
                reason="RepositoryTooLarge",
            )


def accept(payload: bytes) -> bytes:
    """Carry out an `AcceptOrder`; return what the store holds, `commits` being those of `keep` that are here.

    Raises: SourceError (`CloneDamaged`).
    """
    order = decode(payload, AcceptOrder)
    clone = _require(order.store)
    clone.keep([*order.keep, *(good.revision for good in order.good.values())])
    clone.write_good(order.good)
    return encode(clone.hold(order.keep))


def contains(payload: bytes) -> bytes:
    """Tell whether the newer commit is the older one or has it in its history.

    Raises: RevisionMissing; SourceError (`CloneDamaged`).
    """
    order = decode(payload, PairOrder)
    clone = _require(order.store)
    older, newer = (find_commit(clone.repository, revision).id for revision in (order.older, order.newer))
    with reading(order.store):
        return encode(older == newer or clone.repository.descendant_of(newer, older))


def find(payload: bytes) -> bytes:
    """Return the one commit whose sha begins so.

    Raises: RevisionMissing; SourceError (`CloneDamaged`).
    """
    order = decode(payload, FindOrder)
    prefix = order.prefix.lower()
    if not _PREFIX.fullmatch(prefix):
        raise RevisionMissing(f"{order.prefix[:50]!r} is not a commit: give 4 to 40 hex digits")
    repository = _require(order.store).repository
    with reading(order.store):
        named = [oid for oid in repository.odb if str(oid).startswith(prefix)]
        found = sorted(str(oid) for oid in named if isinstance(repository.get(oid), pygit2.Commit))
    if len(found) == 1:
        return encode(found[0])
    if not found:
        raise RevisionMissing(f"no commit here begins with {prefix}")
    raise RevisionMissing(f"{prefix} could be {', '.join(sha[:12] for sha in found[:5])}; give more digits")


def describe(payload: bytes) -> bytes:
    """Return a `CommitInfo` for each commit that is here, in the order asked.

    Raises: SourceError (`CloneDamaged`).
    """
    order = decode(payload, CommitsOrder)
    clone = _require(order.store)
    return encode([_describe(clone.repository, revision) for revision in order.commits if clone.has(revision)])


def _describe(repository: pygit2.Repository, revision: str) -> CommitInfo:
    with reading(repository.path):
        commit = find_commit(repository, revision)
        lines = commit.raw_message.decode(errors="replace").strip().splitlines()
        return CommitInfo(
            revision=revision,
            author=commit.author.raw_name.decode(errors="replace"),
            at_s=commit.author.time,
            subject=(lines[0] if lines else "")[:MOST_SUBJECT],
        )


def _require(store: str) -> Clone:
    clone = open_current(Path(store))
    if clone is None:
        raise RevisionMissing("the repository has not been fetched yet", reason="NotFetched")
    return clone
