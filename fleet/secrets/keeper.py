"""Keeps every cluster's sealing keys: made at first contact, backed up, renewed, and moved from state to state.

One change at a time, each one transaction; the keyring in memory follows the store. What happens by itself is decided in
`tend_once`, which is woken when something changes and when a key is due.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TypeVar

import structlog
from nacl.signing import SigningKey

from fleet.aio import Pulse
from fleet.clock import Clock, format_at
from fleet.errors import FleetError, SealError
from fleet.secrets.backup import Rows, digest_of, pack_backup, verify_backup
from fleet.secrets.birth import Birth, make_key
from fleet.secrets.key import Algorithm, KeyState, count_keys
from fleet.secrets.keyring import LoadedKeyring
from fleet.secrets.master import MasterKey, MasterSource
from fleet.secrets.restore import open_restore, plan_restore, read_laid_ready
from fleet.secrets.shelf import put_backup
from fleet.secrets.unlock import open_master, rewrap_key
from fleet.secrets.wrap import bind_signer
from fleet.store.key import BackupRow, KeyRow, KeyStore, SignerRow
from fleet.store.usage import UsageStore

log = structlog.get_logger()

RETRY_S = 30.0
"""How often a master key or a backup directory that was missing is looked for again."""
MOST_SLEEP_S = 86_400.0
RENEWED = (Algorithm.X25519, Algorithm.RSA)

T = TypeVar("T")


class Surroundings(Protocol):
    """What the keeper asks the hub."""

    async def identities(self) -> Mapping[str, str]:
        """Return the uid of every cluster that was met."""
        ...

    def environments(self) -> Mapping[str, str]:
        """Return the clusters of the inventory and their environments."""
        ...

    def is_scanned(self, cluster: str) -> bool:
        """Tell whether the usage index knows what Git holds for a cluster."""
        ...

    def act(self, action: str, cluster: str, subject: str) -> AbstractAsyncContextManager[object]:
        """Write what the hub does by itself to the audit log, and do it inside the block."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """What the operator settled."""

    source: MasterSource
    backups: Path | None
    """Where backups go by themselves."""
    restores: Path
    """A backup that is found here is taken in, and removed."""
    renew_after: timedelta
    hub_id: str


class Keeper:
    """The sealing keys of the fleet. `keyring` is what others read; `trouble` is what stands in the way."""

    def __init__(
        self,
        store: KeyStore,
        usage: UsageStore,
        surroundings: Surroundings,
        *,
        clock: Clock,
        policy: KeyPolicy,
        executor: Executor,
    ) -> None:
        self.keyring = LoadedKeyring()
        self.trouble: FleetError | None = None
        self.unknown: Mapping[str, Sequence[str]] = {}
        """Kids that Git holds values for and nobody has a key of, by cluster: no key is made there."""
        self._store = store
        self._usage = usage
        self._surroundings = surroundings
        self._clock = clock
        self._executor = executor
        self._master: MasterKey | None = None
        self.policy = policy
        self.signer: SigningKey | None = None
        """Signs the bundle of public keys; None while locked."""
        self._turn = asyncio.Lock()
        self._pulse = Pulse()

    def wake(self) -> None:
        """Look again: a cluster was met, the inventory or the usage index changed."""
        self._pulse.set()

    async def run(self) -> None:
        """Tend the keys until cancelled; a failure is shown and tried again."""
        while True:
            try:
                wait_s = await self.tend_once()
                self.trouble = None
            except FleetError as error:
                if self.trouble is None or str(self.trouble) != str(error):
                    log.error("sealing keys", reason=error.reason, error=str(error))
                self.trouble, wait_s = error, RETRY_S
            await self._pulse.wait(wait_s)

    async def tend_once(self) -> float:
        """Do what is due; return the seconds until something is due again.

        Raises: SealError KeysLocked, BackupFailed; StoreError. What was done before stays done.
        """
        async with self._turn:
            master = await self._unlock()
            await self._rebind(master)
            await self._make_missing(master)
            await self._renew(master)
            await self._back_up_by_itself()
            await self._activate()
            return self._until_due_s()

    async def _unlock(self) -> MasterKey:
        try:
            await self._restore()
            row = await self._store.master()
            if self._master is None or row is None or row.id != self._master.id:
                master, known = await self.off_loop(open_master, row, self.policy.source, self._clock.now())
                if row is None:
                    await self._store.run([self._store.put_master(known)])
                self.signer = await self._load_signer(master)
                self._master = master
        except SealError as error:
            self._master = None
            self.keyring.show(await self._store.load())
            if self.keyring.locked is None or str(self.keyring.locked) != str(error):
                self.keyring.lock(error)
            raise
        await self.reload()
        return self._master

    async def _restore(self) -> None:
        """Take in a backup that `fleet keys restore` laid ready, before anything is made in its place."""
        path = self.policy.restores
        content = await self.off_loop(read_laid_ready, path)
        if content is None:
            return
        try:
            backup, rows = await self.off_loop(open_restore, content, self.policy.source)
            statements = plan_restore(self._store, backup, rows, await self._store.load(), await self._store.master())
        except SealError as error:
            raise SealError(f"{path} (remove it to go on without): {error.message}", reason=error.reason) from error
        async with self._surroundings.act(
            "KeysRestored", "", f"{count_keys(len(backup.holds))} of a backup of {backup.made_at}"
        ):
            await self._store.run(statements)
        self._master = None
        await self.off_loop(path.unlink)

    async def _load_signer(self, master: MasterKey) -> SigningKey:
        """Return the key that signs the public bundle; made once."""
        row = await self._store.signer()
        if row is None:
            made = SigningKey.generate()
            public = bytes(made.verify_key)
            private = master.encrypt(bytes(made), bind_signer(public, master.id))
            row = SignerRow(public=public, private=private, master=master.id, created_at=self._clock.now())
            await self._store.run([self._store.put_signer(row)])
        return SigningKey(master.decrypt(row.private, bind_signer(row.public, master.id)))

    async def reload(self) -> None:
        """Let the keyring follow the store. Only inside `changing`."""
        assert self._master is not None
        self.keyring.load(
            await self._store.load(),
            self._master,
            identities=await self._surroundings.identities(),
            environments=self._surroundings.environments(),
        )

    async def _rebind(self, master: MasterKey) -> None:
        """Follow clusters that were renamed, or rebuilt and accepted: what was sealed for them still opens."""
        identities = await self._surroundings.identities()
        by_uid = {uid: name for name, uid in identities.items()}
        for row in self.keyring.rows():
            name = by_uid.get(row.uid, row.cluster) if row.cluster not in identities else row.cluster
            uid = identities.get(name, row.uid)
            stays = (name, uid) == (row.cluster, row.uid) or (row.cluster, row.kid) in self.keyring.broken
            if stays or self._has(name, row):
                continue
            bound = rewrap_key(row, replace(row, cluster=name, uid=uid), master, master)
            async with self._surroundings.act(
                "KeyRebound", name, f"key {row.kid} of {row.cluster} serves uid {uid} now"
            ):
                await self._store.run([self._store.rebind(row, bound)])
            await self.reload()

    def _has(self, cluster: str, row: KeyRow) -> bool:
        """Tell whether a cluster that `row` would move to has it, or another one in its place."""
        return cluster != row.cluster and any(
            other.cluster == cluster
            and (
                other.kid == row.kid
                or (other.algorithm == row.algorithm and other.state == row.state == KeyState.ACTIVE)
            )
            for other in self.keyring.rows()
        )

    async def _make_missing(self, master: MasterKey) -> None:
        """Make the first key of clusters that have none, unless Git holds values for a key that was lost."""
        self.unknown = await self._usage.unknown()
        identities = await self._surroundings.identities()
        have = {
            row.cluster
            for row in self.keyring.rows()
            if row.algorithm == Algorithm.X25519 and row.state in (KeyState.PENDING, KeyState.ACTIVE)
        }
        for cluster in self._surroundings.environments():
            if cluster in have or not identities.get(cluster):
                continue
            if self._surroundings.is_scanned(cluster) and cluster not in self.unknown:
                await self.make(cluster, Algorithm.X25519, master)
        await self.reload()

    async def make(
        self, cluster: str, algorithm: Algorithm, master: MasterKey, *, because: str = "first use"
    ) -> KeyRow:
        """Make a key of a cluster; it waits for a backup. Only inside `changing`."""
        uid = (await self._surroundings.identities()).get(cluster, "")
        birth = Birth(cluster=cluster, uid=uid, now=self._clock.now(), renew_after=self.policy.renew_after)
        row = await self.off_loop(make_key, birth, algorithm, master)
        async with self._surroundings.act("KeyMade", cluster, f"{algorithm} key {row.kid}: {because}"):
            await self._store.run([self._store.insert(row)])
        return row

    async def _renew(self, master: MasterKey) -> None:
        """Make the successor of every key whose time has come."""
        now = self._clock.now()
        for row in self._without_successor():
            if row.renew_at <= now:
                await self.make(row.cluster, Algorithm(row.algorithm), master, because=f"{row.kid} is due for renewal")
        await self.reload()

    def _without_successor(self) -> list[KeyRow]:
        """Return the keys in use that no other one is about to replace."""
        rows = self.keyring.rows()
        pending = {(row.cluster, row.algorithm) for row in rows if row.state == KeyState.PENDING}
        return [row for row in rows if row.state == KeyState.ACTIVE and (row.cluster, row.algorithm) not in pending]

    async def _back_up_by_itself(self) -> None:
        rows = [row for row in self.keyring.rows() if (row.cluster, row.kid) not in self.keyring.broken]
        if self.policy.backups is None or all(row.backed_up_at for row in rows if row.private):
            return
        content, backup = await self.pack()
        path = await self.off_loop(put_backup, self.policy.backups, content, backup.made_at, backup.digest)
        async with self._surroundings.act("KeysBackedUp", "", f"{count_keys(len(backup.holds))} into {path}"):
            await self._store.run(self._store.confirm(backup, str(path)))
        await self.reload()

    async def pack(self) -> tuple[bytes, BackupRow]:
        """Make a backup, open every row of it and note it; it counts once it is confirmed. Only inside `changing`."""
        assert self._master is not None
        now = self._clock.now()
        rows = await self._store.dump()
        # one that does not open is in no backup, and keeps no other key out of one
        rows["seal_key"] = [r for r in rows["seal_key"] if (r["cluster"], r["kid"]) not in self.keyring.broken]
        content = await self.off_loop(_pack_verified, rows, self.policy.hub_id, format_at(now), self._master)
        holds = frozenset((str(r["cluster"]), str(r["kid"])) for r in rows["seal_key"] if r["private"] is not None)
        backup = BackupRow(digest=digest_of(content), made_at=now, confirmed_at=None, place="", holds=holds)
        await self._store.run([self._store.put_backup(backup)])
        return content, backup

    async def _activate(self) -> None:
        """Let the newest key that a confirmed backup holds take its place."""
        kinds: dict[tuple[str, str], list[KeyRow]] = {}
        for row in self.keyring.rows():
            kinds.setdefault((row.cluster, row.algorithm), []).append(row)
        for (cluster, algorithm), rows in sorted(kinds.items()):
            ready = [row for row in rows if row.state == KeyState.PENDING and row.backed_up_at]
            if not ready:
                continue
            newest = max(ready, key=lambda row: row.created_at)
            before = [r for r in rows if r.state == KeyState.ACTIVE or (r in ready and r is not newest)]
            async with self._surroundings.act("KeyActivated", cluster, f"{algorithm} key {newest.kid} is used now"):
                await self._store.run(
                    [
                        *(self._store.set_state(r, KeyState.RETIRING, replaced_by=newest.kid) for r in before),
                        self._store.set_state(newest, KeyState.ACTIVE),
                    ]
                )
        await self.reload()

    def _until_due_s(self) -> float:
        now = self._clock.now()
        dues = [(row.renew_at - now).total_seconds() for row in self._without_successor()]
        return max(1.0, min([*dues, MOST_SLEEP_S]))

    async def off_loop(self, work: Callable[..., T], *args: object) -> T:
        """Run something slow and blocking on the keys' own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    @contextlib.asynccontextmanager
    async def changing(self) -> AsyncIterator[MasterKey]:
        """Change keys in the block, alone; what follows from it (a backup, a key that may be used now) is done after it.

        Raises: SealError KeysLocked before the block. A backup that fails after it is `trouble` and tried again.
        """
        async with self._turn:
            yield await self._unlock()
            await self.reload()
            try:
                await self._back_up_by_itself()
            except SealError as error:
                self.trouble = error
            await self._activate()
        self.wake()

    def take_master(self, master: MasterKey, source: MasterSource) -> None:
        """Use another master key from now on. Only inside `changing`, once the store is encrypted under it."""
        self._master, self.policy = master, replace(self.policy, source=source)

    async def identity(self, cluster: str) -> str:
        """Return the uid that a cluster is pinned to; empty when it was never met."""
        return (await self._surroundings.identities()).get(cluster, "")


def _pack_verified(rows: Rows, hub_id: str, at: str, master: MasterKey) -> bytes:
    content = pack_backup(rows, hub_id=hub_id, at=at)
    verify_backup(content, master)
    return content
