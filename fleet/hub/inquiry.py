"""What rollouts ask of others before they go on: whether clusters would take a release, and what checks say."""

from collections.abc import Sequence

from fleet.hub.asker import Asker
from fleet.hub.preflight import Preflights
from fleet.hub.rollout import Tried
from fleet.object import TargetId
from fleet.reconcile.preflight import Outcome
from fleet.rollout.decision import Ask
from fleet.rollout.state import Run, Sample

MOST_NAMED = 5
"""So many clusters are named when a release is refused; `fleet plan` shows all."""


class Inquiry:
    """Asks on behalf of rollouts."""

    def __init__(self, preflights: Preflights, asker: Asker) -> None:
        self._preflights = preflights
        self._asker = asker

    async def ask(self, ask: Ask, run: Run) -> Sample:
        """Ask a check once. Never raises but for bugs."""
        return await self._asker.ask(ask, run)

    async def preflight(self, app: str, release: int, clusters: Sequence[str]) -> Tried:
        """Try a release on clusters without doing it."""
        targets = [TargetId(name, app) for name in clusters]
        found = (await self._preflights.preflight_release(app, release, targets)).values()
        refused = [each.explain() for each in found if each.outcome is Outcome.REFUSED]
        rest = (
            [f"and on {len(refused) - MOST_NAMED} more clusters: fleet plan {app}"] if len(refused) > MOST_NAMED else []
        )
        return Tried(
            refused="; ".join([*refused[:MOST_NAMED], *rest]),
            unverified=tuple(each.explain() for each in found if each.outcome is Outcome.UNVERIFIED),
        )
