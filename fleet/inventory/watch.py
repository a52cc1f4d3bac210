"""Live reload: the inventory follows its directory without a restart.

Additions and changes count after a short pause (`DEBOUNCE_S`), removals only after the directory has been quiet: a pull
that is half done looks like a removal. What a file watcher says is a hint; the directory is read again each time, and
once a minute without a hint (network file systems send none).
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Protocol

import structlog

from fleet.aio import Pulse, spawn, supervise
from fleet.clock import Clock
from fleet.errors import FleetError, InventoryError
from fleet.inventory.load import scan_directory
from fleet.inventory.merge import merge
from fleet.inventory.value import Inventory, Scan

log = structlog.get_logger()

DEBOUNCE_S = 0.2
DEBOUNCE_MOST = 3
"""Pauses in a row: a directory that never rests is read nevertheless."""
POLL_S = 60.0
RETRY_S = 1.0
"""While the directory cannot be read."""
_LINK_CHECK_S = 1.0


class Changes(Protocol):
    """Tells that something in the inventory directory may have changed."""

    async def wait(self) -> None:
        """Return at the next change since the last call."""
        ...


class Sink(Protocol):
    """Takes each new inventory."""

    def __call__(self, inventory: Inventory, /) -> None: ...


class Report(Protocol):
    """Told when the directory as a whole cannot be read, and with None when it can again."""

    def __call__(self, error: InventoryError | None, /) -> None: ...


class DirectoryChanges:
    """Changes of a real directory, seen by the operating system's file notification."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._identity: tuple[int, int] | None = None
        self._hints: AsyncGenerator[set[Any], None] | None = None
        self._fresh = True

    async def wait(self) -> None:
        """Return at a change, when the directory appears or is exchanged, and once after watching began.

        Raises: InventoryError when the operating system refuses to watch.
        """
        while True:
            identity = await asyncio.to_thread(_identify, self._directory)
            if identity is None:
                self._identity = self._hints = None
                await asyncio.sleep(_LINK_CHECK_S)
                continue
            if identity != self._identity or self._hints is None:
                self._identity, self._hints, self._fresh = identity, _watch(self._directory), True
            try:
                hints = await anext(self._hints)
            except (StopAsyncIteration, OSError, RuntimeError) as error:
                self._hints = None
                if isinstance(error, FileNotFoundError | StopAsyncIteration):
                    await asyncio.sleep(_LINK_CHECK_S)
                    continue
                raise InventoryError(
                    f"the inventory directory cannot be watched ({error}); it is read once a minute",
                    reason="WatchFailed",
                    subject=str(self._directory),
                ) from error
            # What changed between the last reading and the start of the watch sent no hint.
            began, self._fresh = self._fresh, False
            if hints or began:
                return


def _watch(directory: Path) -> AsyncGenerator[set[Any], None]:
    from watchfiles import awatch

    return awatch(
        directory,
        watch_filter=None,
        debounce=100,
        step=20,
        rust_timeout=int(_LINK_CHECK_S * 1000),
        yield_on_timeout=True,
    )


def _identify(directory: Path) -> tuple[int, int] | None:
    """Return what changes when another directory is put in this one's place, as by exchanging a link."""
    try:
        found = os.stat(directory)  # noqa: PTH116 - follows links
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Reload:
    """The state of live reload between two readings of the directory."""

    def __init__(self, directory: Path, *, removal_quiet_s: float, sink: Sink, report: Report) -> None:
        self._directory = directory
        self._removal_quiet_s = removal_quiet_s
        self._sink = sink
        self._report = report
        self._scan: Scan | None = None
        self._inventory: Inventory | None = None
        self._error = ""
        self._digest = ""
        self._changed_at = 0.0

    async def reload_once(self) -> float:
        """Read the directory, pass on what changed, and return after how many seconds to look again without a hint."""
        now = asyncio.get_running_loop().time()
        try:
            scan = await asyncio.to_thread(scan_directory, self._directory, self._scan)
        except InventoryError as error:
            self._fail(error)
            self._digest = ""
            return RETRY_S
        self._recover()
        if scan.digest != self._digest:
            self._digest, self._changed_at = scan.digest, now
        self._scan = scan
        quiet_in_s = self._changed_at + self._removal_quiet_s - now
        inventory = await asyncio.to_thread(merge, self._inventory, scan, quiet=quiet_in_s <= 0)
        if inventory != self._inventory:
            self._inventory = inventory
            self._sink(inventory)
        return min(quiet_in_s, POLL_S) if quiet_in_s > 0 else POLL_S

    def _fail(self, error: InventoryError) -> None:
        if str(error) != self._error:
            self._error = str(error)
            self._report(error)

    def _recover(self) -> None:
        if self._error:
            self._error = ""
            self._report(None)


async def run_inventory(
    directory: Path, changes: Changes, clock: Clock, *, removal_quiet_s: float, sink: Sink, report: Report
) -> None:
    """Keep `sink` told about the inventory in `directory` until cancelled; the first call comes at once.

    `sink` is called again when nothing changed but the directory became quiet (`Inventory.authoritative`). A directory
    that cannot be read goes to `report`; the last inventory stays in force.
    """
    reload = Reload(directory, removal_quiet_s=removal_quiet_s, sink=sink, report=report)
    pulse = Pulse()
    async with asyncio.TaskGroup() as group:
        spawn(group, "inventory/watch", _relay(changes, pulse, clock))
        while True:
            look_again_s = await reload.reload_once()
            if await pulse.wait(look_again_s):
                await _debounce(pulse)


async def _relay(changes: Changes, pulse: Pulse, clock: Clock) -> None:
    """Turn changes into pulses for ever; a watch that fails is begun again later."""

    async def attempt() -> None:
        while True:
            await changes.wait()
            pulse.set()

    def on_failure(error: FleetError, retry_in_s: float) -> None:
        log.warning("inventory watch failed", error=str(error), retry_in_s=round(retry_in_s, 1))

    await supervise("inventory watch", attempt, clock=clock, on_failure=on_failure)


async def _debounce(pulse: Pulse) -> None:
    for _ in range(DEBOUNCE_MOST):
        if not await pulse.wait(DEBOUNCE_S):
            return
