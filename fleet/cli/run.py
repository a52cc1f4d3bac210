"""`fleet run`: the hub, in the foreground, until it is told to stop."""

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from fleet.aio import tell_loop_errors
from fleet.settings import Settings

if TYPE_CHECKING:
    from fleet.hub.service import HubService


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option per setting, with its help; what is not given is None."""
    for field in reversed(dataclasses.fields(Settings)):
        name = f"--{field.name.replace('_', '-')}"
        text = f"{field.metadata['help']} Default: {field.default or 'none'}. [env: FLEET_{field.name.upper()}]"
        if field.type is bool or field.type == "bool":
            command = click.option(name, is_flag=True, default=None, help=text)(command)
        else:
            command = click.option(name, default=None, metavar="VALUE", help=text)(command)
    return command


@click.command(name="run")
@options
def command(**flags: object) -> None:
    """Run the hub: keep every cluster of the inventory equal to Git.

    The first SIGTERM or SIGINT stops it in order, the second at once.
    """
    from fleet import log
    from fleet.aio import as_fleet_error

    try:
        settings = Settings.load(os.environ, flags)
        log.configure(level=settings.log_level, form=settings.log_format)
        run_until_signal(settings)
    except Exception as error:  # noqa: BLE001 - whatever ends the hub is told in one line
        click.echo(f"fleet: {as_fleet_error(error, 'fleet run')}", err=True)
        sys.exit(2)


def run_until_signal(settings: Settings) -> None:
    """Run the hub on the fastest loop there is.

    Raises: SettingsError, StoreError before anything is listening.
    """
    from fleet.child import forbid_dumps
    from fleet.kube.credential import preload

    forbid_dumps()
    preload()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(settings))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's loop where it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def serve(settings: Settings, *, on_ready: "Callable[[HubService, str], None] | None" = None) -> None:
    """Run hub and server until SIGTERM or SIGINT; `on_ready` is told the hub and its base URL."""
    from fleet.hub.app import running_hub
    from fleet.hub.watchdog import watching_loop
    from fleet.hub.world import open_world
    from fleet.server.app import running

    stop = asyncio.Event()
    with Signals(stop):
        async with (
            watching_loop(),
            open_world(settings) as world,
            running_hub(settings, world) as hub,
            running(hub, settings) as bound,
        ):
            if on_ready is not None:
                on_ready(hub, bound.url)
            await stop.wait()
            hub.stopping = True


class Signals:
    """Sets an event at the first SIGTERM or SIGINT; the second ends the process at once. Loop errors go to the log."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        tell_loop_errors(loop)

        def on_signal(number: int, _frame: FrameType | None) -> None:
            if self._stop.is_set():
                os._exit(128 + number)
            loop.call_soon_threadsafe(self._stop.set)

        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, on_signal)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
