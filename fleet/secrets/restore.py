"""Sealing keys from a backup back into a hub: into an empty one, or beside what it has."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from fleet.errors import SealError
from fleet.secrets.backup import Contents, Rows, read_contents, read_rows, verify_backup
from fleet.secrets.key import KeyState, count_keys
from fleet.secrets.master import MasterKey, MasterSource
from fleet.store.database import Statement
from fleet.store.key import BackupRow, KeyRow, KeyStore, MasterRow


def read_laid_ready(path: Path) -> bytes | None:
    """Return the backup that waits to be restored; None when there is none. Raises: SealError RestoreFailed."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SealError(f"{path} cannot be read: {error.strerror}", reason="RestoreFailed") from error


def open_restore(content: bytes, source: MasterSource) -> tuple[Contents, Rows]:
    """Open every row of a backup with the hub's master key. Slow: for a thread.

    Raises: SealError KeysLocked, Corrupt; then nothing is restored.
    """
    contents = read_contents(content)
    secret = source.load(contents.salt)
    if secret is None:
        raise SealError(
            f"a backup waits to be restored, and its master key is not there ({source.name}): put key {contents.master} there",
            reason="KeysLocked",
        )
    return verify_backup(content, MasterKey(secret)), read_rows(content)


def plan_restore(
    store: KeyStore, backup: Contents, rows: Rows, known: Sequence[KeyRow], master: MasterRow | None
) -> list[Statement]:
    """Return the one transaction that takes a backup in. Keys that the hub has stay as they are.

    Raises: SealError KeysLocked when the hub has keys under another master key.
    """
    if known and master is not None and master.id != backup.master:
        raise SealError(
            f"the backup is under master key {backup.master}, and this hub has {count_keys(len(known))} under {master.id}; restore"
            " into an empty data directory, or take the keys in with fleet keys export there and fleet keys import here",
            reason="KeysLocked",
        )
    taken = {(row.cluster, row.algorithm) for row in known if row.state == KeyState.ACTIVE}
    merged = {**rows, "seal_key": [_yield_place(row, taken) for row in rows["seal_key"]]}
    made_at = datetime.fromisoformat(backup.made_at)
    note = BackupRow(digest=backup.digest, made_at=made_at, confirmed_at=None, place="restored", holds=backup.holds)
    return [*store.load_dump(merged), store.put_backup(note), *store.confirm(note, "restored")]


def _yield_place(row: Mapping[str, object], taken: set[tuple[str, str]]) -> Mapping[str, object]:
    """Let a key only open where the hub has another in use by now."""
    if row["state"] == KeyState.ACTIVE and (row["cluster"], row["algorithm"]) in taken:
        return {**row, "state": KeyState.RETIRING.value}
    return row
