"""Rollouts over three real API servers, told from the command line and over HTTP to a hub that is killed again and again."""

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fleet.sim.real import ControlPlane
from tests.cluster.shell import Shell, eventually, open_shell
from tests.cluster.site import Site, until
from tests.cluster.test_hub import WEB, get, release_leases
from tests.harness.fleet import Fleet as Place
from tests.harness.fleet import app_document, cluster_document, environment_document, repository_document

STAGES = ("dev", "staging", "production")
LONG = {"soak": "1h"}
WAIT_S = 60.0

Probe = Callable[[Mapping[str, Any]], bool]


class House:
    """Three clusters, one per environment, and a hub of its own process."""

    def __init__(self, place: Place, shell: Shell, planes: list[ControlPlane], namespace: str) -> None:
        self.place = place
        self.shell = shell
        self.planes = dict(zip(STAGES, planes, strict=True))
        self.namespace = namespace
        self._hub: asyncio.subprocess.Process | None = None

    def declare(self, **policies: Mapping[str, Any]) -> None:
        """Write the inventory; `policies` are what environments say of rollouts."""
        stages = [
            environment_document(name, **({"after": [STAGES[i - 1]]} if i else {}), rollout=policies.get(name, {}))
            for i, name in enumerate(STAGES)
        ]
        clusters = [cluster_document(p.name, p.kubeconfig_path, environment=s) for s, p in self.planes.items()]
        app = app_document("shop", "app", namespace=self.namespace, createNamespace=True)
        self.place.declare("fleet.yaml", repository_document(self.place.repository.path), *stages, *clusters, app)

    def commit(self, tag: str) -> None:
        """Commit another image."""
        text = WEB.format(namespace=self.namespace, image=f"example.com/web:{tag}")
        self.place.repository.commit(tag, {"app/web.yaml": text})

    async def images(self) -> dict[str, str]:
        """Say which image each environment's Deployment has, and how often its spec was changed: `TAG/GENERATION`."""
        found = {}
        for stage, plane in self.planes.items():
            web = await get(plane, "deployment", "web", self.namespace)
            image = web["spec"]["template"]["spec"]["containers"][0]["image"] if web else ""
            found[stage] = f"{image.rpartition(':')[2]}/{web['metadata']['generation']}" if web else ""
        return found

    async def start(self) -> None:
        """Start the hub."""
        with (self.place.root / "hub.log").open("ab") as log:
            self._hub = await asyncio.create_subprocess_exec(
                *("fleet", "run", "--inventory", "clusters.d", "--data", "data"),
                cwd=self.place.root,
                env=self.shell.environment,
                stdout=log,
                stderr=log,
            )
        await eventually(self.shell, "fleet rollout list", "shop")

    async def kill(self) -> None:
        """Kill the hub as nothing can be caught or put off."""
        assert self._hub is not None
        self._hub.kill()
        await self._hub.wait()

    async def restart(self) -> None:
        """Kill the hub, and start it again."""
        await self.kill()
        await self.start()

    async def stop(self) -> None:
        """End the hub, however it is."""
        if self._hub is not None and self._hub.returncode is None:
            await self.kill()

    async def run(self) -> dict[str, Any]:
        """Return the newest rollout as the command line shows it."""
        found: dict[str, Any] = json.loads(await self.shell.run("fleet rollout show shop -o json"))
        return found

    async def until(self, release: int, wanted: Probe) -> dict[str, Any]:
        """Wait until the rollout of a release is as wanted."""

        async def found() -> dict[str, Any]:
            shown = await self.run()
            return shown if shown["rollout"]["number"] == release and wanted(shown) else {}

        return await until(found, timeout_s=WAIT_S)

    async def say(self, verb: str, *options: str) -> None:
        """Tell the rollout something from the command line."""
        await self.shell.run(f"fleet rollout {verb} shop --reason because {' '.join(options)}")

    async def post(self, verb: str) -> None:
        """Tell it over HTTP."""
        token = (self.place.root / "data" / "admin.token").read_text().strip()
        request = urllib.request.Request(
            f"{self.shell.environment['FLEET_SERVER']}/api/v1/rollouts/shop/{verb}",
            data=json.dumps({"reason": "because"}).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method="POST",
        )
        await asyncio.to_thread(lambda: urllib.request.urlopen(request).read())


