"""What rollouts ask of others before they go on: whether clusters would take a release, and what checks say."""

from collections.abc import Iterator, Sequence

from fleet.hub.asker import Asker
from fleet.hub.preflight import Preflights
from fleet.hub.rollout import Tried
from fleet.object import TargetId
from fleet.reconcile.preflight import Outcome, Preflight
from fleet.rollout.decision import Ask
from fleet.rollout.state import Run, Sample

MOST_NAMED = 3
"""So many clusters are named of which the same was found."""
MOST_FOUND = 5
"""So many different things are said of a preflight; `fleet plan` shows all."""


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
        return Tried(
            refused="; ".join(tell(app, [each for each in found if each.outcome is Outcome.REFUSED])),
            unverified=tuple(tell(app, [each for each in found if each.outcome is Outcome.UNVERIFIED])),
        )


def tell(app: str, found: Sequence[Preflight]) -> Iterator[str]:
    """Say what was found, once for all clusters of which it holds; the rest is left to `fleet plan`.

    >>> from fleet.errors import TargetError
    >>> away = TargetError("not connected", reason="Unreachable")
    >>> lost = [Preflight(target=TargetId(f"c{n}", "shop"), release=2, trouble=away) for n in range(5)]
    >>> list(tell("shop", lost))
    ['c0, c1, c2 and 2 more: not connected']
    """
    same: dict[str, list[str]] = {}
    for each in found:
        same.setdefault(each.explain(), []).append(each.target.cluster)
    for why, clusters in list(same.items())[:MOST_FOUND]:
        rest = f" and {len(clusters) - MOST_NAMED} more" if len(clusters) > MOST_NAMED else ""
        yield f"{', '.join(clusters[:MOST_NAMED])}{rest}: {why}"
    if len(same) > MOST_FOUND:
        yield f"and {len(same) - MOST_FOUND} other things: fleet plan {app}"
