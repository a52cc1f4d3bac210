"""What does not open stops a rollout, whatever the reason, and what was in the cluster stays."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from fleet.hub.rolloutview import Steering, SteerRequest
from fleet.rollout.state import RunState, StageState
from fleet.secrets.key import KeyState, PrivateKey
from fleet.sim.cluster import SimCluster
from tests.harness.fleet import ADA, environment_document, repository_document
from tests.harness.keys import MemoryKeyring, box_key, native_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import config
from tests.integration.hub.test_rollout import ORDER, fleet_of, run_in, run_of
from tests.integration.hub.test_sealed import read

NAMES = ("d1", "s1", "p1")
D1, S1, P1 = (box_key(name) for name in NAMES)
NEWER, LOST = box_key("s1", 2), box_key("s1", 3)


@pytest.fixture
def keyring(stage: Stage) -> MemoryKeyring:
    """One key for each of three clusters, and a second one for staging's."""
    made = MemoryKeyring(D1, S1, P1, NEWER)
    stage.world = replace(stage.world, keyring=made)
    return made


def seal(text: str, *keys: PrivateKey) -> Mapping[str, str]:
    """Return the app's files: one document, for all three clusters unless told."""
    return {"app/db.yaml": native_document({"password": text}, *(keys or (D1, S1, P1)))}


def damage(files: Mapping[str, str]) -> Mapping[str, str]:
    """Change one character within the first ciphertext."""
    text = files["app/db.yaml"]
    at = text.index("fs1:") + 60
    return {"app/db.yaml": text[:at] + ("B" if text[at] == "A" else "A") + text[at + 1 :]}


def end(keyring: MemoryKeyring, state: KeyState) -> Mapping[str, str]:
    """Seal with a key of staging's that may open nothing any more."""
    keyring.set_state(NEWER, state)
    return seal("new", D1, NEWER, P1)


def move(files: Mapping[str, str]) -> Mapping[str, str]:
    """Bring a document under another name, without sealing it again."""
    return {"app/db.yaml": files["app/db.yaml"].replace("namespace: default", "namespace: other")}


FAULTS: Mapping[str, Callable[[MemoryKeyring], Mapping[str, str]]] = {
    "NotARecipient": lambda _: seal("new", D1, P1),
    "UnknownKey": lambda _: seal("new", D1, LOST, P1),
    "RetiredKey": lambda keyring: end(keyring, KeyState.RETIRED),
    "CompromisedKey": lambda keyring: end(keyring, KeyState.COMPROMISED),
    "ScopeMismatch": lambda _: move(seal("new")),
    "Corrupt": lambda _: damage(seal("new")),
}


def passwords(clusters: Mapping[str, SimCluster]) -> list[str | None]:
    """Say what the Secret of each cluster holds."""
    return [(read(clusters[name]) or {}).get("password") for name in NAMES]


async def unstaged(stage: Stage) -> dict[str, SimCluster]:
    """Three environments after each other, without rules of their own."""
    documents = [environment_document(name, after=[*ORDER[max(0, i - 1) : i]]) for i, name in enumerate(ORDER)]
    stage.declare("fleet.yaml", repository_document(stage.repository.path), *documents)
    return {name: await stage.add_cluster(name, environment=env) for name, env in zip(NAMES, ORDER, strict=True)}


@pytest.mark.parametrize("reason", FAULTS)
async def test_a_fault_is_known_before_the_first_cluster(stage: Stage, keyring: MemoryKeyring, reason: str) -> None:
    """Also one of a later stage alone: nothing moves, and the rollout names cluster, Secret, file and reason."""
    clusters = await fleet_of(stage, (1, 1, 1), dev={}, staging={}, production={})
    stage.repository.commit("first", seal("old"))
    async with stage.running(stage.world):
        first = await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("second", FAULTS[reason](keyring))
        run = await run_in(stage, RunState.FAILED, release=first.release + 1)
        assert run.reason == "PreflightFailed"
        assert f"/db: {reason}: app/db.yaml:1: " in run.message
        assert "s1: Secret " in run.message
        assert passwords(clusters) == ["old", "old", "old"]


@pytest.mark.parametrize("reason", FAULTS)
async def test_the_last_good_secret_stays(stage: Stage, keyring: MemoryKeyring, reason: str) -> None:
    """The target is Degraded with the reason, the app's other objects arrive, and a later stage is not begun."""
    clusters = await unstaged(stage)
    stage.repository.commit("first", seal("old"))
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("second", {**FAULTS[reason](keyring), "app/settings.yaml": config()})
        at = "d1" if reason in ("ScopeMismatch", "Corrupt") else "s1"
        row = await stage.state(at, "shop", "Degraded", reason)
        assert "app/db.yaml:1" in row.message
        await stage.until(lambda: clusters[at].find("v1", "ConfigMap", "default", "settings") is not None)
        run = await run_of(stage)
        assert run is not None
        assert [s.state for s in run.stages][NAMES.index(at) :] == [
            StageState.RUNNING,
            *[StageState.PENDING] * (2 - NAMES.index(at)),
        ]
        assert reason == "ScopeMismatch" or passwords(clusters)[NAMES.index(at)] == "old"
        assert passwords(clusters)[2] == "old"


async def test_it_goes_on_by_itself_when_the_key_comes(stage: Stage, keyring: MemoryKeyring) -> None:
    """Where no rules say what a failure does, the rollout waits for what is missing and says so."""
    clusters = await unstaged(stage)
    stage.repository.commit("first", seal("old"))
    async with stage.running(stage.world) as hub:
        first = await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("second", seal("new", D1, LOST, P1))
        await stage.state("s1", "shop", "Degraded", "UnknownKey")
        await stage.until(lambda: passwords(clusters) == ["new", "old", "old"])
        shown = await hub.rollouts.show("shop")
        assert shown is not None
        assert f"no key {LOST.public.kid}" in shown.rollout.waits_for
        keyring.add(LOST)
        await run_in(stage, RunState.SUCCEEDED, release=first.release + 1)
        assert passwords(clusters) == ["new", "new", "new"]


@pytest.mark.parametrize(
    ("state", "reason"), [(KeyState.RETIRED, "RetiredKey"), (KeyState.COMPROMISED, "CompromisedKey")]
)
async def test_a_key_that_ends_meanwhile_stops_it(
    stage: Stage, keyring: MemoryKeyring, state: KeyState, reason: str
) -> None:
    """Good when it was tried, but not when its turn comes: the run pauses there; with the key back, retry ends it."""
    clusters = await fleet_of(stage, (1, 1, 1), dev={"soak": "60s"}, staging={}, production={})
    stage.repository.commit("first", seal("old"))
    async with stage.running(stage.world) as hub:
        first = await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("second", seal("new", D1, NEWER, P1))
        await stage.until(lambda: passwords(clusters)[0] == "new")
        keyring.set_state(NEWER, state)
        run = await run_in(stage, RunState.PAUSED, release=first.release + 1)
        assert run.reason == reason
        assert passwords(clusters) == ["new", "old", "old"]
        await stage.state("s1", "shop", "Degraded", reason)
        keyring.set_state(NEWER, KeyState.ACTIVE)
        await stage.until(lambda: passwords(clusters) == ["new", "new", "old"])
        await hub.rollouts.steer(SteerRequest(app="shop", verb=Steering.RETRY, reason="the key is back"), ADA)
        await run_in(stage, RunState.SUCCEEDED, release=first.release + 1)
        assert passwords(clusters) == ["new", "new", "new"]
