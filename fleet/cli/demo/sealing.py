"""The chapter of the story about a secret: encrypted in Git, and of use to the clusters it was sealed for alone."""

import asyncio

from fleet.cli.demo.account import Account
from fleet.cli.demo.scene import Scene
from fleet.errors import FleetError
from fleet.object import short
from fleet.rollout.state import RunState

APP, NAMESPACE, NAME, ITEM = "ingress", "ingress", "upstream", "password"
VALUE = "correct-horse"
STAGE, OTHER = "production", "dev"
FILE = f"{APP}/{STAGE}/{NAME}.yaml"
STOLEN = f"{APP}/{OTHER}/{NAME}.yaml"


async def secret(scene: Scene) -> None:
    """A secret sealed for production arrives there, and cannot be opened for dev."""
    scene.chapter("A secret in Git that only production can open")
    what = ("--name", NAME, "--namespace", NAMESPACE, "--from-literal", f"{ITEM}={VALUE}")
    command = ("seal", *what, "--for", f"environment={STAGE}", "--server", scene.url, "-w", FILE)
    await asyncio.to_thread(scene.place.fleet, *command)
    scene.say.tell(f"fleet seal --name {NAME} --from-literal {ITEM}=... --for environment={STAGE} -w {FILE}")
    account = await Account.open(scene, APP)
    revision = scene.place.commit("Add the upstream's password")
    scene.say.tell(f"commit {short(revision)}: nothing changes in dev and staging")
    await account.until(RunState.SUCCEEDED)
    await scene.until_synced(lambda: scene.targets(APP), revision)
    if (found := await scene.playground.secret(scene.victim, NAMESPACE, NAME, ITEM)) != VALUE:
        raise FleetError(f"{scene.victim} has {found!r}", reason="DemoFailed")
    scene.say.good(f"Secret {NAMESPACE}/{NAME} is in {scene.victim}: {ITEM} is {VALUE}")
    await _misuse(scene)


async def _misuse(scene: Scene) -> None:
    """Somebody who may commit copies the file to where they may read Secrets."""
    (scene.place.repository / STOLEN).write_text((scene.place.repository / FILE).read_text())
    account = await Account.open(scene, APP)
    scene.say.tell(f"commit {short(scene.place.commit('Copy it to dev'))}: the same file for {OTHER}")
    await account.until(RunState.FAILED)
    revision = scene.place.revert()
    await scene.until_synced(lambda: scene.targets(APP), revision)
    scene.say.good(f"git revert ({short(revision)}): all clusters are in sync again")
