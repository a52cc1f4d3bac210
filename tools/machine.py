"""Draw the state machines of a rollout, as the code has them."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from fleet.rollout.state import CLUSTER_MOVES, RUN_MOVES, ClusterState, RunState

S = TypeVar("S", bound=StrEnum)
RUN_ENDS = (RunState.SUCCEEDED, RunState.FAILED, RunState.ABORTED, RunState.ROLLED_BACK, RunState.SUPERSEDED)
"""Where a run is over, unless somebody tries it again."""


def draw_machines() -> str:
    """Return both diagrams, Mermaid in Markdown."""
    run = draw(RUN_MOVES, RunState.PLANNED, RUN_ENDS)
    cluster = draw(CLUSTER_MOVES, ClusterState.PENDING, (ClusterState.DONE,))
    return f"A run:\n\n{run}\n\nA cluster of a run:\n\n{cluster}"


def draw(moves: Mapping[S, frozenset[S]], first: S, ends: Sequence[S]) -> str:
    """Return one diagram: every move there is, in the order in which the states are declared."""
    order = list(type(first))
    lines = [f"    [*] --> {first}"]
    lines += [f"    {state} --> {to}" for state in order for to in order if to in moves.get(state, ())]
    lines += [f"    {state} --> [*]" for state in ends]
    return "\n".join(("```mermaid", "stateDiagram-v2", *lines, "```"))
