"""Parts of a target's run by themselves, in virtual time where time passes."""

import asyncio
from collections.abc import Callable, Mapping

from fleet.sim.loop import SimLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test below this directory runs in virtual time."""
    return {"virtual": SimLoop}
