"""kill -9 at every stored step of a rollout: before the write and after it, then a hub that starts again.

A cut takes database and network away at once: nothing that the dying hub still does has any effect.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from fleet.errors import StoreError
from fleet.hub.rolloutview import Steering, SteerRequest
from fleet.hub.service import HubService
from fleet.rollout.state import ClusterState, Run, RunState
from fleet.sim.cluster import SimCluster
from fleet.store.database import Database, Row, Statement
from fleet.store.rollout import RolloutStore
from tests.harness.fleet import ADA, environment_document, repository_document
from tests.integration.hub.conftest import Stage, VirtualClock
from tests.integration.hub.test_main_job import WEB, colour, config
from tests.integration.hub.test_rollout import ORDER, fleet_of, images, run_in, run_of

MOST_WRITES = 60
"""A story that is longer goes on for ever."""
LEAST_WRITES = 5
QUIET_S = 60


class Fuse:
    """A database that cuts everything at the n-th write of a rollout, before or after it is done."""

    def __init__(self, database: Database, stage: Stage) -> None:
        self._database = database
        self._stage = stage
        self._left = 0
        self._after = False
        self.blown = self.buried = False
        self.on_cut: Callable[[], None] = lambda: None

    def arm(self, nth: int, *, after: bool) -> None:
        """Cut at the n-th write from now."""
        self._left, self._after = nth, after

    async def write(self, batch: Sequence[Statement]) -> list[list[Row]]:
        """Write, unless this is the moment, or it is over."""
        if " rollout" in batch[0].sql and self._left and not self.blown:
            self._left -= 1
            if not self._left:
                if self._after:
                    await self._database.write(batch)
                self._cut()
        await self._stop_the_dead()
        return await self._database.write(batch)

    async def read(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Read, as long as somebody lives who could."""
        await self._stop_the_dead()
        return await self._database.read(sql, args)

    async def scrub(self) -> None:
        """Nothing is scrubbed here."""

    async def _stop_the_dead(self) -> None:
        """Let nobody go on; what cleans up when the test takes the dead hub apart fails."""
        if self.buried:
            raise StoreError("the hub was killed")
        if self.blown:
            await asyncio.get_running_loop().create_future()

    def _cut(self) -> None:
        self.blown = True
        connect(self._stage, alive=False)
        self.on_cut()


def connect(stage: Stage, *, alive: bool) -> None:
    """Take every cluster away from the hub, or give them back."""
    for name in stage.clusters:
        stage.network.conditions(f"{name}.example", 443).refuse = not alive
        if not alive:
            stage.network.cut(f"{name}.example", 443)


