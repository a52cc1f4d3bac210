"""Whether windows and freezes allow a start now, and when that changes. Pure.

A window is read in its time zone, as Debian's cron reads it: a time that a clock change skips fires right behind the gap,
one that comes twice fires the first time. Its duration is elapsed time, so it never stretches or shrinks with the clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from fleet.rollout.policy import Window

_MOST_STEPS = 20
"""Overlapping spans that are followed in one look. What comes behind is found by looking again then."""

_REPEATED = timedelta(hours=3)
"""More than any clock is ever put back by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Whether a start is allowed; if not, `reason` is `Window` or `Freeze`."""

    open: bool
    changes_at: datetime | None = None
    """When to look again: nothing changes before. None = nothing ever changes."""
    reason: str = ""
    message: str = ""


def opening(windows: Sequence[Window], freezes: Sequence[Window], now: datetime) -> Opening:
    """Say whether a start is allowed at `now`, an aware time, and when that may change."""
    frozen = _thaw(freezes, now)
    if frozen is not None:
        thawed, freeze = frozen
        return Opening(
            open=False,
            changes_at=_next_start(windows, freezes, thawed),
            reason="Freeze",
            message=f"frozen until {_format(thawed, freeze)}{_because(freeze)}",
        )
    ends = [end for window in windows if (end := _end_of(window, now)) is not None]
    if windows and not ends:
        at, window = min(((_next_of(w, now), w) for w in windows), key=lambda item: item[0])
        return Opening(
            open=False,
            changes_at=_next_start(windows, freezes, at),
            reason="Window",
            message=f"the next window opens at {_format(at, window)}{_because(window)}",
        )
    return Opening(open=True, changes_at=_next_end(windows, freezes, now))


def _thaw(freezes: Sequence[Window], now: datetime) -> tuple[datetime, Window] | None:
    """Return when freezes that overlap end, or a time before that, and the last of them; None when none holds now."""
    found: tuple[datetime, Window] | None = None
    for _ in range(_MOST_STEPS):
        at = now if found is None else found[0]
        ends = [(end, freeze) for freeze in freezes if (end := _end_of(freeze, at)) is not None]
        if not ends:
            break
        found = max(ends, key=lambda item: item[0])
    return found


def _next_start(windows: Sequence[Window], freezes: Sequence[Window], at: datetime) -> datetime:
    """Return the first time from `at` on that windows and freezes allow, or one before it."""
    for _ in range(_MOST_STEPS):
        ends = [end for freeze in freezes if (end := _end_of(freeze, at)) is not None]
        if ends:
            at = max(ends)
        elif windows and all(_end_of(window, at) is None for window in windows):
            at = min(_next_of(window, at) for window in windows)
        else:
            break
    return at


def _next_end(windows: Sequence[Window], freezes: Sequence[Window], now: datetime) -> datetime | None:
    """Return when the present opening ends, or a time before that; None when it never does."""
    changes = [_next_of(freeze, now) for freeze in freezes]
    if windows:
        at = now
        for _ in range(_MOST_STEPS):
            ends = [end for window in windows if (end := _end_of(window, at)) is not None]
            if not ends:
                break
            at = max(ends)
        changes.append(at)
    return min(changes, default=None)


def _end_of(window: Window, at: datetime) -> datetime | None:
    """Return when the span that holds `at` ends; None outside. Begin belongs to a span, end does not."""
    zone = ZoneInfo(window.timezone)
    # Backwards excludes where it starts. In an hour that comes twice, what fires later by the clock is already past.
    ahead = _REPEATED if at.astimezone(zone).fold else timedelta(seconds=1)
    for fired in CronSim(window.cron, (at.replace(microsecond=0) + ahead).astimezone(zone), reverse=True):
        begin = fired.astimezone(UTC)
        if begin <= at:
            end = begin + timedelta(seconds=window.duration_s)
            return end if at < end else None
    return None


def _next_of(window: Window, at: datetime) -> datetime:
    """Return when a window begins next, later than `at`."""
    fired = CronSim(window.cron, at.astimezone(ZoneInfo(window.timezone)))
    return next(each for each in (time.astimezone(UTC) for time in fired) if each > at)


def _format(at: datetime, window: Window) -> str:
    local = at.astimezone(ZoneInfo(window.timezone))
    return f"{local:%Y-%m-%d %H:%M} {window.timezone}"


def _because(window: Window) -> str:
    return f": {window.reason}" if window.reason else ""
