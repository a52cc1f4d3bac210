"""Sealing keys as rows: public halves, encrypted private halves, where each is in its life, and what backups hold."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fleet.clock import Clock
from fleet.store.database import Database, Row, Statement
from fleet.store.record import read_at, read_some_at, write_at


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterRow:
    """The master key that everything is encrypted under: never the key itself."""

    id: str
    source: str
    salt: bytes
    verifier: bytes
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One sealing key of one cluster."""

    cluster: str
    kid: str
    uid: str
    algorithm: str
    public: bytes
    age_public: bytes
    private: bytes | None = field(repr=False)
    """Encrypted; None once destroyed."""
    master: str
    state: str
    origin: str
    """`made` or `imported`."""
    created_at: datetime
    renew_at: datetime
    changed_at: datetime
    """When it got its state."""
    backed_up_at: datetime | None
    """When a backup that holds it was confirmed."""
    reason: str
    replaced_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerRow:
    """The Ed25519 key that signs the bundle of public keys; its private half is encrypted."""

    public: bytes
    private: bytes = field(repr=False)
    master: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRow:
    """A backup that was made; it counts once it is confirmed."""

    digest: str
    made_at: datetime
    confirmed_at: datetime | None
    place: str
    holds: frozenset[tuple[str, str]]
    """(cluster, kid)."""


_KEY = (
    "cluster, kid, uid, algorithm, public, age_public, private, master, state, origin, created_at, renew_at, changed_at,"
    " backed_up_at, reason, replaced_by"
)
_MARKS = ", ".join("?" * len(_KEY.split(",")))
_MASTER = "id, source, salt, verifier, created_at"
_SIGNER = "public, private, master, created_at"


