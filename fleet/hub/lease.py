"""Who may write a cluster: an epoch that grows with every session, checked by the database at each ledger write."""

import contextlib
from collections.abc import AsyncIterator

from fleet.store.ledger import Lease, LedgerStore


class DatabaseLeases:
    """Leases of one hub process over its database; another hub on the same data directory is refused before this."""

    def __init__(self, ledger: LedgerStore) -> None:
        self._ledger = ledger

    @contextlib.asynccontextmanager
    async def hold(self, cluster: str) -> AsyncIterator[Lease]:
        """Take the cluster: a session that has not noticed its end cannot write the ledger any more."""
        yield await self._ledger.take(cluster)
