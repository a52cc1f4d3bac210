"""A backup of the sealing keys: a SQLite file that holds their rows as they are, private halves still encrypted.

Worth nothing without the master key, which is kept apart. Made in memory, so that no half of it is ever on a disk.
"""

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from fleet.errors import SealError
from fleet.secrets.master import MasterKey
from fleet.secrets.wrap import VERIFIED, WrappedKey, bind_key, bind_signer, bind_verifier

FORMAT = "1"
_TABLES = {
    "master_key": "id, source, salt, verifier, created_at",
    "seal_key": (
        "cluster, kid, uid, algorithm, public, age_public, private, master, state, origin, created_at, renew_at,"
        " changed_at, backed_up_at, reason, replaced_by"
    ),
    "signing_key": "public, private, master, created_at",
}
"""Columns that a backup holds of each table."""
_WRAPPED = "cluster, uid, kid, algorithm, public, age_public, master, private"

Rows = Mapping[str, Sequence[Mapping[str, object]]]
"""By table: rows of column names and values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a backup says of itself before anything of it is opened."""

    hub_id: str
    made_at: str
    master: str
    """Which master key opens it."""
    source: str
    """Where the hub that made it had that key from."""
    salt: bytes
    digest: str
    holds: frozenset[tuple[str, str]]
    """(cluster, kid) of every key whose private half is in it."""


def pack_backup(rows: Rows, *, hub_id: str, at: str) -> bytes:
    """Make a backup of rows as the database holds them."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE about (format TEXT, hub TEXT, made_at TEXT)")
        connection.execute("INSERT INTO about VALUES (?, ?, ?)", (FORMAT, hub_id, at))
        for table in _TABLES:
            _write_table(connection, table, rows[table])
        connection.commit()
        return bytes(connection.serialize())


def _write_table(connection: sqlite3.Connection, table: str, rows: Sequence[Mapping[str, object]]) -> None:
    names = _TABLES[table].split(", ")
    connection.execute(f"CREATE TABLE {table} ({_TABLES[table]})")
    marks = ", ".join("?" * len(names))
    values = [tuple(row[name] for name in names) for row in rows]
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608 - our own schema


def read_contents(content: bytes) -> Contents:
    """Say what a backup holds, without a key.

    Raises: SealError Corrupt.
    """
    with _opened(content) as connection:
        form, hub_id, made_at = _row(connection, "SELECT format, hub, made_at FROM about")
        if form != FORMAT:
            raise SealError(f"the backup has format {form}, this fleet knows {FORMAT}; use the newer fleet")
        master, source, salt = _row(connection, "SELECT id, source, salt FROM master_key")
        held = connection.execute("SELECT cluster, kid FROM seal_key WHERE private IS NOT NULL").fetchall()
        return Contents(
            hub_id=hub_id,
            made_at=made_at,
            master=master,
            source=source,
            salt=salt,
            digest=digest_of(content),
            holds=frozenset((str(cluster), str(kid)) for cluster, kid in held),
        )


def verify_backup(content: bytes, master: MasterKey) -> Contents:
    """Open every private half of a backup with the master key, to see that it can be restored.

    Raises: SealError KeysLocked for another master key, Corrupt naming what does not open.
    """
    contents = read_contents(content)
    if contents.master != master.id:
        raise SealError(
            f"the backup was made under another master key ({contents.master}, from {contents.source}); this one is"
            f" {master.id}: give that one with --master-key-from",
            reason="KeysLocked",
        )
    with _opened(content) as connection:
        (verifier,) = _row(connection, "SELECT verifier FROM master_key")
        if master.decrypt(verifier, bind_verifier(master.id)) != VERIFIED:
            raise SealError("the verifier of the backup's master key is not one")
        for row in connection.execute(f"SELECT {_WRAPPED} FROM seal_key"):  # noqa: S608 - our own schema
            _open(WrappedKey(**dict(zip(_WRAPPED.split(", "), row, strict=True))), master)
        for public, private in connection.execute("SELECT public, private FROM signing_key"):
            master.decrypt(private, bind_signer(public, master.id))
    return contents


def read_rows(content: bytes) -> Rows:
    """Return the rows of a backup that was verified before, by table."""
    with _opened(content) as connection:
        return {
            table: [dict(zip(names.split(", "), row, strict=True)) for row in connection.execute(_select(table))]
            for table, names in _TABLES.items()
        }


def _select(table: str) -> str:
    return f"SELECT {_TABLES[table]} FROM {table}"  # noqa: S608 - our own schema


def digest_of(content: bytes) -> str:
    """Name a backup by its bytes: sha256 in hex."""
    return hashlib.sha256(content).hexdigest()


def _open(key: WrappedKey, master: MasterKey) -> None:
    if key.private is None:
        return
    try:
        master.decrypt(key.private, bind_key(key))
    except SealError:
        raise SealError(f"key {key.kid} of cluster {key.cluster} in the backup does not open; make another") from None


class _opened:  # noqa: N801 - a context manager, named as the functions are
    """The backup as a connection in memory; whatever SQLite says of bad bytes is Corrupt."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __enter__(self) -> sqlite3.Connection:
        self._connection = sqlite3.connect(":memory:")
        try:
            self._connection.deserialize(self._content)
            self._connection.execute("SELECT count(*) FROM about")
        except (sqlite3.Error, OverflowError, MemoryError, UnicodeDecodeError) as error:  # SQLite quotes bad bytes
            self._connection.close()
            raise SealError("this is no backup of sealing keys, or it is damaged") from error
        return self._connection

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._connection.close()
        if isinstance(
            error, sqlite3.Error | TypeError | AttributeError | ValueError
        ):  # a column holds what it never does
            raise SealError("this is no backup of sealing keys, or it is damaged") from error


def _row(connection: sqlite3.Connection, sql: str) -> tuple[Any, ...]:
    found = connection.execute(sql).fetchone()
    if found is None:
        raise SealError("the backup is empty: no key was ever made by the hub that wrote it")
    return tuple(found)
