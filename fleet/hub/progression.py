"""Which release each target of an app is to have: what the feed asks, and rollouts answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet.inventory.schema import App
from fleet.object import TargetId
from fleet.reconcile.status import Why
from fleet.store.release import Release


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What a target is to have."""

    release: int
    """0 = nothing yet."""
    waits: Why | None = None
    """Why it is not the newest release."""


class Progression(Protocol):
    """Decides which targets may have which release."""

    async def admit(
        self, app: App, newest: Release, digests: Mapping[TargetId, str], failed: Mapping[TargetId, str]
    ) -> Mapping[TargetId, Admission]:
        """Take a release that was rendered, and say what each of its targets is to have.

        `digests` are of what it renders to, per target that nobody holds; `failed` says why it cannot be rendered for
        others, for good. Idempotent.
        """
        ...

    def admissions(self, app: str, targets: Sequence[TargetId]) -> Mapping[TargetId, Admission]:
        """Say once more what targets are to have, by what `admit` was told last."""
        ...
