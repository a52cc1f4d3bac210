"""The scheduler and kubelet of a cluster that runs nothing: pods get a node, a status and an end.

`run_pods` speaks HTTP to any API server, real or simulated. What becomes of each pod: `fleet.sim.behaviour`; rules in
code come first.
"""

import asyncio
import contextlib
import copy
import datetime as dt
import json
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from fleet.sim.behaviour import Behaviour, Bind, Kind, Pod, Remove, Report, Step, Wait, Warned, next_step, own_behaviour

NODE: Final = "sim-node"
WORKERS: Final = 8  # requests in flight
RETRY_S: Final = 0.5
WATCH_S: Final = 60
_REQUEST = aiohttp.ClientTimeout(total=30)
_STREAM = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_S + 30)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Rule:
    match: Callable[[Pod], bool]
    behaviour: Behaviour


class Rules:
    """Behaviours set from code, which may change while pods run. Thread-safe.

    The rule added last that matches a pod wins; a pod that none matches behaves as it says itself.
    """

    def __init__(self) -> None:
        self._rules: tuple[_Rule, ...] = ()
        self._listeners: tuple[Callable[[], None], ...] = ()

    def add(self, match: Callable[[Pod], bool], behaviour: Behaviour | Kind) -> Callable[[], None]:
        """Make pods that match behave so from now on, running ones too. Returns what takes the rule back."""
        rule = _Rule(match, Behaviour(kind=behaviour) if isinstance(behaviour, Kind) else behaviour)
        self._rules = (rule, *self._rules)
        self._tell()

        def take_back() -> None:
            self._rules = tuple(each for each in self._rules if each is not rule)
            self._tell()

        return take_back

    def behaviour(self, pod: Pod) -> Behaviour:
        """Say how a pod behaves now."""
        return next((rule.behaviour for rule in self._rules if rule.match(pod)), None) or own_behaviour(pod)

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed`, from any thread, after every change. Returns what ends it."""
        self._listeners = (*self._listeners, changed)

        def stop() -> None:
            self._listeners = tuple(each for each in self._listeners if each is not changed)

        return stop

    def _tell(self) -> None:
        for changed in self._listeners:
            changed()


def labelled(**labels: str) -> Callable[[Pod], bool]:
    """Match pods by labels: `labelled(app="shop")`."""
    return lambda pod: labels.items() <= (pod["metadata"].get("labels") or {}).items()


async def run_pods(
    base_url: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
    connector: aiohttp.BaseConnector | None = None,
    rules: Rules | None = None,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> None:
    """Run the pods of one cluster until cancelled, through any restart of its API server.

    The credentials are those in `ssl_context` or `headers`; they need all of pods, pods/binding, pods/status and nodes.
    `connector` (which is closed at the end) replaces TCP and `ssl_context`.
    """
    connector = connector or aiohttp.TCPConnector(ssl=True if ssl_context is None else ssl_context)
    rules = rules or Rules()
    async with aiohttp.ClientSession(base_url, connector=connector, headers=headers, timeout=_REQUEST) as session:
        kubelet = _Kubelet(session, rules, now)
        loop = asyncio.get_running_loop()

        def rules_changed() -> None:
            loop.call_soon_threadsafe(kubelet.look_at_all)

        stop_listening = rules.listen(rules_changed)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(kubelet.run_watch(), name="pods/watch")
                for index in range(WORKERS):
                    group.create_task(kubelet.run_worker(), name=f"pods/worker-{index}")
        finally:
            stop_listening()


class _Expired(Exception):
    """The watch cannot go on from where it was (410 Gone)."""


class _Refused(Exception):
    """The server answered with this code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class _Queue:
    """Names to work on. A name waits once however often it was added, and is never worked on twice at a time."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        self._busy: set[str] = set()

    def add(self, name: str) -> None:
        if name in self._waiting:
            return
        self._waiting.add(name)
        if name not in self._busy:
            self._ready.put_nowait(name)

    async def take(self) -> str:
        name = await self._ready.get()
        self._waiting.discard(name)
        self._busy.add(name)
        return name

    def done(self, name: str) -> None:
        self._busy.discard(name)
        if name in self._waiting:
            self._ready.put_nowait(name)


class _Kubelet:
    """Mirrors the pods and brings each to where it belongs."""

    def __init__(self, session: aiohttp.ClientSession, rules: Rules, now: Callable[[], dt.datetime]) -> None:
        self._session = session
        self._rules = rules
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._pods: dict[str, Pod] = {}  # by uid
        self._seen_at_s: dict[str, float] = {}  # by uid, the loop's time
        self._queue = _Queue()
        self._version = ""  # of the last event taken in; empty: list first

    def look_at_all(self) -> None:
        """Reconsider every pod."""
        for uid in self._pods:
            self._queue.add(uid)

    # Watching

    async def run_watch(self) -> None:
        """Keep the mirror up to date, whatever happens to the server."""
        while True:
            try:
                if not self._version:
                    await self._ensure_node()
                    await self._list()
                await self._watch()
            except _Expired:
                self._version = ""
            except (aiohttp.ClientError, OSError, _Refused, ValueError) as failed:
                log.debug("watching pods: %s", failed)
                await asyncio.sleep(RETRY_S)

    async def _list(self) -> None:
        listed = await self._call("GET", "/api/v1/pods", query={"resourceVersion": "0"})
        pods = {pod["metadata"]["uid"]: pod for pod in listed["items"]}
        for uid in self._pods.keys() - pods.keys():
            self._forget(uid)
        for pod in pods.values():
            self._remember(pod)
        self._version = str(listed["metadata"]["resourceVersion"])

    async def _watch(self) -> None:
        """Take in one watch, from where the last one ended until this one does."""
        query = {
            "watch": "1",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        async with self._session.get("/api/v1/pods", params=query, timeout=_STREAM) as reply:
            if reply.status == 410:
                raise _Expired
            if reply.status != 200:
                raise _Refused(reply.status, await reply.text())
            buffer = b""
            async for piece in reply.content.iter_any():
                *lines, buffer = (buffer + piece).split(b"\n")
                for line in filter(None, lines):
                    self._take(json.loads(line))

    def _take(self, event: Mapping[str, Any]) -> None:
        """Take in one watch event."""
        kind, subject = event["type"], event["object"]
        if kind == "ERROR":
            raise _Expired if subject.get("code") == 410 else _Refused(subject.get("code", 0), str(subject))
        if kind == "DELETED":
            self._forget(subject["metadata"]["uid"])
        elif kind in ("ADDED", "MODIFIED"):
            self._remember(subject)
        self._version = str(subject["metadata"]["resourceVersion"])

    def _remember(self, pod: Pod) -> None:
        uid = pod["metadata"]["uid"]
        known = self._pods.get(uid)
        # A reply to our own write may be ahead of the watch.
        if known is not None and int(known["metadata"]["resourceVersion"]) > int(pod["metadata"]["resourceVersion"]):
            return
        self._pods[uid] = pod
        self._seen_at_s.setdefault(uid, self._loop.time())
        self._queue.add(uid)

    def _replace(self, uid: str, pod: Pod) -> None:
        """Take the reply to a write, unless the pod was deleted meanwhile: it must not come back."""
        if uid in self._pods:
            self._pods[uid] = pod

    def _forget(self, uid: str) -> None:
        self._pods.pop(uid, None)
        self._seen_at_s.pop(uid, None)

    # Acting

    async def run_worker(self) -> None:
        """Bring one pod after another a step on."""
        while True:
            uid = await self._queue.take()
            try:
                await self._settle(uid)
            except _Refused as refused:
                # Gone or changed (404, 409): the watch tells. Overloaded or ill: again. Anything else stays wrong.
                if refused.code == 429 or refused.code >= 500:
                    self._loop.call_later(RETRY_S, self._queue.add, uid)
                elif refused.code not in (404, 409):
                    log.warning("pod %s: %s", uid, refused)
            except (aiohttp.ClientError, OSError, ValueError) as failed:
                log.debug("pod %s: %s", uid, failed)
                self._loop.call_later(RETRY_S, self._queue.add, uid)
            finally:
                self._queue.done(uid)

    async def _settle(self, uid: str) -> None:
        """Do what there is to do for a pod now: at most schedule it and report its status."""
        for _ in range(2):
            pod = self._pods.get(uid)
            if pod is None:
                return
            age_s = self._loop.time() - self._seen_at_s[uid]
            step = next_step(pod, self._rules.behaviour(pod), age_s=age_s, now=self._timestamp())
            if step is None:
                return
            await self._carry_out(pod, step)

    async def _carry_out(self, pod: Pod, step: Step) -> None:
        name, namespace, uid = (pod["metadata"][key] for key in ("name", "namespace", "uid"))
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name)}"
        match step:
            case Bind():
                meta = {"name": name, "namespace": namespace, "uid": uid}
                binding = {
                    "apiVersion": "v1",
                    "kind": "Binding",
                    "metadata": meta,
                    "target": {"kind": "Node", "name": NODE},
                }
                await self._call("POST", f"{path}/binding", binding)
                bound = copy.deepcopy(dict(pod))  # the version stays, so that the watch's word replaces ours
                bound["spec"]["nodeName"] = NODE
                self._replace(uid, bound)
            case Report():
                patch = {"metadata": {"uid": uid}, "status": step.status}
                self._replace(
                    uid, await self._call("PATCH", f"{path}/status", patch, media="application/merge-patch+json")
                )
                if step.warning is not None:
                    await self._warn(pod, step.warning)
            case Remove():
                options = {
                    "apiVersion": "v1",
                    "kind": "DeleteOptions",
                    "gracePeriodSeconds": 0,
                    "preconditions": {"uid": uid},
                }
                await self._call("DELETE", path, options)
            case Wait():
                self._loop.call_later(step.for_s, self._queue.add, uid)

    async def _warn(self, pod: Pod, warning: Warned) -> None:
        """Write a Warning event about a pod. Events are best effort: a refused one is forgotten."""
        metadata, now = pod["metadata"], self._timestamp()
        subject = {key: metadata[key] for key in ("name", "namespace", "uid")} | {"apiVersion": "v1", "kind": "Pod"}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": subject,
            "type": "Warning",
            "reason": warning.reason,
            "message": warning.message,
            "source": {"component": "kubelet", "host": NODE},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        with contextlib.suppress(_Refused):
            await self._call("POST", f"/api/v1/namespaces/{quote(metadata['namespace'])}/events", event)

    def _timestamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%SZ")

    async def _ensure_node(self) -> None:
        """Make the one node, ready and free of taints: DaemonSets count nodes, and list what runs on them."""
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
        }
        try:
            await self._call("POST", "/api/v1/nodes", node)
        except _Refused as refused:
            if refused.code == 404:  # a server without nodes
                return
            if refused.code != 409:
                raise
        merge = "application/merge-patch+json"
        # Admission taints every new node as not ready.
        await self._call("PATCH", f"/api/v1/nodes/{NODE}", {"spec": {"taints": None}}, media=merge)
        room = {"cpu": "1000", "memory": "1000Gi", "pods": "100000"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated"}
        status = {"capacity": room, "allocatable": room, "conditions": [ready]}
        await self._call("PATCH", f"/api/v1/nodes/{NODE}/status", {"status": status}, media=merge)

    async def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        media: str = "application/json",
    ) -> Any:
        payload = None if body is None else json.dumps(body)
        async with self._session.request(
            method, path, params=query, data=payload, headers={"Content-Type": media}
        ) as reply:
            content = await reply.read()
            if reply.status >= 400:
                raise _Refused(reply.status, content.decode(errors="replace")[:500])
            return json.loads(content)