def state(name: str) -> Probe:
    """Look for the state of a rollout."""
    return lambda shown: bool(shown["rollout"]["state"] == name)


def soaks(stage: str) -> Probe:
    """Look for a stage in which a cluster soaks."""
    return lambda shown: any(
        c["state"] == "Soaking" for s in shown["stages"] if s["environment"] == stage for c in s["clusters"]
    )


@pytest.fixture
async def house(tmp_path: Path, site: Site, make_namespace: Any) -> AsyncIterator[House]:
    """A place for a hub over three clusters; nothing is declared yet."""
    planes = site.planes(3)
    await release_leases(planes)
    namespace = await make_namespace(planes[0])
    shell = await open_shell(tmp_path, planes[0])
    made = House(Place(tmp_path), shell, planes, namespace)
    try:
        yield made
    finally:
        await made.stop()
        for plane in planes[1:]:
            with contextlib.suppress(Exception):
                await plane.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")


async def test_a_good_commit_passes_and_a_crash_goes_back(house: House) -> None:
    """The hub is killed before the approval, after it, and while it sends a cluster back: nothing is done twice."""
    house.declare(
        dev={"soak": "1s", "onFailure": "rollback"}, staging={"soak": "1s"}, production={"approval": {"required": 1}}
    )
    house.commit("1")
    await house.start()
    await house.until(1, state("AwaitingApproval"))
    await house.restart()
    shown = await house.until(1, state("AwaitingApproval"))
    assert await house.images() == {"dev": "1/1", "staging": "1/1", "production": ""}
    await house.say("approve", "--stage", "production")
    await house.restart()
    shown = await house.until(1, state("Succeeded"))
    assert await house.images() == {"dev": "1/1", "staging": "1/1", "production": "1/1"}
    house.commit("2-crash")

    async def broken() -> bool:
        return (await house.images())["dev"].startswith("2-crash")

    await until(broken, timeout_s=WAIT_S)
    await house.restart()
    shown = await house.until(2, state("RolledBack"))
    message = shown["rollout"]["message"]
    for part in (house.planes["dev"].name, f"Deployment.apps {house.namespace}/web", "container web", "exit code 1"):
        assert part in message
    assert shown["rollout"]["reason"] == "CrashLoopBackOff"
    await house.restart()
    await asyncio.sleep(2)
    assert await house.images() == {"dev": "1/3", "staging": "1/1", "production": "1/1"}
    assert (await house.run())["rollout"]["state"] == "RolledBack"


async def test_what_people_say_survives_a_kill(house: House) -> None:
    """Promote, pause, resume, abort and rollback, by command and over HTTP: each holds in the hub that starts again."""
    house.declare(dev=LONG)
    house.commit("1")
    await house.start()
    await house.until(1, soaks("dev"))
    await house.say("promote", "--stage", "dev")
    await house.restart()
    await house.until(1, state("Succeeded"))

    house.declare(dev=LONG, staging=LONG)
    house.commit("2")
    await house.until(2, soaks("dev"))
    await house.post("pause")
    await house.restart()
    await house.say("promote", "--stage", "dev")
    shown = await house.until(2, lambda run: bool(run["stages"][0]["clusters"][0]["state"] == "Done"))
    assert shown["rollout"]["state"] == "Paused"
    assert await house.images() == {"dev": "2/2", "staging": "1/1", "production": "1/1"}
    await house.say("resume")
    await house.restart()
    await house.until(2, soaks("staging"))
    await house.say("abort")
    await house.restart()
    await house.until(2, state("Aborted"))
    assert await house.images() == {"dev": "2/2", "staging": "2/2", "production": "1/1"}
    await house.post("rollback")
    await house.restart()
    await house.until(2, state("RolledBack"))
    assert await house.images() == {"dev": "1/3", "staging": "1/3", "production": "1/1"}
