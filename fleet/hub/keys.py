"""The sealing keys of the running hub: who may do what is the server's, what was done is written down here."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fleet.clock import Clock, format_at
from fleet.errors import FleetError, SealError
from fleet.hub.audit import Auditor
from fleet.hub.keyview import (
    Compromise,
    KeyBackup,
    KeyExport,
    MasterChange,
    Resealed,
    ResealRequest,
    SealKeyRow,
    UsageRow,
)
from fleet.hub.reseal import change_document
from fleet.hub.supervisor import Supervisor
from fleet.hub.view import Actor
from fleet.metric import gauge
from fleet.secrets.age import format_recipient
from fleet.secrets.bundle import write_bundle
from fleet.secrets.desk import Export, KeyDesk
from fleet.secrets.foreign import ForeignKey
from fleet.secrets.keeper import Keeper, KeyPolicy
from fleet.secrets.key import Algorithm, KeyState
from fleet.secrets.master import parse_source
from fleet.settings import Settings
from fleet.store.cluster import ClusterStore
from fleet.store.key import KeyRow, KeyStore
from fleet.store.token import Role
from fleet.store.usage import Usage, UsageStore

RESTORE_FILE = "keys.restore"
KEYS = gauge("fleet_seal_keys", "Sealing keys, by state.", "state")
UNSAVED = gauge("fleet_seal_keys_unsaved", "Sealing keys that no confirmed backup holds.")
LOCKED = gauge("fleet_seal_keys_locked", "Whether no sealing key can be read: no master key, or another one.")

HUB = Actor(name="hub", role=Role.ADMIN)
_RESEALED = {"rewrap": "SecretRewrapped", "reseal": "SecretResealed"}


class HubSurroundings:
    """What the keeper asks of the hub: `fleet.secrets.keeper.Surroundings`."""

    def __init__(self, supervisor: Supervisor, clusters: ClusterStore, auditor: Auditor) -> None:
        self.scanned: Callable[[str], bool] = lambda _cluster: False
        """Whether the usage index knows what Git holds for a cluster."""
        self._supervisor = supervisor
        self._clusters = clusters
        self._auditor = auditor

    async def identities(self) -> Mapping[str, str]:
        """Return the uid of every cluster that was met."""
        return {name: row.uid for name, row in (await self._clusters.load()).items() if row.uid}

    def environments(self) -> Mapping[str, str]:
        """Return the clusters of the inventory and their environments."""
        inventory = self._supervisor.inventory
        return {name: c.spec.environment for name, c in inventory.clusters.items()} if inventory else {}

    def is_scanned(self, cluster: str) -> bool:
        """Tell whether the usage index knows what Git holds for a cluster."""
        return self.scanned(cluster)

    @contextlib.asynccontextmanager
    async def act(self, action: str, cluster: str, subject: str) -> AsyncIterator[None]:
        """Write what the hub does by itself to the audit log."""
        async with self._auditor.act(action, HUB, subject=subject, cluster=cluster):
            yield


class Keys:
    """`fleet.hub.keyview.SealKeys` over a keeper of its own; `run` is its task."""

    def __init__(
        self,
        *,
        surroundings: HubSurroundings,
        store: KeyStore,
        usage: UsageStore,
        auditor: Auditor,
        clock: Clock,
        settings: Settings,
        data: Path,
        environ: Mapping[str, str],
        hub_id: str,
    ) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keys")
        self._surroundings = surroundings
        self._usage = usage
        self._auditor = auditor
        self._data = data
        self._environ = environ
        self._bundle: tuple[int, bytes] = (-1, b"")
        policy = KeyPolicy(
            source=parse_source(settings.master_key_from, data, environ),
            backups=Path(settings.keys_backup) if settings.keys_backup else None,
            restores=data / RESTORE_FILE,
            renew_after=timedelta(days=settings.keys_renew_days),
            hub_id=hub_id,
        )
        self.keeper = Keeper(store, usage, surroundings, clock=clock, policy=policy, executor=self._executor)
        self.desk = KeyDesk(self.keeper, store, usage, clock)
        self.keeper.keyring.on_change(self._measure)

    def _measure(self) -> None:
        rows = self.keeper.keyring.rows()
        for state in KeyState:
            KEYS.labels(state.value).set(sum(row.state == state for row in rows))
        UNSAVED.set(sum(row.private is not None and row.backed_up_at is None for row in rows))
        LOCKED.set(self.keeper.keyring.locked is not None)

    async def prepare(self) -> None:
        """Read the keys before anything is opened with them; what stands in the way `run` meets again, and shows."""
        with contextlib.suppress(FleetError):
            await self.keeper.tend_once()

    async def run(self) -> None:
        """Tend the keys until cancelled."""
        try:
            await self.keeper.run()
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def list(self) -> Sequence[SealKeyRow]:
        """Every key, oldest first."""
        return await self._show(self.keeper.keyring.rows())

    async def _show(self, rows: Sequence[KeyRow]) -> tuple[SealKeyRow, ...]:
        uses, environments = await self._usage.count(), self._surroundings.environments()
        return tuple(_show(row, environments.get(row.cluster, ""), uses) for row in rows)

    def troubles(self) -> Sequence[str]:
        """What stands in the way of sealing or opening, each with what to do."""
        found = [str(self.keeper.trouble)] if self.keeper.trouble is not None else []
        found += map(str, self.keeper.keyring.broken.values())
        for cluster, kids in self.keeper.unknown.items():
            found.append(
                f"Git holds values for cluster {cluster} under key {', '.join(kids)}, which is not known here: bring it back"
                f" with fleet keys restore or import, or begin anew with fleet keys rotate {cluster}"
            )
        return found

    async def usage(self, *, kid: str = "", cluster: str = "") -> Sequence[UsageRow]:
        """What in Git needs a key, or any key of a cluster."""
        return tuple(_show_usage(each) for each in await self._usage.load(kid=kid, cluster=cluster))

    async def rotate(self, cluster: str, algorithm: Algorithm, *, reason: str, actor: Actor) -> SealKeyRow:
        """Make a new key. Raises: SealError."""
        async with self._auditor.act("KeyRotated", actor, reason, subject=f"{algorithm} key", cluster=cluster) as act:
            made = await self.desk.rotate(cluster, algorithm, f"asked for by {actor.name}")
            act.after = {"kid": made.kid, "state": made.state}
        return (await self._show([made]))[0]

    async def retire(
        self, kid: str, *, cluster: str, how: str, force: bool, reason: str, actor: Actor
    ) -> Sequence[SealKeyRow]:
        """Retire a key, let it open again (`how` is `undo`) or `destroy` its private half. Raises: SealError."""
        action = {"undo": "KeyUnretired", "destroy": "KeyDestroyed"}.get(how, "KeyRetired")
        async with self._auditor.act(action, actor, reason, subject=f"key {kid}", cluster=cluster):
            if how == "undo":
                rows = await self.desk.unretire(kid, cluster=cluster, reason=reason)
            elif how == "destroy":
                rows = await self.desk.destroy(kid, cluster=cluster, reason=reason)
            else:
                rows = await self.desk.retire(kid, cluster=cluster, reason=reason, force=force)
        return await self._show(rows)

    async def compromise(self, kid: str, *, cluster: str, reason: str, actor: Actor) -> Compromise:
        """Trust a key no more. Raises: SealError."""
        async with self._auditor.act("KeyCompromised", actor, reason, subject=f"key {kid}", cluster=cluster) as act:
            values = await self.desk.compromise(kid, cluster=cluster, reason=reason)
            act.after = {"values to change": str(len(values))}
        rows = [r for r in self.keeper.keyring.rows() if r.kid == kid and cluster in ("", r.cluster)]
        return Compromise(keys=await self._show(rows), values=tuple(map(_show_usage, values)))

    async def take_in(self, cluster: str, keys: Sequence[ForeignKey], *, actor: Actor) -> Sequence[SealKeyRow]:
        """Import keys. Raises: SealError."""
        names = ", ".join(sorted({key.name for key in keys}))
        async with self._auditor.act("KeysImported", actor, subject=names, cluster=cluster) as act:
            rows = await self.desk.take_in(cluster, keys)
            act.after = {"kids": ", ".join(row.kid for row in rows)}
        return await self._show(rows)

    async def export(
        self, *, cluster: str, kid: str, form: str, recipients: Sequence[str], reason: str, actor: Actor
    ) -> KeyExport:
        """Let private keys out. Raises: SealError."""
        wanted = Export(cluster=cluster, kid=kid, form=form, recipients=tuple(recipients))
        subject = f"{form}: {kid or cluster or 'every key'}, for {', '.join(recipients) or 'whoever reads the answer'}"
        async with self._auditor.act("KeysExported", actor, reason, subject=subject, cluster=cluster):
            return KeyExport(content=await self.desk.export(wanted))

    async def back_up(self, reason: str, actor: Actor) -> KeyBackup:
        """Make a backup. Raises: SealError."""
        async with self._auditor.act("KeyBackupMade", actor, reason) as act:
            content, backup = await self.desk.back_up()
            act.after = {"digest": backup.digest, "keys": str(len(backup.holds))}
        return KeyBackup(
            digest=backup.digest, keys=len(backup.holds), made_at=format_at(backup.made_at), content=content
        )

    async def confirm_backup(self, digest: str, place: str, actor: Actor) -> KeyBackup:
        """Let a backup count. Raises: SealError."""
        async with self._auditor.act("KeyBackupConfirmed", actor, subject=place, after={"digest": digest}):
            backup = await self.desk.confirm(digest, place)
        return KeyBackup(digest=digest, keys=len(backup.holds), made_at=format_at(backup.made_at))

    async def rotate_master(self, to: str, *, reason: str, actor: Actor) -> MasterChange:
        """Replace the master key. Raises: SealError, SettingsError."""
        source = parse_source(to, self._data, self._environ) if to else None
        async with self._auditor.act("MasterKeyRotated", actor, reason) as act:
            master = await self.desk.rotate_master(source)
            act.after = {"master": master, "source": self.keeper.policy.source.name}
        return MasterChange(master=master, source=self.keeper.policy.source.name)

    async def reseal(self, request: ResealRequest, *, actor: Actor) -> Resealed:
        """Seal a document again for the keys that are offered today. Raises: SealError."""
        metadata = request.document.get("metadata")
        named = metadata if isinstance(metadata, Mapping) else {}
        subject = f"Secret {named.get('namespace', '')}/{named.get('name', '')}"
        async with self._auditor.act(_RESEALED[request.verb], actor, subject=subject) as act:
            done = await asyncio.get_running_loop().run_in_executor(
                self._executor, change_document, request, self.keeper.keyring
            )
            act.after = {"clusters": ", ".join(done.clusters)}
        return done

    def bundle(self) -> bytes:
        """The signed list of every key's public half. The same bytes until a key changes. Raises: SealError KeysLocked."""
        keyring, signer = self.keeper.keyring, self.keeper.signer
        if keyring.locked is not None or signer is None:
            raise keyring.locked or SealError("the sealing keys have not been read yet", reason="KeysLocked")
        if self._bundle[0] != keyring.generation:
            rows = keyring.rows()
            issued_at = max((row.changed_at for row in rows), default=datetime.min.replace(tzinfo=UTC))
            text = write_bundle(keyring.publics(), hub=self.keeper.policy.hub_id, issued_at=issued_at, signer=signer)
            self._bundle = keyring.generation, text.encode()
        return self._bundle[1]

    async def certificate(self, cluster: str) -> bytes:
        """The PEM certificate that `kubeseal --cert` takes, made at the first ask. Raises: SealError."""
        offered = await self.desk.ensure_rsa(cluster)
        if offered is None:
            raise SealError(
                f"the RSA key of {cluster} is not used before a backup holds it: run fleet keys backup FILE, then ask again",
                reason="KeyPending",
            )
        return offered.public


def _show(row: KeyRow, environment: str, uses: Mapping[tuple[str, str], int]) -> SealKeyRow:
    return SealKeyRow(
        kid=row.kid,
        cluster=row.cluster,
        environment=environment,
        uid=row.uid,
        algorithm=row.algorithm,
        state=row.state,
        origin=row.origin,
        recipient=format_recipient(row.age_public) if row.age_public else "",
        created_at=format_at(row.created_at),
        renew_at=format_at(row.renew_at),
        changed_at=format_at(row.changed_at),
        backed_up_at=format_at(row.backed_up_at) if row.backed_up_at else "",
        reason=row.reason,
        replaced_by=row.replaced_by,
        uses=uses.get((row.cluster, row.kid), 0),
    )


def _show_usage(usage: Usage) -> UsageRow:
    return UsageRow(
        cluster=usage.cluster,
        kid=usage.kid,
        repository=usage.repository,
        app=usage.app,
        revision=usage.revision,
        path=usage.path,
        namespace=usage.namespace,
        name=usage.name,
        item=usage.item,
    )
