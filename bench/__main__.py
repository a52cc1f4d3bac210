"""`python -m bench`: measure, print, end. Exit code 0 when everything could be measured, 2 without real API servers."""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from bench.course import Size, course
from bench.result import Measure, describe_machine, show, to_json
from bench.rollout import FEW, MANY, measure_rollouts
from bench.seal import Amount, measure_bitnami, measure_sealing
from fleet import log
from fleet.cli.run import loop_factory
from fleet.hub.watchdog import watching_loop
from fleet.kube.credential import preload
from fleet.sim.real import find_binaries

QUICK = Size(apps=10, rounds=1, edits=12, idle_s=2.0)
LITTLE = Amount(values=100, bitnami=20)
LEAST = 12
"""Clusters of a quick rollout."""


@click.command()
@click.option("--apps", default=Size().apps, show_default=True, help="Apps of four objects each.")
@click.option("--rounds", default=Size().rounds, show_default=True, help="Commits that change everything.")
@click.option("--edits", default=Size().edits, show_default=True, help="Objects edited by hand, each once.")
@click.option("--idle-s", default=Size().idle_s, show_default=True, help="Idle seconds to count requests in.")
@click.option("--quick", is_flag=True, help="As little as possible of everything, to see that it works.")
@click.option("--sealing", is_flag=True, help="Measure sealing and opening only, which needs no API server.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def main(quick: bool, sealing: bool, output: str, **wanted: Any) -> None:
    """Measure fleet's budgets on a real API server, beside a bare loop of server-side applies."""
    binaries = find_binaries()
    if binaries is None and not sealing:
        print("bench: there is no kube-apiserver; `make envtest` builds one", file=sys.stderr)
        sys.exit(2)
    size = QUICK if quick else Size(**wanted)
    log.configure(level="warning")
    preload()
    about = describe_machine()
    amount = LITTLE if quick else Amount()
    measures = measure_sealing(amount)
    with (
        tempfile.TemporaryDirectory(prefix="fleet-bench-") as root,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        measures += runner.run(measure_bitnami(amount))
        if binaries is not None and not sealing:
            measures += runner.run(measure(binaries, Path(root), size))
            # last: what a thousand simulated clusters leave to the allocator would be missing from the memory above
            measures += runner.run(measure_rollouts(Path(root), (LEAST,) if quick else (FEW, MANY)))
    if output == "json":
        print(to_json(measures, about))
    else:
        show(measures, about)


async def measure(binaries: Path, root: Path, size: Size) -> list[Measure]:
    """Run the course and return what it measured."""
    async with watching_loop(), course(binaries, root, size) as run:
        await run.run()
        return run.measures


if __name__ == "__main__":
    main()
