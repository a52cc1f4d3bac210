"""Whatever people, controllers, commits and restarts do in whatever order: in the end the cluster is what Git says."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import ServerFailure
from fleet.sim.loop import run_virtual
from tests.harness.reconcile import Rig, config, deployment, key_of

NAMES = ("a", "b", "c")
APPS = ("left", "right")
STEPS = st.one_of(
    st.tuples(
        st.just("commit"),
        st.dictionaries(st.sampled_from(NAMES), st.tuples(st.sampled_from(APPS), st.sampled_from("12")), max_size=3),
    ),
    st.tuples(st.just("edit"), st.sampled_from(NAMES)),
    st.tuples(st.just("add"), st.sampled_from(NAMES)),
    st.tuples(st.just("rival"), st.sampled_from(NAMES)),
    st.tuples(st.just("delete"), st.sampled_from(NAMES)),
    st.tuples(st.just("unlabel"), st.sampled_from(NAMES)),
    st.tuples(st.just("refuse"), st.sampled_from(NAMES)),
    st.tuples(st.just("run"), st.sampled_from(APPS)),
    st.tuples(st.just("lag"), st.booleans()),
    st.tuples(st.just("relist"), st.none()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([1, 20])),
)


class Walk:
    """Two apps under random events; Git says for each ConfigMap which app has it, and its value."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.git: dict[str, tuple[str, str]] = {}
        self.wish()

    def bodies(self, app: str) -> list[dict[str, Any]]:
        """What Git holds for an app: ConfigMaps, and a Deployment that nobody touches."""
        held = [config(name, k=value) for name, (holder, value) in sorted(self.git.items()) if holder == app]
        return [deployment(f"web-{app}"), *held]

    def wish(self) -> None:
        """Let both apps know what Git says before either runs."""
        for app in APPS:
            self.rig.wish(app, *self.bodies(app))

    async def step(self, what: str, detail: Any) -> None:
        """Let one thing happen."""
        cluster = self.rig.cluster
        match what:
            case "commit":
                self.git = detail
                self.wish()
            case "run":
                await self.rig.run(*self.bodies(detail), app=detail)
            case "lag":
                self.rig.lag = True
                if not detail:
                    self.rig.deliver()
            case "relist":
                self.rig.deliver()
                self.rig.relist(key_of(config()).group_kind)
            case "restart":
                self.rig = self.rig.restarted()
                self.wish()
            case "wait":
                await asyncio.sleep(detail)
            case "refuse":
                cluster.refuse("apply", key_of(config(detail)), ServerFailure("away", status=500))
            case _ if key_of(config(detail)) in cluster.objects:
                self._meddle(what, detail)

    def _meddle(self, what: str, name: str) -> None:
        cluster, key = self.rig.cluster, key_of(config(name))
        match what:
            case "edit":
                cluster.edit(key, **{"data/k": "edited"})
            case "add" if key in self.rig.around.owners:  # what is added to an object that is not ours stays
                cluster.edit(key, **{"data/added": "x"})
            case "rival":
                cluster.edit(key, "rival", **{"data/k": "mine", "data/theirs": "y"})
            case "delete":
                cluster.remove(key)
            case "unlabel" if "labels" in cluster.body(key)["metadata"]:
                cluster.unlabel(key, "fleet/hub")

    async def settle(self) -> None:
        """Give the app time and peace."""
        self.rig.deliver()
        self.rig.cluster.refusals.clear()
        for _ in range(8):
            reports = [await self.rig.run(*self.bodies(app), app=app) for app in APPS]
            if all(report.complete and not report.written for report in reports):
                return
            await asyncio.sleep(700)
        raise AssertionError(reports)

    def check(self) -> None:
        """Compare the cluster with Git."""
        cluster = self.rig.cluster
        labelled = {
            key.name
            for key in cluster.objects
            if key.kind == "ConfigMap" and key.namespace == "shop" and self.rig.live.get(key) is not None
        }
        assert labelled == self.git.keys()
        for name, (_, value) in self.git.items():
            key = key_of(config(name))
            assert cluster.value(key, "data/k") == value
            assert cluster.value(key, "data/added") is None
        rows = {(target.app, key.name) for target, rows in self.rig.ledger.rows.items() for key in rows}
        assert rows == {(app, f"web-{app}") for app in APPS} | {(app, name) for name, (app, _) in self.git.items()}
        assert self.rig.around.ledgers == self.rig.ledger.rows


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_the_cluster_becomes_what_git_says(steps: list[tuple[str, Any]]) -> None:
    """After any walk and some peace everything is in sync, and then nothing is asked any more."""

    async def walk() -> None:
        walk = Walk()
        for what, detail in steps:
            await walk.step(what, detail)
        await walk.settle()
        walk.check()
        walk.rig.cluster.drain()
        for app in APPS:
            assert (await walk.rig.run(*walk.bodies(app), app=app)).complete
        assert walk.rig.cluster.drain() == []

    run_virtual(walk())
