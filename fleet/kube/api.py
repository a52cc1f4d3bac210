"""What fleet does to objects of one cluster: server-side apply, delete, read, JSON patch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fleet.errors import Cause, Conflict, Forbidden, Gone, Invalid, NotFound
from fleet.kube.client import APPLY_PATCH, JSON_PATCH, Client, Reply
from fleet.kube.credential import Impersonation
from fleet.kube.discovery import Discovery, Resource, path
from fleet.kube.gate import Priority
from fleet.kube.ownership import MANAGER
from fleet.kube.status import conceal, decode_status, is_field_conflict
from fleet.kube.wire import JSON, METADATA, METADATA_LIST, Observed, Page, decode_answer, decode_observed, decode_page
from fleet.object import GroupKind, Gvk, Manifest, ObjectKey

PATCH_MANAGER = "fleet-patch"
"""Manager of JSON patches: the same name for applies and updates would make us conflict with ourselves."""
PAGE = 500
PLANNED_TRIES = 5
LIST_TRIES = 3
NAMESPACE = Gvk("", "v1", "Namespace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One server-side apply: what the server answered and whom we overrode."""

    observed: Observed
    created: bool
    changed: bool | None = None
    """Whether the object is another one than at `known_rv`; None when that was not given."""
    overridden: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """One delete; `gone` is False while finalizers or a grace period hold the object."""

    gone: bool


class _Allowed(msgspec.Struct):
    allowed: bool = False


class _Review(msgspec.Struct):
    status: _Allowed


class _Version(msgspec.Struct):
    gitVersion: str  # noqa: N815 - the wire's name


