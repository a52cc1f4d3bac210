"""The demo's story: what happens to a fleet on an ordinary day, and what fleet makes of it."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fleet.cli.demo.narrator import Narrator
from fleet.cli.demo.place import Place
from fleet.cli.demo.playground import Playground
from fleet.errors import FleetError
from fleet.hub.view import Hub, TargetRow
from fleet.object import short

PATIENCE_S = 120.0
LOOK_S = 0.02
NAMESPACE, DEPLOYMENT = "shop", "shop"


class Story:
    """Tells five chapters against a running hub. Each raises FleetError when it does not go as told."""

    def __init__(self, hub: Hub, place: Place, playground: Playground, narrator: Narrator) -> None:
        self._hub = hub
        self._place = place
        self._playground = playground
        self._say = narrator
        self._victim = self._traveller = ""

    async def tell(self) -> None:
        """Tell all of it, in order."""
        rows = await self._await(self._hub.clusters)
        web = [(c.environment, c.name) for c in rows if c.labels.get("tier") == "web"]
        self._victim = next(name for environment, name in web if environment == "production")
        self._traveller = next(name for environment, name in web if environment == "staging")
        await self.install()
        await self.commit()
        await self.drift()
        await self.broken()
        await self.outage()

    async def install(self) -> None:
        """Everything that Git says arrives everywhere."""
        self._say.chapter("1. Git and clusters.d say what should exist")
        started = time.monotonic()
        rows = await self._until_synced(self._hub.targets)
        apps = Counter(row.app for row in rows)
        listed = ", ".join(f"{app} on {count}" for app, count in sorted(apps.items()))
        self._say.good(f"{len(rows)} targets are in sync ({listed}) after {time.monotonic() - started:.1f} s")

    async def commit(self) -> None:
        """A commit goes to every cluster that gets the app."""
        self._say.chapter("2. A commit goes everywhere")
        self._place.edit("shop/shop.yaml", "shop:1.0", "shop:1.1")
        revision, started = self._place.commit("Release shop 1.1"), time.monotonic()
        self._say.tell(f"commit {short(revision)}: shop 1.0 -> 1.1")
        rows = await self._until_synced(self._shops, revision)
        self._say.good(f"all {len(rows)} clusters run it {time.monotonic() - started:.1f} s after the commit")

    async def drift(self) -> None:
        """Somebody changes a Deployment by hand."""
        self._say.chapter("3. Somebody breaks a Deployment by hand")
        before = await self._last_event()
        await self._playground.scale(self._victim, NAMESPACE, DEPLOYMENT, 0)
        self._say.tell(f"kubectl scale deployment/{DEPLOYMENT} --replicas=0, on {self._victim}")
        event = await self._await_event("drift", before)
        self._say.good(f"healed: {event}")
        await self._until_synced(self._shops)

    async def broken(self) -> None:
        """A commit that does not render harms nothing."""
        self._say.chapter("4. A broken manifest is committed")
        self._place.edit("shop/shop.yaml", "replicas: ${REPLICAS}", "replicas: ${REPLICAS")
        revision = self._place.commit("Break shop")
        self._say.tell(f"commit {short(revision)}")
        rows = await self._until(self._shops, lambda row: row.state == "Failed", "Failed")
        self._say.bad(rows[0].message)
        image = await self._playground.image(self._victim, NAMESPACE, DEPLOYMENT)
        self._say.good(f"nothing was harmed: {self._victim} runs {image}")
        revision = self._place.revert()
        await self._until_synced(self._shops, revision)
        self._say.good(f"git revert ({short(revision)}): all clusters are in sync again")

    async def outage(self) -> None:
        """A cluster is away while the others go on, and catches up."""
        self._say.chapter("5. A cluster dies and comes back")
        await self._playground.stop(self._traveller)
        await self._until_cluster(self._traveller, lambda state: state != "Ready")
        self._say.bad(f"{self._traveller} does not answer: {self._cluster_message(self._traveller)}")
        self._place.edit("shop/shop.yaml", "shop:1.1", "shop:1.2")
        revision = self._place.commit("Release shop 1.2")
        rows = await self._until_synced(lambda: [r for r in self._shops() if r.cluster != self._traveller], revision)
        self._say.good(f"the other {len(rows)} clusters follow commit {short(revision)} meanwhile")
        await self._playground.start(self._traveller)
        started = time.monotonic()
        await self._until_synced(self._shops, revision)
        self._say.good(f"{self._traveller} is back and has caught up, {time.monotonic() - started:.1f} s later")

    def _shops(self) -> Sequence[TargetRow]:
        return [row for row in self._hub.targets() if row.app == "shop"]

    def _cluster_message(self, name: str) -> str:
        return next(c.message for c in self._hub.clusters() if c.name == name)

    async def _until_synced(self, rows: Callable[[], Sequence[TargetRow]], revision: str = "") -> Sequence[TargetRow]:
        return await self._until(
            rows, lambda row: row.state == "Synced" and revision in ("", row.applied_revision), "in sync"
        )

    async def _until(
        self, rows: Callable[[], Sequence[TargetRow]], ready: Callable[[TargetRow], bool], word: str
    ) -> Sequence[TargetRow]:
        """Wait until all rows are ready, showing how many are."""
        deadline = time.monotonic() + PATIENCE_S
        with self._say.progress():
            while True:
                now = rows()
                done = [row for row in now if ready(row)]
                if now and len(done) == len(now):
                    return now
                if time.monotonic() > deadline:
                    raise _not_as_told(next(row for row in now if row not in done), word)
                self._say.update(f"{len(done)} of {len(now)} {word}")
                await asyncio.sleep(LOOK_S)

    async def _until_cluster(self, name: str, ready: Callable[[str], bool]) -> None:
        await self._await(lambda: ready(next(c.state for c in self._hub.clusters() if c.name == name)))

    async def _last_event(self) -> int:
        newest = await self._hub.events(limit=1)
        return newest[-1].seq if newest else 0

    async def _await_event(self, kind: str, after: int) -> str:
        found = await self._await(lambda: self._hub.events(since=after, kind=kind))
        return str(found[0].message)

    async def _await(self, probe: Callable[[], Any]) -> Any:
        """Ask until the answer is true, and return it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = probe()
                if isinstance(answer, Awaitable):
                    answer = await answer
                if answer:
                    return answer
                await asyncio.sleep(LOOK_S)


def _not_as_told(row: TargetRow, word: str) -> FleetError:
    return FleetError(
        f"{row.cluster}/{row.app} is not {word} after {PATIENCE_S:.0f} s, but {row.state}: {row.message}",
        reason="DemoFailed",
    )
