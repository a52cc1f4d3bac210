"""How long a command waits: the one place where client commands sleep."""

import time

from fleet.cli.duration import format_duration


class Stopwatch:
    """Tells what went by since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since then."""
        return time.monotonic() - self._began


class Patience:
    """A deadline, `timeout_s` from now."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s

    def sleep(self, seconds: float) -> bool:
        """Sleep, at most until the deadline; return False if there was nothing left."""
        left = self._end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(seconds, left))
        return True

    def __str__(self) -> str:
        return format_duration(self._timeout_s) if self._timeout_s >= 1 else f"{self._timeout_s:g}s"
