"""The life of one list+watch as pure transitions: what happened -> what to do next.

A watch is in one of four phases. LISTING: a streaming list is (to be) open. PAGING: a paged list is to be made. WATCHING: a
watch from a known position is (to be) open. PROBING: the connection broke, and before resuming it must be known
that the server's history still reaches our position (an etcd restored from a backup would accept the watch and stay silent).

Source: Kubernetes API concepts, "Efficient detection of changes", and replies seen on a real kube-apiserver.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from fleet.kube.wire import parse_rv

EMPTY_CONNECTIONS = 3
PROBES = 3


class Phase(StrEnum):
    """What the next connection is for."""

    LISTING = "listing"
    PAGING = "paging"
    WATCHING = "watching"
    PROBING = "probing"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a list+watch stands."""

    phase: Phase = Phase.LISTING
    rv: str = ""
    """Position to resume from; empty before the first complete list."""
    streaming: bool = True
    """The server is still believed to offer streaming lists."""
    failures: int = 0
    """Connections in a row that failed or showed nothing: the exponent of the pause."""
    empty: int = 0
    """Connections in a row that ended cleanly without an event."""
    heard: bool = False
    """The open connection has shown something."""
    probes: int = 0
    """Probes in a row that found the server behind our position."""
    stalled: bool = False
    """The sink has been told that nothing can be observed."""


class Tell(StrEnum):
    """What the sink has to learn, in order."""

    RESTARTED = "restarted"
    SYNCED = "synced"
    STALLED = "stalled"
    RESUMED = "resumed"


@dataclass(frozen=True, slots=True)
class Step:
    """The next state, what to tell the sink, and whether the open connection must be closed."""

    state: State
    tell: tuple[Tell, ...] = ()
    close: bool = False


def connected(state: State) -> Step:
    """Note that the server accepted the request for this phase."""
    tell: tuple[Tell, ...] = (Tell.RESUMED,) if state.stalled else ()
    if state.phase in (Phase.LISTING, Phase.PAGING):
        tell += (Tell.RESTARTED,)
    return Step(replace(state, stalled=False, heard=False), tell)


def changed(state: State, rv: str) -> Step:
    """Note an ADDED, MODIFIED or DELETED event at `rv`.

    While watching, a position that moves backwards means that the server's history was rewound: list again.
    """
    if state.phase is not Phase.WATCHING:
        return Step(replace(state, heard=True))
    if _is_behind(rv, state.rv):
        return _relist(state)
    return Step(replace(state, rv=rv, heard=True, failures=0, empty=0))


def bookmarked(state: State, rv: str, *, initial_end: bool) -> Step:
    """Note a BOOKMARK; `initial_end` completes a streaming list."""
    if state.phase is Phase.LISTING:
        return listed(state, rv) if initial_end else Step(replace(state, heard=True))
    return changed(state, rv)


def listed(state: State, rv: str) -> Step:
    """Note that a list is complete at `rv`."""
    done = replace(state, phase=Phase.WATCHING, rv=rv, heard=True, failures=0, empty=0, probes=0)
    return Step(done, (Tell.SYNCED,))


def expired(state: State) -> Step:
    """Note a 410: the position, or the continue token, is too old."""
    return _relist(state)


def ended(state: State) -> Step:
    """Note a clean end of the stream.

    A list that ended before it was complete starts again. Watches that end without any event, three times in a row,
    are how some servers answer a stale position: list again.
    """
    if state.phase is not Phase.WATCHING:
        return Step(replace(state, failures=state.failures + 1), close=True)
    if state.heard:
        return Step(state, close=True)
    if state.empty + 1 >= EMPTY_CONNECTIONS:
        return _relist(state)
    return Step(replace(state, empty=state.empty + 1, failures=state.failures + 1), close=True)


def failed(state: State) -> Step:
    """Note a connection that was refused, broke, fell silent or sent garbage."""
    phase = Phase.PROBING if state.phase is Phase.WATCHING and parse_rv(state.rv) else state.phase
    after = replace(state, phase=phase, failures=state.failures + 1, stalled=True)
    return Step(after, (Tell.STALLED,), close=True)


def unsupported(state: State) -> Step:
    """Note that the server refuses streaming lists, or never completes one: page from now on."""
    return Step(replace(state, phase=Phase.PAGING, streaming=False), close=True)


def probed(state: State, *, reached: bool) -> Step:
    """Note the answer to a probe: whether the server's history reaches our position.

    Behind three times in a row, each after the server itself waited, it is a restored backup: list again.
    """
    if reached:
        return Step(replace(state, phase=Phase.WATCHING, probes=0))
    if state.probes + 1 >= PROBES:
        return _relist(state)
    return Step(replace(state, probes=state.probes + 1, failures=state.failures + 1))


def pause_s(failures: int, *, most_s: float = 30.0) -> float:
    """Return how long to wait before the next connection, without jitter.

    >>> [pause_s(n) for n in (0, 1, 2, 3, 20)]
    [0.0, 0.25, 0.5, 1.0, 30.0]
    """
    return min(0.25 * 2.0 ** min(failures - 1, 20), most_s) if failures else 0.0


def _relist(state: State) -> Step:
    phase = Phase.LISTING if state.streaming else Phase.PAGING
    fresh = replace(state, phase=phase, rv="", probes=0, empty=0, failures=state.failures + 1, heard=False)
    return Step(fresh, close=True)


def _is_behind(rv: str, last: str) -> bool:
    now, before = parse_rv(rv), parse_rv(last)
    return bool(now and before and now < before)
