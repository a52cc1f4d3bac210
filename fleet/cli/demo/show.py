"""Puts the demo together: a place, clusters, a hub and its server, the story, and then time to look around."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fleet.aio import first_done
from fleet.cli.demo.narrator import Narrator
from fleet.cli.demo.place import Place
from fleet.cli.demo.playground import Playground, RealPlayground, SimPlayground
from fleet.cli.demo.scene import Scene
from fleet.cli.demo.story import tell
from fleet.cli.run import Signals
from fleet.errors import ConfigError
from fleet.hub.app import running_hub
from fleet.hub.world import open_world
from fleet.server.app import running
from fleet.settings import Settings
from fleet.sim.real import find_binaries

REAL_CLUSTERS = ("dev-1", "staging-1", "prod-eu-1")
UNREACHABLE_AFTER_S = 2.0
"""Nobody restarts an API server in a demo: rollouts go on sooner without one that is silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The options of `fleet demo`."""

    once: bool
    real: bool
    listen: str
    directory: Path | None


async def run(choice: Choice) -> None:
    """Tell the story, then stay up until SIGINT or SIGTERM unless it is for `once`.

    Raises: FleetError when something does not go as told.
    """
    stop = asyncio.Event()
    narrator = Narrator()
    async with AsyncExitStack() as stack:
        stack.enter_context(Signals(stop))
        root = choice.directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-demo-")))
        place = _furnish(root)
        playground = await stack.enter_async_context(_open_playground(choice, place, narrator))
        for name in playground.names:
            place.write_kubeconfig(name, playground.kubeconfig(name))
        settings = Settings(
            inventory=place.inventory,
            data=place.data,
            listen=choice.listen,
            keys_backup=str(place.key_backups),
            unreachable_after_s=UNREACHABLE_AFTER_S,
        )
        world = await stack.enter_async_context(open_world(settings))
        hub = await stack.enter_async_context(running_hub(settings, world))
        bound = await stack.enter_async_context(running(hub, settings))
        narrator.tell(f"the hub listens on {bound.url}")
        scene = Scene(hub=hub, url=bound.url, place=place, playground=playground, say=narrator)
        await first_done(tell(scene), stop.wait())
        if not choice.once and not stop.is_set():
            _show_where(narrator, place, bound.url)
            narrator.tell(f"Ctrl-C ends it{'' if choice.directory else ' and removes everything'}")
            await stop.wait()


def _furnish(root: Path) -> Place:
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise ConfigError(f"{root} is not empty; give --dir another directory", reason="DirectoryNotEmpty")
    place = Place(root.resolve())
    place.furnish()
    return place


@asynccontextmanager
async def _open_playground(choice: Choice, place: Place, narrator: Narrator) -> AsyncIterator[Playground]:
    if not choice.real:
        async with SimPlayground.open(place.cluster_names()) as simulated:
            narrator.tell(f"{len(simulated.names)} simulated clusters are up: {', '.join(simulated.names)}")
            yield simulated
        return
    binaries = find_binaries()
    if binaries is None:
        raise ConfigError("there are no kube-apiservers here; build them with make envtest", reason="NoServers")
    place.keep_clusters(REAL_CLUSTERS)
    names = place.cluster_names()
    narrator.tell(f"starting {len(names)} real kube-apiservers, one per environment")
    async with RealPlayground.open(names, binaries, place.root / "servers") as real:
        narrator.tell(f"they are up: {', '.join(names)}")
        yield real


def _show_where(narrator: Narrator, place: Place, url: str) -> None:
    narrator.chapter("Have a look")
    narrator.tell(f"in a browser:    {url}")
    narrator.tell(f"on the terminal: fleet status --server {url}")
    narrator.tell(f"                 fleet rollout show shop --history --server {url}")
    narrator.tell(f"edit and commit: {place.repository}")
    narrator.tell(f"edit and save:   {place.inventory}")
    narrator.tell(f"kubectl:         kubectl --kubeconfig {place.inventory}/keys/dev-1.kubeconfig get pods -A")
    narrator.tell(f"more rights:     --data {place.data}, where the administrator's token is")
