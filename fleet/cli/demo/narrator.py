"""What the demo says: one line per event, with the seconds since the start, and a moving line on a terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

GREEN, RED, DIM, BOLD, RESET = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[1m", "\x1b[0m"


class Narrator:
    """Writes the story to standard output."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._colour = sys.stdout.isatty()
        self._live = ""

    def chapter(self, text: str) -> None:
        """Begin a chapter."""
        self._line(f"\n{self._paint(BOLD, text)}")

    def tell(self, text: str) -> None:
        """Say what is being done."""
        self._line(f"  {self._at()} {text}")

    def good(self, text: str) -> None:
        """Say what went as it should."""
        self._line(f"  {self._at()} {self._paint(GREEN, '✓')} {text}")

    def bad(self, text: str) -> None:
        """Show a failure that is part of the story."""
        self._line(f"  {self._at()} {self._paint(RED, '✗')} {text}")

    @contextmanager
    def progress(self) -> Iterator["Narrator"]:
        """Let `update` move one line until the block ends."""
        yield self
        self._clear()

    def update(self, text: str) -> None:
        """Replace the moving line; nothing where no terminal would show it."""
        if self._colour and text != self._live:
            self._live = text
            sys.stdout.write(f"\r\x1b[K  {self._at()} {self._paint(DIM, text)}")
            sys.stdout.flush()

    def _clear(self) -> None:
        if self._live:
            self._live = ""
            sys.stdout.write("\r\x1b[K")

    def _line(self, text: str) -> None:
        self._clear()
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def _at(self) -> str:
        return self._paint(DIM, f"{time.monotonic() - self._started:6.1f} s")

    def _paint(self, code: str, text: str) -> str:
        return f"{code}{text}{RESET}" if self._colour else text
