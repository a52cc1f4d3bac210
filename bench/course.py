"""The course: one API server, one hub in this process, and every measure in turn beside the bare loop."""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp

from bench.bare import apply_all, open_session
from bench.drift import edit_all, percentile
from bench.load import count, quiet
from bench.memory import resident_bytes, worker_bytes
from bench.result import Measure
from bench.workload import FILES_PER_APP, Workload
from fleet.hub.view import SyncRequest
from fleet.sim.real import ControlPlane, rack
from tests.harness.fleet import (
    ADA,
    Fleet,
    app_document,
    cluster_document,
    environment_document,
    repository_document,
)

POLL_S = 0.005
PATIENCE_S = 120.0
KIB, MIB = 1024, 1024 * 1024
_REPAIRED = re.compile(r"repaired in (\d+) ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much to measure."""

    apps: int = 100
    rounds: int = 3
    edits: int = 200
    idle_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One commit from the hub's being told to its being applied; `calls` are requests to the API server."""

    seconds: float
    cpu_s: float
    calls: int


@asynccontextmanager
async def course(binaries: Path, root: Path, size: Size) -> AsyncIterator["Course"]:
    """Start the servers, and a hub whose repository holds nothing yet."""
    async with rack(binaries, root) as running:
        [plane] = await running.grow(1)
        async with open_session(plane) as session:
            made = Course(size, plane, session, Fleet(_made(root / "hub")))
            for name in ("bench", "bare-a", "bare-b", "warm-up"):
                await plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
            await apply_all(session, Workload(apps=10, namespace="warm-up").requests("first"))
            made.declare()
            yield made


def _made(path: Path) -> Path:
    path.mkdir()
    return path


@dataclass
class Course:
    """One run. `measures` grows step by step; the steps build on one another."""

    size: Size
    plane: ControlPlane
    session: aiohttp.ClientSession
    fleet: Fleet
    measures: list[Measure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.workload = Workload(apps=self.size.apps, namespace="bench")
        self.bare = [Workload(apps=self.size.apps, namespace=f"bare-{letter}") for letter in "ab"]
        self.variant = "first"

    def declare(self) -> None:
        """Write the inventory and an empty repository."""
        self.fleet.declare(
            "fleet.yaml", repository_document(self.fleet.repository.path, interval="1h"), environment_document()
        )
        self.fleet.declare("cluster.yaml", cluster_document("c0", self.plane.kubeconfig_path))
        self.fleet.declare("apps.yaml", *[app_document(name, f"apps/{name}") for name in self.workload.names])
        self.fleet.repository.commit("nothing yet", {"README": "nothing yet\n"})

    async def run(self) -> None:
        """Measure everything."""
        before_bytes = resident_bytes()
        async with self.fleet.running() as hub:
            await self.fleet.until(lambda: any(c.state == "Ready" for c in hub.clusters()), timeout_s=PATIENCE_S)
            connected_bytes = resident_bytes()
            await self.install()
            installed_bytes = resident_bytes()
            await self.change_all()
            await self.change_one()
            await self.drift()
            self.memory(before_bytes, connected_bytes, installed_bytes)
            await self.idle()

    async def install(self) -> None:
        """Deliver everything to a cluster that has nothing."""
        tell("install")
        first = await self._bare(self.bare[0], "first", None)
        run = await self._deliver("first", None)
        second = await self._bare(self.bare[1], "first", None)
        self._compare("install", [run], [first, second])

    async def change_all(self) -> None:
        """Change every object in one commit."""
        await self._change("one commit, all objects", None, self.size.rounds)

    async def change_one(self) -> None:
        """Change the objects of one app in one commit."""
        await self._change(
            "one commit, one app", self.workload.names[len(self.workload.names) // 2], 2 * self.size.rounds
        )

    async def _change(self, title: str, name: str | None, rounds: int) -> None:
        names = [name] if name else None
        bare: list[float] = []
        runs: list[Delivery] = []
        for number in range(rounds):
            tell(f"{title}, round {number + 1} of {rounds}")
            variant = f"{title}, {number}"
            bare.append(await self._bare(self.bare[number % 2], variant, names))
            runs.append(await self._deliver(variant, names))
        bare.append(await self._bare(self.bare[rounds % 2], f"{title}, last", names))
        self._compare(title, runs, bare, aim=0.5 if name else None)

    def _compare(
        self, title: str, runs: Sequence["Delivery"], bare: Sequence[float], *, aim: float | None = None
    ) -> None:
        beside = median(bare)
        cpu_s = median(run.cpu_s for run in runs)
        self.measures.append(
            Measure(
                name=title,
                value=median(run.seconds for run in runs),
                unit="s",
                bare=beside,
                aim=1.5 * beside + 2 if aim is None else aim,
                samples=tuple(run.seconds for run in runs),
                note=f"{runs[-1].calls} requests, {cpu_s:.2f} s of CPU in the hub",
            )
        )

    async def _bare(self, workload: Workload, variant: str, names: list[str] | None) -> float:
        requests = workload.requests(variant, names)
        await quiet(self.session)
        return await apply_all(self.session, requests)

    async def _deliver(self, variant: str, names: list[str] | None) -> "Delivery":
        """Commit, tell the hub as a webhook would, and wait until all is applied."""
        self.variant = variant
        revision = await asyncio.to_thread(self.fleet.repository.commit, variant, self.workload.files(variant, names))
        await quiet(self.session)
        before = await count(self.session)
        loop, started, cpu_s = asyncio.get_running_loop(), asyncio.get_running_loop().time(), time.process_time()
        await self.fleet.hub.sync(SyncRequest(), ADA)
        await self._applied(revision, names or self.workload.names)
        seconds, cpu_s = loop.time() - started, time.process_time() - cpu_s
        await self._applied(revision, self.workload.names)
        return Delivery(seconds=seconds, cpu_s=cpu_s, calls=(await count(self.session)).since(before).calls)

    async def _applied(self, revision: str, names: Sequence[str]) -> None:
        """Wait until apps are at a revision; asks for one at a time, so that waiting costs the hub nothing."""
        async with asyncio.timeout(PATIENCE_S):
            for name in names:
                while (row := self.fleet.row("c0", name)) is None or row.applied_revision != revision:
                    await asyncio.sleep(POLL_S)

    async def drift(self) -> None:
        """Edit objects by hand, one after the other."""
        tell(f"{self.size.edits} edits by hand")
        await quiet(self.session)
        healed = await edit_all(self.session, self.workload, self.variant, self.size.edits)
        await asyncio.sleep(1.0)  # events are stored a moment after the repair
        events = await self.fleet.hub.events(kind="drift", limit=2 * len(healed))
        told = [int(found[1]) / 1000 for event in events if (found := _REPAIRED.search(event.message))]
        total = [each.total_s for each in healed]
        for name, values in {"drift, seen to repaired": told, "drift, edit to repaired": total}.items():
            for label, share in (("p50", 0.5), ("p99", 0.99)):
                aim = 0.5 if share > 0.9 else None
                note = f"{len(values)} edits, most {max(values):.3f} s"
                self.measures.append(
                    Measure(name=f"{name}, {label}", value=percentile(values, share), unit="s", aim=aim, note=note)
                )

    def memory(self, before: int, connected: int, installed: int) -> None:
        """Compare what the process holds."""
        objects = self.size.apps * FILES_PER_APP
        now = resident_bytes()
        self.measures += [
            Measure(
                name="memory, connected", value=connected / MIB, unit="MiB", note=f"{before / MIB:.0f} before the hub"
            ),
            Measure(name="memory, now", value=now / MIB, unit="MiB", note=f"{installed / MIB:.0f} after install"),
            Measure(
                name="memory per object", value=(now - connected) / objects / KIB, unit="KiB", note="all growth counted"
            ),
            Measure(name="memory of workers", value=worker_bytes() / MIB, unit="MiB"),
        ]

    async def idle(self) -> None:
        """Let time pass."""
        tell(f"{self.size.idle_s:g} idle seconds")
        await quiet(self.session)
        before, cpu_s = await count(self.session), time.process_time()
        await asyncio.sleep(self.size.idle_s)
        cpu_s = time.process_time() - cpu_s
        spent = (await count(self.session)).since(before)
        heartbeats = spent.sent["PUT", "200"] + spent.sent["PATCH", "200"]
        detail = ", ".join(f"{verb} {code}: {n}" for (verb, code), n in sorted(spent.sent.items())) or "nothing"
        note = f"{self.size.idle_s:g} s; hub sent {detail}"
        self.measures += [
            Measure(
                name="idle, requests for objects", value=spent.on_objects, unit="", aim=0, note="counted by the server"
            ),
            Measure(name="idle, other calls of the hub", value=spent.calls - heartbeats, unit="", note=note),
            Measure(name="idle, heartbeats", value=heartbeats, unit="", note=f"server saw {spent.on_leases} on leases"),
            Measure(
                name="idle, watches renewed",
                value=spent.watches,
                unit="",
                note=f"server saw {spent.lists} lists of the kinds, its own included",
            ),
            Measure(name="idle, CPU", value=1000 * cpu_s / self.size.idle_s, unit="ms/s"),
        ]


def tell(text: str) -> None:
    """Say on stderr what is going on."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
