"""One cluster: connect, make sure that it is who we think and ours to write, reconcile, and start over when it breaks.

A session contains every failure of its cluster; what it knew stays readable while it is away.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from fleet.aio import spawn, supervise
from fleet.clock import jitter
from fleet.errors import (
    ConfigError,
    FleetError,
    IdentityChanged,
    KubeError,
    OnChange,
    OwnedByAnotherHub,
    TargetError,
    Unreachable,
)
from fleet.hub.connection import open_credential
from fleet.hub.heartbeat import Heartbeat
from fleet.hub.link import Link
from fleet.hub.order import Commons
from fleet.hub.progress import Progress
from fleet.hub.tenant import explain
from fleet.inventory.schema import Cluster
from fleet.kube.api import KubeApi
from fleet.kube.client import Client
from fleet.kube.credential import Credential
from fleet.kube.discovery import Discovery
from fleet.kube.gate import Gate
from fleet.metric import gauge
from fleet.net.reach import Reach
from fleet.object import TargetId
from fleet.reconcile.port import Leases
from fleet.store.cluster import ClusterStore
from fleet.store.event import Event

log = structlog.get_logger()

CREDENTIAL_CHECK_S = 30.0
CONNECT_DEADLINE_S = 10.0
FIRST_PAUSE_S, MOST_PAUSE_S = 1.0, 30.0

UP = gauge("fleet_cluster_up", "Whether a cluster answers.", "cluster")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What a session reaches its cluster with."""

    reach: Reach
    leases: Leases
    clusters: ClusterStore
    is_known: Callable[[str], bool]
    on_met: Callable[[], None] = lambda: None
    """Told when a cluster's identity is known."""
    """Whether a cluster name is in the inventory."""


class _Renewed(KubeError):
    """What the connection was made from has changed; it is made anew."""

    default_reason = "CredentialChanged"


