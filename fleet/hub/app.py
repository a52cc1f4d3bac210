"""The hub as a whole: the outside comes in as a World, and what is put together in `assembly` runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fleet.aio import finish, spawn
from fleet.hub.assembly import Assembly
from fleet.hub.service import HubService
from fleet.hub.world import World
from fleet.settings import Settings
from fleet.store.directory import DataDirectory
from fleet.store.migration import migrate
from fleet.store.token import HUB_ADMIN, Role, TokenStore


@contextlib.asynccontextmanager
async def running_hub(settings: Settings, world: World) -> AsyncIterator[HubService]:
    """Run the hub for the length of the block.

    Raises: StoreError when the database cannot be used.
    """
    await migrate(world.database)
    parts = Assembly(settings, world)
    await parts.restore()
    await _provide_admin_token(parts.stores.tokens, world.directory)
    async with asyncio.TaskGroup() as group:
        tasks = [spawn(group, name, run) for name, run in parts.runs().items()]
        try:
            yield parts.service
        finally:
            parts.service.stopping = True
            for task in tasks:
                task.cancel()
            await finish(parts.events.flush())
            parts.executor.shutdown(wait=False, cancel_futures=True)


async def _provide_admin_token(tokens: TokenStore, directory: DataDirectory) -> None:
    """Leave a token for the CLI on this machine; one that still works is kept."""
    path = directory.admin_token
    known = await tokens.find(path.read_text().strip()) if path.exists() else None
    if known is None or known.revoked_at is not None:
        secret = await tokens.create(HUB_ADMIN, Role.ADMIN, created_by="hub", replace=True)
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(secret + "\n")
