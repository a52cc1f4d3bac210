"""What a lost ledger left behind: objects that this hub applied and Git does not have, kept until a person confirms."""

from collections.abc import Iterator

from fleet.errors import TargetError
from fleet.hub.session import Session
from fleet.hub.supervisor import Supervisor
from fleet.hub.view import RecoverRow
from fleet.object import ObjectKey, TargetId

PENDING = "RecoverPending"


class Recovery:
    """Lists what waits for confirmation, and confirms it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def rows(self) -> list[RecoverRow]:
        """List the objects that would be pruned, by cluster and app."""
        return sorted(
            (
                RecoverRow(
                    cluster=target.cluster,
                    app=target.app,
                    group=key.group,
                    kind=key.kind,
                    namespace=key.namespace,
                    name=key.name,
                )
                for _, target, keys in self._pending()
                for key in keys
            ),
            key=lambda row: (row.cluster, row.app, row.group, row.kind, row.namespace, row.name),
        )

    def _pending(self) -> Iterator[tuple[Session, TargetId, list[ObjectKey]]]:
        for session in self._supervisor.sessions.values():
            for target, progress in session.progress.items():
                changes = progress.report.changes if progress.report is not None else ()
                if keys := [change.key for change in changes if change.reason == PENDING]:
                    yield session, target, keys

    async def confirm(self, cluster: str, app: str) -> list[RecoverRow]:
        """Let what is listed now be pruned as anything else that left Git; returns it. Idempotent.

        Raises: TargetError (`NotConnected`) when a cluster of it is away; StoreError.
        """
        meant = [found for found in self._pending() if cluster in ("", found[1].cluster) and app in ("", found[1].app)]
        for session, target, _ in meant:
            if session.link is None or session.trouble is not None:
                raise TargetError(
                    f"cluster {target.cluster} is not connected; see fleet status --cluster {target.cluster}",
                    reason="NotConnected",
                )
        rows = [row for row in self.rows() if cluster in ("", row.cluster) and app in ("", row.app)]
        for session, target, keys in meant:
            if session.link is not None:
                await session.link.release_found(target, keys)
        return rows
