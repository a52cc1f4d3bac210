"""`fleet demo`: the main job on clusters that live for the length of the demo.

The only part of the package that knows the simulator.
"""

import asyncio
import sys
from pathlib import Path

import click


@click.command(name="demo")
@click.option("--once", is_flag=True, help="End after the story instead of staying up.")
@click.option("--real", is_flag=True, help="Use real kube-apiservers (make envtest), one per environment.")
@click.option("--listen", default="127.0.0.1:8420", show_default=True, help="Address of the hub's HTTP server.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="An empty directory to work in; kept.")
@click.option("--verbose", is_flag=True, help="Show the hub's log too.")
def command(*, once: bool, real: bool, listen: str, directory: Path | None, verbose: bool) -> None:
    """Run nine simulated clusters, a Git repository and a hub, and tell a day of their life.

    Needs Python and git, nothing else: no cluster, no Docker. Afterwards it stays up to be looked at until Ctrl-C.
    """
    sys.stdout.write("a hub, a Git repository and clusters are put together\n")
    sys.stdout.flush()  # at once: what follows takes a second to be loaded
    from fleet import log
    from fleet.aio import as_fleet_error
    from fleet.cli.demo.show import Choice, run
    from fleet.cli.run import loop_factory
    from fleet.kube.credential import preload

    log.configure(level="info" if verbose else "critical", form="text")
    preload()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(run(Choice(once=once, real=real, listen=listen, directory=directory)))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - whatever ends the demo is told in one line
        click.echo(f"fleet demo: {as_fleet_error(error, 'fleet demo')}", err=True)
        sys.exit(2)
