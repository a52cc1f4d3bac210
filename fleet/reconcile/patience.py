"""What a target remembers between its runs: which objects failed and when to try them again, and who fights over them."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from fleet.clock import Clock, jitter
from fleet.errors import FleetError, OnChange
from fleet.object import ObjectKey
from fleet.reconcile.drift import FIGHT_WINDOW, Contest, blocked_until, is_fresh, matching, note_drift, note_repair
from fleet.reconcile.live import Drift
from fleet.reconcile.plan import WRITES, Action, Change
from fleet.reconcile.port import Policy

_OPEN = WRITES | {Action.PRUNE, Action.HAND_OVER}
RETRY_FIRST_S, RETRY_MOST_S = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An object that could not be written. `retry_at` is loop time."""

    digest: bytes
    error: FleetError
    count: int
    retry_at: float
    waits_for: ObjectKey | None = None


class Patience:
    """Failures are tried again later and later, not at every event; fights with other controllers are spaced out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[ObjectKey, Failure] = {}
        self._contests: dict[ObjectKey, Contest] = {}

    @property
    def failures(self) -> Mapping[ObjectKey, Failure]:
        """Objects whose last write failed."""
        return self._failures

    def note_failure(self, change: Change, error: FleetError, waits_for: ObjectKey | None = None) -> bool:
        """Remember a failure; return whether it is news."""
        known, digest = self._failures.get(change.key), _digest(change)
        count = known.count + 1 if known and known.digest == digest else 1
        pause_s = min(RETRY_FIRST_S * 2 ** min(count - 1, 10), RETRY_MOST_S)
        if isinstance(error.retry, OnChange):
            pause_s = RETRY_MOST_S
        retry_at = asyncio.get_running_loop().time() + jitter(self._clock, pause_s)
        self._failures[change.key] = Failure(digest, error, count, retry_at, waits_for)
        return known is None or known.error.message != error.message

    def note_success(self, change: Change) -> None:
        """Forget an object's failures; a repair begins a round."""
        self._failures.pop(change.key, None)
        if change.is_drift:
            known = self._contests.get(change.key, Contest())
            self._contests[change.key] = note_repair(known, self._clock.now())

    def note_drift(self, change: Change, drift: Drift | None, policy: Policy) -> None:
        """Count a round of a fight with another controller; people with kubectl never make one."""
        taker, known = _taker(change, drift, policy), self._contests.get(change.key)
        if taker is not None and known is not None:
            self._contests[change.key] = note_drift(known, taker, self._clock.now())

    def holds(self, change: Change) -> bool:
        """Tell whether a change has to wait."""
        failure = self._failures.get(change.key)
        if failure is not None and failure.digest == _digest(change) and failure.retry_at > _loop_time():
            return True
        return change.is_drift and blocked_until(self._contests, change.key, self._clock.now()) is not None

    def holds_look_up(self, key: ObjectKey, digest: bytes) -> bool:
        """Tell whether an object that failed need not be looked up yet."""
        failure = self._failures.get(key)
        return failure is not None and failure.digest == digest and failure.retry_at > _loop_time()

    def keep(self, changes: Iterable[Change]) -> None:
        """Forget objects that are no longer spoken of, and failures of what is not to be done any more, or not like that."""
        listed = list(changes)
        keys = {change.key for change in listed}
        open_ = {c.key: _digest(c) for c in listed if c.action in _OPEN or c.reason == "NotLookedUp"}
        self._failures = {key: f for key, f in self._failures.items() if open_.get(key) == f.digest}
        self._contests = {key: contest for key, contest in self._contests.items() if key in keys}

    def forget_waits(self) -> None:
        """Let everything be tried now: somebody asked, or what it waited for came."""
        self._failures = {key: replace(failure, retry_at=0.0) for key, failure in self._failures.items()}
        self._contests.clear()

    def contested(self, drifted: Iterable[ObjectKey]) -> dict[ObjectKey, Contest]:
        """Pick the fights that go on: the object is taken, or was repaired too recently to know."""
        now, taken = self._clock.now(), set(drifted)
        return {
            key: contest
            for key, contest in self._contests.items()
            if contest.active and (key in taken or is_fresh(contest, now))
        }

    def wake_in_s(self, contested: Mapping[ObjectKey, Contest]) -> list[float]:
        """List in how many seconds something may be tried, or a fight may be over."""
        loop_time, now = _loop_time(), self._clock.now()
        waits = [failure.retry_at - loop_time for failure in self._failures.values()]
        return waits + [(until - now).total_seconds() for until in map(_next_look, contested.values()) if until > now]


def _next_look(contest: Contest) -> datetime:
    """Return when a contested object may be repaired, or at the latest when its last repair has held."""
    assert contest.repaired_at is not None
    held = contest.repaired_at + FIGHT_WINDOW
    return contest.until if contest.counted and contest.until is not None else held


def _digest(change: Change) -> bytes:
    return change.manifest.digest if change.manifest is not None else b""


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _taker(change: Change, drift: Drift | None, policy: Policy) -> str | None:
    """Name who is to be counted for a drift: a manager, "" for a deletion, None for a person."""
    if change.reason in ("Deleted", "Replaced"):
        return ""
    managers = sorted({p.manager for p in drift.paths if p.manager and not p.added}) if drift else []
    others = [name for name in managers if not matching([name], policy.drift_managers)]
    return others[0] if others else None
