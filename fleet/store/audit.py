"""The audit log: who did what and why, what it changed, and what came of it. Rows are only ever added.

An act is two rows: one before it is carried out, one with its result. Each row's hash covers the row and the hash of the
row before it, so that a row that is altered, taken out or put in between shows.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

import msgspec

from fleet.clock import Clock
from fleet.object import encode_canonical
from fleet.store.database import Database, Row, Statement
from fleet.store.record import read_some_at, write_at

PAGE = 200
"""Rows checked between two turns of the loop: more would hold it for too long."""
_HEAD = "audit_head"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing that somebody did. `before` and `after` are what it changes, by name."""

    action: str
    actor: str
    cluster: str = ""
    app: str = ""
    subject: str = ""
    """What it was done to, in words, where the names of cluster and app do not say it."""
    reason: str = ""
    """What the actor said."""
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An act as stored, with its result."""

    seq: int
    at: datetime
    act: Act
    hash: str
    """64 hex digits, of the row written before the act."""
    result: str = ""
    """`done`, or what failed; empty while the act is under way, or when the hub ended before it did."""
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a walk along the chain found. `broken` is the number of the first row that is not as it was written; 0 = none."""

    rows: int
    head: str
    """`SEQ:HASH` of the last row; empty without rows."""
    broken: int = 0
    message: str = ""


_FIELDS = ("seq", "at", "act", "actor", "action", "cluster", "app", "subject", "reason", "was", "becomes", "result")
_COLUMNS = ", ".join(_FIELDS)
_SHOWN = ", ".join(f"a.{name}" for name in (*_FIELDS, "hash"))


def chain(previous: str, values: Sequence[object]) -> str:
    """Return the hash of a row: of the hash before it and its own values, in the order of the columns. Pure."""
    return hashlib.sha256(previous.encode() + encode_canonical(list(values))).hexdigest()


class AuditStore:
    """The audit log over a Database. One per data directory: it alone knows the end of the chain."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = asyncio.Lock()
        self._head: tuple[int, str] | None = None

    async def begin(self, act: Act) -> int:
        """Store what is about to be done; returns its number. Raises: StoreError; then it must not be done."""
        return await self._append(0, act, "")

    async def finish(self, seq: int, act: Act, result: str) -> None:
        """Store what came of an act. Raises: StoreError."""
        await self._append(seq, replace(act, reason="", before={}), result)

    async def _append(self, begun: int, act: Act, result: str) -> int:
        async with self._lock:
            last, previous = self._head or await self._load_head()
            seq, at = last + 1, write_at(self._clock.now())
            texts = asdict(act)
            was, becomes = (encode_canonical(dict(texts.pop(name))).decode() for name in ("before", "after"))
            values = (
                seq,
                at,
                begun,
                *(texts[name] for name in ("actor", "action", "cluster", "app", "subject", "reason")),
                was,
                becomes,
                result,
            )
            digest = chain(previous, values)
            self._head = None  # whether a write that fails happened is not known
            await self._database.write(
                [
                    Statement(
                        f"INSERT INTO audit ({_COLUMNS}, hash) VALUES ({', '.join('?' * (len(values) + 1))})",
                        (*values, digest),
                    ),
                    Statement(
                        "INSERT INTO meta (name, value) VALUES (?, ?)"
                        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                        (_HEAD, f"{seq}:{digest}"),
                    ),
                ]
            )
            self._head = (seq, digest)
            return seq

    async def _load_head(self) -> tuple[int, str]:
        """Read the end of the chain; after rows were cut off the chain goes on where it was, and the gap shows."""
        noted = await self._database.read("SELECT value FROM meta WHERE name = ?", (_HEAD,))
        last = await self._database.read("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
        if not noted:
            return (last[0][0], last[0][1]) if last else (0, "")
        seq, _, digest = str(noted[0][0]).partition(":")
        if last and last[0][0] > int(seq):
            return last[0][0], last[0][1]
        return int(seq), digest

    async def list(
        self,
        *,
        since: datetime | None = None,
        after: int = -1,
        limit: int = 100,
        actor: str = "",
        app: str = "",
        cluster: str = "",
    ) -> Sequence[Recorded]:
        """Read acts, oldest first: those after a number or a time, or, with neither, the newest."""
        wanted: list[tuple[str, object]] = [("a.actor = ?", actor), ("a.app = ?", app), ("a.cluster = ?", cluster)]
        wanted += [("a.at >= ?", write_at(since)), ("a.seq > ?", after if after >= 0 else "")]
        given = [(test, value) for test, value in wanted if value != ""]
        newest = since is None and after < 0
        where = " AND ".join(["a.act = 0", *(test for test, _ in given)])
        rows = await self._database.read(
            f"SELECT {_SHOWN}, r.result, r.at, r.becomes FROM audit a LEFT JOIN audit r ON r.act = a.seq"
            f" WHERE {where} ORDER BY a.seq {'DESC' if newest else 'ASC'} LIMIT ?",
            (*(value for _, value in given), limit),
        )
        return [_read(row) for row in (reversed(rows) if newest else rows)]

    async def verify(self, known: str = "") -> Verdict:
        """Walk the whole chain. `known` is the head of an earlier walk (`SEQ:HASH`), which must still be in it."""
        seq, previous, seen = 0, "", not known
        while True:
            rows = await self._database.read(
                f"SELECT {_COLUMNS}, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (seq, PAGE)
            )
            for *values, digest in rows:
                if (fault := _find_fault(seq, previous, values, digest)) is not None:
                    return Verdict(rows=seq, head=_write_head(seq, previous), broken=fault[0], message=fault[1])
                seq, previous = values[0], digest
                seen = seen or _write_head(seq, digest) == known
            if not rows:
                return await self._verify_end(seq, previous, known, seen=seen)
            await asyncio.sleep(0)

    async def _verify_end(self, seq: int, digest: str, known: str, *, seen: bool) -> Verdict:
        head = _write_head(seq, digest)
        noted = await self._database.read("SELECT value FROM meta WHERE name = ?", (_HEAD,))
        ended = str(noted[0][0]) if noted else ""
        if ended != head and int(ended.partition(":")[0] or 0) >= seq:
            return Verdict(
                rows=seq, head=head, broken=seq + 1, message=f"the log ended at {ended}; what came after {seq} is gone"
            )
        if not seen:
            number = int(known.partition(":")[0]) if known.partition(":")[0].isdigit() else seq
            return Verdict(
                rows=seq, head=head, broken=max(number, 1), message=f"{known} is not in the chain: it was written anew"
            )
        return Verdict(rows=seq, head=head)


def _find_fault(seq: int, previous: str, values: Sequence[object], digest: str) -> tuple[int, str] | None:
    if values[0] != seq + 1:
        return seq + 1, f"row {seq + 1} is missing"
    if chain(previous, values) != digest:
        return seq + 1, f"row {seq + 1} is not as it was written"
    return None


def _write_head(seq: int, digest: str) -> str:
    return f"{seq}:{digest}" if seq else ""


def _read(row: Row) -> Recorded:
    seq, at, _, actor, action, cluster, app, subject, reason, was, becomes, _, digest, result, ended, made = row
    return Recorded(
        seq=seq,
        at=read_some_at(at),
        hash=digest,
        result=result or "",
        finished_at=read_some_at(ended) if ended else None,
        act=Act(
            action=action,
            actor=actor,
            cluster=cluster,
            app=app,
            subject=subject,
            reason=reason,
            before=msgspec.json.decode(was),
            after=msgspec.json.decode(made or becomes),
        ),
    )
