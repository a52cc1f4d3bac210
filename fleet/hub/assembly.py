"""What the running hub is made of, and how its parts know each other: wiring only."""

from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fleet.clock import Clock
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
from fleet.hub.world import World
from fleet.inventory.value import Inventory
from fleet.inventory.watch import run_inventory
from fleet.render.renderer import CachingRenderer
from fleet.secrets.unseal import KeyringUnsealer
from fleet.settings import Settings
from fleet.store.approval import ApprovalStore
from fleet.store.archive import ArchiveStore
from fleet.store.audit import AuditStore
from fleet.store.checkup import CheckupStore
from fleet.store.cluster import ClusterStore
from fleet.store.database import Database
from fleet.store.drain import DrainStore
from fleet.store.event import EventStore
from fleet.store.hold import HoldStore
from fleet.store.key import KeyStore
from fleet.store.ledger import LedgerStore
from fleet.store.pause import PauseStore
from fleet.store.release import ReleaseStore
from fleet.store.rollout import RolloutStore
from fleet.store.token import TokenStore
from fleet.store.usage import UsageStore

UNSEALERS = 2
"""Threads that open what takes long: RSA, and files encrypted with SOPS."""


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


class Assembly:
    """The parts of one hub, put together and not yet running."""

    def __init__(self, settings: Settings, world: World) -> None:
        self.settings = settings
        self.world = world
        self.stores = Stores(world.database, world.clock)
        self.events = StoredEvents(self.stores.events)
        self.renderer = CachingRenderer(world.workers, settings)
        self.auditor = Auditor(self.stores.audits, self.events, world.clock)
        self.approvals = Approvals(self.stores.approvals)
        self.executor = ThreadPoolExecutor(max_workers=UNSEALERS, thread_name_prefix="unseal")
        self.rollouts = self._build_rollouts()
        self.supervisor = self._build_supervisor()
        self.preflights = Preflights(self.supervisor)
        asker = Asker(reach=world.reach, clock=world.clock, inventory=lambda: self.supervisor.inventory)
        self.rollouts.outside = Inquiry(self.preflights, asker)
        self.desk = RolloutDesk(self.rollouts, self.stores.rollouts, self.auditor, world.clock)
        self._build_secrets()
        self.board = self._build_board()
        self.service = self._build_service()

    def _build_rollouts(self) -> Rollouts:
        return Rollouts(
            store=self.stores.rollouts,
            releases=self.stores.releases,
            archive=self.stores.archive,
            events=self.events,
            clock=self.world.clock,
            supervisor=lambda: self.supervisor,
            unreachable_after_s=self.settings.unreachable_after_s,
        )

    def _build_supervisor(self) -> Supervisor:
        world, stores, events = self.world, self.stores, self.events
        mirrors = Mirrors(
            directory=world.directory.git,
            reach=world.reach,
            workers=world.workers,
            clock=world.clock,
            settings=self.settings,
        )
        feed = Feed(
            sources=mirrors,
            renderer=self.renderer,
            releases=stores.releases,
            archive=Archive(stores.archive, self.renderer, world.directory.digest_key),
            progression=self.rollouts,
            events=events,
            clock=world.clock,
            digest_key=world.directory.digest_key,
        )
        return Supervisor(feed=feed, mirrors=mirrors, events=events, clock=world.clock)

    def _build_secrets(self) -> None:
        """Keys, what opens with them, and the index of what uses which: each tells the others when it has news."""
        world, stores = self.world, self.stores
        surroundings = HubSurroundings(self.supervisor, stores.clusters, self.auditor)
        self.keys = Keys(
            surroundings=surroundings,
            store=stores.keys,
            usage=stores.usage,
            auditor=self.auditor,
            clock=world.clock,
            settings=self.settings,
            data=world.directory.path,
            environ=world.environ,
            hub_id=world.directory.hub_id,
        )
        keyring = world.keyring or self.keys.keeper.keyring
        self.unsealer = KeyringUnsealer(
            keyring,
            environment_of=self.supervisor.environment_of,
            digest_key=world.directory.digest_key,
            executor=self.executor,
        )
        self.renderer.opener = self.unsealer
        self.sealing = Sealing(
            supervisor=self.supervisor,
            keyring=keyring,
            unsealer=self.unsealer,
            renderer=self.renderer,
            usage=stores.usage,
            clock=world.clock,
        )
        surroundings.scanned, self.sealing.on_scanned = self.sealing.is_scanned, self.keys.keeper.wake

    def _build_board(self) -> Board:
        hub_id = self.world.directory.hub_id
        board = Board(self.supervisor, self.world.clock, hub_id=hub_id, stale_after_s=self.settings.stale_after_s)
        board.key_troubles = self.keys.troubles
        board.rollouts = self.desk.current
        return board

    def _build_service(self) -> HubService:
        supervisor, stores = self.supervisor, self.stores
        return HubService(
            supervisor=supervisor,
            board=self.board,
            inspector=Inspector(supervisor, self.board, self.renderer, self.world.directory.hub_id),
            planner=Planner(
                supervisor=supervisor,
                releases=stores.releases,
                renderer=self.renderer,
                preflights=self.preflights,
            ),
            history=History(
                supervisor=supervisor, releases=stores.releases, archive=stores.archive, holds=stores.holds
            ),
            events=self.events,
            event_store=stores.events,
            pauses=stores.pauses,
            approvals=self.approvals,
            clusters=stores.clusters,
            drains=stores.drains,
            tokens=stores.tokens,
            audits=stores.audits,
            auditor=self.auditor,
            keys=self.keys,
            rollouts=self.desk,
            clock=self.world.clock,
        )

    async def restore(self) -> None:
        """Read what people, releases, rollouts and keys had settled when the hub stopped. Raises: StoreError."""
        stores, feed = self.stores, self.supervisor.feed
        self.board.pauses, self.board.drains = await stores.pauses.load(), await stores.drains.load()
        await self.approvals.load()
        feed.holds = await stores.holds.load()
        await feed.load()
        await self.rollouts.load()
        await self.keys.prepare()

    def commons(self) -> Commons:
        """Return what all sessions share."""
        world, board = self.world, self.board
        return Commons(
            settings=self.settings,
            clock=world.clock,
            hub_id=world.directory.hub_id,
            digest_key=world.directory.digest_key,
            feed=self.supervisor.feed,
            ledger=self.stores.ledger,
            events=self.events,
            unsealer=self.unsealer,
            inventory=lambda: self.supervisor.inventory,
            pauses=lambda: board.pauses,
            drains=lambda: board.drains,
            approvals=self.approvals,
            checkups=self.stores.checkups,
            on_progress=self.rollouts.note,
            on_cluster=self.rollouts.note_cluster,
        )

    def outside(self) -> Outside:
        """Return what sessions ask of the rest."""
        return Outside(
            reach=self.world.reach,
            leases=DatabaseLeases(self.stores.ledger),
            clusters=self.stores.clusters,
            is_known=self.supervisor.is_known,
            on_met=self.keys.keeper.wake,
        )

    def take_inventory(self, inventory: Inventory) -> None:
        """Hand a new inventory to whom it concerns."""
        self.supervisor.take_inventory(inventory)
        self.keys.keeper.wake()

    def runs(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Return what runs for as long as the hub does, by name."""
        follow = run_inventory(
            self.settings.inventory,
            self.world.changes,
            self.world.clock,
            removal_quiet_s=self.settings.removal_quiet_s,
            sink=self.take_inventory,
            report=self.supervisor.report_inventory,
        )
        return {
            "events": self.events.run(),
            "rollouts": self.rollouts.run(),
            "supervisor": self.supervisor.run(self.commons(), self.outside()),
            "inventory": follow,
            "usage": self.sealing.run(),
            "keys": self.keys.run(),
        }