class KubeApi:
    """Typed operations on one API server. `impersonate` acts as somebody else than the credential says."""

    def __init__(self, client: Client, discovery: Discovery, *, impersonate: Impersonation | None = None) -> None:
        self._client = client
        self._discovery = discovery
        self._impersonate = impersonate

    def acting_as(self, impersonate: Impersonation | None) -> "KubeApi":
        """Return this API under another identity; the connections are shared."""
        return KubeApi(self._client, self._discovery, impersonate=impersonate)

    async def apply(
        self,
        m: Manifest,
        *,
        priority: Priority,
        dry_run: bool = False,
        force: bool | None = None,
        whole: bool = False,
        known_rv: int = 0,
    ) -> Applied:
        """Write a manifest by server-side apply, in the manifest's own version. Idempotent.

        First without force; a conflict is kept as `overridden` and the manifest sent again with force. `force` False
        raises that Conflict, True skips the first attempt. `whole` asks for the object's body in the answer.

        Raises: KubeError; Invalid `VersionNotServed` when the kind is served, but not at this version.
        Cancelled: the write may or may not have happened.
        """
        params = {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}
        overridden: tuple[Cause, ...] = ()
        try:
            try:
                reply = await self._send_apply(m, params, force=bool(force), whole=whole, priority=priority)
            except Conflict as conflict:
                if force is not None or not is_field_conflict(conflict):
                    raise
                overridden = conflict.causes
                reply = await self._send_apply(m, params, force=True, whole=whole, priority=priority)
        except (Invalid, Forbidden) as error:
            if not m.sensitive or (isinstance(error, Forbidden) and error.reason != "AdmissionDenied"):
                raise
            raise conceal(error) from None
        observed = decode_observed(reply.body, m.gvk, whole=whole)
        return Applied(
            observed=observed,
            created=reply.status == 201,
            changed=observed.rv != known_rv if known_rv else None,
            overridden=overridden,
        )

    async def _send_apply(
        self, m: Manifest, params: Mapping[str, str], *, force: bool, whole: bool, priority: Priority
    ) -> Reply:
        resource = self._resource_at(m.gvk)
        return await self._request(
            "PATCH",
            resource,
            m.key,
            params={**params, "force": "true"} if force else params,
            body=m.body,
            content_type=APPLY_PATCH,
            accept=JSON if whole else METADATA,
            priority=priority,
        )

    async def create(self, m: Manifest, *, priority: Priority) -> Observed:
        """Create an object that is not there. Raises: KubeError; Conflict when somebody was faster."""
        resource = self._resource_at(m.gvk)
        reply = await self._client.request(
            "POST",
            path(resource, m.key.namespace),
            params={"fieldManager": MANAGER},
            body=m.body,
            accept=METADATA,
            priority=priority,
            impersonate=self._impersonate,
            plural=resource.plural,
            subject=str(m.key),
        )
        return decode_observed(reply.body, resource.gvk)

    async def delete(
        self,
        key: ObjectKey,
        uid: str,
        *,
        priority: Priority,
        propagation: str = "Background",
        rv: int | None = None,
    ) -> Deleted:
        """Delete exactly the object with this uid (and, if given, at this resourceVersion). Idempotent.

        An object that is not there is gone. Raises: KubeError; Conflict when the name now means another object, or it
        changed since `rv`.
        """
        preconditions = {"uid": uid, **({"resourceVersion": str(rv)} if rv else {})}
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": preconditions,
        }
        resource = self._resource_of(key.group_kind)
        try:
            reply = await self._request(
                "DELETE",
                resource,
                key,
                body=msgspec.json.encode(options),
                idempotent=True,
                accept=METADATA,
                priority=priority,
            )
        except NotFound as error:
            if error.what == "kind":
                raise
            return Deleted(gone=True)
        if decode_status(reply.body) is not None:
            return Deleted(gone=True)
        # some kinds answer with the object although it is gone; what still waits has a deletionTimestamp
        return Deleted(gone=not decode_observed(reply.body, resource.gvk).deleting)

    async def get_metadata(self, key: ObjectKey, *, priority: Priority) -> Observed | None:
        """Read an object's metadata; None when it is absent. Raises: KubeError, NotFound for a kind not served."""
        return await self._get(key, whole=False, priority=priority)

    async def get(self, key: ObjectKey, *, priority: Priority, version: str = "") -> Observed | None:
        """Read a whole object (`body` set), at the server's preferred version unless told; None when it is absent.

        Raises: KubeError; NotFound for a kind not served, Invalid `VersionNotServed` for a version.
        """
        return await self._get(key, whole=True, priority=priority, version=version)

    async def _get(self, key: ObjectKey, *, whole: bool, priority: Priority, version: str = "") -> Observed | None:
        kind = key.group_kind
        resource = self._resource_at(Gvk(kind.group, version, kind.kind)) if version else self._resource_of(kind)
        try:
            reply = await self._request("GET", resource, key, accept=JSON if whole else METADATA, priority=priority)
        except NotFound as error:
            if error.what == "kind":
                raise
            return None
        return decode_observed(reply.body, resource.gvk, whole=whole)

    async def list_metadata(
        self, kind: GroupKind, namespace: str, *, label_selector: str = "", priority: Priority
    ) -> list[Observed]:
        """List the metadata of one kind in a namespace (empty: everywhere), by pages. Raises: KubeError."""
        return await self._list(kind, namespace, {"labelSelector": label_selector}, whole=False, priority=priority)

    async def list_objects(
        self,
        kind: GroupKind,
        namespace: str,
        *,
        label_selector: str = "",
        field_selector: str = "",
        most: int = 0,
        priority: Priority,
    ) -> list[dict[str, Any]]:
        """List whole objects, decoded: for pods and events of one workload. `most` 0 = all. Raises: KubeError."""
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        found = await self._list(kind, namespace, selectors, whole=True, most=most, priority=priority)
        return [msgspec.json.decode(observed.body or b"{}") for observed in found]

    async def _list(
        self,
        kind: GroupKind,
        namespace: str,
        selectors: Mapping[str, str],
        *,
        whole: bool,
        most: int = 0,
        priority: Priority,
    ) -> list[Observed]:
        resource = self._resource_of(kind)
        params = {name: value for name, value in selectors.items() if value}
        params["limit"] = str(min(most or PAGE, PAGE))
        found: list[Observed] = []
        restarts = 0
        while True:
            try:
                page = await self._list_page(resource, namespace, params, whole=whole, priority=priority)
            except Gone:
                # the server keeps the state of a list for some minutes only
                restarts += 1
                if "continue" not in params or restarts >= LIST_TRIES:
                    raise
                del params["continue"]
                found.clear()
                continue
            found += [decode_observed(raw, resource.gvk, whole=whole) for raw in page.items]
            if not page.more or (most and len(found) >= most):
                return found[:most] if most else found
            params["continue"] = page.more

    async def _list_page(
        self, resource: Resource, namespace: str, params: Mapping[str, str], *, whole: bool, priority: Priority
    ) -> Page:
        reply = await self._client.request(
            "GET",
            path(resource, namespace),
            params=params,
            accept=JSON if whole else METADATA_LIST,
            priority=priority,
            impersonate=self._impersonate,
            plural=resource.plural,
            subject=str(resource.gvk.group_kind),
        )
        return decode_page(reply.body)

    async def patch_json(
        self, key: ObjectKey, patch: Sequence[Mapping[str, object]], *, priority: Priority
    ) -> Observed:
        """Send a JSON patch (RFC 6902) and return the metadata afterwards.

        Raises: KubeError; Conflict when it sets a resourceVersion that is no longer current.
        """
        resource = self._resource_of(key.group_kind)
        reply = await self._request(
            "PATCH",
            resource,
            key,
            params={"fieldManager": PATCH_MANAGER},
            body=msgspec.json.encode(patch),
            content_type=JSON_PATCH,
            accept=METADATA,
            priority=priority,
        )
        return decode_observed(reply.body, resource.gvk)

    async def patch_planned(
        self,
        key: ObjectKey,
        plan: Callable[[Observed], Sequence[Mapping[str, object]] | None],
        *,
        priority: Priority,
        observed: Observed | None = None,
    ) -> Observed:
        """Patch an object by what `plan` makes of its newest metadata; None from `plan` means: nothing to do.

        Controllers write status all the time, so a patch bound to a resourceVersion often loses: it is planned again on a
        fresh read, up to five times. `observed` saves the first read.

        Raises: KubeError; Conflict when every try lost; NotFound when the object is gone.
        """
        for _ in range(PLANNED_TRIES):
            current = observed or await self.get_metadata(key, priority=priority)
            observed = None
            if current is None:
                raise NotFound("it is gone", subject=str(key))
            patch = plan(current)
            if patch is None:
                return current
            try:
                return await self.patch_json(key, patch, priority=priority)
            except Conflict as error:
                lost = error
        raise lost

    async def can_i(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Ask the server whether we may do `verb` on a resource (plural). Raises: KubeError."""
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        reply = await self._client.request(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            body=msgspec.json.encode(review),
            idempotent=True,
            priority=Priority.USER,
            impersonate=self._impersonate,
        )
        return decode_answer(reply.body, _Review).status.allowed

    async def server_version(self) -> str:
        """Return the server's version, such as `v1.36.3`. Raises: KubeError."""
        reply = await self._client.request("GET", "/version", priority=Priority.USER)
        return decode_answer(reply.body, _Version).gitVersion

    async def namespace_uid(self, name: str) -> str:
        """Return a namespace's uid; that of `kube-system` identifies a cluster. Raises: KubeError."""
        reply = await self._client.request(
            "GET",
            f"/api/v1/namespaces/{name}",
            accept=METADATA,
            priority=Priority.USER,
            plural="namespaces",
            subject=f"Namespace {name}",
        )
        return decode_observed(reply.body, NAMESPACE).uid

    async def _request(
        self,
        method: str,
        resource: Resource,
        key: ObjectKey,
        *,
        priority: Priority,
        accept: str,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        idempotent: bool | None = None,
    ) -> Reply:
        if resource.namespaced and not key.namespace:
            raise Invalid("it needs a namespace and names none", reason="NamespaceMissing", subject=str(key))
        try:
            return await self._client.request(
                method,
                path(resource, key.namespace, key.name),
                params=params,
                body=body,
                content_type=content_type,
                accept=accept,
                priority=priority,
                idempotent=idempotent,
                impersonate=self._impersonate,
                plural=resource.plural,
                subject=str(key),
            )
        except NotFound as error:
            if error.what == "kind":
                self._discovery.invalidate()
            raise

    def _resource_of(self, kind: GroupKind) -> Resource:
        resource = self._discovery.resource(kind)
        if resource is None:
            self._discovery.invalidate()
            raise NotFound(f"the API server does not serve {kind}", what="kind", subject=str(kind))
        return resource

    def _resource_at(self, gvk: Gvk) -> Resource:
        resource = self._discovery.resource_for(gvk)
        if resource is not None:
            return resource
        served = self._resource_of(gvk.group_kind).served_versions
        raise Invalid(
            f"{gvk.version} is not served; use {' or '.join(served)}", reason="VersionNotServed", subject=str(gvk)
        )
