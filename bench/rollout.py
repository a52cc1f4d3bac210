"""Rollouts over many simulated clusters: how long fleet itself takes from a commit to the last cluster.

Alone: `python -m bench.rollout`. The hub is whole: its database on disk, its child processes and its clock are the real
ones. Clusters are simulated in this very process and loop, so what they cost is in every figure. The release that walks
changes a ConfigMap: what a workload takes to become healthy is not fleet's.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from statistics import median

import fleet.hub.rollout
from bench.result import Measure, describe_machine, show
from fleet import log
from fleet.cli.run import loop_factory
from fleet.hub.rolloutview import RolloutRow
from fleet.hub.view import SyncRequest
from fleet.hub.world import open_world
from fleet.kube.credential import preload
from fleet.rollout.decide import decide
from fleet.rollout.decision import Decision
from fleet.rollout.policy import Policy
from fleet.rollout.state import Facts, RunState
from fleet.sim.farm import Clusters, memory_farm
from fleet.sim.network import MemoryNetwork, MemoryReach
from tests.harness.fleet import ADA, Fleet, app_document, cluster_document, environment_document, repository_document

STAGES = ("dev", "staging", "production")
FEW, MANY = 100, 1000
AIMS_S = {FEW: 10.0, MANY: 60.0}
PATIENCE_S = 600.0
POLL_S, CONNECT_POLL_S = 0.05, 0.5
AT_ONCE = 50
"""Clusters that are connected at the same time."""
POD_S = 0.001
"""How long a simulated pod takes for each step of its life."""
SETTINGS = """\
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings, namespace: default}}
data: {{colour: {colour}}}
"""
CRASH = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "web:crash"}]
"""


async def measure_rollouts(root: Path, sizes: Sequence[int] = (FEW, MANY)) -> list[Measure]:
    """Roll a commit out over so many clusters, then one that crashes; one hub per size."""
    log.configure(level="error")  # the crash of the last step is on purpose
    measures: list[Measure] = []
    for size in sizes:
        print(f"bench: a rollout over {size} simulated clusters", file=sys.stderr, flush=True)
        place = root / f"rollout-{size}"
        place.mkdir()
        async with _fleet(place, size) as course:
            measures += await course.run()
    log.configure(level="warning")
    return measures


@asynccontextmanager
async def _fleet(place: Path, size: int) -> AsyncIterator["_Course"]:
    network, names = MemoryNetwork(seed=1), [f"c{number:04}" for number in range(size)]
    made = Fleet(place)
    policy = {"batches": ["50%", "100%"]}
    stages = [
        environment_document(name, **({"after": [STAGES[i - 1]]} if i else {}), rollout=policy)
        for i, name in enumerate(STAGES)
    ]
    made.declare("fleet.yaml", repository_document(made.repository.path, interval="1h"), *stages)
    made.declare("apps.yaml", app_document("shop", "app"))
    made.repository.commit("red", {"app/settings.yaml": SETTINGS.format(colour="red")})
    async with (
        memory_farm(network, names, place, pace_s=POD_S) as clusters,
        open_world(made.settings) as world,
        made.running(replace(world, reach=MemoryReach(network))),
    ):
        course = _Course(made, clusters)
        await course.connect()
        yield course


