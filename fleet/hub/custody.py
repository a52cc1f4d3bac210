"""Whose a cluster is and what it may hold: accepting another identity, taking over from another hub, emptying it."""

from fleet.errors import IdentityChanged, OwnedByAnotherHub, TargetError
from fleet.hub.audit import Auditor
from fleet.hub.board import Board
from fleet.hub.rights import collect_rights, write_rights
from fleet.hub.session import Session
from fleet.hub.supervisor import Supervisor
from fleet.hub.view import Actor, ClusterRow, DrainRow, Manifests
from fleet.object import TargetId, encode_canonical
from fleet.store.cluster import ClusterStore
from fleet.store.drain import DrainStore


class Custody:
    """The verbs of `fleet cluster`. What they decide is in the store before anything follows from it."""

    def __init__(
        self, supervisor: Supervisor, board: Board, clusters: ClusterStore, drains: DrainStore, auditor: Auditor
    ) -> None:
        self._supervisor = supervisor
        self._board = board
        self._clusters = clusters
        self._drains = drains
        self._auditor = auditor

    async def accept(self, name: str, *, uid: str, reason: str, actor: Actor) -> ClusterRow:
        """Take the cluster that answers for the one that was known by this name: its ledger starts empty. Idempotent.

        Raises: TargetError when the uid is not that of the cluster which answers, or a file pins another.
        """
        session = self._session(name)
        trouble = session.trouble
        if not isinstance(trouble, IdentityChanged):
            if uid == session.uid:
                return self._board.cluster(session)
            raise TargetError(
                f"cluster {name} is not in question: its uid is {session.uid or 'not known yet'}; fleet cluster show"
                f" {name} says how it is",
                reason="NothingToAccept",
            )
        if session.cluster.spec.uid:
            raise TargetError(trouble.message, reason="PinnedByFile")
        if uid != trouble.uid:
            raise TargetError(
                f"the uid of the cluster that answers is {trouble.uid}, not {uid}; if that is the one you mean, run fleet"
                f" cluster accept {name} --uid {trouble.uid} --reason TEXT",
                reason="UidDiffers",
            )
        before, after = {"uid": session.uid}, {"uid": uid}
        async with self._auditor.act("ClusterAccepted", actor, reason, cluster=name, before=before, after=after):
            await session.accept(uid, f"by {actor.name}: {reason}")
            self._supervisor.reconnect(name)
        return self._board.cluster(session)

    async def take_over(self, name: str, *, reason: str, actor: Actor) -> ClusterRow:
        """Take a cluster from the hub that holds it; that hub stops writing when it next looks at the Lease.

        Raises: TargetError NothingToTakeOver when no other hub holds it.
        """
        session = self._session(name)
        trouble = session.trouble
        if not isinstance(trouble, OwnedByAnotherHub):
            raise TargetError(
                f"no other hub holds cluster {name}; fleet cluster show {name} says how it is",
                reason="NothingToTakeOver",
            )
        before = {"hub": trouble.holder}
        async with self._auditor.act("ClusterTakenOver", actor, reason, cluster=name, before=before):
            await self._clusters.take_over(name, [trouble.holder])
            self._supervisor.reconnect(name)
        return self._board.cluster(session)

    async def drain(self, name: str, app: str, *, reason: str, actor: Actor) -> DrainRow:
        """Delete what was applied to a cluster, of one app or of all, and keep it away. Idempotent."""
        session = self._session(name)
        if app and self._board.target(TargetId(name, app)) is None:
            raise TargetError(f"app {app} does not go to cluster {name}", reason="NotFound")
        async with self._auditor.act("Drained", actor, reason, cluster=name, app=app) as act:
            drain = await self._drains.add(cluster=name, app=app, reason=reason, actor=actor.name)
            act.after = {"drained": drain.scope}
            await self._reload(session)
        return self._board.drain_row(drain)

    async def undrain(self, name: str, app: str, *, actor: Actor) -> int:
        """End the drain of exactly this scope; returns how many ended.

        Raises: TargetError when an app's cluster is drained as a whole.
        """
        drain = next((drain for drain in self._board.drains if (drain.cluster, drain.app) == (name, app)), None)
        if drain is None:
            if app and any(drain.cluster == name and not drain.app for drain in self._board.drains):
                raise TargetError(
                    f"cluster {name} is drained as a whole; run fleet cluster undrain {name}", reason="DrainedAsAWhole"
                )
            return 0
        before = {"drained": drain.scope, "by": drain.actor, "reason": drain.reason}
        async with self._auditor.act("Undrained", actor, cluster=name, app=app, before=before):
            ended = await self._drains.remove(cluster=name, app=app)
            await self._reload(self._supervisor.sessions.get(name))
        return ended

    def manifests(self, name: str) -> Manifests:
        """Write the rights that the hub and the apps of a cluster need, as far as the apps could be rendered."""
        session = self._session(name)
        feed = self._supervisor.feed
        supplies = [supply for target, supply in sorted(feed.supplies.items()) if target.cluster == name]
        needs = collect_rights(supplies, session.last_link)
        inventory = self._supervisor.inventory
        known = inventory.targets if inventory is not None else {}
        missing = sorted({t.app for t in known if t.cluster == name} - {s.target.id.app for s in supplies if s.desired})
        return Manifests(
            cluster=name,
            manifests=tuple(encode_canonical(document).decode() for document in write_rights(needs)),
            missing=tuple(missing),
        )

    async def _reload(self, session: Session | None) -> None:
        self._board.drains = await self._drains.load()
        if session is not None:
            session.mark_all()

    def _session(self, name: str) -> Session:
        session = self._supervisor.sessions.get(name)
        if session is None:
            raise TargetError(f"there is no cluster {name}; fleet cluster list shows what there is", reason="NotFound")
        return session
