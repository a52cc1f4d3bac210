"""One suite, two servers: `api` is the simulator, then the real kube-apiserver."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fleet.sim.cluster import SimCluster
from fleet.sim.real import control_planes, find_binaries
from tests.contract.client import Api

_NUMBERS = count(1)


class _Background:
    """An async context manager held open in a thread with a loop of its own, for tests that block."""

    def __init__(self, enter: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._enter = enter
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self.value: Any = None
        self._thread = threading.Thread(target=self._run, name="contract-server")

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._hold())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _hold(self) -> None:
        async with self._enter() as self.value:
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            await self._stop.wait()


@asynccontextmanager
async def _simulator() -> AsyncIterator[Api]:
    cluster = SimCluster("contract", seed=1)
    url = await cluster.serve_tcp()
    with closing(Api(url, cluster.token, None, simulated=True)) as api:
        yield api
    await cluster.close()


@asynccontextmanager
async def _real(root: Path) -> AsyncIterator[Api]:
    binaries = find_binaries()
    assert binaries is not None
    async with control_planes(binaries, root, 1) as planes:
        context = planes[0].ssl_context(admin=False)
        with closing(Api(planes[0].url, planes[0].admin_token, context, simulated=False)) as api:
            yield api


@pytest.fixture(scope="session")
def simulator() -> Iterator[Api]:
    """The simulator, served over TCP."""
    background = _Background(_simulator)
    background.start()
    yield background.value
    background.end()


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The real kube-apiserver with its controller manager."""
    if find_binaries() is None:
        pytest.skip("NO REAL kube-apiserver: run `make envtest` to hold the simulator to it")
    background = _Background(lambda: _real(tmp_path_factory.mktemp("real")))
    background.start()
    yield background.value
    background.end()


@pytest.fixture(params=["sim", pytest.param("real", marks=[pytest.mark.cluster, pytest.mark.timeout(180)])])
def api(request: pytest.FixtureRequest) -> Api:
    """Each server in turn."""
    server: Api = request.getfixturevalue("simulator" if request.param == "sim" else "real_server")
    return server


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"ns-{next(_NUMBERS)}"
    reply = api.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    assert reply.code == 201, reply.body
    yield name
    api.delete(f"/api/v1/namespaces/{name}")
