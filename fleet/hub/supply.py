"""What targets should be, as far as is known: values that the feed makes and everybody reads."""

from dataclasses import dataclass

from fleet.errors import FleetError
from fleet.hub.brief import Brief
from fleet.inventory.value import Target
from fleet.reconcile.run import Desired
from fleet.reconcile.status import Why
from fleet.render.renderer import Rendered
from fleet.store.hold import Hold
from fleet.store.release import Release


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What a target should be, as far as is known."""

    target: Target
    brief: Brief
    desired: Desired | None = None
    """None until the first release could be rendered."""
    head: str = ""
    """The revision that its ref points to."""
    failure: FleetError | None = None
    """Why `desired` is not what `head` says."""
    hold: Hold | None = None
    """What pins it to an earlier release."""
    pending: Why | None = None
    """Why a rollout does not give it the newest release yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """The newest release as rendered for a target, whether or not it has it."""

    release: Release
    rendered: Rendered
    head: str


def is_same(a: Supply, b: Supply) -> bool:
    """Compare without looking into manifests and documents."""
    return (
        a.desired is b.desired
        and a.head == b.head
        and a.hold == b.hold
        and a.pending == b.pending
        and a.brief == b.brief
        and str(a.failure) == str(b.failure)
        and a.target.depends_on == b.target.depends_on
        and a.target.app.spec.paused == b.target.app.spec.paused
    )
