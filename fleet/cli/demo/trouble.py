"""Chapters of the story in which a rollout meets trouble: pods that crash, and a cluster that is away."""

import time

from fleet.cli.demo.account import Account
from fleet.cli.demo.scene import MANIFEST, Scene
from fleet.object import short
from fleet.rollout.state import RunState

LABELS = """        tier: ${TIER}
"""
# the simulator's words: whoever stages a failure writes them into a manifest, and real kubelets pass over them
CRASHING = (
    LABELS
    + """      annotations:
        sim.fleet/behaviour: ${TIER/staging/crash}
        sim.fleet/message: "panic: no table orders in the database of ${TIER}"
"""
)


async def crash(scene: Scene) -> None:
    """A commit that works in dev and crashes in staging goes back by itself, and never reaches production."""
    scene.chapter("A commit works in dev, and crashes in staging")
    account = await Account.open(scene)
    scene.place.edit(MANIFEST, "shop:1.1", "shop:1.2")
    scene.place.edit(MANIFEST, LABELS, CRASHING)
    revision = scene.place.commit("Release shop 1.2")
    scene.say.tell(f"commit {short(revision)}: shop 1.1 -> 1.2, which needs a table that only dev's database has")
    await account.until(RunState.ROLLED_BACK)
    image = await scene.check_image("1.1")
    scene.say.good(f"production was never touched: {scene.victim} runs {image}")
    revision = scene.place.revert()
    await scene.until_synced(scene.shops, revision)
    scene.say.good(f"git revert ({short(revision)}): Git says again what all clusters run")


async def outage(scene: Scene) -> None:
    """A cluster is away while the others go on, and catches up."""
    scene.chapter("A cluster dies and comes back")
    name = scene.traveller
    await scene.playground.stop(name)
    await scene.wait(lambda: scene.cluster_state(name)[0] != "Ready", f"{name} to be missed")
    scene.say.bad(f"{name} does not answer: {scene.cluster_state(name)[1]}")
    account = await Account.open(scene)
    scene.place.edit(MANIFEST, "shop:1.1", "shop:1.3")
    revision = scene.place.commit("Release shop 1.3")
    scene.say.tell(f"commit {short(revision)}: shop 1.1 -> 1.3")
    await account.until_past("staging")
    await scene.playground.start(name)
    started = time.monotonic()
    scene.say.tell(f"{name} is switched on again")
    await account.until(RunState.SUCCEEDED)
    rows = await scene.until_synced(scene.shops, revision)
    scene.say.good(
        f"{name} has caught up, and all {len(rows)} clusters run it, {time.monotonic() - started:.1f} s later"
    )
