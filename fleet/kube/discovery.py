"""What an API server serves: kinds, their versions, paths and verbs.

One aggregated document where the server has it (two requests), else the older one per group. A group whose own server is
down keeps what was known of it: a kind never disappears because nobody could be asked.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import msgspec

from fleet.aio import Pulse
from fleet.clock import jitter
from fleet.errors import KubeError, NotFound, ServerFailure
from fleet.kube.client import Client
from fleet.kube.gate import Priority
from fleet.kube.wire import JSON
from fleet.object import GroupKind, Gvk

AGGREGATED = f"{JSON};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,{JSON}"
LEGACY = ("APIVersions", "APIGroupList")
CHECK_EVERY_S = 600.0
SETTLE_S = (0.2, 0.5, 1.0, 2.0, 4.0)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One kind at one version."""

    gvk: Gvk
    plural: str
    namespaced: bool
    verbs: frozenset[str] = frozenset()
    served_versions: tuple[str, ...] = ()
    """Every version the kind is served at, the preferred one first."""
    subresources: frozenset[str] = frozenset()
    preferred: bool = False

    @property
    def watchable(self) -> bool:
        """Can be listed and watched."""
        return {"list", "watch"} <= self.verbs


def path(resource: Resource, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """Return the URL path of a collection, an object or its subresource.

    >>> path(Resource(gvk=Gvk("apps", "v1", "Deployment"), plural="deployments", namespaced=True), "shop", "web")
    '/apis/apps/v1/namespaces/shop/deployments/web'
    """
    gvk = resource.gvk
    parts = [f"/apis/{gvk.group}/{gvk.version}" if gvk.group else f"/api/{gvk.version}"]
    if namespace and resource.namespaced:
        parts.append(f"namespaces/{quote(namespace, safe='')}")
    parts.append(resource.plural)
    if name:
        parts.append(quote(name, safe=":"))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


class _Named(msgspec.Struct):
    name: str = ""


class _Kind(msgspec.Struct):
    group: str = ""
    version: str = ""
    kind: str = ""


class _Subresource(msgspec.Struct):
    subresource: str = ""


class _Resource(msgspec.Struct):
    resource: str = ""
    responseKind: _Kind | None = None  # noqa: N815 - the wire's names
    scope: str = ""
    verbs: list[str] | None = None
    subresources: list[_Subresource] | None = None


class _Version(msgspec.Struct):
    version: str = ""
    freshness: str = "Current"
    resources: list[_Resource] | None = None


class _Group(msgspec.Struct):
    metadata: _Named = msgspec.field(default_factory=_Named)
    versions: list[_Version] | None = None


class _Aggregated(msgspec.Struct):
    kind: str = ""
    items: list[_Group] | None = None


class _LegacyVersion(msgspec.Struct):
    groupVersion: str = ""  # noqa: N815
    version: str = ""


class _LegacyGroup(msgspec.Struct):
    name: str = ""
    versions: list[_LegacyVersion] | None = None
    preferredVersion: _LegacyVersion | None = None  # noqa: N815


class _LegacyRoot(msgspec.Struct):
    kind: str = ""
    versions: list[str] | None = None
    groups: list[_LegacyGroup] | None = None


class _LegacyResource(msgspec.Struct):
    name: str = ""
    kind: str = ""
    group: str = ""
    version: str = ""
    namespaced: bool = False
    verbs: list[str] | None = None


class _LegacyList(msgspec.Struct):
    resources: list[_LegacyResource] | None = None


class _OpenapiPath(msgspec.Struct):
    serverRelativeURL: str = ""  # noqa: N815


class _OpenapiIndex(msgspec.Struct):
    paths: dict[str, _OpenapiPath] = {}


Table = dict[str, dict[str, tuple[Resource, ...]]]
"""group -> version -> resources; versions in the server's order of preference."""


@dataclass(slots=True)
class _Document:
    etag: str
    table: Table
    stale: frozenset[str]


class Discovery:
    """The kinds of one API server, as of the last `refresh`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = asyncio.Lock()
        self._pulse = Pulse()
        self._documents: dict[str, _Document] = {}
        self._table: Table = {}
        self._preferred: dict[GroupKind, Resource] = {}
        self._exact: dict[Gvk, Resource] = {}
        self.on_change: Callable[[], None] = lambda: None
        """Called when what is served has changed."""
        self.is_missing: Callable[[], bool] = lambda: False
        """Whether a kind is known to be defined and not served yet."""
        self.generation = 0
        """Grows whenever what is served has changed."""
        self.partial: frozenset[str] = frozenset()
        """Groups whose own server did not answer; what was known of them is kept."""

    def resource(self, kind: GroupKind) -> Resource | None:
        """Return the kind at its preferred version; None when it is not served."""
        return self._preferred.get(kind)

    def resource_for(self, gvk: Gvk) -> Resource | None:
        """Return the kind at exactly this version; None when it is not served."""
        return self._exact.get(gvk)

    def kinds(self) -> Sequence[GroupKind]:
        """Every kind that is served, in the server's order."""
        return tuple(self._preferred)

    def invalidate(self) -> None:
        """Make `run_discovery` ask again now: a CRD or APIService changed, or a kind was not found."""
        self._pulse.set()

    async def wait_invalid(self, timeout_s: float) -> bool:
        """Wait for `invalidate`; False when `timeout_s` passed first."""
        return await self._pulse.wait(timeout_s)

    async def refresh(self) -> None:
        """Ask the server what it serves; two requests, answered by 304 when nothing changed. Idempotent.

        Raises: KubeError; what was known is kept.
        """
        async with self._lock:
            core = await self._fetch("/api")
            groups = await self._fetch("/apis")
            self._install({**core.table, **groups.table}, core.stale | groups.stale)

    async def schema_hash(self, group: str, version: str) -> str:
        """Return the hash of the OpenAPI document of a group and version; empty while there is none. Raises: KubeError."""
        reply = await self._client.request("GET", "/openapi/v3", priority=Priority.APPLY)
        index = _decode(reply.body, _OpenapiIndex)
        entry = index.paths.get(f"apis/{group}/{version}" if group else f"api/{version}")
        return entry.serverRelativeURL.partition("hash=")[2] if entry else ""

    async def _fetch(self, root: str) -> _Document:
        known = self._documents.get(root)
        headers = {"If-None-Match": known.etag} if known and known.etag else {}
        reply = await self._client.request("GET", root, accept=AGGREGATED, headers=headers, priority=Priority.DRIFT)
        if reply.status == 304 and known:
            return known
        aggregated = _decode(reply.body, _Aggregated)
        if aggregated.kind == "APIGroupDiscoveryList":
            table, stale = read_aggregated(aggregated.items or ())
            etag = reply.headers.get("ETag", "")
        elif aggregated.kind in LEGACY:
            table, stale = await self._fetch_legacy(_decode(reply.body, _LegacyRoot))
            etag = ""
        else:
            # some proxies answer 200 and {} to everything, which must not read as "nothing is served"
            raise ServerFailure("what answers is not an API server; check the address", reason="BrokenReply")
        for group in stale:
            for version, resources in self._table.get(group, {}).items():
                table.setdefault(group, {}).setdefault(version, resources)
        self._documents[root] = _Document("" if stale else etag, table, stale)
        return self._documents[root]

    async def _fetch_legacy(self, root: _LegacyRoot) -> tuple[Table, frozenset[str]]:
        wanted = [("", v, f"/api/{v}") for v in root.versions or ()]
        for group in root.groups or ():
            first = group.preferredVersion.version if group.preferredVersion else ""
            versions = sorted((v.version for v in group.versions or ()), key=lambda v: v != first)
            wanted += [(group.name, v, f"/apis/{group.name}/{v}") for v in versions]
        table: Table = {}
        stale: set[str] = set()
        for name, version, where in wanted:
            try:
                reply = await self._client.request("GET", where, priority=Priority.DRIFT)
            except (ServerFailure, NotFound):
                stale.add(name)
                continue
            resources = _decode(reply.body, _LegacyList).resources or ()
            table.setdefault(name, {})[version] = read_legacy(name, version, resources)
        return table, frozenset(stale)

    def _install(self, table: Table, stale: frozenset[str]) -> None:
        if (table, stale) == (self._table, self.partial) and self.generation:
            return
        self._table, self.partial = table, stale
        self._preferred, self._exact = index(table)
        self.generation += 1
        self.on_change()


def index(table: Table) -> tuple[dict[GroupKind, Resource], dict[Gvk, Resource]]:
    """Arrange a table by kind (at the preferred version) and by exact version. Pure."""
    served: dict[GroupKind, list[Resource]] = {}
    for versions in table.values():
        for resources in versions.values():
            for resource in resources:
                served.setdefault(resource.gvk.group_kind, []).append(resource)
    preferred: dict[GroupKind, Resource] = {}
    exact: dict[Gvk, Resource] = {}
    for kind, found in served.items():
        chosen = next((r for r in found if r.watchable), found[0])
        ordered = [chosen, *(r for r in found if r is not chosen)]
        versions_of = tuple(dict.fromkeys(r.gvk.version for r in ordered))
        for resource in reversed(ordered):
            exact[resource.gvk] = _with_versions(resource, versions_of, preferred=resource is chosen)
        preferred[kind] = exact[chosen.gvk]
    return preferred, exact


def _with_versions(resource: Resource, versions: tuple[str, ...], *, preferred: bool) -> Resource:
    return Resource(
        gvk=resource.gvk,
        plural=resource.plural,
        namespaced=resource.namespaced,
        verbs=resource.verbs,
        served_versions=versions,
        subresources=resource.subresources,
        preferred=preferred,
    )


def read_aggregated(groups: Iterable[_Group]) -> tuple[Table, frozenset[str]]:
    """Read APIGroupDiscovery items: what is served, and the groups whose server is not answering. Pure."""
    table: Table = {}
    stale: set[str] = set()
    for group in groups:
        name = group.metadata.name
        for version in group.versions or ():
            if version.freshness == "Stale":
                stale.add(name)
                if not version.resources:
                    continue
            resources = tuple(
                _read_resource(r, name, version.version) for r in version.resources or () if r.responseKind
            )
            table.setdefault(name, {})[version.version] = resources
    return table, frozenset(stale)


def _read_resource(entry: _Resource, group: str, version: str) -> Resource:
    kind = entry.responseKind or _Kind()
    return Resource(
        gvk=Gvk(group, version, kind.kind),
        plural=entry.resource,
        namespaced=entry.scope == "Namespaced",
        verbs=frozenset(entry.verbs or ()),
        subresources=frozenset(s.subresource for s in entry.subresources or ()),
    )


def read_legacy(group: str, version: str, entries: Sequence[_LegacyResource]) -> tuple[Resource, ...]:
    """Read an APIResourceList; names with a slash are subresources. Pure."""
    subresources: dict[str, set[str]] = {}
    for entry in entries:
        plural, slash, subresource = entry.name.partition("/")
        if slash:
            subresources.setdefault(plural, set()).add(subresource)
    return tuple(
        Resource(
            gvk=Gvk(group, version, entry.kind),
            plural=entry.name,
            namespaced=entry.namespaced,
            verbs=frozenset(entry.verbs or ()),
            subresources=frozenset(subresources.get(entry.name, ())),
        )
        for entry in entries
        if "/" not in entry.name
    )


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServerFailure(
            f"the API server sent a broken discovery document: {error}", reason="BrokenReply"
        ) from error


async def run_discovery(discovery: Discovery, client: Client) -> None:
    """Keep `discovery` fresh: every ten minutes, and at once when it is invalidated.

    A server needs a moment to serve what a CRD just declared, and serves what two of them declared at two moments: after
    an invalidation it is asked several times whatever it says, and ever later while a kind is still missing. Survives
    failures. Returns only when cancelled.
    """
    asked = len(SETTLE_S)
    while True:
        settled = asked >= len(SETTLE_S) and not discovery.is_missing()
        pause_s = CHECK_EVERY_S if settled else _pause_s(asked)
        asked = 0 if await discovery.wait_invalid(jitter(client.clock, pause_s)) else asked + 1
        with contextlib.suppress(KubeError):
            await discovery.refresh()


def _pause_s(asked: int) -> float:
    """Return how long to wait for what a server does not serve yet, after having asked so often. Pure.

    >>> [_pause_s(asked) for asked in (0, 4, 5, 6, 40)]
    [0.2, 4.0, 8.0, 16.0, 600.0]
    """
    if asked < len(SETTLE_S):
        return SETTLE_S[asked]
    return min(SETTLE_S[-1] * 2.0 ** min(asked - len(SETTLE_S) + 1, 10), CHECK_EVERY_S)