@dataclass(frozen=True, kw_only=True)
class Say:
    """What a person says once a run looks like this; `mark` is how the run's history calls it."""

    when: Callable[[Run], bool]
    verb: Steering
    mark: str
    stage: str = ""
    cluster: str = ""
    still_s: float = 0.0
    """Nothing may move for so long afterwards."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """A rollout with a known end."""

    policies: Mapping[str, Mapping[str, Any]]
    says: Sequence[Say] = ()
    end: RunState = RunState.SUCCEEDED
    moved: Sequence[str] = ("d1", "s1", "p1")
    """The clusters that have the release in the end."""
    writes: Mapping[str, int]
    """How often each cluster is written to."""
    bad: bool = False


def in_state(state: RunState) -> Callable[[Run], bool]:
    """Look for the state of a run."""
    return lambda run: run.state is state


def soaking(cluster: str) -> Callable[[Run], bool]:
    """Look for a cluster that soaks while the run goes on."""
    return lambda run: run.active and run.clusters[cluster].state is ClusterState.SOAKING


SOAK = {"soak": "10s"}
ONCE = {"d1": 1, "s1": 1, "p1": 1}
STORIES = {
    "good": Story(policies={"dev": SOAK, "staging": {}, "production": SOAK}, writes=ONCE),
    "back": Story(
        policies={"dev": {**SOAK, "onFailure": "rollback"}, "staging": SOAK, "production": SOAK},
        end=RunState.ROLLED_BACK,
        moved=(),
        writes={"d1": 2, "s1": 0, "p1": 0},
        bad=True,
    ),
    "approval": Story(
        policies={"dev": SOAK, "staging": {}, "production": {"approval": {"required": 1}}},
        says=[
            Say(when=in_state(RunState.AWAITING_APPROVAL), verb=Steering.APPROVE, mark="Approved", stage="production")
        ],
        writes=ONCE,
    ),
    "pause": Story(
        policies={"dev": SOAK, "staging": {}, "production": {}},
        says=[
            Say(when=soaking("d1"), verb=Steering.PAUSE, mark="PausedByUser", still_s=QUIET_S),
            Say(when=in_state(RunState.PAUSED), verb=Steering.RESUME, mark="Resumed"),
        ],
        writes=ONCE,
    ),
    "abort": Story(
        policies={"dev": SOAK, "staging": {"soak": "1h"}, "production": {}},
        says=[Say(when=soaking("s1"), verb=Steering.ABORT, mark="AbortedByUser")],
        end=RunState.ABORTED,
        moved=("d1", "s1"),
        writes={"d1": 1, "s1": 1, "p1": 0},
    ),
    "promote and skip": Story(
        policies={"dev": {"soak": "1h"}, "staging": {"soak": "1h"}, "production": {}},
        says=[
            Say(when=soaking("d1"), verb=Steering.PROMOTE, mark="Promoted", stage="dev"),
            Say(when=soaking("s1"), verb=Steering.SKIP, mark="SkippedByUser", cluster="s1"),
        ],
        moved=("d1", "s1", "p1"),
        writes=ONCE,
    ),
    "rollback": Story(
        policies={"dev": SOAK, "staging": {"soak": "1h"}, "production": {}},
        says=[Say(when=soaking("s1"), verb=Steering.ROLLBACK, mark="RolledBackByUser")],
        end=RunState.ROLLED_BACK,
        moved=(),
        writes={"d1": 2, "s1": 2, "p1": 0},
    ),
    "abort and retry": Story(
        policies={"dev": SOAK, "staging": {}, "production": {}},
        says=[
            Say(when=soaking("d1"), verb=Steering.ABORT, mark="AbortedByUser", still_s=QUIET_S),
            Say(when=in_state(RunState.ABORTED), verb=Steering.RETRY, mark="Retried"),
        ],
        writes=ONCE,
    ),
}


@dataclass
class Play:
    """Plays one story again and again, each time with a newer release."""

    stage: Stage
    story: Story
    clusters: dict[str, SimCluster]
    release: int = 1

    def commit(self) -> None:
        """Begin the next round."""
        self.before = self.has()
        for cluster in self.clusters.values():
            cluster.forget_requests()
        self.release += 1
        text = f"v{self.release}"
        if self.story.bad:
            self.stage.repository.commit(text, {"app/web.yaml": WEB.format(image=f"web:{text}-crash")})
        else:
            self.stage.repository.commit(text, {"app/settings.yaml": config(text)})

    def has(self) -> dict[str, str | None]:
        """Say what each cluster has."""
        return images(self.clusters) if self.story.bad else {n: colour(c) for n, c in self.clusters.items()}

    async def go_on(self, hub: HubService) -> None:
        """Say what was not said yet, and wait for the end."""
        for say in self.story.says:
            if say.mark not in await self._marks():
                await self._wait(say.when)
                await self._say(hub, say)
            if say.still_s and not await self._said_later(say):
                had = self.has()
                await asyncio.sleep(say.still_s)
                assert self.has() == had
        await self._wait(in_state(self.story.end))

    async def _said_later(self, say: Say) -> bool:
        later = self.story.says[self.story.says.index(say) + 1 :]
        said = await self._marks()
        return any(other.mark in said for other in later)

    async def _say(self, hub: HubService, say: Say) -> None:
        await self.stage.until(hub.clusters)  # before that there is no plan to approve
        request = SteerRequest(app="shop", verb=say.verb, reason="because", stage=say.stage, cluster=say.cluster)
        await hub.rollouts.steer(request, ADA)

    async def _wait(self, wanted: Callable[[Run], bool]) -> None:
        async def found() -> bool:
            run = await run_of(self.stage)
            return run is not None and run.release == self.release and wanted(run)

        await self.stage.until(found, timeout_s=3600)

    async def _marks(self) -> list[str]:
        row = await RolloutStore(self.stage.world.database).get("shop", self.release)
        steps = await RolloutStore(self.stage.world.database).history(row.id) if row is not None else ()
        return [step.reason for step in steps if step.actor and step.reason in {say.mark for say in self.story.says}]

    async def check(self) -> None:
        """See that the round ended as it always does, with each cluster written to as often as ever."""
        await asyncio.sleep(QUIET_S)
        run = await run_of(self.stage)
        assert run is not None
        assert (run.release, run.state) == (self.release, self.story.end)
        assert await self._marks() == [say.mark for say in self.story.says]
        new = f"web:v{self.release}-crash" if self.story.bad else f"v{self.release}"
        expected = {n: new if n in self.story.moved else had for n, had in self.before.items()}
        assert self.has() == expected
        assert {name: writes_of(cluster) for name, cluster in self.clusters.items()} == self.story.writes


def writes_of(cluster: SimCluster) -> int:
    """Count what really wrote the app's object."""
    return sum(
        r.verb in ("create", "update", "patch") and "dryRun" not in r.query and 200 <= r.code < 300
        for r in cluster.requests
        if r.path.endswith(("/configmaps/settings", "/deployments/web"))
    )


