"""The live-state cache of one cluster: what the watches have shown of the objects that carry our label.

Fed synchronously by watch sinks, read synchronously by plans: there is no await between reading and deciding. An object
costs a few hundred bytes, whatever its size: bodies are assessed at ingestion and dropped.
"""

import asyncio
import math
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from fleet.annotation import HUB, PART_OF, RECONCILE, SSA, parse_flags
from fleet.kube.ownership import (
    FieldSet,
    foldable,
    foreign_additions,
    is_drift_manager,
    lost,
    own_fields,
    owned_digest,
)
from fleet.kube.wire import ManagedEntry, Observed
from fleet.object import DEFAULT_FLAGS, Flags, GroupKind, ObjectKey
from fleet.reconcile.health import Health, Verdict, assess, is_ended

SETTLE_S = 10.0
"""A list may have been taken just before a write whose answer came first: so long the answer counts more."""
_OURS, _DELETING, _ENDED = 1, 2, 4
_REPLICAS = ("f:spec", "f:replicas")


class LiveObject(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One object as last seen. Strings are interned, uids and digests are raw bytes: about 0.5 KB each."""

    uid_bytes: bytes
    rv: int
    owned: bytes
    """Digest of our managedFields entry; empty when we have none."""
    fields: bytes
    """zlib of our entry's fieldsV1, kept to name what was taken when `owned` changes."""
    part_of: str
    bits: int
    foreign: tuple[str, ...] = ()
    """Managers outside any controller's subresource that added fields of their own."""
    foreign_fields: tuple[bytes, ...] = ()
    """For each of them, zlib of its fieldsV1."""
    scaled_by: str = ""
    """Manager that holds the replicas by the `scale` subresource."""
    opted_out_by: str = ""
    """Who set the annotation that stops reconciling, and when."""
    flags: Flags = DEFAULT_FLAGS
    verdict: Verdict | None = None
    """Health as of `rv`; None for kinds whose status does not matter."""
    generation: int = 0

    @property
    def uid(self) -> str:
        """The uid in its usual form."""
        return unpack_uid(self.uid_bytes)

    @property
    def ours(self) -> bool:
        """All three marks of design §3: our labels, our `Apply` entry, no controller owner."""
        return bool(self.bits & _OURS)

    @property
    def deleting(self) -> bool:
        """Has a deletionTimestamp."""
        return bool(self.bits & _DELETING)

    @property
    def ended(self) -> bool:
        """A Job that is Complete or Failed by its own word."""
        return bool(self.bits & _ENDED)

    def own_fields(self) -> FieldSet | None:
        """Unpack the fields we owned at `rv`."""
        return FieldSet.parse(zlib.decompress(self.fields)) if self.fields else None

    def adds(self, manager: str, ignored: Sequence[str]) -> bool:
        """Tell whether a foreign manager added something beside us, apart from the ignored JSON pointers."""
        own = self.own_fields()
        if own is None or manager not in self.foreign:
            return False
        theirs = FieldSet.parse(zlib.decompress(self.foreign_fields[self.foreign.index(manager)]))
        return not foldable(theirs, ignored).difference(own).is_empty


def pack_uid(uid: str) -> bytes:
    """Pack a uid into 16 bytes; one that is no UUID keeps its text.

    >>> unpack_uid(pack_uid("0f3a2b1c-0000-4000-8000-00000000beef"))
    '0f3a2b1c-0000-4000-8000-00000000beef'
    """
    digits = uid.replace("-", "")
    try:
        packed = bytes.fromhex(digits)
    except ValueError:
        packed = b""
    if len(packed) == 16 and unpack_uid(packed) == uid:
        return packed
    text = uid.encode()
    return text + b"\0" if len(text) == 16 else text


def unpack_uid(packed: bytes) -> str:
    """Undo `pack_uid`."""
    if len(packed) != 16:
        return packed.removesuffix(b"\0").decode()
    digits = packed.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def foreign_managers(managed: Sequence[ManagedEntry]) -> dict[str, FieldSet]:
    """Find the managers that hold fields we do not, outside subresources: candidates for additive drift."""
    found: dict[str, FieldSet] = {}
    for entry in managed:
        if entry.operation != "Update" or entry.subresource or entry.manager == "fleet-preexisting":
            continue
        if not foreign_additions(managed, (entry.manager,)).is_empty:
            held = found.get(entry.manager, FieldSet({}))
            found[sys.intern(entry.manager)] = held.union(FieldSet.parse(entry.fields))
    return found


def scaler(managed: Sequence[ManagedEntry]) -> str:
    """Name the manager that holds the replicas by the `scale` subresource; empty for none."""
    holding = (e.manager for e in managed if e.subresource == "scale" and _REPLICAS in FieldSet.parse(e.fields))
    return sys.intern(next(holding, ""))


def summarise(observed: Observed, hub_id: str, now: datetime) -> LiveObject:
    """Reduce what an API server showed to what decisions need. Pure."""
    own = own_fields(observed.managed)
    ours = own is not None and not observed.controller and observed.labels.get(HUB) == hub_id
    flags = parse_flags(observed.annotations)
    foreign = foreign_managers(observed.managed)
    body = msgspec.json.decode(observed.body) if observed.body else None
    ended = body is not None and observed.key.kind == "Job" and is_ended(body)
    return LiveObject(
        uid_bytes=pack_uid(observed.uid),
        rv=observed.rv,
        owned=owned_digest(observed.managed) if own is not None else b"",
        fields=zlib.compress(own.serialise(), 1) if own is not None else b"",
        part_of=sys.intern(observed.labels.get(PART_OF, "")),
        bits=(_OURS if ours else 0) | (_DELETING if observed.deleting else 0) | (_ENDED if ended else 0),
        foreign=tuple(sorted(foreign)),
        foreign_fields=tuple(zlib.compress(foreign[name].serialise(), 1) for name in sorted(foreign)),
        scaled_by=scaler(observed.managed),
        opted_out_by="" if flags.reconcile else _who_opted_out(observed.managed),
        flags=DEFAULT_FLAGS if flags == DEFAULT_FLAGS else flags,
        verdict=assess(body, now) if body is not None else _metadata_verdict(observed),
        generation=observed.generation,
    )


def _who_opted_out(managed: Sequence[ManagedEntry]) -> str:
    for name in (*RECONCILE, *SSA):
        for entry in managed:
            if ("f:metadata", "f:annotations", f"f:{name}") in FieldSet.parse(entry.fields):
                return f"{entry.manager} at {entry.time}" if entry.time else entry.manager
    return ""


def _metadata_verdict(observed: Observed) -> Verdict | None:
    if not observed.deleting:
        return None
    waiting = f" on finalizers {', '.join(observed.finalizers)}" if observed.finalizers else ""
    return Verdict(Health.TERMINATING, "Terminating", f"being deleted, waiting{waiting}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPath:
    """A field that is not as we left it: taken from us, or added beside ours."""

    path: str
    manager: str
    """Empty when nobody holds it: it was removed."""
    at: str
    added: bool
    seen_at: float = field(default=0.0, compare=False)
    """Loop time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What watches told of one object's drift. `seen_at` is loop time; no paths: it was deleted."""

    seen_at: float
    paths: tuple[DriftPath, ...]

    def within(self, drift_managers: Sequence[str]) -> "Drift":
        """Leave out what others than drift managers added: controllers do that all the time, and it stays."""
        kept = tuple(p for p in self.paths if not p.added or is_drift_manager(p.manager, drift_managers))
        return Drift(seen_at=min(p.seen_at for p in kept), paths=kept) if kept else self


OnChange = Callable[[ObjectKey, LiveObject | None, LiveObject | None], None]
"""Told (key, before, after) at each change; `after` None = gone from the selection."""


class Live:
    """The objects of one cluster that carry our label, by key."""

    def __init__(self, on_change: OnChange) -> None:
        self._objects: dict[ObjectKey, LiveObject] = {}
        self._synced: set[GroupKind] = set()
        self._fresh: dict[GroupKind, set[ObjectKey]] = {}
        self._waiters: dict[ObjectKey, list[asyncio.Future[None]]] = {}
        self._drift: dict[ObjectKey, Drift] = {}
        self._ended: dict[ObjectKey, str] = {}
        self._written: dict[ObjectKey, float] = {}
        self._on_change = on_change
        self.schema_changed_at = -math.inf
        """Loop time of our last change to a definition: schema errors soon after are the old schema speaking."""

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, key: ObjectKey) -> LiveObject | None:
        """Return the object as last seen."""
        return self._objects.get(key)

    def of_set(self, part_of: str) -> Iterator[tuple[ObjectKey, LiveObject]]:
        """Iterate over the objects of one ApplySet."""
        return ((key, live) for key, live in self._objects.items() if live.part_of == part_of)

    def is_synced(self, kind: GroupKind) -> bool:
        """Tell whether the watch of this kind has shown everything there is."""
        return kind in self._synced

    def restart(self, kind: GroupKind) -> None:
        """Begin a fresh list: what it does not show is gone at `sync`. The old view stays readable meanwhile."""
        self._fresh[kind] = set()

    def sync(self, kind: GroupKind) -> bool:
        """End a fresh list: drop what it did not show; return whether it must be listed again after `SETTLE_S`.

        What was written a moment ago stays: the list may be older than the write, or the object deleted in between.
        """
        fresh = self._fresh.pop(kind, None)
        self._synced.add(kind)
        now = asyncio.get_running_loop().time()
        self._written = {key: at for key, at in self._written.items() if now - at < SETTLE_S}
        missing = [k for k in self._objects if k.group_kind == kind and k not in fresh] if fresh is not None else []
        for key in missing:
            if key not in self._written:
                self.drop(key)
        return any(key in self._written for key in missing)

    def forget_kind(self, kind: GroupKind) -> None:
        """Stop knowing a kind: its watch was closed. Nothing is reported as gone."""
        self._synced.discard(kind)
        self._fresh.pop(kind, None)
        for key in {k for k in (*self._objects, *self._drift, *self._ended) if k.group_kind == kind}:
            self._objects.pop(key, None)
            self._drift.pop(key, None)
            self._ended.pop(key, None)

    def unsync(self, kind: GroupKind) -> None:
        """Note that the watch of a kind is broken: absence proves nothing until it is synced again."""
        self._synced.discard(kind)

    def see(self, observed: Observed, hub_id: str, now: datetime) -> None:
        """Take in what a watch showed; what it took from us or added beside us is noted for reports."""
        before = self._objects.get(observed.key)
        live = self._echo(observed, before, now) or summarise(observed, hub_id, now)
        if before is not None and live.rv > before.rv:
            self._note_drift(observed, before, live)
        self.put(observed.key, live)
        if observed.body and live.verdict is not None and live.verdict.recheck_at is not None:
            delay_s = (live.verdict.recheck_at - now).total_seconds()
            loop = asyncio.get_running_loop()
            loop.call_later(delay_s, self._assess_again, observed.key, live, observed.body, live.verdict.recheck_at)

    def _echo(self, observed: Observed, before: LiveObject | None, now: datetime) -> LiveObject | None:
        """Recognise a state already summarised, as after each write of ours: only its health may be news.

        Not in a fresh list: after a restored backup one version may mean another state. And not a Job, whose end counts.
        """
        if before is None or not 0 < before.rv == observed.rv or before.uid != observed.uid:
            return None
        if observed.key.kind == "Job" or observed.key.group_kind in self._fresh:
            return None
        if observed.body is None:
            return before
        return msgspec.structs.replace(before, verdict=assess(msgspec.json.decode(observed.body), now))

    def _assess_again(self, key: ObjectKey, live: LiveObject, body: bytes, now: datetime) -> None:
        """Judge an object once more when time alone may have changed its health."""
        known = self._objects.get(key)
        if known is not None and known.rv == live.rv and known.verdict == live.verdict:
            self.revise(key, assess(msgspec.json.decode(body), now))

    def _note_drift(self, observed: Observed, before: LiveObject, live: LiveObject) -> None:
        paths: list[DriftPath] = []
        now = asyncio.get_running_loop().time()
        if before.owned and live.owned != before.owned:
            fields = before.own_fields()
            taken = lost(fields, observed.managed) if fields is not None else []
            paths += [DriftPath(path=t.path, manager=t.manager, at=t.at, added=False, seen_at=now) for t in taken]
        if live.foreign != before.foreign:
            for name in live.foreign:
                added = foreign_additions(observed.managed, (name,)).paths()
                known = {p.path for p in paths}
                paths += [
                    DriftPath(path=path, manager=name, at="", added=True, seen_at=now)
                    for path in added
                    if path not in known
                ]
        if paths:
            drift = self._drift.get(observed.key)
            at = drift.seen_at if drift else now
            earlier = drift.paths if drift else ()
            self._drift[observed.key] = Drift(seen_at=at, paths=(*earlier, *(p for p in paths if p not in earlier)))

    def drift(self, key: ObjectKey) -> "Drift | None":
        """Return what is known of an object's drift since it was last as we left it."""
        return self._drift.get(key)

    def forget_drift(self, key: ObjectKey, rv: int) -> None:
        """Note that the object was as we want it at `rv`; what a watch has shown since then is kept."""
        live = self._objects.get(key)
        if live is None or live.rv <= rv:
            self._drift.pop(key, None)

    def ended(self, key: ObjectKey) -> str:
        """Return the uid of the last Job of this name that was seen done; empty for none."""
        return self._ended.get(key, "")

    def put(self, key: ObjectKey, live: LiveObject, *, written: bool = False) -> None:
        """Store what a watch or (`written`) the answer to a write showed; an older state never replaces a newer one.

        Except once in a fresh list: what that shows first is what there is, even if the cluster went back in time.
        """
        now = asyncio.get_running_loop().time()
        if written:
            self._written[key] = now
        before, fresh = self._objects.get(key), self._fresh.get(key.group_kind)
        first = fresh is not None and key not in fresh and now - self._written.get(key, -math.inf) >= SETTLE_S
        if fresh is not None:
            fresh.add(key)
        if before is not None and not first and 0 < live.rv < before.rv:
            return
        if before is not None and live.rv == before.rv and live.verdict is None and before.verdict is not None:
            return  # the response of a metadata write at a state already seen whole
        self._objects[key] = live
        if live.ended:
            self._ended[key] = live.uid
        self._tell(key, before, live)

    def drop(self, key: ObjectKey, rv: int = 0) -> None:
        """Remove an object that left the selection or was deleted, at `rv`: late news of an earlier one change nothing."""
        before = self._objects.get(key)
        if before is None or 0 < rv < before.rv:
            return
        del self._objects[key]
        self._drift[key] = Drift(seen_at=asyncio.get_running_loop().time(), paths=())
        self._tell(key, before, None)

    def forget(self, key: ObjectKey, uid: str) -> None:
        """Remove an object that we deleted or let go ourselves: that is no drift."""
        before = self._objects.get(key)
        if before is not None and before.uid == uid:
            del self._objects[key]
            self._tell(key, before, None)
        self._written.pop(key, None)
        self._drift.pop(key, None)

    def revise(self, key: ObjectKey, verdict: Verdict) -> None:
        """Replace an object's health by what its pods tell; the object itself did not change."""
        before = self._objects.get(key)
        if before is not None and before.verdict != verdict:
            after = msgspec.structs.replace(before, verdict=verdict)
            self._objects[key] = after
            self._tell(key, before, after)

    def _tell(self, key: ObjectKey, before: LiveObject | None, after: LiveObject | None) -> None:
        for waiter in self._waiters.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)
        self._on_change(key, before, after)

    async def wait(self, key: ObjectKey, ready: Callable[[LiveObject | None], bool], timeout_s: float) -> bool:
        """Wait until the object satisfies `ready`; False when `timeout_s` passed first. Costs no polling."""
        try:
            async with asyncio.timeout(timeout_s):
                while not ready(self._objects.get(key)):
                    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiters.setdefault(key, []).append(waiter)
                    await waiter
        except TimeoutError:
            return False
        return True
