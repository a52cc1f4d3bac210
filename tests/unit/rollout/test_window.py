"""When windows and freezes let a start through."""

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from fleet.rollout.policy import Window
from fleet.rollout.window import Opening, opening

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]
CRONS = ["0 9 * * 1-5", "30 2 * * *", "*/15 * * * *", "50 2 * * *", "0 0 1,15 JAN-JUN *", "0 22 * * FRI", "0 0 29 2 *"]
HOUR = 3600.0


def window(cron: str, hours: float = 8, timezone: str = "Europe/Berlin", reason: str = "") -> Window:
    """Return a window."""
    return Window(cron=cron, duration_s=hours * HOUR, timezone=timezone, reason=reason)


def at(text: str) -> datetime:
    """Return a time, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


OFFICE = window("0 9 * * 1-5", reason="office hours")
HOLIDAYS = window("0 0 24 12 *", 72, reason="holidays")

TABLE: list[tuple[str, list[Window], list[Window], str, bool, str | None, str]] = [
    ("nothing given", [], [], "2026-11-25T12:00Z", True, None, ""),
    ("inside", [OFFICE], [], "2026-11-25T12:00Z", True, "2026-11-25T16:00Z", ""),
    ("its first second", [OFFICE], [], "2026-11-25T08:00Z", True, "2026-11-25T16:00Z", ""),
    ("its end", [OFFICE], [], "2026-11-25T16:00Z", False, "2026-11-26T08:00Z", "the next window opens at 2026-11-26 09:00 Europe/Berlin: office hours"),
    ("over the weekend", [OFFICE], [], "2026-11-27T20:00Z", False, "2026-11-30T08:00Z", "the next window opens at 2026-11-30 09:00 Europe/Berlin: office hours"),
    ("frozen", [], [HOLIDAYS], "2026-12-25T12:00Z", False, "2026-12-26T23:00Z", "frozen until 2026-12-27 00:00 Europe/Berlin: holidays"),
    ("a freeze to come", [], [HOLIDAYS], "2026-12-20T12:00Z", True, "2026-12-23T23:00Z", ""),
    ("a freeze ends outside the window", [OFFICE], [HOLIDAYS], "2026-12-25T12:00Z", False, "2026-12-28T08:00Z", "frozen until 2026-12-27 00:00 Europe/Berlin: holidays"),
    ("freezes that overlap are one", [], [window("0 9 * * *", 2, "UTC"), window("0 10 * * *", 4, "UTC", "audit")], "2026-11-25T09:30Z", False, "2026-11-25T14:00Z", "frozen until 2026-11-25 14:00 UTC: audit"),
    ("a window ends before the freeze", [OFFICE], [HOLIDAYS], "2026-12-23T12:00Z", True, "2026-12-23T16:00Z", ""),
    ("a freeze begins inside the window", [window("0 20 * * *", 8)], [HOLIDAYS], "2026-12-23T22:00Z", True, "2026-12-23T23:00Z", ""),
    ("spans that overlap are one", [window("0 9 * * *", 2), window("0 10 * * *", 4)], [], "2026-11-25T08:30Z", True, "2026-11-25T13:00Z", ""),
    ("longer than its interval", [window("0 0 * * 1-3", 36)], [], "2026-11-23T12:00Z", True, "2026-11-26T11:00Z", ""),
    ("a skipped time fires behind the gap", [window("30 2 * * *", 1)], [], "2026-03-29T01:30Z", True, "2026-03-29T02:00Z", ""),
    ("before the gap it is shut", [window("30 2 * * *", 1)], [], "2026-03-29T00:59Z", False, "2026-03-29T01:00Z", "the next window opens at 2026-03-29 03:00 Europe/Berlin"),
    ("a repeated time fires first", [window("30 2 * * *", 1)], [], "2026-10-25T00:30Z", True, "2026-10-25T01:30Z", ""),
    ("and only once", [window("30 2 * * *", 0.5)], [], "2026-10-25T01:30Z", False, "2026-10-26T01:30Z", "the next window opens at 2026-10-26 02:30 Europe/Berlin"),
    ("open into the repeated hour", [window("50 2 * * *", 1)], [], "2026-10-25T01:45Z", True, "2026-10-25T01:50Z", ""),
    ("the repeated hour does not open again", [window("50 2 * * *", 0.25)], [], "2026-10-25T01:45Z", False, "2026-10-26T01:50Z", "the next window opens at 2026-10-26 02:50 Europe/Berlin"),
    ("eight hours over a change are eight hours", [window("0 0 * * *", 8)], [], "2026-03-29T06:30Z", True, "2026-03-29T07:00Z", ""),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_whether_and_until_when(row: tuple[str, list[Window], list[Window], str, bool, str | None, str]) -> None:
    """Open or shut, until when, and which window or freeze says so."""
    _, windows, freezes, now, allowed, changes, message = row
    reason = "" if allowed else "Freeze" if message.startswith("frozen") else "Window"
    expected = Opening(open=allowed, changes_at=at(changes) if changes else None, reason=reason, message=message)
    assert opening(windows, freezes, at(now)) == expected


def test_what_is_always_open_is_looked_at_again() -> None:
    """A window that never shuts gives a time to look again, later than now, instead of searching for ever."""
    now = at("2026-11-25T12:00Z")
    found = opening([window("* * * * *", 1)], [], now)
    assert found.open
    assert found.changes_at is not None
    assert found.changes_at > now


def test_what_is_always_frozen_never_opens() -> None:
    """Freezes that cover everything keep it shut; there is a time to look again."""
    now = at("2026-11-25T12:00Z")
    found = opening([OFFICE], [window("0 0 * * *", 25)], now)
    assert not found.open
    assert found.changes_at is not None
    assert found.changes_at > now


def holds(one: Window, now: datetime) -> bool:
    """Tell by counting forwards whether a span holds `now`."""
    length = timedelta(seconds=one.duration_s)
    start = (now - length - timedelta(days=2)).astimezone(ZoneInfo(one.timezone))
    fired = takewhile(lambda each: each <= now, (each.astimezone(UTC) for each in CronSim(one.cron, start)))
    return any(each <= now < each + length for each in fired)


SPANS = st.builds(
    window, st.sampled_from(CRONS), st.sampled_from([0.25, 0.5, 1, 8, 30]), st.sampled_from(ZONES), st.just("")
)
TIMES = st.one_of(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),
    st.sampled_from(["2026-03-29T00:00Z", "2026-10-24T23:00Z", "2026-03-08T06:00Z", "2026-11-01T05:00Z", "2026-04-04T14:00Z"])
    .flatmap(lambda text: st.integers(0, 240).map(lambda minutes: at(text) + timedelta(minutes=minutes))),
)  # fmt: skip


@given(st.lists(SPANS, max_size=2), st.lists(SPANS, max_size=2), TIMES)
def test_open_means_inside_a_window_and_outside_all_freezes(
    windows: list[Window], freezes: list[Window], now: datetime
) -> None:
    """Counting forwards from long ago gives the same answer as looking backwards, whatever the clocks do."""
    allowed = (not windows or any(holds(each, now) for each in windows)) and not any(holds(f, now) for f in freezes)
    assert opening(windows, freezes, now).open == allowed


@given(st.lists(SPANS, max_size=2), st.lists(SPANS, max_size=2), TIMES, st.floats(0, 0.999))
def test_nothing_changes_before_the_time_to_look_again(
    windows: list[Window], freezes: list[Window], now: datetime, share: float
) -> None:
    """Whoever sleeps until `changes_at` misses no opening and no end, and does not spin."""
    found = opening(windows, freezes, now)
    if found.changes_at is not None:
        assert found.changes_at > now
        assert opening(windows, freezes, now + (found.changes_at - now) * share).open == found.open