class KeyStore:
    """Keys over a Database. Statements are given out, so that several changes are one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def load(self) -> Sequence[KeyRow]:
        """Read every key, oldest first."""
        rows = await self._database.read(f"SELECT {_KEY} FROM seal_key ORDER BY created_at, cluster, algorithm, kid")
        return [_read_key(row) for row in rows]

    async def master(self) -> MasterRow | None:
        """Read which master key everything is encrypted under."""
        rows = await self._database.read(f"SELECT {_MASTER} FROM master_key ORDER BY created_at DESC LIMIT 1")
        return _read_master(rows[0]) if rows else None

    async def signer(self) -> SignerRow | None:
        """Read the signing key."""
        rows = await self._database.read(f"SELECT {_SIGNER} FROM signing_key")
        return (
            SignerRow(public=r[0], private=r[1], master=r[2], created_at=read_some_at(r[3]))
            if (r := _one(rows))
            else None
        )

    async def backup(self, digest: str) -> BackupRow | None:
        """Read a backup by its digest."""
        rows = await self._database.read(
            "SELECT digest, made_at, confirmed_at, place, holds FROM key_backup WHERE digest = ?", (digest,)
        )
        return _read_backup(rows[0]) if rows else None

    async def dump(self) -> dict[str, list[dict[str, object]]]:
        """Read every row that a backup holds as it is, by table: column names and values."""
        tables = {"master_key": _MASTER, "seal_key": _KEY, "signing_key": _SIGNER}
        return {
            table: [
                dict(zip(columns.split(", "), row, strict=True))
                for row in await self._database.read(f"SELECT {columns} FROM {table}")
            ]
            for table, columns in tables.items()
        }

    def load_dump(self, rows: Mapping[str, Sequence[Mapping[str, object]]]) -> list[Statement]:
        """Return the statements that put rows of a backup back, in place of the master and signing keys there are."""
        return [
            Statement("DELETE FROM master_key"),
            Statement("DELETE FROM signing_key"),
            *(
                Statement(
                    f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
                    " ON CONFLICT DO NOTHING",
                    tuple(row.values()),
                )
                for table in ("master_key", "seal_key", "signing_key")
                for row in rows[table]
            ),
        ]

    async def run(self, statements: Iterable[Statement]) -> None:
        """Carry statements out as one transaction. Raises: StoreError, ExpectationFailed; then nothing was done."""
        await self._database.write(list(statements))

    async def scrub(self) -> None:
        """Let nothing that was deleted or replaced be found in the database's files. Slow."""
        await self._database.scrub()

    def insert(self, key: KeyRow) -> Statement:
        """Return the statement that adds a key; one of the same cluster and kid stays as it is."""
        return Statement(
            f"INSERT INTO seal_key ({_KEY}) VALUES ({_MARKS}) ON CONFLICT (cluster, kid) DO NOTHING", _write_key(key)
        )

    def set_state(self, key: KeyRow, state: str, *, reason: str = "", replaced_by: str = "") -> Statement:
        """Return the statement that moves a key on, if it is still where it was.

        A backup from before a compromise does not count for the key any more: it would bring it back as it was.
        """
        return Statement(
            "UPDATE seal_key SET state = ?, changed_at = ?, reason = ?, replaced_by = ?,"
            " backed_up_at = CASE ? WHEN 'compromised' THEN '' ELSE backed_up_at END"
            " WHERE cluster = ? AND kid = ? AND state = ?",
            (
                state,
                write_at(self._clock.now()),
                reason,
                replaced_by or key.replaced_by,
                state,
                key.cluster,
                key.kid,
                key.state,
            ),
            expect=1,
        )

    def destroy(self, key: KeyRow, *, reason: str) -> Statement:
        """Return the statement that forgets the private half of a retired or compromised key."""
        return Statement(
            "UPDATE seal_key SET state = 'destroyed', private = NULL, changed_at = ?, reason = ?"
            " WHERE cluster = ? AND kid = ? AND state = ?",
            (write_at(self._clock.now()), reason, key.cluster, key.kid, key.state),
            expect=1,
        )

    def rebind(self, old: KeyRow, new: KeyRow) -> Statement:
        """Return the statement that gives a key its new name, uid, master key and encryption."""
        return Statement(
            "UPDATE seal_key SET cluster = ?, uid = ?, private = ?, master = ? WHERE cluster = ? AND kid = ?"
            " AND master = ? AND private IS ?",
            (new.cluster, new.uid, new.private, new.master, old.cluster, old.kid, old.master, old.private),
            expect=1,
        )

    def put_master(self, master: MasterRow) -> Statement:
        """Return the statement that adds a master key."""
        return Statement(
            f"INSERT INTO master_key ({_MASTER}) VALUES (?, ?, ?, ?, ?)",
            (master.id, master.source, master.salt, master.verifier, write_at(master.created_at)),
        )

    def drop_masters(self, *, but: str) -> Statement:
        """Return the statement that forgets every other master key."""
        return Statement("DELETE FROM master_key WHERE id <> ?", (but,))

    def put_signer(self, signer: SignerRow) -> Statement:
        """Return the statement that sets the signing key."""
        return Statement(
            f"INSERT INTO signing_key (id, {_SIGNER}) VALUES (1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " public = excluded.public, private = excluded.private, master = excluded.master,"
            " created_at = excluded.created_at",
            (signer.public, signer.private, signer.master, write_at(signer.created_at)),
        )

    def put_backup(self, backup: BackupRow) -> Statement:
        """Return the statement that notes a backup."""
        holds = json.dumps(sorted(backup.holds))
        return Statement(
            "INSERT INTO key_backup (digest, made_at, confirmed_at, place, holds) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (digest) DO UPDATE SET place = excluded.place",
            (backup.digest, write_at(backup.made_at), write_at(backup.confirmed_at), backup.place, holds),
        )

    def confirm(self, backup: BackupRow, place: str) -> list[Statement]:
        """Return the statements that let a backup count, for itself and for every key it holds."""
        now = write_at(self._clock.now())
        return [
            Statement(
                "UPDATE key_backup SET confirmed_at = ?, place = ? WHERE digest = ?",
                (now, place, backup.digest),
                expect=1,
            ),
            *(
                Statement(
                    "UPDATE seal_key SET backed_up_at = ? WHERE cluster = ? AND kid = ? AND backed_up_at = ''",
                    (now, cluster, kid),
                )
                for cluster, kid in sorted(backup.holds)
            ),
        ]

    def forget_backups(self) -> list[Statement]:
        """Return the statements after which no backup counts any more: those made open with another master key."""
        return [Statement("DELETE FROM key_backup"), Statement("UPDATE seal_key SET backed_up_at = ''")]


def _one(rows: Sequence[Row]) -> Row | None:
    return rows[0] if rows else None


def _read_master(row: Row) -> MasterRow:
    return MasterRow(id=row[0], source=row[1], salt=row[2], verifier=row[3], created_at=read_some_at(row[4]))


def _read_key(row: Row) -> KeyRow:
    return KeyRow(
        cluster=row[0],
        kid=row[1],
        uid=row[2],
        algorithm=row[3],
        public=row[4],
        age_public=row[5],
        private=row[6],
        master=row[7],
        state=row[8],
        origin=row[9],
        created_at=read_some_at(row[10]),
        renew_at=read_some_at(row[11]),
        changed_at=read_some_at(row[12]),
        backed_up_at=read_at(row[13]),
        reason=row[14],
        replaced_by=row[15],
    )


def _write_key(key: KeyRow) -> tuple[object, ...]:
    return (
        key.cluster,
        key.kid,
        key.uid,
        key.algorithm,
        key.public,
        key.age_public,
        key.private,
        key.master,
        key.state,
        key.origin,
        write_at(key.created_at),
        write_at(key.renew_at),
        write_at(key.changed_at),
        write_at(key.backed_up_at),
        key.reason,
        key.replaced_by,
    )


def _read_backup(row: Row) -> BackupRow:
    return BackupRow(
        digest=row[0],
        made_at=read_some_at(row[1]),
        confirmed_at=read_at(row[2]),
        place=row[3],
        holds=frozenset((str(cluster), str(kid)) for cluster, kid in json.loads(row[4])),
    )
