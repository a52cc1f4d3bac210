"""The demo's story: what happens to a fleet on an ordinary day, and what fleet makes of it."""

import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

from fleet.cli.demo.account import Account
from fleet.cli.demo.gate import approval
from fleet.cli.demo.scene import DEPLOYMENT, MANIFEST, NAMESPACE, Scene, counted
from fleet.cli.demo.sealing import secret
from fleet.cli.demo.trouble import crash, outage
from fleet.hub.view import TargetRow
from fleet.object import short
from fleet.rollout.state import RunState


async def tell(scene: Scene) -> None:
    """Tell all of it, in order. Raises: FleetError when something does not go as told."""
    await scene.meet()
    for chapter in (install, commit, drift, broken, crash, outage, secret, approval):
        await chapter(scene)


async def install(scene: Scene) -> None:
    """Everything that Git says arrives everywhere, stage by stage."""
    scene.chapter("Git and clusters.d say what should exist")
    started = time.monotonic()
    members = {c.name: c.environment for c in scene.hub.clusters()}
    for environment in dict.fromkeys(members[name] for name in scene.playground.names):
        rows = await scene.until_synced(partial(_members, scene, environment))
        clusters = counted(len({row.cluster for row in rows}), "cluster")
        scene.say.tell(f"{environment} has all it needs: {len(rows)} targets on {clusters}")
    rows = scene.hub.targets()
    apps = Counter(row.app for row in rows)
    listed = ", ".join(f"{app} on {count}" for app, count in sorted(apps.items()))
    scene.say.good(f"{len(rows)} targets are in sync ({listed}) after {time.monotonic() - started:.1f} s")


def _members(scene: Scene, environment: str) -> Sequence[TargetRow]:
    clusters = {c.name for c in scene.hub.clusters() if c.environment == environment}
    return [row for row in scene.hub.targets() if row.cluster in clusters]


async def commit(scene: Scene) -> None:
    """A commit goes to every cluster that gets the app, through three environments."""
    scene.chapter("A commit goes through dev, staging and production")
    account = await Account.open(scene)
    scene.place.edit(MANIFEST, "shop:1.0", "shop:1.1")
    revision, started = scene.place.commit("Release shop 1.1"), time.monotonic()
    scene.say.tell(f"commit {short(revision)}: shop 1.0 -> 1.1")
    await account.until(RunState.SUCCEEDED)
    rows = await scene.until_synced(scene.shops, revision)
    scene.say.good(f"all {len(rows)} clusters run it {time.monotonic() - started:.1f} s after the commit")


async def drift(scene: Scene) -> None:
    """Somebody changes a Deployment by hand."""
    scene.chapter("Somebody breaks a Deployment by hand")
    before = await scene.last_event()
    await scene.playground.scale(scene.victim, NAMESPACE, DEPLOYMENT, 0)
    scene.say.tell(f"kubectl scale deployment/{DEPLOYMENT} --replicas=0, on {scene.victim}")
    scene.say.good(f"healed: {await scene.event('drift', before)}")
    await scene.until_synced(scene.shops)


async def broken(scene: Scene) -> None:
    """A commit that does not render harms nothing."""
    scene.chapter("A broken manifest is committed")
    scene.place.edit(MANIFEST, "replicas: ${REPLICAS}", "replicas: ${REPLICAS")
    scene.say.tell(f"commit {short(scene.place.commit('Break shop'))}")
    rows = await scene.until(scene.shops, lambda row: row.state == "Failed", "Failed")
    scene.say.bad(rows[0].message)
    scene.say.good(f"nothing was harmed: {scene.victim} runs {await scene.check_image('1.1')}")
    revision = scene.place.revert()
    await scene.until_synced(scene.shops, revision)
    scene.say.good(f"git revert ({short(revision)}): all clusters are in sync again")
