"""Wiring only: the whole outside comes in as a World, and what runs is put together here."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from fleet.aio import finish, spawn
from fleet.child import Limits, ProcessWorkers, Workers
from fleet.clock import Clock, SystemClock
from fleet.git import order as git_order
from fleet.hub.archive import Archive
from fleet.hub.asker import Asker
from fleet.hub.audit import Auditor
from fleet.hub.board import Board
from fleet.hub.event import StoredEvents
from fleet.hub.feed import Feed
from fleet.hub.guard import Approvals
from fleet.hub.history import History
from fleet.hub.inquiry import Inquiry
from fleet.hub.inspect import Inspector
from fleet.hub.keys import HubSurroundings, Keys
from fleet.hub.lease import DatabaseLeases
from fleet.hub.order import Commons
from fleet.hub.plan import Planner
from fleet.hub.preflight import Preflights
from fleet.hub.rollout import Rollouts
from fleet.hub.rolloutdesk import RolloutDesk
from fleet.hub.sealing import Sealing
from fleet.hub.service import HubService
from fleet.hub.session import Outside
from fleet.hub.source import Mirrors
from fleet.hub.supervisor import Supervisor
from fleet.inventory.value import Inventory
from fleet.inventory.watch import Changes, DirectoryChanges, run_inventory
from fleet.net.reach import DirectReach, Reach
from fleet.render.renderer import CachingRenderer
from fleet.secrets.key import Keyring
from fleet.secrets.unseal import KeyringUnsealer
from fleet.settings import Settings
from fleet.store.approval import ApprovalStore
from fleet.store.archive import ArchiveStore
from fleet.store.audit import AuditStore
from fleet.store.checkup import CheckupStore
from fleet.store.cluster import ClusterStore
from fleet.store.database import Database, SqliteDatabase
from fleet.store.directory import DataDirectory, hold_directory
from fleet.store.drain import DrainStore
from fleet.store.event import EventStore
from fleet.store.hold import HoldStore
from fleet.store.key import KeyStore
from fleet.store.ledger import LedgerStore
from fleet.store.migration import migrate
from fleet.store.pause import PauseStore
from fleet.store.release import ReleaseStore
from fleet.store.rollout import RolloutStore
from fleet.store.token import HUB_ADMIN, Role, TokenStore
from fleet.store.usage import UsageStore

UNSEALERS = 2
"""Threads that open what takes long: RSA, and files encrypted with SOPS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The whole outside of the hub; simulated runs replace it and nothing else."""

    clock: Clock
    reach: Reach
    workers: Workers
    database: Database
    changes: Changes
    directory: DataDirectory
    keyring: Keyring | None = None
    """Sealing keys from elsewhere; None = those of the data directory."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Where a master key may be, or be pointed to."""


@contextlib.asynccontextmanager
async def open_world(settings: Settings) -> AsyncIterator[World]:
    """Open the real outside.

    Raises: DataDirectoryInUse, StoreError.
    """
    with hold_directory(settings.data) as directory:
        async with SqliteDatabase.open(directory.database) as database:
            workers = ProcessWorkers({**git_order.POOLS, "render": Limits(size=settings.render_workers)})
            try:
                yield World(
                    clock=SystemClock(),
                    reach=DirectReach(),
                    workers=workers,
                    database=database,
                    changes=DirectoryChanges(settings.inventory),
                    directory=directory,
                    environ=dict(os.environ),
                )
            finally:
                await workers.close()


