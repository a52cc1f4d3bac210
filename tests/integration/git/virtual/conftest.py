"""These tests run in virtual time: hours of polling pass in milliseconds."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from random import Random
from typing import cast

import pytest

from fleet.sim.loop import SimLoop, deterministic


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test below this directory runs in virtual time."""
    return {"virtual": SimLoop}


@pytest.fixture(autouse=True)
async def no_leaks() -> AsyncIterator[None]:
    """Keep real time and unseeded randomness out of the run."""
    with deterministic(asyncio.get_running_loop()):
        yield


class VirtualClock:
    """The loop's wall time and a seeded generator."""

    def __init__(self) -> None:
        self.rng = Random(1)

    def now(self) -> datetime:
        return cast("SimLoop", asyncio.get_running_loop()).now()


@pytest.fixture
def clock() -> VirtualClock:
    """Return the loop's clock."""
    return VirtualClock()
