"""The one source of wall time, jitter and ids. Monotonic time comes from the event loop."""

import secrets
from datetime import UTC, datetime
from random import Random
from typing import Protocol


class Clock(Protocol):
    """What the hub asks the outside world about time and chance; replaced as a whole in simulated runs."""

    rng: Random

    def now(self) -> datetime:
        """Return the wall time as an aware UTC datetime."""
        ...


class SystemClock:
    """The machine's clock, with jitter seeded from the operating system."""

    def __init__(self) -> None:
        self.rng = Random(secrets.randbits(64))

    def now(self) -> datetime:
        """Return the wall time as an aware UTC datetime."""
        return datetime.now(UTC)


def new_id(clock: Clock) -> str:
    """Return 32 hex digits. Not for key material."""
    return f"{clock.rng.getrandbits(128):032x}"


def jitter(clock: Clock, seconds: float, spread: float = 0.2) -> float:
    """Spread a delay by +-`spread`, so that many waiters do not wake at once."""
    return seconds * clock.rng.uniform(1 - spread, 1 + spread)


def format_at(at: datetime) -> str:
    """Format as RFC 3339 in UTC with seconds, the form of every timestamp fleet shows.

    >>> format_at(datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC))
    '2026-01-02T03:04:05Z'
    """
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
