"""Targets on a fake cluster, in virtual time."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from fleet.sim.loop import SimLoop
from tests.harness.reconcile import Rig


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test below this directory runs in virtual time."""
    return {"virtual": SimLoop}


@pytest.fixture
async def rig() -> Rig:
    """One cluster without targets."""
    return Rig()
