"""What people decide about deletions: approve what the mass-change guard holds, or prune before a failed apply is mended."""

from collections.abc import Iterator, Sequence

from fleet.clock import format_at
from fleet.errors import TargetError
from fleet.hub.guard import Approvals
from fleet.hub.link import Link
from fleet.hub.progress import Progress
from fleet.hub.session import Session
from fleet.hub.supervisor import Supervisor
from fleet.hub.view import ApprovalRow
from fleet.object import TargetId
from fleet.reconcile.guard import HeldPrune, object_of
from fleet.reconcile.plan import Action
from fleet.reconcile.run import Report
from fleet.store.approval import Approval


class Deletions:
    """Answers from what sessions found in their last runs."""

    def __init__(self, supervisor: Supervisor, approvals: Approvals) -> None:
        self._supervisor = supervisor
        self._approvals = approvals

    def rows(self) -> Sequence[ApprovalRow]:
        """Deletions that wait for approval, by cluster and app; then those approved and not over yet."""
        return [*self._waiting(), *map(approved_row, sorted(self._approvals.of(), key=lambda a: (a.target, a.digest)))]

    def _waiting(self) -> Iterator[ApprovalRow]:
        for _, session in sorted(self._supervisor.sessions.items()):
            for target, progress in sorted(session.progress.items()):
                held = _held(progress)
                if held is not None and self._approvals.find(target, held.digest) is None:
                    yield _waiting_row(progress, held)

    async def approve(self, target: TargetId, digest: str, *, reason: str, actor: str) -> Approval:
        """Allow exactly what is held, and let it go on. Raises: TargetError NothingHeld, ApprovalStale."""
        session, progress = self._find(target)
        held = _held(progress)
        if held is None:
            if (known := self._approvals.find(target, digest)) is not None:
                return known
            raise TargetError(f"nothing of {target} waits for approval; see fleet approve --list", reason="NothingHeld")
        if held.digest != digest:
            raise TargetError(
                f"what would be deleted from {target} is not what {digest} stands for; look at it with"
                f" fleet approve --list, then: fleet approve {target} --digest {held.digest} --reason TEXT",
                reason="ApprovalStale",
            )
        approval = await self._approvals.add(target, held, reason=reason, actor=actor)
        session.mark(target, urgent=True)
        return approval

    def check_prune(self, target: TargetId) -> int:
        """Count what a prune would take or let go. Raises: KubeError, TargetError."""
        session, progress = self._find(target)
        link = _connected(session)
        if (paused := link.brakes.paused(target)) is not None:
            raise TargetError(
                f"{target} is paused: {paused.message}; end that with fleet resume, then prune", reason="Paused"
            )
        report = _reported(progress)
        if not report.order.policy.write:
            raise TargetError(
                f"app {target.app} only reports; set apply: auto in its document, then prune", reason="ReportOnly"
            )
        if report.held is not None:
            raise TargetError(report.held.message, reason=report.held.reason)
        return sum(change.action is Action.PRUNE for change in report.changes)

    def prune(self, target: TargetId) -> None:
        """Let the next run prune whatever it can see."""
        session, progress = self._find(target)
        progress.prune_now = True
        session.mark(target, urgent=True)

    def _find(self, target: TargetId) -> tuple[Session, Progress]:
        session = self._supervisor.sessions.get(target.cluster)
        progress = session.progress.get(target) if session is not None else None
        if session is None or progress is None:
            raise TargetError(
                f"app {target.app} does not go to cluster {target.cluster}; see fleet status", reason="NotFound"
            )
        return session, progress


def _held(progress: Progress) -> HeldPrune | None:
    return progress.report.held if progress.report is not None else None


def _connected(session: Session) -> Link:
    if session.link is None:
        name = session.cluster.name
        raise session.trouble or TargetError(
            f"cluster {name} is not connected; see fleet status --cluster {name}", reason="NotConnected"
        )
    return session.link


def _reported(progress: Progress) -> Report:
    if progress.report is None:
        raise TargetError(
            f"{progress.target} has not been looked at yet; see fleet status {progress.target}", reason="NotContacted"
        )
    return progress.report


def _waiting_row(progress: Progress, held: HeldPrune) -> ApprovalRow:
    return ApprovalRow(
        cluster=progress.target.cluster,
        app=progress.target.app,
        state="waiting",
        digest=held.digest,
        count=len(held.doomed),
        objects=tuple(map(object_of, held.doomed)),
        reason=held.reason,
        message=held.message,
        actor="",
        since=format_at(progress.since) if progress.since is not None else "",
    )


def approved_row(approval: Approval) -> ApprovalRow:
    """Show an approval."""
    return ApprovalRow(
        cluster=approval.target.cluster,
        app=approval.target.app,
        state="approved",
        digest=approval.digest,
        count=len(approval.objects),
        objects=tuple(sorted(map(object_of, approval.objects))),
        reason=approval.reason,
        message="",
        actor=approval.actor,
        since=format_at(approval.created_at),
    )
