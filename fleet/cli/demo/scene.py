"""Where the demo's story happens: the hub, its clusters, its repository, and the waiting for what is told next."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.cli.demo.narrator import Narrator
from fleet.cli.demo.place import Place
from fleet.cli.demo.playground import Playground
from fleet.errors import FleetError
from fleet.hub.view import Hub, TargetRow

APP, NAMESPACE, DEPLOYMENT = "shop", "shop", "shop"
MANIFEST = "shop/shop.yaml"
PATIENCE_S = 120.0
LOOK_S = 0.02

Rows = Callable[[], Sequence[TargetRow]]


@dataclass(slots=True, kw_only=True)
class Scene:
    """What every chapter works with. What does not go as told is a FleetError."""

    hub: Hub
    url: str
    """The hub's server."""
    place: Place
    playground: Playground
    say: Narrator
    victim: str = ""
    """A cluster of production, to which things happen."""
    traveller: str = ""
    """A cluster of production, the only one perhaps, which is away for a while."""
    _chapters: int = field(default=0, init=False)

    async def meet(self) -> None:
        """Choose the clusters that the story is about."""
        rows = await self.wait(self.hub.clusters, "a cluster")
        web = [c.name for c in rows if c.environment == "production" and c.labels.get("tier") == "web"]
        self.victim, self.traveller = web[0], web[-1]

    def chapter(self, title: str) -> None:
        """Begin the next chapter."""
        self._chapters += 1
        self.say.chapter(f"{self._chapters}. {title}")

    def shops(self) -> Sequence[TargetRow]:
        """Return the targets of the app that the story is about."""
        return self.targets(APP)

    def targets(self, app: str) -> Sequence[TargetRow]:
        """Return the targets of an app."""
        return [row for row in self.hub.targets() if row.app == app]

    def cluster_state(self, name: str) -> tuple[str, str]:
        """Return state and message of a cluster."""
        return next((c.state, c.message) for c in self.hub.clusters() if c.name == name)

    async def check_image(self, tag: str) -> str:
        """Return what the victim runs, which must be an image with this tag."""
        image = await self.playground.image(self.victim, NAMESPACE, DEPLOYMENT)
        if not image.endswith(f":{tag}"):
            raise FleetError(f"{self.victim} runs {image}, not {tag}", reason="DemoFailed")
        return image

    async def until_synced(self, rows: Rows, revision: str = "") -> Sequence[TargetRow]:
        """Wait until all rows are in sync, at a revision if given."""
        return await self.until(
            rows, lambda row: row.state == "Synced" and revision in ("", row.applied_revision), "in sync"
        )

    async def until(self, rows: Rows, ready: Callable[[TargetRow], bool], word: str) -> Sequence[TargetRow]:
        """Wait until all rows are ready, showing how many are."""
        deadline = time.monotonic() + PATIENCE_S
        with self.say.progress():
            while True:
                now = rows()
                done = [row for row in now if ready(row)]
                if now and len(done) == len(now):
                    return now
                if time.monotonic() > deadline:
                    raise _not_as_told(next(row for row in now if row not in done), word)
                self.say.update(f"{len(done)} of {len(now)} {word}")
                await asyncio.sleep(LOOK_S)

    async def last_event(self) -> int:
        """Return the number of the newest event."""
        newest = await self.hub.events(limit=1)
        return newest[-1].seq if newest else 0

    async def event(self, kind: str, after: int) -> str:
        """Wait for the first event of a kind after another; return what it says."""
        found = await self.wait(lambda: self.hub.events(since=after, kind=kind), f"an event of kind {kind}")
        return str(found[0].message)

    async def wait(self, probe: Callable[[], Any], what: str) -> Any:
        """Ask until the answer is true, and return it."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = probe()
            if isinstance(answer, Awaitable):
                answer = await answer
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise FleetError(f"waited {PATIENCE_S:.0f} s for {what}", reason="DemoFailed")
            await asyncio.sleep(LOOK_S)


def counted(number: int, what: str) -> str:
    """Return `1 cluster`, `2 clusters`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _not_as_told(row: TargetRow, word: str) -> FleetError:
    return FleetError(
        f"{row.cluster}/{row.app} is not {word} after {PATIENCE_S:.0f} s, but {row.state}: {row.message}",
        reason="DemoFailed",
    )