class Stores:
    """What survives a restart, over one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.events = EventStore(database)
        self.tokens = TokenStore(database, clock)
        self.pauses = PauseStore(database, clock)
        self.ledger = LedgerStore(database, clock)
        self.clusters = ClusterStore(database, clock)
        self.drains = DrainStore(database, clock)
        self.audits = AuditStore(database, clock)
        self.approvals = ApprovalStore(database, clock)
        self.releases = ReleaseStore(database, clock)
        self.holds = HoldStore(database, clock)
        self.archive = ArchiveStore(database, clock)
        self.checkups = CheckupStore(database)
        self.rollouts = RolloutStore(database)
        self.keys = KeyStore(database, clock)
        self.usage = UsageStore(database)


@contextlib.asynccontextmanager
async def running_hub(settings: Settings, world: World) -> AsyncIterator[HubService]:
    """Run the hub for the length of the block.

    Raises: StoreError when the database cannot be used.
    """
    await migrate(world.database)
    stores = Stores(world.database, world.clock)
    events = StoredEvents(stores.events)
    renderer = CachingRenderer(world.workers, settings)
    supervisor, rollouts = _supervise(settings, world, stores, events, renderer)
    auditor = Auditor(stores.audits, events, world.clock)
    surroundings = HubSurroundings(supervisor, stores.clusters, auditor)
    keys = _keep_keys(settings, world, stores, surroundings, auditor)
    keyring = world.keyring or keys.keeper.keyring
    executor = ThreadPoolExecutor(max_workers=UNSEALERS, thread_name_prefix="unseal")
    unsealer = KeyringUnsealer(
        keyring,
        environment_of=supervisor.environment_of,
        digest_key=world.directory.digest_key,
        executor=executor,
    )
    renderer.opener = unsealer
    sealing = Sealing(
        supervisor=supervisor,
        keyring=keyring,
        unsealer=unsealer,
        renderer=renderer,
        usage=stores.usage,
        clock=world.clock,
    )
    surroundings.scanned, sealing.on_scanned = sealing.is_scanned, keys.keeper.wake
    hub_id = world.directory.hub_id
    board = Board(supervisor, world.clock, hub_id=hub_id, stale_after_s=settings.stale_after_s)
    board.key_troubles = keys.troubles
    desk = RolloutDesk(rollouts, stores.rollouts, auditor, world.clock)
    board.rollouts = desk.current
    approvals = Approvals(stores.approvals)
    await _restore(stores, supervisor.feed, board, approvals)
    await rollouts.load()
    await keys.prepare()
    await _provide_admin_token(stores.tokens, world.directory)
    preflights = Preflights(supervisor)
    asker = Asker(reach=world.reach, clock=world.clock, inventory=lambda: supervisor.inventory)
    rollouts.outside = Inquiry(preflights, asker)
    commons = Commons(
        settings=settings,
        clock=world.clock,
        hub_id=hub_id,
        digest_key=world.directory.digest_key,
        feed=supervisor.feed,
        ledger=stores.ledger,
        events=events,
        unsealer=unsealer,
        inventory=lambda: supervisor.inventory,
        pauses=lambda: board.pauses,
        drains=lambda: board.drains,
        approvals=approvals,
        checkups=stores.checkups,
        on_progress=rollouts.note,
        on_cluster=rollouts.note_cluster,
    )
    outside = Outside(
        reach=world.reach,
        leases=DatabaseLeases(stores.ledger),
        clusters=stores.clusters,
        is_known=supervisor.is_known,
        on_met=keys.keeper.wake,
    )
    service = HubService(
        supervisor=supervisor,
        board=board,
        inspector=Inspector(supervisor, board, renderer, hub_id),
        planner=Planner(supervisor=supervisor, releases=stores.releases, renderer=renderer, preflights=preflights),
        history=History(supervisor=supervisor, releases=stores.releases, archive=stores.archive, holds=stores.holds),
        events=events,
        event_store=stores.events,
        pauses=stores.pauses,
        approvals=approvals,
        clusters=stores.clusters,
        drains=stores.drains,
        tokens=stores.tokens,
        audits=stores.audits,
        auditor=auditor,
        keys=keys,
        rollouts=desk,
        clock=world.clock,
    )

    def take_inventory(inventory: Inventory) -> None:
        supervisor.take_inventory(inventory)
        keys.keeper.wake()

    follow = run_inventory(
        settings.inventory,
        world.changes,
        world.clock,
        removal_quiet_s=settings.removal_quiet_s,
        sink=take_inventory,
        report=supervisor.report_inventory,
    )
    async with asyncio.TaskGroup() as group:
        tasks = [
            spawn(group, "events", events.run()),
            spawn(group, "rollouts", rollouts.run()),
            spawn(group, "supervisor", supervisor.run(commons, outside)),
            spawn(group, "inventory", follow),
            spawn(group, "usage", sealing.run()),
            spawn(group, "keys", keys.run()),
        ]
        try:
            yield service
        finally:
            service.stopping = True
            for task in tasks:
                task.cancel()
            await finish(events.flush())
            executor.shutdown(wait=False, cancel_futures=True)


def _keep_keys(
    settings: Settings, world: World, stores: Stores, surroundings: HubSurroundings, auditor: Auditor
) -> Keys:
    return Keys(
        surroundings=surroundings,
        store=stores.keys,
        usage=stores.usage,
        auditor=auditor,
        clock=world.clock,
        settings=settings,
        data=world.directory.path,
        environ=world.environ,
        hub_id=world.directory.hub_id,
    )


def _supervise(
    settings: Settings, world: World, stores: Stores, events: StoredEvents, renderer: CachingRenderer
) -> tuple[Supervisor, Rollouts]:
    mirrors = Mirrors(
        directory=world.directory.git,
        reach=world.reach,
        workers=world.workers,
        clock=world.clock,
        settings=settings,
    )
    rollouts = Rollouts(
        store=stores.rollouts,
        releases=stores.releases,
        archive=stores.archive,
        events=events,
        clock=world.clock,
        supervisor=lambda: supervisor,
        unreachable_after_s=settings.unreachable_after_s,
    )
    feed = Feed(
        sources=mirrors,
        renderer=renderer,
        releases=stores.releases,
        archive=Archive(stores.archive, renderer, world.directory.digest_key),
        progression=rollouts,
        events=events,
        clock=world.clock,
        digest_key=world.directory.digest_key,
    )
    supervisor = Supervisor(feed=feed, mirrors=mirrors, events=events, clock=world.clock)
    return supervisor, rollouts


async def _restore(stores: Stores, feed: Feed, board: Board, approvals: Approvals) -> None:
    """Read what people and releases had settled when the hub stopped."""
    board.pauses, board.drains = await stores.pauses.load(), await stores.drains.load()
    await approvals.load()
    feed.holds = await stores.holds.load()
    await feed.load()


async def _provide_admin_token(tokens: TokenStore, directory: DataDirectory) -> None:
    """Leave a token for the CLI on this machine; one that still works is kept."""
    path = directory.admin_token
    known = await tokens.find(path.read_text().strip()) if path.exists() else None
    if known is None or known.revoked_at is not None:
        secret = await tokens.create(HUB_ADMIN, Role.ADMIN, created_by="hub", replace=True)
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(secret + "\n")
