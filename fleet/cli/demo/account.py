"""Tells a rollout as it happens: what its history gains, step by step, in a person's words."""

from collections.abc import Callable, Sequence
from itertools import groupby

from fleet.cli.demo.narrator import Narrator
from fleet.cli.demo.scene import APP, Scene, counted
from fleet.hub.rolloutview import RolloutDetail, StepRow
from fleet.rollout.state import ClusterState, RunState, StageState


class Account:
    """Follows the first rollout of an app that begins after this was made."""

    def __init__(self, scene: Scene, app: str, after: int) -> None:
        self._scene = scene
        self._app = app
        self._after = after
        self._told = 0
        self._soaking: set[str] = set()
        """Environments of which it was said; each batch soaks anew."""

    @classmethod
    async def open(cls, scene: Scene, app: str = APP) -> "Account":
        """Begin before the commit that is to be followed."""
        detail = await scene.hub.rollouts.show(app)
        return cls(scene, app, detail.rollout.number if detail is not None else 0)

    async def until(self, state: RunState) -> RolloutDetail:
        """Tell what happens until the rollout is in a state."""
        return await self._until(lambda detail: detail.rollout.state == state, state)

    async def until_past(self, environment: str) -> RolloutDetail:
        """Tell what happens until a stage is done."""
        return await self._until(
            lambda detail: any(s.environment == environment and s.state == StageState.DONE for s in detail.stages),
            f"past {environment}",
        )

    async def _until(self, ready: Callable[[RolloutDetail], bool], word: str) -> RolloutDetail:
        found: RolloutDetail = await self._scene.wait(
            lambda: self._look(ready), f"the rollout of {self._app} to be {word}"
        )
        return found

    async def _look(self, ready: Callable[[RolloutDetail], bool]) -> RolloutDetail | None:
        detail = await self._scene.hub.rollouts.show(self._app)
        if detail is None or detail.rollout.number <= self._after:
            return None
        news, self._told = detail.history[self._told :], len(detail.history)
        for (environment, after, _), steps in groupby(news, lambda step: (step.environment, step.after, step.reason)):
            self._tell(detail, environment, after, list(steps))
        return detail if ready(detail) else None

    def _tell(self, detail: RolloutDetail, environment: str, after: str, steps: Sequence[StepRow]) -> None:
        clusters = [step.cluster for step in steps if step.cluster]
        if clusters:
            self._tell_clusters(environment, after, clusters, steps[0])
        elif environment:
            if any(s.environment == environment and s.clusters for s in detail.stages):
                _tell_stage(self._scene.say, environment, after, steps[0])
        else:
            _tell_run(self._scene.say, detail, steps[0])

    def _tell_clusters(self, environment: str, after: str, clusters: Sequence[str], step: StepRow) -> None:
        say, names = self._scene.say, join(clusters)
        match after:
            case ClusterState.APPLYING:
                say.tell(f"{environment}: {names} {'gets' if len(clusters) == 1 else 'get'} it")
                self._soaking.discard(environment)
            case ClusterState.SOAKING if environment not in self._soaking:
                self._soaking.add(environment)
                say.tell(f"{environment}: soaks: {step.message}")
            case ClusterState.DEFERRED:
                say.bad(f"{environment}: {names}: {step.message}")
            case ClusterState.ROLLED_BACK:
                say.tell(f"{environment}: {names} {'goes' if len(clusters) == 1 else 'go'} {step.message}")


def _tell_stage(say: Narrator, environment: str, after: str, step: StepRow) -> None:
    if step.actor:
        say.good(f"{environment}: {step.actor} says yes: {step.message}")
    elif after == StageState.DONE:
        say.good(f"{environment} is done")
    elif after == StageState.HELD:
        say.tell(f"{environment} waits: {step.message}")
    elif step.reason == "BatchDone":
        say.tell(f"{environment}: {step.message}")


def _tell_run(say: Narrator, detail: RolloutDetail, step: StepRow) -> None:
    release = detail.rollout.release
    if step.reason == "PreflightPassed":
        tried = counted(sum(detail.rollout.clusters.values()), "cluster")
        say.tell(f"{release} was tried on {tried}, without writing anything")
    elif step.before == step.after and step.message:
        say.bad(f"{release}: {step.message}")


def join(names: Sequence[str]) -> str:
    """Name several things in a sentence.

    >>> join(["a"]), join(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
