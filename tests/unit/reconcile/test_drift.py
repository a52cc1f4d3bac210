"""Fights, told from drift; and what counts as taken."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.object import ObjectKey
from fleet.reconcile.drift import (
    FIGHT_ROUNDS,
    FIGHT_WINDOW,
    MOST_PAUSE,
    QUIET,
    Contest,
    blocked_until,
    is_fresh,
    matching,
    note_drift,
    note_repair,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ObjectKey("", "ConfigMap", "shop", "a")
SECOND = timedelta(seconds=1)


def fight(rounds: int, *, every: timedelta = SECOND, manager: str = "rival") -> tuple[Contest, datetime]:
    """Repair and lose so often; the rival answers after `every`, and repairs wait as they must."""
    contest, now = note_repair(Contest(), NOW), NOW
    for _ in range(rounds):
        now += every
        contest = note_drift(contest, manager, now)
        now = max(now, contest.until or now)
        if _ < rounds - 1:
            contest = note_repair(contest, now)
    return contest, now


@pytest.mark.parametrize(("rounds", "pause_s"), [(1, 0), (4, 0), (5, 10), (6, 20), (7, 40), (11, 600), (20, 600)])
def test_pauses_double(rounds: int, pause_s: int) -> None:
    """Five takings make a contest; each further one doubles the pause, up to ten minutes."""
    contest, _ = fight(rounds)
    assert contest.active is (rounds >= FIGHT_ROUNDS)
    assert contest.pause == timedelta(seconds=pause_s)
    assert contest.manager == "rival"


def test_one_taking_counts_once() -> None:
    """Looking at the same drift again adds no round and does not lengthen the pause."""
    contest, now = fight(5)
    again = note_drift(contest, "rival", now)
    assert again == contest
    assert blocked_until({KEY: again}, KEY, now - SECOND) == now
    assert blocked_until({KEY: again}, KEY, now) is None


def test_slow_takings_are_no_fight() -> None:
    """More than 30 s after a repair it is news, not a fight."""
    contest, _ = fight(20, every=FIGHT_WINDOW + SECOND)
    assert not contest.active


def test_takers_in_turn_are_no_fight() -> None:
    """Different managers do not add up."""
    contest, now = note_repair(Contest(), NOW), NOW
    for n in range(12):
        now += SECOND
        contest = note_repair(note_drift(contest, f"m{n % 2}", now), now)
    assert not contest.active


def test_quiet_forgets() -> None:
    """After 30 quiet minutes the count begins anew."""
    contest, now = fight(8)
    contest = note_repair(contest, now)
    assert is_fresh(contest, now)
    assert not is_fresh(contest, now + FIGHT_WINDOW)
    later = now + QUIET + SECOND
    assert note_drift(contest, "rival", later) == Contest(manager="rival")
    assert note_drift(contest, "rival", now + QUIET).active


def test_without_a_repair_there_is_nothing_to_count() -> None:
    """The first drift of an object is not a round."""
    assert note_drift(Contest(), "rival", NOW).rounds == 0
    assert blocked_until({}, KEY, NOW) is None


@given(st.lists(st.tuples(st.sampled_from(["repair", "drift"]), st.integers(0, 4000)), max_size=60))
def test_a_contest_is_always_bounded(steps: list[tuple[str, int]]) -> None:
    """Whatever happens when: a pause never exceeds ten minutes and never blocks without a fight."""
    contest, now = Contest(), NOW
    for what, seconds in steps:
        now += timedelta(seconds=seconds)
        contest = note_repair(contest, now) if what == "repair" else note_drift(contest, "rival", now)
        until = blocked_until({KEY: contest}, KEY, now)
        assert contest.pause <= MOST_PAUSE
        assert until is None or (contest.active and until <= now + MOST_PAUSE)


def test_matching_globs() -> None:
    """Managers are matched by globs, case counting."""
    assert matching(["kubectl-edit", "Kubectl", "vpa"], ["kubectl*"]) == ("kubectl-edit",)
    assert matching(["kubectl"], []) == ()
