"""The Lease by which a hub holds a cluster, renewed once a minute: the heartbeat, and the only idle write.

It is a write on purpose: an etcd that is frozen still answers reads from the API server's cache.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from fleet.annotation import APPLYSET_ID, FORMER_HUBS, HUB
from fleet.clock import Clock, jitter
from fleet.errors import Invalid, KubeError, NotFound, OwnedByAnotherHub, TargetError, Unreachable
from fleet.kube.api import KubeApi
from fleet.kube.gate import Priority
from fleet.kube.wire import Observed
from fleet.object import GroupKind, Manifest, ObjectKey, encode_canonical
from fleet.reconcile.applyset import SYSTEM_NAMESPACE
from fleet.store.cluster import Takeovers

LEASE = ObjectKey("coordination.k8s.io", "Lease", SYSTEM_NAMESPACE, "fleet-hub")
NAMESPACE = ObjectKey("", "Namespace", "", SYSTEM_NAMESPACE)
PARENT = GroupKind("", "ConfigMap")
FIRST_S = 1.0
NONE = Takeovers()
LOST = "the Lease of this hub is not in the cluster any more; looking again who answers and whose it is"


class Heartbeat:
    """One hub's Lease in one cluster, and whether the API server still is that cluster.

    `takeovers` are the hubs whose marks count as left behind; what they left may be taken.
    """

    def __init__(
        self, api: KubeApi, hub_id: str, clock: Clock, *, cluster: str, every_s: float, takeovers: Takeovers = NONE
    ) -> None:
        self._api = api
        self._cluster = cluster
        self._hub_id = hub_id
        self._clock = clock
        self._every_s = every_s
        self._takeovers = takeovers
        self._acquired_at = clock.now()
        self._uid = ""
        self._doubts = 0
        self._confirmed = 0
        self._lost = asyncio.Event()

    async def take(self) -> None:
        """Hold the cluster, making namespace and Lease at first contact.

        Raises: OwnedByAnotherHub; KubeError.
        """
        found = await self._check_holder()
        if found is None and await self._api.get_metadata(NAMESPACE, priority=Priority.USER) is None:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
            await self._api.apply(_manifest(NAMESPACE, body), priority=Priority.USER)
        await self._check_parents()
        self._uid = (await self._write(found)).uid

    async def run(self, on_result: Callable[[KubeError | None], None]) -> None:
        """Renew until the cluster is lost; `on_result` is told how each renewal went.

        Raises: TargetError when the Lease is no longer ours.
        """
        pause_s = self._every_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(jitter(self._clock, pause_s, 0.1)):
                    await self._lost.wait()
            if self._lost.is_set():
                raise _lost()
            try:
                await self.beat_once()
            except KubeError as error:
                pause_s = max(FIRST_S, pause_s / 2)
                on_result(error)
            else:
                pause_s = self._every_s
                on_result(None)

    async def beat_once(self) -> None:
        """Renew the Lease in one request, which fails if it is no longer ours.

        Raises: TargetError (`LeaseChanged`); KubeError.
        """
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": self._uid},
            {"op": "test", "path": "/spec/holderIdentity", "value": self._hub_id},
            {"op": "replace", "path": "/spec/renewTime", "value": _micro(self._clock.now())},
        ]
        try:
            await self._api.patch_json(LEASE, patch, priority=Priority.USER)
        except (Invalid, NotFound):
            raise _lost() from None

    def doubt(self) -> None:
        """Let the next write look first: a connection was made anew, or objects of ours have vanished."""
        self._doubts += 1

    async def confirm(self) -> None:
        """Make sure, if there is doubt, that this is the cluster that we hold.

        One read: the Lease with the uid that we wrote is in no other cluster. Raises: KubeError; Unreachable
        (`LeaseChanged`), after which `run` ends.
        """
        doubts = self._doubts
        if doubts == self._confirmed:
            return
        found = await self._api.get(LEASE, priority=Priority.USER)
        if found is None or found.uid != self._uid or _spec(found).get("holderIdentity") != self._hub_id:
            self._lost.set()
            raise Unreachable(LOST, reason="LeaseChanged")
        self._confirmed = doubts

    async def _check_holder(self) -> Observed | None:
        found = await self._api.get(LEASE, priority=Priority.USER)
        spec = _spec(found) if found is not None else {}
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._hub_id) and holder not in self._takeovers.pending:
            raise OwnedByAnotherHub(holder, f"renewed {spec.get('renewTime', 'never')}", self._cluster)
        return found

    async def _check_parents(self) -> None:
        """Refuse a cluster whose Lease is gone while what is in it still names another hub."""
        parents = await self._api.list_metadata(
            PARENT, SYSTEM_NAMESPACE, label_selector=APPLYSET_ID, priority=Priority.USER
        )
        for parent in parents:
            hub = parent.annotations.get(HUB, self._hub_id)
            if hub != self._hub_id and hub not in self._takeovers.all:
                raise OwnedByAnotherHub(hub, f"{parent.key} is of it", self._cluster)

    async def _write(self, found: Observed | None) -> Observed:
        """Write the Lease as ours, unless somebody was faster than us since it was `found`."""
        spec = {
            "holderIdentity": self._hub_id,
            "leaseDurationSeconds": int(self._every_s * 3),
            "acquireTime": _micro(self._acquired_at),
            "renewTime": _micro(self._clock.now()),
        }
        annotations = {HUB: self._hub_id}
        if former := sorted(self._takeovers.all):
            annotations[FORMER_HUBS] = ",".join(former)
        metadata = {"name": LEASE.name, "namespace": LEASE.namespace, "annotations": annotations}
        body: dict[str, Any] = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": spec,
        }
        if found is None:
            return await self._api.create(_manifest(LEASE, body), priority=Priority.USER)
        body["metadata"] = {**metadata, "resourceVersion": str(found.rv)}
        return (await self._api.apply(_manifest(LEASE, body), priority=Priority.USER)).observed


def _spec(lease: Observed) -> dict[str, Any]:
    spec: dict[str, Any] = msgspec.json.decode(lease.body or b"{}").get("spec") or {}
    return spec


def _lost() -> TargetError:
    return TargetError(LOST, reason="LeaseChanged")


def _micro(at: datetime) -> str:
    """Format a Kubernetes MicroTime."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _manifest(key: ObjectKey, body: Mapping[str, object]) -> Manifest:
    return Manifest(key=key, version="v1", body=encode_canonical(body), digest=b"")
