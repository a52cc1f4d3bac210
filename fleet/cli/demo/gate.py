"""The chapter of the story in which people have the last word."""

from fleet.cli.demo.account import Account
from fleet.cli.demo.scene import APP, MANIFEST, Scene
from fleet.hub.rolloutview import Steering, SteerRequest
from fleet.hub.view import Actor
from fleet.object import short
from fleet.rollout.state import RunState
from fleet.store.token import Role

ADA = Actor(name="ada", role=Role.APPROVER)
STAGE, REASON = "production", "works in staging"


async def approval(scene: Scene) -> None:
    """Production waits for a person, who says yes."""
    scene.chapter("Production waits for a person")
    before = await scene.last_event()
    scene.place.edit_inventory("environment.yaml", "# approval:", "approval:")
    await scene.event("inventory", before)
    scene.say.tell(f"clusters.d/environment.yaml: {STAGE} needs an approval from now on")
    account = await Account.open(scene)
    scene.place.edit(MANIFEST, "shop:1.3", "shop:1.4")
    scene.say.tell(f"commit {short(scene.place.commit('Release shop 1.4'))}: shop 1.3 -> 1.4")
    detail = await account.until(RunState.AWAITING_APPROVAL)
    plan = next(stage.digest for stage in detail.stages if stage.environment == STAGE)
    scene.say.good(f"{scene.victim} still runs {await scene.check_image('1.3')}")
    request = SteerRequest(app=APP, verb=Steering.APPROVE, stage=STAGE, plan=plan, reason=REASON)
    await scene.hub.rollouts.steer(request, ADA)
    scene.say.tell(f'{ADA.name}: fleet rollout approve {APP} --stage {STAGE} --plan {plan} --reason "{REASON}"')
    await account.until(RunState.SUCCEEDED)
    scene.say.good(f"{scene.victim} runs {await scene.check_image('1.4')}")
