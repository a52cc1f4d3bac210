"""Edits by hand and their repair, one after the other, seen by a watch that knows nothing of the hub."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.workload import Workload, objects
from fleet.aio import spawn

MANAGER = "kubectl-edit"
PATIENCE_S = 30.0
EDITS: Mapping[str, Mapping[str, Any]] = {
    "serviceaccounts": {"metadata": {"annotations": {"variant": "by hand"}}},
    "configmaps": {"data": {"mode": "by hand"}},
    "services": {"spec": {"selector": {"app": "by-hand"}}},
    "deployments": {"spec": {"template": {"metadata": {"labels": {"tier": "by-hand"}}}}},
}
"""A value of ours changed, or (Deployment) a field added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Healed:
    """One edit: seconds from the server's answer to the edit until the watch showed the object as before."""

    path: str
    total_s: float


async def edit_all(session: aiohttp.ClientSession, workload: Workload, variant: str, edits: int) -> list[Healed]:
    """Edit objects one after the other, each once, waiting for each repair.

    Raises: TimeoutError when one is not repaired.
    """
    paths = [path for name in workload.names for path, _ in objects(name, workload.namespace, variant)][:edits]
    eye = Eye()
    async with asyncio.TaskGroup() as group:
        tasks = [spawn(group, f"eye/{c}", eye.watch(session, c)) for c in sorted({p.rsplit("/", 1)[0] for p in paths})]
        async with asyncio.timeout(PATIENCE_S):
            await eye.listening(len(tasks))
        healed = [await _edit(session, eye, path) for path in paths]
        for task in tasks:
            task.cancel()
    return healed


async def _edit(session: aiohttp.ClientSession, eye: "Eye", path: str) -> Healed:
    loop = asyncio.get_running_loop()
    collection = path.rsplit("/", 1)[0]
    before = essence(eye.seen[path])
    body = EDITS[collection.rsplit("/", 1)[1]]
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    async with session.patch(path, params={"fieldManager": MANAGER}, json=body, headers=headers) as reply:
        edited = await reply.json()
    if reply.status != 200:
        raise RuntimeError(f"the edit of {path} got {reply.status}: {edited}")
    started, rv = loop.time(), int(edited["metadata"]["resourceVersion"])
    async with asyncio.timeout(PATIENCE_S):
        await eye.until(path, rv, before)
    return Healed(path=path, total_s=loop.time() - started)


def essence(body: Mapping[str, Any]) -> Any:
    """Return what Git and defaults say of an object, without what controllers write."""
    metadata = body["metadata"]
    noise = "deployment.kubernetes.io/"
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if not k.startswith(noise)}
    return metadata.get("labels"), annotations, body.get("data"), body.get("spec")


class Eye:
    """Watches collections and keeps what it saw last, by URL path."""

    def __init__(self) -> None:
        self.seen: dict[str, Mapping[str, Any]] = {}
        self._listening = 0
        self._news = asyncio.Event()

    async def listening(self, watches: int) -> None:
        """Wait until so many watches have shown what is there."""
        while self._listening < watches:
            await self._next()

    async def until(self, path: str, rv: int, wanted: Any) -> None:
        """Wait until an object, at a version after `rv`, is as wanted."""
        while int(self.seen[path]["metadata"]["resourceVersion"]) <= rv or essence(self.seen[path]) != wanted:
            await self._next()

    async def _next(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def watch(self, session: aiohttp.ClientSession, collection: str) -> None:
        """Follow one collection until cancelled."""
        params = {
            "watch": "true",
            "sendInitialEvents": "true",
            "resourceVersionMatch": "NotOlderThan",
            "allowWatchBookmarks": "true",
        }
        timeout = aiohttp.ClientTimeout(total=None)
        with suppress(asyncio.CancelledError):
            async with session.get(collection, params=params, timeout=timeout, read_bufsize=2**22) as stream:
                async for line in stream.content:
                    self._take(collection, json.loads(line))

    def _take(self, collection: str, event: Mapping[str, Any]) -> None:
        if event["type"] == "BOOKMARK":
            self._listening += "k8s.io/initial-events-end" in (event["object"]["metadata"].get("annotations") or {})
        else:
            self.seen[f"{collection}/{event['object']['metadata']['name']}"] = event["object"]
        self._news.set()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]
