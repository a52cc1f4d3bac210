"""The tutorial about rollouts, followed word by word on the demo's clusters."""

import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet.cli.demo.gate import ADA
from fleet.cli.demo.place import Place
from fleet.cli.demo.playground import SimPlayground
from fleet.cli.demo.scene import MANIFEST
from fleet.hub.app import running_hub
from fleet.hub.rolloutview import Steering, SteerRequest
from fleet.hub.service import HubService
from fleet.hub.world import open_world
from fleet.server.app import running
from fleet.settings import Settings
from tests.cluster.shell import Shell, blocks_after, eventually

PAGE = "tutorial/staged-rollouts.md"
pytestmark = pytest.mark.timeout(150)


async def install(hub: HubService, shell: Shell) -> None:
    """Leave the fleet as the story of the demo does: ada let the newest release into production."""
    for app in ("platform", "ingress", "shop"):
        await eventually(shell, f"fleet rollout list --app {app}", "AwaitingApproval")
        request = SteerRequest(app=app, verb=Steering.APPROVE, stage="production", reason="works in staging")
        await hub.rollouts.steer(request, ADA)
    await eventually(shell, "fleet rollout list --app shop", "Succeeded")


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    """A shell beside the demo's directory, in which the story was told."""
    place = Place(tmp_path / "tour-rollouts")
    place.root.mkdir()
    place.furnish()
    place.edit(MANIFEST, "shop:1.0", "shop:1.4")
    place.commit("Release shop 1.4")
    place.edit_inventory("environment.yaml", "# approval:", "approval:")
    settings = Settings(inventory=place.inventory, data=place.data, listen="127.0.0.1:0")
    async with SimPlayground.open(place.cluster_names()) as playground:
        for name in playground.names:
            place.write_kubeconfig(name, playground.kubeconfig(name))
        async with (
            open_world(settings) as world,
            running_hub(settings, world) as hub,
            running(hub, settings) as bound,
        ):
            environment = {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "FLEET_DATA": "tour-rollouts/data",
                "FLEET_SERVER": bound.url,
                **{
                    f"GIT_{who}_{what}": "ada@example.com"
                    for who in ("AUTHOR", "COMMITTER")
                    for what in ("NAME", "EMAIL")
                },
            }
            made = Shell(tmp_path, environment)
            await install(hub, made)
            yield made


async def test_the_tutorial_about_rollouts(shell: Shell) -> None:
    """Every step does what the page says, in its order."""
    *_, history = blocks_after(PAGE, "Start a fleet to play with")
    policy, validate = blocks_after(PAGE, "Write a policy")
    [watch] = blocks_after(PAGE, "Watch")
    show, approve = blocks_after(PAGE, "Approve")
    crash, look = blocks_after(PAGE, "Break it")
    back, revert = blocks_after(PAGE, "Send it back")

    assert "ada" in await shell.run(history.text)
    _replace_policy(shell.directory / "tour-rollouts/clusters.d/environment.yaml", policy.text.replace("10s", "1s"))
    assert "is valid" in await shell.run(validate.text)
    change, commit, _ = watch.text.splitlines()
    await shell.run(f"{change}\n{commit}")
    await eventually(shell, "fleet rollout list --state awaitingapproval", "shop#2")
    [digest] = re.findall("plan ([0-9a-f]{16})", await shell.run(show.text))
    assert "Succeeded" in await shell.run(approve.text.replace("DIGEST", digest))

    change, commit, watch_it = crash.text.splitlines()
    await shell.run(f"{change}\n{commit}")
    await eventually(shell, "fleet rollout list --state paused", "shop#3")
    assert "container shop" in await shell.run(f"{watch_it} || test $? -eq 1")
    seen = await shell.run(look.text)
    assert ("dev-1: Failed" in seen, "dev-2: Pending" in seen, "CrashLoopBackOff" in seen) == (True, True, True)
    await shell.run(back.text)
    await eventually(shell, show.text.strip(), "dev-1: RolledBack")
    await shell.run(revert.text.splitlines()[0])
    await eventually(shell, "fleet status shop | grep Synced | grep -c 'shop#4'", "8")


def _replace_policy(path: Path, dev: str) -> None:
    first, *others = path.read_text().split("---\n")
    assert "name: dev" in first
    path.write_text("---\n".join([f"{dev}\n", *others]))
