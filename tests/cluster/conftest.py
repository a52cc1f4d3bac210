"""Real kube-apiservers, shared by the whole test run and started when the first test asks."""

import asyncio
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from fleet.sim.pod import Rules
from fleet.sim.real import ControlPlane, find_binaries
from tests.cluster.site import Site

HERE: Final = Path(__file__).parent
REASON: Final = "NO REAL CLUSTER: `make envtest` builds kube-apiserver and etcd (7 minutes, once, needs Go)"
TIMEOUT_S: Final = 240  # the first test also starts the servers, on a machine that may be busy
GOODBYE_S: Final = 2.0
_NUMBERS: Final = count(1)

MakeNamespace = Callable[[ControlPlane], Awaitable[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this directory."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.cluster)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any) -> Iterator[None]:
    """Say loudly, after everything else, what was not proved."""
    yield
    skipped = [each for each in terminalreporter.stats.get("skipped", []) if "cluster" in each.keywords]
    if skipped:
        terminalreporter.section("REAL CLUSTER TESTS SKIPPED", red=True, bold=True)
        terminalreporter.line(f"{len(skipped)} tests against a real kube-apiserver did not run. {REASON}.", red=True)


@pytest.fixture(autouse=True)
async def _goodbyes() -> AsyncIterator[None]:
    """Let TLS connections that were closed say goodbye before the loop ends: that takes them a round trip.

    One that nobody closed is left as it is, and fails the test as unclosed.
    """
    yield
    loop = asyncio.get_running_loop()
    until = loop.time() + GOODBYE_S
    while (leaving := _leaving(loop)) and loop.time() < until:
        await asyncio.sleep(0.01)
    for transport in leaving:  # the server is frozen or gone
        transport.abort()
    await asyncio.sleep(0)


def _leaving(loop: Any) -> list[Any]:
    """Return the transports whose TLS side was told to close, and which wait for the other side to agree."""
    found = [(t, t.get_protocol()) for t in loop._transports.values() if not t.is_closing()]
    return [t for t, p in found if isinstance(p, SSLProtocol) and getattr(p._app_transport, "_closed", False)]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One etcd for the run; `site.planes(n)` grows it."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(REASON)
    if not all((binaries / name).is_file() for name in ("kube-controller-manager", "kubectl")):
        pytest.skip(f"{REASON}; {binaries} lacks kube-controller-manager or kubectl")
    running = Site(binaries, tmp_path_factory.mktemp("site"))
    running.start()
    yield running
    running.close()


@pytest.fixture
def planes(site: Site) -> list[ControlPlane]:
    """Two clusters, running; what a test left stopped or frozen runs again."""
    return site.planes(2)


@pytest.fixture
def plane(site: Site) -> ControlPlane:
    """One cluster, running."""
    return site.planes(1)[0]


@pytest.fixture
def rules(site: Site, plane: ControlPlane) -> Rules:
    """What becomes of pods on `plane`, from code."""
    return site.rules(plane)


@pytest.fixture
async def make_namespace(site: Site) -> AsyncIterator[MakeNamespace]:
    """Make a fresh namespace on any plane; it goes when the test ends."""
    async with AsyncExitStack() as cleanup:

        async def make(plane: ControlPlane) -> str:
            name = f"test-{next(_NUMBERS)}"
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            reply = await plane.request("POST", "/api/v1/namespaces", body)
            assert reply.code == 201, reply.body
            cleanup.push_async_callback(_delete_namespace, site, plane, name)
            return name

        yield make


@pytest.fixture
async def namespace(plane: ControlPlane, make_namespace: MakeNamespace) -> str:
    """A fresh namespace on `plane`."""
    return await make_namespace(plane)


async def _delete_namespace(site: Site, plane: ControlPlane, name: str) -> None:
    site.planes(1)  # the test may have left it stopped
    await plane.request("DELETE", f"/api/v1/namespaces/{name}")
