"""Which master key the database is encrypted under: made once, found again at every start, replaced as a whole."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from fleet.errors import SealError
from fleet.secrets.master import SALT_BYTES, FileSource, MasterKey, MasterSource
from fleet.secrets.wrap import VERIFIED, bind_key, bind_signer, bind_verifier
from fleet.store.database import Statement
from fleet.store.key import KeyRow, KeyStore, MasterRow, SignerRow

log = structlog.get_logger()


def open_master(row: MasterRow | None, source: MasterSource, now: datetime) -> tuple[MasterKey, MasterRow]:
    """Return the master key, and what the store shall know of it: `row` itself when it knows. Slow: for a thread.

    A key is made only where there never was one, and only as a file.
    Raises: SealError KeysLocked saying what to do.
    """
    if row is None:
        return _first_master(source, now)
    secret = source.load(row.salt)
    key = MasterKey(secret) if secret is not None else None
    if isinstance(source, FileSource) and (key is None or key.id != row.id):
        key = _resume_rotation(source, row) or key
    if key is None:
        raise SealError(
            f"the master key of the sealing keys is not there ({source.name}): put it back from where you keep it; until"
            f" then nothing is opened, and nothing is made in its place (key {row.id}, made from {row.source})",
            reason="KeysLocked",
        )
    if key.id != row.id:
        raise SealError(
            f"the master key in {source.name} is {key.id}, but the sealing keys are encrypted under {row.id} (from"
            f" {row.source}): put that one back, or name its place with --master-key-from",
            reason="KeysLocked",
        )
    if key.decrypt(row.verifier, bind_verifier(row.id)) != VERIFIED:
        raise SealError("the verifier of the master key is damaged; restore a backup", reason="KeysLocked")
    if isinstance(source, FileSource):
        source.drop_draft()
    return key, row


def _first_master(source: MasterSource, now: datetime) -> tuple[MasterKey, MasterRow]:
    salt = secrets.token_bytes(SALT_BYTES)
    secret = source.load(salt)
    if secret is None and isinstance(source, FileSource):
        secret = source.make()
        log.warning(
            "master key of the sealing keys made: copy it to a safe place apart from this machine; who has it and the data"
            " directory can open every secret",
            path=str(source.path),
        )
    if secret is None:
        raise SealError(
            f"there is no master key in {source.name}: put one there (openssl rand -hex 32 makes one), or choose another"
            " place with --master-key-from",
            reason="KeysLocked",
        )
    return MasterKey(secret), describe_master(MasterKey(secret), source, salt, now)


def describe_master(key: MasterKey, source: MasterSource, salt: bytes, now: datetime) -> MasterRow:
    """Return what the store keeps of a master key."""
    verifier = key.encrypt(VERIFIED, bind_verifier(key.id))
    return MasterRow(id=key.id, source=source.name, salt=salt, verifier=verifier, created_at=now)


def _resume_rotation(source: FileSource, row: MasterRow) -> MasterKey | None:
    """Finish a rotation that was cut off after its transaction: the file still had to be put in place."""
    secret = source.load_draft()
    if secret is None or MasterKey(secret).id != row.id:
        return None
    source.adopt_draft()
    return MasterKey(secret)


def next_master(source: MasterSource, salt: bytes, old: MasterKey) -> MasterKey:
    """Return the key to change to: a new one beside the file, or the one that another place holds. Slow: for a thread.

    Raises: SealError KeysLocked.
    """
    if isinstance(source, FileSource) and _is_of(source, old):
        return MasterKey(source.make_draft())
    secret = source.load(salt)
    if secret is None and isinstance(source, FileSource):
        secret = source.make()
    if secret is None:
        raise SealError(f"there is no master key in {source.name}; put the new one there first", reason="KeysLocked")
    key = MasterKey(secret)
    if key.id == old.id:
        raise SealError(f"{source.name} holds the master key that is in use; put another there", reason="KeysLocked")
    return key


def _is_of(source: FileSource, key: MasterKey) -> bool:
    secret = source.load(b"")
    return secret is not None and secret == key.secret


def rewrap(
    store: KeyStore, rows: Sequence[KeyRow], signer: SignerRow | None, *, old: MasterKey, new: MasterRow, key: MasterKey
) -> list[Statement]:
    """Return the one transaction that encrypts everything under another master key; each is opened again before.

    Raises: SealError Corrupt naming the row that does not open.
    """
    statements = [store.put_master(new)]
    for row in rows:
        wrapped = rewrap_key(row, replace(row, master=key.id), old, key)
        statements.append(store.rebind(row, wrapped))
    if signer is not None:
        secret = old.decrypt(signer.private, bind_signer(signer.public, old.id))
        private = key.encrypt(secret, bind_signer(signer.public, key.id))
        statements.append(store.put_signer(replace(signer, private=private, master=key.id)))
    # what was backed up opens only with the old key
    return [*statements, store.drop_masters(but=new.id), *store.forget_backups()]


def rewrap_key(row: KeyRow, to: KeyRow, old: MasterKey, new: MasterKey) -> KeyRow:
    """Encrypt a private half for what `to` says of it: another cluster, uid or master key.

    Raises: SealError Corrupt.
    """
    if row.private is None:
        return to
    secret = old.decrypt(row.private, bind_key(row))
    wrapped = replace(to, private=new.encrypt(secret, bind_key(to)))
    assert wrapped.private is not None
    if new.decrypt(wrapped.private, bind_key(wrapped)) != secret:
        raise SealError(f"key {row.kid} of cluster {row.cluster} did not survive; nothing was changed")
    return wrapped
