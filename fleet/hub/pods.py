"""Why a workload is not there yet: a watch on its pods while it is not Current, and what they show as its health."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec
import structlog

from fleet.aio import Children, Pulse, spawn, supervise
from fleet.clock import Clock
from fleet.errors import FleetError, KubeError, NotFound
from fleet.kube.api import KubeApi
from fleet.kube.client import Client
from fleet.kube.diagnose import Diagnosis, diagnose, newest_warning
from fleet.kube.discovery import Discovery
from fleet.kube.gate import Priority
from fleet.kube.watch import Left, Restarted, Scope, Seen, Synced, WatchEvent, run_watch
from fleet.object import GroupKind, ObjectKey
from fleet.reconcile.health import Health, Verdict
from fleet.reconcile.live import Live, LiveObject

log = structlog.get_logger()

POD = GroupKind("", "Pod")
REPLICA_SET = GroupKind("apps", "ReplicaSet")
WORKLOADS = frozenset(
    {
        GroupKind("apps", "Deployment"),
        GroupKind("apps", "StatefulSet"),
        GroupKind("apps", "DaemonSet"),
        GroupKind("batch", "Job"),
    }
)
MOST_PODS = 20
MOST_WATCHED = 50
PATIENCE_S = 1.0
"""Most workloads are Current a moment after a change; only one that is not costs the look at it and its pods."""
SETTLE_S = 0.2
REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"


class PodWatches:
    """Watches pods of the workloads of one cluster that are not Current; their trouble becomes the workload's health."""

    def __init__(
        self, *, client: Client, discovery: Discovery, api: KubeApi, live: Live, clock: Clock, grace_s: float
    ) -> None:
        self._client = client
        self._discovery = discovery
        self._api = api
        self._live = live
        self._clock = clock
        self._grace_s = grace_s
        self._wanted: dict[ObjectKey, int] = {}
        self._found: dict[ObjectKey, Verdict] = {}
        self._own: dict[ObjectKey, Verdict] = {}
        """What each workload's own status says."""
        self._pulse = Pulse()

    def note(self, key: ObjectKey, live: LiveObject | None) -> None:
        """Take news of a workload: begin, go on or end watching its pods."""
        if key.group_kind not in WORKLOADS:
            return
        verdict = live.verdict if live is not None else None
        if live is None or verdict is None or verdict.health not in (Health.IN_PROGRESS, Health.FAILED):
            self._found.pop(key, None)
            self._own.pop(key, None)
            if self._wanted.pop(key, None) is not None:
                self._pulse.set()
            return
        if verdict != self._found.get(key):
            self._own[key] = verdict
        room = key in self._wanted or len(self._wanted) < MOST_WATCHED
        if room and self._wanted.get(key) != live.generation:
            self._wanted[key] = live.generation
            self._found.pop(key, None)
            self._pulse.set()
        known = self._found.get(key)
        if known is not None and verdict.health is Health.IN_PROGRESS:
            # the workload's own status says less than its pods: after each of its events theirs is put back
            self._live.revise(key, known)

    async def run(self) -> None:
        """Keep the watches equal to what `note` was told, until cancelled."""
        async with Children[ObjectKey]("pods") as children:
            while True:
                await self._pulse.wait()
                wanted = {key: (generation, self._start(key)) for key, generation in self._wanted.items()}
                await children.adjust(wanted)

    def _start(self, key: ObjectKey) -> Callable[[], Coroutine[Any, Any, None]]:
        def on_failure(error: FleetError, retry_in_s: float) -> None:
            log.debug("pods cannot be watched", workload=str(key), error=str(error), retry_in_s=retry_in_s)

        async def run() -> None:
            await supervise(f"pods/{key}", lambda: self._watch(key), clock=self._clock, on_failure=on_failure)

        return run

    async def _watch(self, key: ObjectKey) -> None:
        await asyncio.sleep(PATIENCE_S)
        workload = await self._api.get(key, priority=Priority.AUDIT)
        resource = self._discovery.resource(POD)
        if workload is None or workload.body is None or resource is None:
            return
        body = msgspec.json.decode(workload.body)
        selector = _selector(body)
        if not selector:
            return
        pods: dict[str, Mapping[str, Any]] = {}
        changed = Pulse()

        def sink(event: WatchEvent) -> None:
            match event:
                case Restarted():
                    pods.clear()
                case Seen(observed) if len(pods) < MOST_PODS or observed.key.name in pods:
                    pods[observed.key.name] = msgspec.json.decode(observed.body or b"{}")
                case Left(observed):
                    pods.pop(observed.key.name, None)
                case Synced():
                    pass
                case _:
                    return
            changed.set()

        scope = Scope(namespace=key.namespace, label_selector=selector, whole=True)
        async with asyncio.TaskGroup() as group:
            watch = run_watch(self._client, resource, scope, sink, clock=self._clock)
            watching = spawn(group, f"watch/pods of {key}", watch)
            try:
                await self._judge(key, body, pods, changed)
            finally:
                watching.cancel()

    async def _judge(
        self, key: ObjectKey, body: Mapping[str, Any], pods: Mapping[str, Mapping[str, Any]], changed: Pulse
    ) -> None:
        """Judge the pods whenever they change, and when time alone may change the judgement."""
        look_again_s: float | None = None
        while True:
            await changed.wait(look_again_s)
            await asyncio.sleep(SETTLE_S)
            template = await self._template_hash(key, body)
            now = self._clock.now()
            found = diagnose(list(pods.values()), template, now, self._grace_s)
            look_again_s = (
                max((found.recheck_at - now).total_seconds(), SETTLE_S) if found and found.recheck_at else None
            )
            if found is None or not found.reason:
                if self._found.pop(key, None) is not None and key in self._own:
                    self._live.revise(key, self._own[key])
                continue
            verdict = Verdict(Health.FAILED, found.reason, await self._explain(key.namespace, found))
            self._found[key] = verdict
            self._live.revise(key, verdict)

    async def _explain(self, namespace: str, found: Diagnosis) -> str:
        where = f"pod {found.pod}" + (f", container {found.container}" if found.container else "")
        try:
            warning = await newest_warning(self._api, namespace, found.pod)
        except KubeError:
            warning = ""
        return f"{where}: {found.message or found.reason}" + (f" ({warning})" if warning else "")

    async def _template_hash(self, key: ObjectKey, body: Mapping[str, Any]) -> str | None:
        """Name the newest template's pods; None where that cannot be told, and then all pods count."""
        if key.kind == "StatefulSet":
            return (body.get("status") or {}).get("updateRevision") or None
        if key.kind != "Deployment":
            return None
        try:
            sets = await self._api.list_objects(
                REPLICA_SET, key.namespace, label_selector=_selector(body), most=50, priority=Priority.AUDIT
            )
        except (KubeError, NotFound):
            return None
        owned = [s["metadata"] for s in sets if _owned_by(s["metadata"], key)]
        if not owned:
            return None
        newest = max(owned, key=lambda m: int((m.get("annotations") or {}).get(REVISION) or 0))
        return (newest.get("labels") or {}).get(HASH)


def _owned_by(metadata: Mapping[str, Any], key: ObjectKey) -> bool:
    owners = metadata.get("ownerReferences") or ()
    return any(o.get("kind") == key.kind and o.get("name") == key.name for o in owners)


def _selector(body: Mapping[str, Any]) -> str:
    """Write a workload's selector as a query; empty when it has none that can be written."""
    selector = (body.get("spec") or {}).get("selector") or {}
    parts = [f"{name}={value}" for name, value in sorted((selector.get("matchLabels") or {}).items())]
    for rule in selector.get("matchExpressions") or ():
        values = ",".join(rule.get("values") or ())
        words = {
            "In": f"{rule['key']} in ({values})",
            "NotIn": f"{rule['key']} notin ({values})",
            "Exists": rule["key"],
            "DoesNotExist": f"!{rule['key']}",
        }
        parts.append(words[rule["operator"]])
    return ",".join(parts)
