"""`fleet rollout watch`: a rollout as it goes on, driven by the hub's events."""

import contextlib
import json
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import click

from fleet.cli.client import Client, Refused, Unreachable
from fleet.cli.duration import parse_at
from fleet.cli.exit import Exit
from fleet.cli.patience import Stopwatch
from fleet.cli.pipeline import Line, describe_step, draw, next_opening
from fleet.cli.table import Row, clean, style_of

KINDS = ("rollout", "apply", "health", "audit")
RETRY_S = 2.0
REDRAW_S = 1.0
SETTLE_S = 0.2
"""News that come within this time are one look."""

_BRIEF = {"history": "false"}
"""A tree shows no history, which may be long."""

Show = Callable[[Row | None, datetime, str], None]
"""Shows a rollout as of a time, with what is wrong with the connection; None before the first look."""


class Listener:
    """Follows the events of an app in a thread of its own, from the first wait on, and says when there is news."""

    def __init__(self, client: Client, app: str) -> None:
        self._client = client
        self._app = app
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._last = ""
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for the length of the block; what happened since it began is not missed."""
        newest = self._client.get("events", query={"limit": "1"})["items"]
        self._last = str(newest[-1]["seq"]) if newest else "0"
        try:
            yield
        finally:
            self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(Unreachable, Refused):
                for message in self._client.stream("events", query={"app": self._app, "since": self._last}):
                    self._last = message.id or self._last
                    if self._stopping.is_set():
                        return
                    if is_news(message.data):
                        self._news.put(message.id)
            self._stopping.wait(RETRY_S)
            self._news.put("")  # whatever happened meanwhile

    def wait(self, seconds: float) -> bool:
        """Wait for news at most so long; tell whether there is any."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        try:
            self._news.get(timeout=seconds)
        except queue.Empty:
            return False
        self._stopping.wait(SETTLE_S)
        with contextlib.suppress(queue.Empty):
            while True:
                self._news.get_nowait()
        return True


def is_news(data: str) -> bool:
    """Tell whether an event is a reason to look again."""
    with contextlib.suppress(ValueError):
        row = json.loads(data)
        return isinstance(row, dict) and row.get("kind") in KINDS
    return False


def watch(client: Client, app: str, *, leave_when_paused: bool) -> Exit:
    """Show the newest rollout of an app until it ends; returns OK when it succeeded."""
    release = str(client.get("rollouts", app, query=_BRIEF)["rollout"]["number"])
    listener = Listener(client, app)
    with listener.listening(), _screen() as show:
        return _Watch(client, (app, release), listener, show).run(leave_when_paused)


class _Watch:
    def __init__(self, client: Client, name: tuple[str, str], listener: Listener, show: Show) -> None:
        self._client = client
        self._name = name
        self._listener = listener
        self._show = show
        self._query = _BRIEF if sys.stdout.isatty() else {}
        self._detail: Row | None = None
        self._watch = Stopwatch()
        self._trouble = ""

    def run(self, leave_when_paused: bool) -> Exit:
        while True:
            self._look()
            state = self._detail["rollout"]["state"] if self._detail is not None else ""
            if self._detail is not None and not self._detail["rollout"]["active"]:
                return Exit.OK if state == "Succeeded" else Exit.DIFFERS
            if leave_when_paused and state == "Paused":
                return Exit.DIFFERS
            self._wait()

    def _look(self) -> None:
        """Ask for the rollout and show it; a hub that is away is waited for."""
        try:
            self._detail = self._client.get("rollouts", *self._name, query=self._query)
            self._watch, self._trouble = Stopwatch(), ""
        except Unreachable as error:
            self._trouble = error.message
        self._show(self._detail, self._now(), self._trouble)

    def _now(self) -> datetime:
        """Return the hub's time: that of its last answer, and what went by since."""
        at = parse_at(self._detail["now"]) if self._detail is not None else self._client.now()
        return at + timedelta(seconds=self._watch.elapsed_s)

    def _wait(self) -> None:
        """Redraw what is left each second until there is news, or a gate should be open."""
        opens = next_opening(self._detail) if self._detail is not None else None
        while not self._listener.wait(REDRAW_S):
            now = self._now()
            self._show(self._detail, now, self._trouble)
            if not self._trouble and opens is not None and now >= opens + timedelta(seconds=REDRAW_S):
                return


@contextlib.contextmanager
def _screen() -> Iterator[Show]:
    """Show a live tree on a terminal, and lines elsewhere."""
    if not sys.stdout.isatty():
        yield _Lines().show
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(highlight=False), auto_refresh=False, vertical_overflow="crop") as live:

        def show(detail: Row | None, now: datetime, trouble: str) -> None:
            live.update(_paint(detail, now, trouble), refresh=True)

        yield show


def _paint(detail: Row | None, now: datetime, trouble: str) -> Any:
    from rich.text import Text

    lines = list(draw(detail, now)) if detail is not None else []
    painted = [Text(clean(str(line)), style_of(line.state), no_wrap=True, overflow="ellipsis") for line in lines]
    if trouble:
        painted.append(Text(clean(f"{trouble}; trying again"), "red"))
    return Text("\n").join(painted)


class _Lines:
    """Prints each step of the history once, and what is waited for when that changes."""

    def __init__(self) -> None:
        self._steps = 0
        self._waits = ""
        self._trouble = ""

    def show(self, detail: Row | None, now: datetime, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            click.echo(f"fleet: {clean(trouble)}; trying again", err=True)
        self._trouble = trouble
        if detail is None:
            return
        for step in detail["history"][self._steps :]:
            _echo(describe_step(step))
        self._steps = max(self._steps, len(detail["history"]))
        run = detail["rollout"]
        if run["waits_for"] not in ("", self._waits):
            _echo(f"{detail['now']}  {run['waits_for']}")
        self._waits = run["waits_for"]
        if not run["active"]:
            _echo(str(next(iter(draw(detail, now)), Line(0, "", ""))))


def _echo(text: str) -> None:
    click.echo(" ".join(clean(text).splitlines()))
