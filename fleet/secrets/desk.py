"""What people do with sealing keys. Every act is one transaction; the caller writes it to the audit log."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from fleet.clock import Clock, format_at
from fleet.errors import SealError
from fleet.secrets.age import armor, encrypt, parse_recipient
from fleet.secrets.birth import Birth, adopt_key
from fleet.secrets.foreign import ForeignKey, write_bitnami, write_export, write_identities
from fleet.secrets.keeper import Keeper
from fleet.secrets.key import Algorithm, KeyState, PublicKey
from fleet.secrets.master import SALT_BYTES, FileSource, MasterSource
from fleet.secrets.unlock import describe_master, next_master, rewrap
from fleet.store.key import BackupRow, KeyRow, KeyStore
from fleet.store.usage import Usage, UsageStore

FORMS = ("fleet", "bitnami", "age")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Which private keys leave the hub, in which form, and for whom."""

    cluster: str = ""
    kid: str = ""
    form: str = "fleet"
    """`fleet`, `bitnami` or `age`."""
    recipients: tuple[str, ...] = ()
    """`age1...`; empty = in the clear."""


class KeyDesk:
    """Acts on keys, over the keeper."""

    def __init__(self, keeper: Keeper, store: KeyStore, usage: UsageStore, clock: Clock) -> None:
        self._keeper = keeper
        self._store = store
        self._usage = usage
        self._clock = clock

    async def rotate(self, cluster: str, algorithm: Algorithm, why: str) -> KeyRow:
        """Make a new key, also where Git holds values for keys that are lost; the old one then only opens.

        Raises: SealError KeysLocked, NotIdentified, BackupFailed.
        """
        if algorithm is Algorithm.AGE:
            raise SealError(
                "age keys are imported, not made; rotate x25519, which has an age recipient", reason="Unsupported"
            )
        async with self._keeper.changing() as master:
            await self._require_identity(cluster)
            made = await self._keeper.make(cluster, algorithm, master, because=why)
        return self._row(made.cluster, made.kid)

    async def ensure_rsa(self, cluster: str) -> PublicKey | None:
        """Return the certificate's key of a cluster, made at the first ask; None while it waits for a backup."""
        if (offered := self._keeper.keyring.offered(cluster, Algorithm.RSA)) is not None:
            return offered
        async with self._keeper.changing() as master:
            waiting = any(
                row.cluster == cluster and row.algorithm == Algorithm.RSA and row.state == KeyState.PENDING
                for row in self._keeper.keyring.rows()
            )
            if not waiting and self._keeper.keyring.offered(cluster, Algorithm.RSA) is None:
                await self._require_identity(cluster)
                await self._keeper.make(cluster, Algorithm.RSA, master, because="its certificate was asked for")
        return self._keeper.keyring.offered(cluster, Algorithm.RSA)

    async def _require_identity(self, cluster: str) -> None:
        if not await self._keeper.identity(cluster):
            raise SealError(
                f"cluster {cluster} was never met, so nobody knows its identity; a key is bound to that: see fleet cluster"
                f" show {cluster}",
                reason="NotIdentified",
            )

    async def retire(self, kid: str, *, cluster: str = "", reason: str, force: bool = False) -> Sequence[KeyRow]:
        """Let a key open nothing any more, if nothing in Git needs it. Idempotent; `unretire` undoes it.

        Raises: SealError UnknownKey, KeyActive, KeyInUse naming the values.
        """
        async with self._keeper.changing():
            rows = self._rows(kid, cluster)
            for row in rows:
                if row.state == KeyState.ACTIVE:
                    raise SealError(
                        f"key {kid} is what {row.cluster} seals with; run fleet keys rotate {row.cluster} first",
                        reason="KeyActive",
                    )
            if not force:
                await self._refuse_used(rows)
            moving = [row for row in rows if row.state in (KeyState.PENDING, KeyState.RETIRING)]
            await self._store.run([self._store.set_state(row, KeyState.RETIRED, reason=reason) for row in moving])
        return self._rows(kid, cluster)

    async def _refuse_used(self, rows: Sequence[KeyRow]) -> None:
        for row in rows:
            needed = [each for each in await self.usage(kid=row.kid) if each.cluster == row.cluster]
            if row.algorithm != Algorithm.X25519:
                needed += [u for u in await self.usage(cluster=row.cluster) if not u.kid]
            if needed:
                first = needed[0]
                raise SealError(
                    f"{len(needed)} values in Git still need key {row.kid}, first {first.path} {first.namespace}/{first.name}"
                    f" {first.item}; seal them again, see fleet keys usage {row.kid}, or say --force",
                    reason="KeyInUse",
                )

    async def unretire(self, kid: str, *, cluster: str = "", reason: str) -> Sequence[KeyRow]:
        """Let a retired key open again. Idempotent. Raises: SealError UnknownKey, KeyNotRetired."""
        async with self._keeper.changing():
            rows = self._rows(kid, cluster)
            for row in rows:
                if row.state in (KeyState.DESTROYED, KeyState.COMPROMISED):
                    raise SealError(
                        f"key {kid} of {row.cluster} is {row.state}, which is for good; seal the values again",
                        reason="KeyNotRetired",
                    )
            retired = [row for row in rows if row.state == KeyState.RETIRED]
            await self._store.run([self._store.set_state(row, KeyState.RETIRING, reason=reason) for row in retired])
        return self._rows(kid, cluster)

    async def destroy(self, kid: str, *, cluster: str = "", reason: str) -> Sequence[KeyRow]:
        """Forget the private half of a retired or compromised key; only older backups still hold it. Idempotent.

        Raises: SealError UnknownKey, KeyNotRetired.
        """
        async with self._keeper.changing():
            rows = [row for row in self._rows(kid, cluster) if row.state != KeyState.DESTROYED]
            for row in rows:
                if row.state not in (KeyState.RETIRED, KeyState.COMPROMISED):
                    raise SealError(
                        f"key {kid} of {row.cluster} is {row.state}; retire it first, and see that nothing misses it",
                        reason="KeyNotRetired",
                    )
            await self._store.run([self._store.destroy(row, reason=reason) for row in rows])
            await self._store.scrub()
        return self._rows(kid, cluster)

    async def compromise(self, kid: str, *, cluster: str = "", reason: str) -> Sequence[Usage]:
        """Trust a key no more: it seals and opens nothing from now on. Returns the values to change at their source.

        Where it was in use, a new one is made. Idempotent. Raises: SealError UnknownKey; BackupFailed when it is done.
        """
        async with self._keeper.changing() as master:
            rows = [row for row in self._rows(kid, cluster) if row.state != KeyState.COMPROMISED]
            await self._store.run([self._store.set_state(row, KeyState.COMPROMISED, reason=reason) for row in rows])
            await self._keeper.reload()
            for row in rows:
                if row.state == KeyState.ACTIVE:
                    await self._keeper.make(
                        row.cluster, Algorithm(row.algorithm), master, because=f"{kid} is compromised"
                    )
        touched = {row.cluster for row in self._rows(kid, cluster)}
        return [each for each in await self.usage(kid=kid) if each.cluster in touched]

    async def take_in(self, cluster: str, keys: Sequence[ForeignKey]) -> Sequence[KeyRow]:
        """Import keys for a cluster; they open, and are not offered. Keys that it has stay as they are. Idempotent.

        Raises: SealError Unsupported, and then none is imported.
        """
        async with self._keeper.changing() as master:
            birth = Birth(
                cluster=cluster,
                uid=await self._keeper.identity(cluster),
                now=self._clock.now(),
                renew_after=self._keeper.policy.renew_after,
            )
            rows = [await self._keeper.off_loop(adopt_key, birth, key, master) for key in keys]
            await self._store.run([self._store.insert(row) for row in rows])
        return [self._row(cluster, row.kid) for row in rows]

    async def export(self, wanted: Export) -> bytes:
        """Return private keys, encrypted for the recipients where there are any.

        Raises: SealError UnknownKey when none is meant, Unsupported for a recipient that is none.
        """
        recipients = [parse_recipient(text) for text in wanted.recipients]
        keys = self._keeper.keyring.every(wanted.cluster, wanted.kid)
        if wanted.form == "bitnami":
            keys = [key for key in keys if key.public.algorithm is Algorithm.RSA]
        if not keys:
            raise SealError("no key matches; fleet keys list shows what there is", reason="UnknownKey")
        if wanted.form == "bitnami":
            plain = write_bitnami(keys)
        elif wanted.form == "age":
            plain = write_identities(keys)
        else:
            plain = write_export(keys, hub_id=self._keeper.policy.hub_id, at=format_at(self._clock.now()))
        return armor(encrypt(plain, recipients)) if recipients else plain

    async def back_up(self) -> tuple[bytes, BackupRow]:
        """Make a backup, every row of which was opened; it counts once its digest is confirmed."""
        async with self._keeper.changing():
            return await self._keeper.pack()

    async def confirm(self, digest: str, place: str) -> BackupRow:
        """Take a backup for safe: it was read back from where it is kept. The keys it holds may be used. Idempotent.

        Raises: SealError UnknownBackup.
        """
        async with self._keeper.changing():
            backup = await self._store.backup(digest)
            if backup is None:
                raise SealError(
                    "this hub did not make that backup, or its master key was replaced since; run fleet keys backup",
                    reason="UnknownBackup",
                )
            await self._store.run(self._store.confirm(backup, place))
        return backup

    async def rotate_master(self, source: MasterSource | None) -> str:
        """Encrypt every key under another master key, in one transaction; returns the new one's id.

        No backup made before counts any more. Raises: SealError KeysLocked, Corrupt; then nothing was changed.
        """
        source = source or self._keeper.policy.source
        async with self._keeper.changing() as old:
            salt = secrets.token_bytes(SALT_BYTES)
            new = await self._keeper.off_loop(next_master, source, salt, old)
            known = describe_master(new, source, salt, self._clock.now())
            rows, signer = await self._store.load(), await self._store.signer()
            await self._store.run(rewrap(self._store, rows, signer, old=old, new=known, key=new))
            if isinstance(source, FileSource):
                await self._keeper.off_loop(source.adopt_draft)
            await self._store.scrub()
            self._keeper.take_master(new, source)
        return new.id

    async def usage(self, *, kid: str = "", cluster: str = "") -> Sequence[Usage]:
        """Say what in Git needs a key, or any key of a cluster."""
        return await self._usage.load(kid=kid, cluster=cluster)

    def _rows(self, kid: str, cluster: str) -> list[KeyRow]:
        rows = [r for r in self._keeper.keyring.rows() if r.kid == kid and cluster in ("", r.cluster)]
        if not rows:
            raise SealError(f"no key {kid} is known here; fleet keys list shows what there is", reason="UnknownKey")
        return rows

    def _row(self, cluster: str, kid: str) -> KeyRow:
        return next(row for row in self._rows(kid, cluster))
