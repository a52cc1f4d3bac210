"""Emptying a target that stays in the inventory: what its run shall do, and what is shown meanwhile. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from fleet.hub.supply import Supply
from fleet.object import TargetId
from fleet.reconcile.run import Order
from fleet.reconcile.status import Why
from fleet.store.drain import Drain


def drain_order(supply: Supply, *, writable: bool) -> Order:
    """Say what a run of a drained target shall do.

    `onRemove: orphan` is about the App document; whoever drains has said that the objects shall go.
    """
    return Order(
        policy=replace(supply.brief.policy, on_remove_prune=True),
        desired=None,
        removed=True,
        writable=writable,
        guarded=False,
    )


def explain_drain(drain: Drain, left: int, first: Sequence[TargetId]) -> Why:
    """Say who drained a target, how far that is, and how it ends."""
    who = f"{drain.scope} by {drain.actor}: {drain.reason}"
    if first:
        return Why(reason="Draining", message=f"{who}; waits until app {first[0].app}, which needs it, is gone")
    if left:
        return Why(reason="Draining", message=f"{who}; {left} object{'s are' if left != 1 else ' is'} left")
    return Why(reason="Drained", message=f"{who}; {drain.undo} applies it again")
