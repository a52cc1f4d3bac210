"""The Lease by which a hub holds a cluster, renewed once a minute: the heartbeat, and the only idle write.

It is a write on purpose: an etcd that is frozen still answers reads from the API server's cache.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from fleet.annotation import HUB
from fleet.clock import Clock, jitter
from fleet.errors import Invalid, KubeError, NotFound, OnChange, TargetError
from fleet.kube.api import KubeApi
from fleet.kube.gate import Priority
from fleet.object import Manifest, ObjectKey, encode_canonical
from fleet.reconcile.applyset import SYSTEM_NAMESPACE

LEASE = ObjectKey("coordination.k8s.io", "Lease", SYSTEM_NAMESPACE, "fleet-hub")
NAMESPACE = ObjectKey("", "Namespace", "", SYSTEM_NAMESPACE)
FIRST_S = 1.0


class Heartbeat:
    """One hub's Lease in one cluster. `acquired_at` is when this session began."""

    def __init__(self, api: KubeApi, hub_id: str, clock: Clock, *, every_s: float) -> None:
        self._api = api
        self._hub_id = hub_id
        self._clock = clock
        self._every_s = every_s
        self._acquired_at = clock.now()

    async def take(self) -> None:
        """Hold the cluster, making namespace and Lease at first contact.

        Raises: TargetError (`OwnedByAnotherHub`); KubeError.
        """
        await self._check_holder()
        if await self._api.get_metadata(NAMESPACE, priority=Priority.USER) is None:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
            await self._api.apply(_manifest(NAMESPACE, body), priority=Priority.USER)
        await self._write()

    async def run(self, on_result: Callable[[KubeError | None], None]) -> None:
        """Renew for ever; `on_result` is told how each went.

        Raises: TargetError when another hub took the cluster.
        """
        pause_s = self._every_s
        while True:
            await asyncio.sleep(jitter(self._clock, pause_s, 0.1))
            try:
                await self.beat_once()
            except KubeError as error:
                pause_s = max(FIRST_S, pause_s / 2)
                on_result(error)
            else:
                pause_s = self._every_s
                on_result(None)

    async def beat_once(self) -> None:
        """Renew the Lease in one request, which fails if it is no longer ours; then look whose it is.

        Raises: TargetError (`OwnedByAnotherHub`); KubeError.
        """
        patch = [
            {"op": "test", "path": "/spec/holderIdentity", "value": self._hub_id},
            {"op": "replace", "path": "/spec/renewTime", "value": _micro(self._clock.now())},
        ]
        try:
            await self._api.patch_json(LEASE, patch, priority=Priority.USER)
        except (Invalid, NotFound):
            await self.take()

    async def _check_holder(self) -> None:
        found = await self._api.get(LEASE, priority=Priority.USER)
        spec = msgspec.json.decode(found.body).get("spec", {}) if found is not None and found.body else {}
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._hub_id):
            raise TargetError(
                f"hub {holder} holds this cluster (renewed {spec.get('renewTime', 'never')}); take it out of that hub's"
                f" inventory, then delete Lease {LEASE.namespace}/{LEASE.name}, and this hub takes over",
                reason="OwnedByAnotherHub",
                retry=OnChange(),
            )

    async def _write(self) -> None:
        spec = {
            "holderIdentity": self._hub_id,
            "leaseDurationSeconds": int(self._every_s * 3),
            "acquireTime": _micro(self._acquired_at),
            "renewTime": _micro(self._clock.now()),
        }
        metadata = {"name": LEASE.name, "namespace": LEASE.namespace, "annotations": {HUB: self._hub_id}}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        await self._api.apply(_manifest(LEASE, body), priority=Priority.USER)


def _micro(at: datetime) -> str:
    """Format a Kubernetes MicroTime."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _manifest(key: ObjectKey, body: Mapping[str, object]) -> Manifest:
    return Manifest(key=key, version="v1", body=encode_canonical(body), digest=b"")
