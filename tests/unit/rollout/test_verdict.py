"""What the results of checks say together, and when the next question is due."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rollout.asking import describe, due, verdict_of
from fleet.rollout.decision import Ask, Wake
from fleet.rollout.policy import Check, HttpProbe
from fleet.rollout.state import Sample
from fleet.rollout.verdict import Failed, Passed, Pending, judge

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)
OUTCOMES = {"p": "passed", "f": "failed", "i": "inconclusive"}
KINDS = {"pass": Passed, "fail": Failed, "wait": Pending}
LETTERS = st.text("pfi", max_size=12)
COUNTS = st.integers(1, 5)
LIMITS = st.integers(0, 4)


def check(name: str = "smoke", count: int = 1, failure_limit: int = 0, interval_s: float = 10.0) -> Check:
    """Return a check."""
    question = HttpProbe(url="http://a")
    return Check(name=name, question=question, count=count, failure_limit=failure_limit, interval_s=interval_s)


def results(letters: str, name: str = "smoke", round_: int = 0) -> list[Sample]:
    """Return a result for each letter, ten seconds after each other; messages count from 0."""
    return [
        Sample(check=name, at=at(10 * i), outcome=OUTCOMES[letter], message=f"m{i}", round=round_)
        for i, letter in enumerate(letters)
    ]


def at(seconds: float) -> datetime:
    """Return a moment."""
    return BEGAN + timedelta(seconds=seconds)


def kind(letters: str, count: int, limit: int) -> type:
    """Return what kind of verdict results have."""
    return type(judge(results(letters), check(count=count, failure_limit=limit)))


@pytest.mark.parametrize(
    ("letters", "count", "limit", "expected"),
    [
        ("", 1, 0, "wait"),
        ("p", 1, 0, "pass"),
        ("f", 1, 0, "fail"),
        ("i", 1, 0, "wait"),
        ("iiiiiiii", 1, 0, "wait"),
        ("iip", 1, 0, "pass"),
        ("pp", 3, 0, "wait"),
        ("ppp", 3, 0, "pass"),
        ("pfp", 2, 0, "fail"),
        ("pfp", 2, 1, "pass"),
        ("fp", 2, 1, "wait"),
        ("fpf", 2, 1, "fail"),
        ("ppff", 2, 1, "fail"),
        ("fff", 1, 2, "fail"),
        ("ffip", 1, 2, "pass"),
    ],
)
def test_results_pass_fail_or_do_not_suffice(letters: str, count: int, limit: int, expected: str) -> None:
    """Enough passed and no more failed than is forgiven; one failure too many settles it."""
    assert kind(letters, count, limit) is KINDS[expected]


def test_a_failure_is_told_by_its_last_result() -> None:
    """The check is named, with what was wrong last."""
    assert judge(results("fpfi"), check(failure_limit=1, count=2)) == Failed("check smoke: m2")


@given(LETTERS.flatmap(lambda text: st.tuples(st.just(text), st.permutations(text))), COUNTS, LIMITS)
def test_the_order_of_results_does_not_matter(letters: tuple[str, Sequence[str]], count: int, limit: int) -> None:
    """What counts is how many there are of each."""
    one, other = letters
    assert kind(one, count, limit) is kind("".join(other), count, limit)


@given(LETTERS, COUNTS, LIMITS)
def test_more_failures_than_are_forgiven_fail(letters: str, count: int, limit: int) -> None:
    """However many passed; and no others do."""
    assert (kind(letters, count, limit) is Failed) == (letters.count("f") > limit)


@given(LETTERS, COUNTS, LIMITS)
def test_what_is_inconclusive_never_counts(letters: str, count: int, limit: int) -> None:
    """Neither for nor against: without such results the verdict is the same."""
    assert kind(letters, count, limit) is kind(letters.replace("i", ""), count, limit)


@given(LETTERS, COUNTS, LIMITS)
def test_nothing_passes_without_enough_passed_results(letters: str, count: int, limit: int) -> None:
    """And with enough of them, none too many failed, nothing else is waited for."""
    enough = letters.count("p") >= count and letters.count("f") <= limit
    assert (kind(letters, count, limit) is Passed) == enough


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("p", "p", "pass"),
        ("p", "", "wait"),
        ("p", "i", "wait"),
        ("", "f", "fail"),
        ("f", "i", "fail"),
        ("p", "f", "fail"),
    ],
)
def test_all_checks_must_pass_and_one_may_fail_all(first: str, second: str, expected: str) -> None:
    """A failure is told before what is still waited for."""
    samples = [*results(first, "a"), *results(second, "b")]
    assert type(verdict_of([check("a"), check("b")], samples, 0)) is KINDS[expected]


def test_no_check_is_no_obstacle() -> None:
    """A stage without checks goes on."""
    assert verdict_of([], [], 0) == Passed()


def test_only_results_of_the_present_attempt_count() -> None:
    """A retry asks anew: earlier failures are history, and so are earlier passes."""
    assert isinstance(verdict_of([check()], results("f"), 1), Pending)
    assert isinstance(verdict_of([check()], results("p"), 1), Pending)
    assert verdict_of([check()], [*results("f"), *results("p", round_=1)], 1) == Passed()


@pytest.mark.parametrize(
    ("letters", "now_s", "wait_s"),
    [
        ("", 0, None),
        ("p", 0, 10),
        ("p", 4, 6),
        ("p", 10, None),
        ("pi", 12, 8),
        ("i", 3600, None),
        ("p", -1, None),
    ],
)
def test_a_question_is_due_an_interval_after_the_last(letters: str, now_s: float, wait_s: float | None) -> None:
    """The first at once, the next after the interval; a clock that was set back does not hold it up."""
    (decision,) = due([check(count=3)], results(letters), at(now_s), environment="dev", cluster="eu", round_=0)
    if wait_s is None:
        assert decision == Ask(check=check(count=3), environment="dev", cluster="eu", round=0)
    else:
        assert decision == Wake(in_s=wait_s)


def test_what_is_settled_is_not_asked_again() -> None:
    """Neither a check that passed nor one that failed."""
    checks = [check("a"), check("b"), check("c")]
    samples = [*results("p", "a"), *results("f", "b")]
    asked = list(due(checks, samples, at(60), environment="dev"))
    assert asked == [Ask(check=checks[2], environment="dev", cluster="", round=0)]


def test_who_waits_is_told_for_what() -> None:
    """Open checks by name, the last answer of one that could not say; not what an earlier attempt said."""
    checks = [check("a"), check("b", count=2), check("c"), check("d")]
    samples = [*results("p", "a"), *results("ip", "b"), *results("ii", "c"), *results("i", "d", round_=7)]
    assert describe(checks, samples, 0) == "b; c: m1; d"
