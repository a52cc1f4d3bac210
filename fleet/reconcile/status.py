"""The state of a target, decided from facts; first match wins (design §1). Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The few words a target's state is told in. Waiting and Stale are never errors."""

    UNKNOWN = "Unknown"
    STALE = "Stale"
    FAILED = "Failed"
    PAUSED = "Paused"
    DRIFTED = "Drifted"
    WAITING = "Waiting"
    DEGRADED = "Degraded"
    PROGRESSING = "Progressing"
    SYNCED = "Synced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """A CamelCase reason and a sentence that says what is and what to do."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A state with its reason."""

    state: State
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the state of a target depends on; each `Why` is the first of its sort, None when there is none."""

    contacted: bool
    stale: Why | None = None
    failed: Why | None = None
    paused: Why | None = None
    drifted: Why | None = None
    waiting: Why | None = None
    degraded: Why | None = None
    progressing: Why | None = None


def decide_state(facts: Facts) -> Condition:
    """Decide the state.

    >>> decide_state(Facts(contacted=True)).state.value
    'Synced'
    >>> paused = Why(reason="Paused", message="by ada: audit week")
    >>> decide_state(Facts(contacted=True, paused=paused, waiting=paused)).state.value
    'Paused'
    """
    for state, why in _ranked(facts):
        if why is not None:
            return Condition(state=state, reason=why.reason, message=why.message)
    return Condition(state=State.SYNCED, reason="Synced", message="everything is applied and healthy")


def _ranked(facts: Facts) -> Iterator[tuple[State, Why | None]]:
    if not facts.contacted:
        yield State.UNKNOWN, facts.stale or Why(reason="NotContacted", message="the cluster has not been contacted yet")
    yield State.STALE, facts.stale
    yield State.FAILED, facts.failed
    yield State.PAUSED, facts.paused
    yield State.DRIFTED, facts.drifted
    yield State.WAITING, facts.waiting
    yield State.DEGRADED, facts.degraded
    yield State.PROGRESSING, facts.progressing
