"""What releases were made of, per target: the manifests' bytes, what rendered them, and when what was applied."""

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from fleet.clock import Clock
from fleet.object import Manifest, TargetId
from fleet.store.database import Database, Row, Statement
from fleet.store.record import read_at, read_some_at, write_at

KEPT = 10
"""Good releases per target whose bytes are kept."""
CHUNK_BYTES = 64 * 1024
"""How much is compressed between two looks at the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One release as rendered for one target. `inputs` is JSON: what rendered it."""

    target: TargetId
    number: int
    digest: str
    inputs: str
    applied_at: datetime | None = None
    """When it was first fully applied; None = never: not a good release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedRow:
    """One change of what a target has; release 0 = emptied."""

    at: datetime
    target: TargetId
    release: int
    revision: str


_MADE = "app, cluster, number, digest, inputs, applied_at"


def _read_made(row: Row) -> Made:
    return Made(
        target=TargetId(row[1], row[0]), number=row[2], digest=row[3], inputs=row[4], applied_at=read_at(row[5])
    )


_OLD = """
app = ? AND cluster = ?
    AND number NOT IN (SELECT number FROM release_target WHERE app = ? AND cluster = ? ORDER BY number DESC LIMIT ?)
    AND number NOT IN (SELECT number FROM release_target WHERE app = ? AND cluster = ? AND applied_at <> ''
        ORDER BY number DESC LIMIT ?)
    AND number NOT IN (SELECT release FROM hold WHERE app = ?)
"""
_DROP_RENDERS = f"""
DELETE FROM render WHERE digest IN (SELECT digest FROM release_target WHERE {_OLD})
    AND (SELECT count(*) FROM release_target WHERE digest = render.digest) = 1
"""
_SWEEP = Statement("DELETE FROM render WHERE NOT EXISTS (SELECT 1 FROM release_target WHERE digest = render.digest)")


def _prune(target: TargetId) -> list[Statement]:
    """Drop what is older than what is kept of a target, and the renders that nothing else refers to."""
    name = (target.app, target.cluster)
    old = (*name, *name, KEPT, *name, KEPT, target.app)
    return [Statement(_DROP_RENDERS, old), Statement(f"DELETE FROM release_target WHERE {_OLD}", old)]


class ArchiveStore:
    """Renders, what releases were per target, and the history of what was applied, over a Database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def load_newest(self) -> dict[TargetId, Made]:
        """Read the newest release of every target, whether or not it has it; drop renders that nothing refers to."""
        await self._database.write([_SWEEP])
        rows = await self._database.read(
            f"SELECT {_MADE} FROM release_target AS r WHERE number ="
            " (SELECT max(number) FROM release_target WHERE app = r.app AND cluster = r.cluster)"
        )
        return {made.target: made for made in map(_read_made, rows)}

    async def list(self, app: str) -> Sequence[Made]:
        """List what is kept of an app, newest release first."""
        rows = await self._database.read(
            f"SELECT {_MADE} FROM release_target WHERE app = ? ORDER BY number DESC, cluster", (app,)
        )
        return [_read_made(row) for row in rows]

    async def get(self, target: TargetId, number: int) -> Made | None:
        """Read one release of one target."""
        rows = await self._database.read(
            f"SELECT {_MADE} FROM release_target WHERE cluster = ? AND app = ? AND number = ?", (*target, number)
        )
        return _read_made(rows[0]) if rows else None

    async def revisions(self) -> dict[str, frozenset[str]]:
        """Read the commits that kept releases were made from, by repository."""
        rows = await self._database.read(
            "SELECT DISTINCT r.repository, r.revision FROM release AS r"
            " JOIN release_target AS t ON t.app = r.app AND t.number = r.number"
        )
        found: dict[str, set[str]] = {}
        for repository, revision in rows:
            found.setdefault(repository, set()).add(revision)
        return {repository: frozenset(revisions) for repository, revisions in found.items()}

    async def save_made(self, rows: Sequence[Made]) -> None:
        """Note what a release is for targets, and drop what is older than what is kept. Idempotent."""
        statements = [
            Statement(
                f"INSERT INTO release_target ({_MADE}) VALUES (?, ?, ?, ?, ?, '')"
                " ON CONFLICT (app, cluster, number) DO UPDATE SET digest = excluded.digest, inputs = excluded.inputs",
                (m.target.app, m.target.cluster, m.number, m.digest, m.inputs),
            )
            for m in rows
        ]
        await self._database.write([*statements, *(s for m in rows for s in _prune(m.target))])

    async def known_renders(self, digests: Sequence[str]) -> frozenset[str]:
        """Say which of these renders are stored."""
        rows = await self._database.read(
            f"SELECT digest FROM render WHERE digest IN ({','.join('?' * len(digests))})", tuple(digests)
        )
        return frozenset(row[0] for row in rows)

    async def save_render(self, digest: str, manifests: Sequence[Manifest]) -> None:
        """Store manifests, compressed; of those with secret values only what they are, never their bytes. Idempotent."""
        without = tuple(replace(m, body=b"") if m.sensitive else m for m in manifests)
        packed = await _compress(msgspec.msgpack.encode(without))
        await self._database.write(
            [
                Statement(
                    "INSERT INTO render (digest, manifests) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING",
                    (digest, packed),
                )
            ]
        )

    async def load_render(self, digest: str) -> tuple[Manifest, ...] | None:
        """Read manifests; sensitive ones come without their bytes. None when they are not kept."""
        rows = await self._database.read("SELECT manifests FROM render WHERE digest = ?", (digest,))
        if not rows:
            return None
        return msgspec.msgpack.decode(zlib.decompress(bytes(rows[0][0])), type=tuple[Manifest, ...])

    async def forget(self, target: TargetId) -> None:
        """Drop what was kept of a target that left; the history of what was applied stays."""
        await self._database.write(
            [Statement("DELETE FROM release_target WHERE cluster = ? AND app = ?", tuple(target)), _SWEEP]
        )

    async def note_applied(self, target: TargetId, release: int, revision: str) -> None:
        """Note in the history that a target has everything of a release now; release 0 = that it was emptied.

        With it goes what is older than what is kept.
        """
        now = write_at(self._clock.now())
        await self._database.write(
            [
                Statement(
                    "UPDATE release_target SET applied_at = ?"
                    " WHERE cluster = ? AND app = ? AND number = ? AND applied_at = ''",
                    (now, *target, release),
                ),
                Statement(
                    "INSERT INTO applied (at, cluster, app, release, revision) VALUES (?, ?, ?, ?, ?)",
                    (now, *target, release, revision),
                ),
                *_prune(target),
            ]
        )

    async def applied_at(self, at: datetime) -> Sequence[AppliedRow]:
        """Say what every target had at a moment, by cluster and app; those that had nothing are left out."""
        rows = await self._database.read(
            "SELECT at, cluster, app, release, revision FROM applied AS a WHERE release > 0 AND id ="
            " (SELECT max(id) FROM applied WHERE cluster = a.cluster AND app = a.app AND at <= ?)"
            " ORDER BY cluster, app",
            (write_at(at),),
        )
        return [
            AppliedRow(at=read_some_at(r[0]), target=TargetId(r[1], r[2]), release=r[3], revision=r[4]) for r in rows
        ]


async def _compress(data: bytes) -> bytes:
    """Compress in pieces, so that a large app does not hold up the event loop."""
    packer = zlib.compressobj(level=1)
    parts = []
    for start in range(0, len(data), CHUNK_BYTES):
        parts.append(packer.compress(data[start : start + CHUNK_BYTES]))
        await asyncio.sleep(0)
    return b"".join([*parts, packer.flush()])
