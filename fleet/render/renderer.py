"""The hub's side of rendering: equal inputs are rendered once, and a commit that touches nothing read costs a look-up.

A render is reused when everything it read has the same ids at the new revision, every variable it asked for has the
same value, and the rest of the input and the tool are equal. Clusters that differ only in variables an app never
mentions share one render.
"""

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec

from fleet import metric
from fleet.child import Workers
from fleet.errors import (
    Backoff,
    ChildCrashed,
    ChildTimeout,
    FleetError,
    PathMissing,
    Problem,
    Quarantined,
    RenderError,
    TreeRefused,
)
from fleet.object import Manifest
from fleet.render import worker
from fleet.render.private import sweep_opened
from fleet.render.tree import is_same
from fleet.settings import Settings

MOST_CACHED_BYTES = 64 << 20
MOST_ALIKE = 4
"""Renders of one app for one set of variables that are kept, newest first: a revert is free."""
MOST_FAILURES = 500
MOST_LOOKUPS = 200
_DEADLINE_MARGIN_S = 5.0
"""What a worker has beyond the build's own deadline to say so itself."""

_RENDERS = metric.counter("fleet_renders_total", "Renders asked for, by how they were answered.", "answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderInput:
    """One app on one cluster, at one revision."""

    repository: str
    """Path of the bare clone."""
    revision: str
    path: str
    substitute: bool = False
    variables: tuple[tuple[str, str], ...] = ()
    namespace: str = ""
    """For namespaced objects that name none."""
    create_namespace: bool = False
    digest_key: bytes = field(default=b"", repr=False)
    sops: bool = False
    """Files encrypted with SOPS are opened."""
    passthrough: bool = False
    """Bitnami's SealedSecrets are left to a controller in the cluster."""
    cluster: str = ""
    """Whose keys open what must be opened before a build; matters to nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What an app's files say at a revision. Equal inputs give the very same object."""

    manifests: tuple[Manifest, ...]
    """Sorted by key."""
    digest: str
    """Hex over keys and digests: equal exactly when the manifests are."""
    reads: str
    """Names the set of files read, with their contents."""
    warnings: tuple[Problem, ...] = ()


class Opener(Protocol):
    """Opens files encrypted with SOPS, in the hub: keys never enter a worker."""

    async def open_file(self, cluster: str, file: str, data: bytes) -> bytes:
        """Return a file's bytes as they were before they were encrypted.

        Raises: SealError, naming the file.
        """
        ...


class Renderer(Protocol):
    """Turns files at a revision into manifests."""

    async def render(self, i: RenderInput) -> Rendered:
        """Return the manifests.

        Raises: RenderError with file:line, PathMissing, TreeRefused, RevisionMissing, ChildError; SealError.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    rendered: Rendered
    """Without manifests when files must be opened first."""
    sealed: Mapping[str, bytes]
    """Those files."""
    reads: Mapping[str, str]
    used: Mapping[str, str | None]
    tool: str
    size_bytes: int

    def fits(self, i: RenderInput) -> bool:
        """Tell whether the variables that mattered have the same values."""
        values = dict(i.variables) if i.substitute else {}
        return all(values.get(name) == value for name, value in self.used.items())


class CachingRenderer:
    """Renders in worker processes (pool `render`) and remembers by what was read."""

    def __init__(
        self,
        workers: Workers,
        settings: Settings,
        *,
        opener: Opener | None = None,
        most_bytes: int = MOST_CACHED_BYTES,
    ) -> None:
        self.opener = opener
        """None: no file is opened, and a build that needs one is refused."""
        self._workers = workers
        self._settings = settings
        self._scratch = str((settings.data / "scratch").absolute())
        self._most_bytes = most_bytes
        self._bytes = 0
        self._entries: OrderedDict[Hashable, list[_Entry]] = OrderedDict()
        self._failures: OrderedDict[Hashable, FleetError] = OrderedDict()
        self._lookups: OrderedDict[tuple[str, str], _Lookup] = OrderedDict()
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    async def render(self, i: RenderInput) -> Rendered:
        """Return the manifests, rendering at most once for equal inputs.

        Raises: see `Renderer`. An error of the input itself is remembered for that revision.
        Cancelled: another caller waiting for the same input takes over.
        """
        cluster, i = i.cluster, _reduce(i)
        entry = await self._enter(i)
        return await self._open_and_build(i, cluster, entry.sealed) if entry.sealed else entry.rendered

    async def find_sealed(self, i: RenderInput) -> Mapping[str, bytes]:
        """Return the files that must be opened before the build, by path. Raises: as `render`."""
        return (await self._enter(_reduce(i))).sealed

    async def _enter(self, i: RenderInput) -> _Entry:
        while True:
            key = self._turn_key(i)
            async with self._turn(key):
                if key == self._turn_key(i):
                    return await self._answer(i)

    async def _open_and_build(self, i: RenderInput, cluster: str, sealed: Mapping[str, bytes]) -> Rendered:
        """Render once more with what is sealed opened; nothing of that is remembered."""
        opened = {file: await self._open(cluster, file, data) for file, data in sealed.items()}
        try:
            answer = await self._call(_order(i, self._settings, self._scratch, opened))
        except (ChildCrashed, ChildTimeout, Quarantined):
            sweep_opened(Path(self._settings.tmpfs))
            raise
        return _make_entry(answer, i).rendered

    async def _open(self, cluster: str, file: str, data: bytes) -> bytes:
        if self.opener is None:
            message = "it is encrypted with SOPS, and this hub opens nothing"
            raise RenderError([Problem(file, 0, 0, "", message)], reason="NotOpened")
        return await self.opener.open_file(cluster, file, data)

    async def _answer(self, i: RenderInput) -> _Entry:
        known = self._failures.get(i) or self._failures.get((_family(i), i.revision))
        if known is not None:
            _RENDERS.labels("failure").inc()
            raise known.with_traceback(None)
        entry = await self._find(i)
        if entry is None:
            entry = await self._render(i)
        else:
            _RENDERS.labels("cache").inc()
        return entry

    def _turn_key(self, i: RenderInput) -> Hashable:
        """Return what callers must share to wait for one another.

        Until an app's first render tells which variables it asks for, all its clusters wait for that one; from then on
        only those with equal values do.
        """
        family = _family(i)
        values = dict(i.variables)
        names = sorted({name for entry in self._entries.get(family, ()) for name in entry.used})
        return (family, i.revision, tuple((name, values.get(name)) for name in names))

    @contextlib.asynccontextmanager
    async def _turn(self, key: Hashable) -> AsyncIterator[None]:
        """Let one caller at a time work on a key."""
        lock, waiting = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[key]
            self._locks[key] = (lock, waiting - 1)
            if waiting == 1:
                del self._locks[key]

    async def _find(self, i: RenderInput) -> _Entry | None:
        """Return an entry whose reads are the same at this revision."""
        family = _family(i)
        entries = [entry for entry in self._entries.get(family, ()) if entry.fits(i)]
        if not entries:
            return None
        paths = {path for entry in entries for path in entry.reads}
        lookup = self._lookup(i.repository, i.revision)
        marks = await lookup.find(paths)
        for entry in entries:
            same = all(is_same(known, marks[path]) for path, known in entry.reads.items())
            if same and entry.tool in ("", lookup.tool):
                self._entries.move_to_end(family)
                return entry
        return None

    def _lookup(self, repository: str, revision: str) -> "_Lookup":
        key = (repository, revision)
        if key not in self._lookups:
            self._lookups[key] = _Lookup(self._workers, self._settings, repository, revision)
        self._lookups.move_to_end(key)
        if len(self._lookups) > MOST_LOOKUPS:
            self._lookups.popitem(last=False)
        return self._lookups[key]

    async def _render(self, i: RenderInput) -> _Entry:
        try:
            reply = await self._call(_order(i, self._settings, self._scratch, {}))
        except (RenderError, PathMissing, TreeRefused) as error:
            _RENDERS.labels("failure").inc()
            self._remember_failure(i, error)
            raise
        except (ChildCrashed, ChildTimeout, Quarantined) as error:
            # the very files killed a worker: they are not tried once more for each cluster's variables
            _RENDERS.labels("failure").inc()
            self._remember_failure((_family(i), i.revision), Quarantined(f"{i.path or '.'}: {error.message}"))
            raise
        entry = _make_entry(reply, i)
        self._remember(_family(i), entry)
        return entry

    async def _call(self, order: worker.Order) -> worker.Reply:
        deadline_s = self._settings.render_timeout_s + _DEADLINE_MARGIN_S
        answer = await self._workers.call(worker.RENDER, msgspec.msgpack.encode(order), deadline_s=deadline_s)
        _RENDERS.labels("render").inc()
        return msgspec.msgpack.decode(answer, type=worker.Reply)

    def _remember_failure(self, key: Hashable, error: FleetError) -> None:
        if error.reason in _PASSING:
            error.retry = Backoff()
            return
        self._failures[key] = error
        if len(self._failures) > MOST_FAILURES:
            self._failures.popitem(last=False)

    def _remember(self, family: Hashable, entry: _Entry) -> None:
        entries = self._entries.setdefault(family, [])
        entries.insert(0, entry)
        self._entries.move_to_end(family)
        self._bytes += entry.size_bytes
        alike = [known for known in entries if known.used == entry.used]
        for old in alike[MOST_ALIKE:]:
            self._forget(family, old)
        while self._bytes > self._most_bytes and self._entries:
            oldest = next(iter(self._entries))
            self._forget(oldest, self._entries[oldest][-1])

    def _forget(self, family: Hashable, entry: _Entry) -> None:
        self._bytes -= entry.size_bytes
        self._entries[family] = [known for known in self._entries[family] if known is not entry]
        if not self._entries[family]:
            del self._entries[family]


_PASSING = frozenset({"KustomizeMissing", "RenderTimeout", "NotOnTmpfs"})
"""Failures that the machine may get over without a change of the input."""


class _Lookup:
    """What is at paths of one revision; questions that come together are asked together."""

    def __init__(self, workers: Workers, settings: Settings, repository: str, revision: str) -> None:
        self._workers = workers
        self._settings = settings
        self._repository = repository
        self._revision = revision
        self._marks: dict[str, str] = {}
        self._wanted: set[str] = set()
        self._lock = asyncio.Lock()
        self.tool = ""

    async def find(self, paths: Iterable[str]) -> Mapping[str, str]:
        """Return at least the marks of `paths`."""
        wanted = set(paths)
        self._wanted |= wanted
        await asyncio.sleep(0)  # callers that wake in the same turn of the loop join
        async with self._lock:
            if not wanted <= self._marks.keys():
                await self._ask(self._wanted - self._marks.keys())
            self._wanted -= self._marks.keys()
        return self._marks

    async def _ask(self, paths: set[str]) -> None:
        question = worker.Question(
            repository=self._repository,
            revision=self._revision,
            paths=sorted(paths),
            kustomize=self._settings.kustomize,
        )
        payload = msgspec.msgpack.encode(question)
        reply = await self._workers.call(worker.CHECK, payload, deadline_s=self._settings.git_timeout_s)
        answer = msgspec.msgpack.decode(reply, type=worker.Answer)
        self._marks |= answer.marks
        self.tool = answer.tool


def _order(i: RenderInput, settings: Settings, scratch: str, opened: dict[str, bytes]) -> worker.Order:
    return worker.Order(
        repository=i.repository,
        revision=i.revision,
        path=i.path,
        substitute=i.substitute,
        variables=dict(i.variables),
        namespace=i.namespace,
        create_namespace=i.create_namespace,
        digest_key=i.digest_key,
        kustomize=settings.kustomize,
        scratch=scratch,
        timeout_s=settings.render_timeout_s,
        sops=i.sops,
        passthrough=i.passthrough,
        memory=settings.tmpfs,
        opened=opened,
    )


def _reduce(i: RenderInput) -> RenderInput:
    """Drop variables that are not substituted, and bring the rest into one order."""
    variables = tuple(sorted(i.variables)) if i.substitute else ()
    path = i.path.strip("/") if i.path != "." else ""
    return replace(i, path=path, variables=variables, cluster="")


def _family(i: RenderInput) -> Hashable:
    """Return what all revisions and variable sets of one app share."""
    return (i.repository, i.path, i.substitute, i.namespace, i.create_namespace, i.digest_key, i.sops, i.passthrough)


def _make_entry(reply: worker.Reply, i: RenderInput) -> _Entry:
    manifests = tuple(wire.open() for wire in reply.manifests)
    values = dict(i.variables)
    digest, reads = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    for manifest in manifests:
        digest.update(f"{manifest.key}\0".encode() + manifest.digest)
    for path, found in sorted(reply.reads.items()):
        reads.update(f"{path}\0{found}\0".encode())
    return _Entry(
        rendered=Rendered(
            manifests=manifests, digest=digest.hexdigest(), reads=reads.hexdigest(), warnings=tuple(reply.warnings)
        ),
        sealed=reply.sealed,
        reads=reply.reads,
        used={name: values.get(name) for name in reply.used},
        tool=reply.tool,
        size_bytes=sum(len(manifest.body) + 400 for manifest in manifests)
        + sum(map(len, reply.sealed.values()))
        + 1000,
    )