async def play(made: Play, hub: HubService, fuse: Fuse) -> bool:
    """Play a round to its end, or until the fuse blows; returns whether it blew."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as scope:
            fuse.on_cut = lambda: scope.reschedule(loop.time())
            await made.go_on(hub)
    except TimeoutError:
        if not fuse.blown:
            raise
        fuse.buried = True
    return fuse.blown


async def install(stage: Stage, story: Story) -> dict[str, SimCluster]:
    """Give every cluster a first release, then put the story's rules in force."""
    clusters = await fleet_of(stage, (1, 1, 1), dev={}, staging={}, production={})
    first = {"app/web.yaml": WEB.format(image="web:v1")} if story.bad else {"app/settings.yaml": config("v1")}
    stage.repository.commit("v1", first)
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
    documents = [
        environment_document(name, **({"after": [ORDER[i - 1]]} if i else {}), rollout=story.policies[name])
        for i, name in enumerate(ORDER)
    ]
    stage.declare("fleet.yaml", repository_document(stage.repository.path), *documents)
    return clusters


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", STORIES)
async def test_a_kill_at_any_write_changes_nothing_of_the_end(stage: Stage, name: str, after: bool) -> None:
    """Wherever the hub dies: the same end, each cluster written to as often, and nothing said is lost or done twice."""
    made = Play(stage, STORIES[name], await install(stage, STORIES[name]))
    for nth in range(1, MOST_WRITES):
        fuse = Fuse(stage.world.database, stage)
        async with stage.running(replace(stage.world, database=fuse)) as hub:
            if nth > 1:
                await made.go_on(hub)
                await made.check()
            made.commit()
            fuse.arm(nth, after=after)
            if not await play(made, hub, fuse):
                await made.check()
                assert nth > LEAST_WRITES
                return
        connect(stage, alive=True)
    raise AssertionError("no end to it")


class JumpingClock(VirtualClock):
    """Wall time that somebody sets; the loop's time goes on."""

    offset = timedelta()

    def now(self) -> datetime:
        """Return what the wall shows."""
        return super().now() + self.offset


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_jumps_changes_no_soak(stage: Stage, hours: int) -> None:
    """In the middle of a soak the clock is set an hour forward, or back: the soak is as long as ever."""
    clock, loop = JumpingClock(), asyncio.get_running_loop()
    stage.world = replace(stage.world, clock=clock)
    clusters = await fleet_of(stage, (1, 1, 1), dev={"soak": "60s"}, staging={}, production={})
    stage.repository.commit("v1", {"app/settings.yaml": config("v1")})
    async with stage.running(stage.world):
        await stage.until(lambda: colour(clusters["d1"]) == "v1")
        began = loop.time()
        await asyncio.sleep(30)
        clock.offset = timedelta(hours=hours)
        await asyncio.sleep(25)
        assert colour(clusters["s1"]) is None
        await stage.until(lambda: colour(clusters["s1"]) == "v1")
        assert 59 < loop.time() - began < 65