@dataclass
class _Course:
    """One hub with its clusters; the steps build on one another."""

    fleet: Fleet
    clusters: Clusters
    spent_s: list[float] = field(default_factory=list)
    """CPU seconds of every decision."""

    async def connect(self) -> None:
        """Name the clusters to the hub, some at a time: all at once they would only be busy with one another."""
        names = list(self.clusters)
        for number in range(0, len(names), AT_ONCE):
            documents = [
                cluster_document(name, self.fleet.root / f"{name}.kubeconfig", environment=STAGES[i % len(STAGES)])
                for i, name in enumerate(names[number : number + AT_ONCE], number)
            ]
            self.fleet.declare(f"clusters-{number}.yaml", *documents)
            wanted = min(number + AT_ONCE, len(names))
            await self._ready(wanted)

    async def _ready(self, wanted: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while sum(c.state == "Ready" for c in self.fleet.hub.clusters()) < wanted:
                await asyncio.sleep(CONNECT_POLL_S)

    async def run(self) -> list[Measure]:
        """Measure everything that this many clusters can tell."""
        await self._row(lambda row: row.state == RunState.SUCCEEDED, release=1)
        with _timing(self.spent_s):
            walked = await self._walk()
        return [walked, self._decided(), await self._stop()]

    async def _walk(self) -> Measure:
        size, loop, cpu_s = len(self.clusters), asyncio.get_running_loop(), time.process_time()
        started = loop.time()
        await self._commit({"app/settings.yaml": SETTINGS.format(colour="blue")})
        await self._row(lambda row: row.state == RunState.SUCCEEDED, release=2)
        spent_s, cpu_s = loop.time() - started, time.process_time() - cpu_s
        return Measure(
            name=f"rollout over {size} clusters, commit to done",
            value=spent_s,
            unit="s",
            aim=AIMS_S.get(size),
            note=f"3 stages, batches 50 % and 100 %; {cpu_s:.1f} s of CPU, simulated clusters included",
        )

    def _decided(self) -> Measure:
        return Measure(
            name=f"decide for {len(self.clusters)} clusters, median",
            value=1000 * median(self.spent_s),
            unit="ms",
            aim=5.0,
            note=f"CPU; {len(self.spent_s)} decisions of that rollout, most {1000 * max(self.spent_s):.1f} ms",
        )

    async def _stop(self) -> Measure:
        """Measure from the moment at which the hub's own view of a cluster says that it crashed."""
        loop = asyncio.get_running_loop()
        await self._commit({"app/web.yaml": CRASH})
        await self._until(lambda: any(row.state == "Degraded" for row in self.fleet.hub.targets()))
        seen = loop.time()
        await self._row(lambda row: row.state == RunState.PAUSED, release=3)
        return Measure(
            name=f"failure seen to rollout stopped, {len(self.clusters)} clusters",
            value=loop.time() - seen,
            unit="s",
            aim=1.0,
        )

    async def _commit(self, files: Mapping[str, str]) -> None:
        await asyncio.to_thread(self.fleet.repository.commit, "next", files)
        await self.fleet.hub.sync(SyncRequest(), ADA)

    async def _row(self, wanted: Callable[[RolloutRow], bool], *, release: int) -> None:
        """Wait until the newest rollout is as wanted; asks only for the one row, so that waiting costs little."""

        async def found() -> bool:
            rows = await self.fleet.hub.rollouts.list(app="shop", limit=1)
            return any(row.number == release and wanted(row) for _, row in rows)

        async with asyncio.timeout(PATIENCE_S):
            while not await found():
                await asyncio.sleep(POLL_S)

    async def _until(self, probe: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not probe():
                await asyncio.sleep(POLL_S)


@contextmanager
def _timing(spent_s: list[float]) -> Iterator[None]:
    """Note the CPU seconds of every decision of the hub."""

    def timed(policy: Policy, facts: Facts, now: datetime) -> Sequence[Decision]:
        started = time.thread_time()
        found = decide(policy, facts, now)
        spent_s.append(time.thread_time() - started)
        return found

    vars(fleet.hub.rollout)["decide"] = timed
    try:
        yield
    finally:
        vars(fleet.hub.rollout)["decide"] = decide


def main() -> None:
    """Measure rollouts only; sizes may be given as arguments."""
    preload()
    sizes = tuple(map(int, sys.argv[1:])) or (FEW, MANY)
    with (
        tempfile.TemporaryDirectory(prefix="fleet-bench-") as root,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        show(runner.run(measure_rollouts(Path(root), sizes)), describe_machine())


if __name__ == "__main__":
    main()
