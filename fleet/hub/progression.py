"""When which target gets a release: all at once now, stage by stage once rollouts exist."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from fleet.object import TargetId
from fleet.store.release import Release


class Progression(Protocol):
    """Decides which targets may have a release."""

    async def admit(self, app: str, release: Release, targets: Sequence[TargetId]) -> Mapping[TargetId, Release]:
        """Return the targets that may have the release now."""
        ...


class AllAtOnce:
    """Every target follows at once."""

    async def admit(self, app: str, release: Release, targets: Sequence[TargetId]) -> Mapping[TargetId, Release]:
        """Admit all."""
        return dict.fromkeys(targets, release)