class Session:
    """Holds one cluster until cancelled."""

    def __init__(self, cluster: Cluster, commons: Commons, outside: Outside) -> None:
        self.cluster = cluster
        self.link: Link | None = None
        """Set while connected."""
        self.last_link: Link | None = None
        """The connection that is or was; what it knew can still be shown."""
        self.progress: dict[TargetId, Progress] = {}
        self.trouble: FleetError | None = Unreachable("connecting for the first time", reason="Connecting")
        """Why the cluster does not answer or may not be written; None when all is well."""
        self.since = commons.clock.now()
        self.server = ""
        self.version = ""
        self.uid = ""
        self.contacted = False
        """Whether the cluster ever answered, in this process or an earlier one."""
        self.former_hubs: frozenset[str] = frozenset()
        """Hubs that the cluster was taken over from: what carries their id counts as left behind."""
        self._commons = commons
        self._outside = outside
        self._seen_at: datetime | None = None
        self._started_at = asyncio.get_running_loop().time()
        self._lost_at: float | None = self._started_at

    @property
    def observed_at(self) -> datetime | None:
        """When the cluster last said anything; None when it never did."""
        link = self.last_link
        if link is None or link.client.heard_at == float("-inf"):
            return self._seen_at
        ago_s = asyncio.get_running_loop().time() - link.client.heard_at
        return self._commons.clock.now() - timedelta(seconds=ago_s)

    @property
    def silent_s(self) -> float:
        """Seconds since the cluster said anything, or since this session began."""
        heard_at = self.last_link.client.heard_at if self.last_link is not None else float("-inf")
        return asyncio.get_running_loop().time() - max(heard_at, self._started_at)

    @property
    def away_s(self) -> float:
        """Seconds since the cluster ceased to answer, or since this session began; 0.0 while it answers.

        Less than `silent_s`: a cluster in which nothing happens says nothing for a minute.
        """
        return asyncio.get_running_loop().time() - self._lost_at if self._lost_at is not None else 0.0

    async def run(self) -> None:
        """Connect and reconcile for ever; failures are shown and tried again."""
        known = await self._outside.clusters.get(self.cluster.name)
        if known is not None and known.uid:
            self.uid, self.version, self.contacted, self._seen_at = known.uid, known.version, True, known.contacted_at
        try:
            await supervise(
                f"cluster/{self.cluster.name}",
                self._attempt,
                clock=self._commons.clock,
                on_failure=lambda error, _pause_s: self._set_trouble(explain(error, self.cluster.name)),
                first_s=FIRST_PAUSE_S,
                most_s=MOST_PAUSE_S,
            )
        finally:
            UP.labels(self.cluster.name).set(0)

    def mark(self, target: TargetId, *, urgent: bool = False) -> None:
        """Look at a target again, if connected."""
        if self.link is not None:
            self.link.mark(target, urgent=urgent)

    def mark_all(self) -> None:
        """Look at every target again, if connected."""
        if self.link is not None:
            self.link.mark_all()

    async def _attempt(self) -> None:
        commons, name = self._commons, self.cluster.name
        credential = await open_credential(self.cluster)
        self.server = credential.server
        gate = Gate(commons.clock, most=self.cluster.spec.limits.parallel_applies)
        async with (
            Client(
                credential,
                self._outside.reach,
                gate,
                commons.clock,
                timeout_s=commons.settings.request_timeout_s,
                cluster=name,
            ) as client,
            self._outside.leases.hold(name) as lease,
        ):
            discovery = Discovery(client)
            api = KubeApi(client, discovery)
            try:
                async with asyncio.timeout(CONNECT_DEADLINE_S):
                    await self._meet(api)
            except TimeoutError:
                raise Unreachable(f"{credential.server} did not answer in time", reason="Timeout") from None
            await discovery.refresh()
            heartbeat = await self._take(api)
            self.link = self.last_link = Link(
                name,
                commons,
                client=client,
                discovery=discovery,
                api=api,
                lease=lease,
                progress=self.progress,
                heartbeat=heartbeat,
                former_hubs=self.former_hubs,
                on_trouble=self._set_trouble,
            )
            self._set_trouble(None)
            try:
                async with asyncio.TaskGroup() as group:
                    spawn(group, f"heartbeat/{name}", heartbeat.run(self._set_trouble))
                    spawn(group, f"credential/{name}", self._watch_credential(credential))
                    spawn(group, f"link/{name}", self.link.run())
            finally:
                self.link = None

    async def _meet(self, api: KubeApi) -> None:
        """Make sure that this is the cluster we were told about, under one name only.

        Raises: IdentityChanged; TargetError (`SameCluster`); KubeError; StoreError.
        """
        name, clusters = self.cluster.name, self._outside.clusters
        self.version = await api.server_version()
        uid = await api.namespace_uid("kube-system")
        known = await clusters.get(name)
        pinned = known.uid if known is not None else ""
        expected = self.cluster.spec.uid or pinned
        if expected and uid != expected:
            raise IdentityChanged(self._explain_change(uid, expected), uid=uid)
        for other in await clusters.others_with_uid(name, uid):
            if self._outside.is_known(other):
                raise TargetError(
                    f"this is the same cluster as {other}; remove one of the two documents",
                    reason="SameCluster",
                    retry=OnChange(),
                )
            await clusters.rename(other, name)
            self._note("Renamed", f"this is the cluster that was called {other}; what was applied to it is known")
        if pinned and uid != pinned:
            await self.accept(uid, f"spec.uid in {self.cluster.origin} says so")
            raise _Renewed("another cluster was accepted")  # with it went the lease of this attempt
        await clusters.pin(name, uid, self.version)
        self.uid, self.contacted = uid, True
        self._outside.on_met()

    def _explain_change(self, uid: str, expected: str) -> str:
        name = self.cluster.name
        accept = f"run fleet cluster accept {name} --uid {uid} --reason TEXT"
        if self.cluster.spec.uid:
            accept = f"set spec.uid in {self.cluster.origin} to {uid}"
        return (
            f"another cluster answers: its uid is {uid}, expected is {expected}; nothing is written."
            f" Correct the connection, or, if the cluster was rebuilt on purpose, {accept}"
        )

    async def accept(self, uid: str, why: str) -> None:
        """Pin another uid and forget everything that was known of the cluster before. Raises: StoreError."""
        name = self.cluster.name
        before = self.uid or "no uid"
        await self._outside.clusters.accept(name, uid)
        self._commons.feed.forget_applied(name)
        self.progress.clear()
        self.last_link, self.uid = None, uid
        self._note("IdentityAccepted", f"uid {uid} in place of {before}: {why}; the ledger starts empty")

    async def _take(self, api: KubeApi) -> Heartbeat:
        """Hold the cluster, from another hub only if somebody asked for that.

        Raises: OwnedByAnotherHub; KubeError.
        """
        commons, name, clusters = self._commons, self.cluster.name, self._outside.clusters
        takeovers = await clusters.takeovers(name)
        heartbeat = Heartbeat(
            api,
            commons.hub_id,
            commons.clock,
            cluster=name,
            every_s=commons.settings.heartbeat_s,
            takeovers=takeovers,
        )
        try:
            await heartbeat.take()
        except OwnedByAnotherHub as error:
            await clusters.forget_takeover(name, error.holder)
            raise
        if takeovers.pending:
            await clusters.finish_takeover(name)
            self._note(
                "TakenOver", f"this hub holds the cluster now, in place of {', '.join(sorted(takeovers.pending))}"
            )
        self.former_hubs = takeovers.all
        return heartbeat

    async def _watch_credential(self, used: Credential) -> None:
        """End the connection when the files it was made from have changed."""
        while True:
            await asyncio.sleep(jitter(self._commons.clock, CREDENTIAL_CHECK_S))
            try:
                now = await open_credential(self.cluster)
            except ConfigError:
                continue  # half-written; while it works, the old one is used
            if now.fingerprint != used.fingerprint:
                raise _Renewed("the credential changed")

    def _set_trouble(self, error: FleetError | None) -> None:
        """Take news of whether the cluster answers; what changes is an event."""
        before = self.trouble
        self.trouble = error
        if error is None:
            self._lost_at = None
        elif self._lost_at is None:
            self._lost_at = asyncio.get_running_loop().time()
        UP.labels(self.cluster.name).set(error is None)
        self._commons.on_cluster(self.cluster.name)
        if (before is None) == (error is None) and (error is None or before is None or before.reason == error.reason):
            return
        self.since = self._commons.clock.now()
        message = str(error) if error is not None else f"connected to {self.server}, {self.version}"
        self._note(error.reason if error is not None else "Connected", message)

    def _note(self, reason: str, message: str) -> None:
        at, name = self._commons.clock.now(), self.cluster.name
        self._commons.events.append(Event(at=at, kind="cluster", reason=reason, message=message, cluster=name))
