"""A server over a hub of plain values, and a client that speaks to it over loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from fleet.server.app import Bound, running
from fleet.settings import Settings
from tests.harness.hub import FakeHub

ADMIN = "flt_admin-secret"
APPROVER = "flt_approver-secret"
DEV_ADMIN = "flt_dev-admin-secret"
OPERATOR = "flt_operator-secret"
DEV_OPERATOR = "flt_dev-operator-secret"
VIEWER = "flt_viewer-secret"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Any
    body: bytes
    json: Any


class Api:
    """A client of one server."""

    def __init__(self, session: aiohttp.ClientSession, bound: Bound) -> None:
        self.session = session
        self.bound = bound

    async def __call__(self, method: str, path: str, *, token: str = "", **given: Any) -> Answer:
        """Send a request; `json` is decoded when the answer is JSON."""
        headers = {**given.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        async with self.session.request(method, self.bound.url + path, headers=headers, **given) as response:
            body = await response.read()
            decoded = await response.json(content_type=None) if "json" in response.content_type else None
            return Answer(response.status, response.headers, body, decoded)

    async def get(self, path: str, **given: Any) -> Answer:
        """Read below /api/v1."""
        return await self("GET", f"/api/v1{path}", **given)

    async def post(self, path: str, body: Any, **given: Any) -> Answer:
        """Act below /api/v1."""
        return await self("POST", f"/api/v1{path}", json=body, **given)


@asynccontextmanager
async def serving(hub: FakeHub, **settings: Any) -> AsyncIterator[Api]:
    """Run a server with settings on a free port of loopback unless told."""
    given = Settings(**{"listen": "127.0.0.1:0", **settings})
    async with running(hub, given) as bound, aiohttp.ClientSession() as session:
        yield Api(session, bound)


@pytest.fixture
def hub() -> FakeHub:
    """The hub behind the server."""
    return FakeHub()


@pytest.fixture
async def api(hub: FakeHub) -> AsyncIterator[Api]:
    """A client of a server on loopback."""
    async with serving(hub) as client:
        yield client


@pytest.fixture
async def remote(hub: FakeHub) -> AsyncIterator[Api]:
    """A client of a server that listens beyond loopback, where reading is not free."""
    async with serving(hub, listen="0.0.0.0:0", insecure_http=True) as client:
        yield client
