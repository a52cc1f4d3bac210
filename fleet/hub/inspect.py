"""Answers for people that need Git or a cluster: what would change, what renders to what, where a commit runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from fleet.annotation import HUB, PART_OF, RECONCILE
from fleet.errors import KubeError, NotFound, SealError, SourceError, TargetError
from fleet.hub.board import Board
from fleet.hub.link import Link
from fleet.hub.mask import Hidden, hidden_of, mask_body
from fleet.hub.supervisor import Supervisor
from fleet.hub.view import FieldRow, PlannedRow, RenderedRow, Rendering, WhereRow
from fleet.inventory.value import Target
from fleet.kube.gate import Priority
from fleet.kube.ownership import foreign_additions, format_path, managers_of
from fleet.kube.wire import Observed
from fleet.log import MASK
from fleet.object import Manifest, ObjectKey, TargetId, encode_canonical, short
from fleet.reconcile.applyset import set_id
from fleet.reconcile.plan import SEALED, Action, Change
from fleet.render.renderer import Renderer

MOST_VALUE = 200
SERVER_SET = frozenset({"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"})


class Inspector:
    """Looks without changing anything."""

    def __init__(self, supervisor: Supervisor, board: Board, renderer: Renderer, hub_id: str) -> None:
        self._supervisor = supervisor
        self._board = board
        self._renderer = renderer
        self._hub_id = hub_id

    async def diff(self, target: TargetId) -> Sequence[PlannedRow]:
        """Compare desired with live, per field. Raises: KubeError, TargetError."""
        session = self._supervisor.sessions.get(target.cluster)
        if session is None:
            raise TargetError(f"there is no cluster {target.cluster}", reason="NotFound")
        if session.link is None:
            raise session.trouble or TargetError(f"cluster {target.cluster} is not connected", reason="NotConnected")
        link = session.link
        plan = await link.plan_only(target)
        if plan is None:
            raise TargetError("nothing could be rendered for it yet; see fleet status", reason="NothingDesired")
        return [await self._planned(link, target, change) for change in plan.changes]

    async def _planned(self, link: Link, target: TargetId, change: Change) -> PlannedRow:
        fields: tuple[FieldRow, ...] = ()
        message = change.message
        if change.manifest is not None and change.action is not Action.UNCHANGED and change.reason not in SEALED:
            try:
                written = self._written(target, change, await link.open(change.manifest))
                fields = tuple(await self._fields(link, target, change.key, written))
            except SealError as error:
                message = f"{message}; {error}".lstrip("; ")
            except KubeError as error:
                message = f"{message}; the API server would refuse it: {error.message}".lstrip("; ")
        return PlannedRow(
            group=change.key.group,
            version=change.manifest.version if change.manifest else change.entry.version if change.entry else "",
            kind=change.key.kind,
            namespace=change.key.namespace,
            name=change.key.name,
            action=change.action.value,
            reason=change.reason,
            message=message,
            fields=fields,
        )

    def _written(self, target: TargetId, change: Change, manifest: Manifest) -> Manifest:
        """Return what an apply would send, without what alone would make an object that is as in Git seem to differ."""
        if change.reason == "OptedOut":  # the word in Git that ends writing is itself never written
            manifest = _drop_annotations(manifest, RECONCILE)
        unmarked = change.action is Action.ADOPT or (change.action is Action.SKIP and change.entry is None)
        return manifest if unmarked else self._stamp(manifest, target)

    async def _fields(self, link: Link, target: TargetId, key: ObjectKey, manifest: Manifest) -> list[FieldRow]:
        """Ask the server what an apply would make of the object, and compare that with what is there."""
        api = link.api_of(target)
        try:
            live = await api.get(key, priority=Priority.USER)
        except NotFound:
            live = None
        try:
            applied = await api.apply(manifest, priority=Priority.USER, dry_run=True, force=True, whole=True)
        except NotFound:  # the namespace or kind comes with the same release
            return list(_compare(_decode(manifest.body), {}, hidden_of(manifest), {}))
        wanted = _decode(applied.observed.body or b"{}")
        found = _decode(live.body) if live is not None and live.body else {}
        rows = list(_compare(wanted, found, hidden_of(manifest), managers_of(live.managed) if live else {}))
        told = {row.path for row in rows}
        added = [row for row in _additions(live, link, target) if row.path not in told]
        return sorted([*rows, *added], key=lambda row: row.path)

    def _stamp(self, manifest: Manifest, target: TargetId) -> Manifest:
        body = msgspec.json.decode(manifest.body)
        body["metadata"].setdefault("labels", {}).update({PART_OF: set_id(target), HUB: self._hub_id})
        return replace(manifest, body=encode_canonical(body))

    async def render(self, target: TargetId, revision: str) -> Rendering:
        """Render a target, at another revision if given. Raises: RenderError, SourceError, TargetError."""
        known = self._known(target)
        snapshot = self._supervisor.mirrors.snapshot(known.app.spec.repository)
        if snapshot is None or not snapshot.revision:
            raise (snapshot.error if snapshot else None) or SourceError(
                f"repository {known.app.spec.repository} has not been read yet", reason="NotFetched"
            )
        at = await self._supervisor.mirrors.find(revision) if revision else snapshot.revision
        rendered = await self._renderer.render(self._supervisor.feed.render_input(known, snapshot.store, at))
        return Rendering(
            app=target.app,
            cluster=target.cluster,
            revision=at,
            manifests=tuple(_rendered(m) for m in rendered.manifests),
            variables=dict(known.variables),
            origins=dict(known.origins),
        )

    async def where(self, commit: str) -> Sequence[WhereRow]:
        """Say on which targets a commit runs. Raises: SourceError when nobody knows it."""
        wanted = await self._supervisor.mirrors.find(commit)
        inventory = self._supervisor.inventory
        return [await self._where(target, wanted) for target in (inventory.targets.values() if inventory else ())]

    async def _where(self, target: Target, wanted: str) -> WhereRow:
        row = self._board.target_row(target.id)
        runs, message = "no", "nothing is applied there yet"
        if row.applied_revision == wanted:
            runs, message = "yes", f"{row.release} is this commit"
        elif row.applied_revision:
            message = f"{short(row.applied_revision)} runs there"
            if await self._supervisor.mirrors.contains(target.app.spec.repository, wanted, row.applied_revision):
                runs, message = "contained", f"{short(row.applied_revision)} runs there and contains it"
        return WhereRow(
            app=row.app,
            cluster=row.cluster,
            environment=row.environment,
            runs=runs,
            applied_revision=row.applied_revision,
            state=row.state,
            message=message,
        )

    def _known(self, target: TargetId) -> Target:
        inventory = self._supervisor.inventory
        known = inventory.targets.get(target) if inventory else None
        if known is None:
            raise TargetError(f"app {target.app} does not go to cluster {target.cluster}", reason="NotFound")
        return known


def _additions(live: Observed | None, link: Link, target: TargetId) -> list[FieldRow]:
    """List what drift managers added beside our fields."""
    globs = link.drift_managers(target)
    if live is None or not globs:
        return []
    added = foreign_additions(live.managed, globs)
    managers = managers_of(live.managed)
    return [
        FieldRow(path=format_path(path), desired="", live="(added)", manager=managers.get(format_path(path), ""))
        for path in added.leaves()
    ]


def _drop_annotations(manifest: Manifest, names: Sequence[str]) -> Manifest:
    body = msgspec.json.decode(manifest.body)
    annotations = body["metadata"].get("annotations") or {}
    kept = {name: value for name, value in annotations.items() if name not in names}
    body["metadata"] = {name: value for name, value in body["metadata"].items() if name != "annotations"}
    body["metadata"].update({"annotations": kept} if kept else {})
    return replace(manifest, body=encode_canonical(body))


def _decode(body: bytes) -> dict[str, Any]:
    """Decode an object without what the server alone writes."""
    decoded: dict[str, Any] = msgspec.json.decode(body)
    decoded.pop("status", None)
    metadata = decoded.get("metadata") or {}
    decoded["metadata"] = {name: value for name, value in metadata.items() if name not in SERVER_SET}
    return decoded


def _compare(
    wanted: Any, found: Any, hidden: Hidden, managers: Mapping[str, str], path: str = ""
) -> Iterator[FieldRow]:
    """Yield what differs, leaf by leaf; items of a list that have names are compared by name."""
    if wanted == found:
        return
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in sorted(wanted.keys() | found.keys()):
            yield from _compare(wanted.get(name), found.get(name), hidden, managers, f"{path}.{name}")
    elif (ours := _by_name(wanted)) is not None and (theirs := _by_name(found)) is not None:
        for name in dict.fromkeys([*ours, *theirs]):
            yield from _compare(ours.get(name), theirs.get(name), hidden, managers, f'{path}[name="{name}"]')
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (a, b) in enumerate(zip(wanted, found, strict=True)):
            yield from _compare(a, b, hidden, managers, f"{path}[{index}]")
    else:
        yield FieldRow(
            path=path or ".",
            desired=_show(wanted, hidden(path)),
            live=_show(found, hidden(path)),
            manager=_manager(path, managers),
        )


def _by_name(items: Any) -> dict[str, Any] | None:
    """Return a list's items by name; None when it is no list of uniquely named objects."""
    if not isinstance(items, list) or not all(isinstance(item, dict) and "name" in item for item in items):
        return None
    named = {str(item["name"]): item for item in items}
    return named if len(named) == len(items) else None


def _show(value: Any, hidden: bool) -> str:
    if value is None:
        return ""
    text = MASK if hidden else msgspec.json.encode(value).decode()
    return text if len(text) <= MOST_VALUE else f"{text[: MOST_VALUE - 1]}…"


def _manager(path: str, managers: Mapping[str, str]) -> str:
    """Name who holds a field, or its nearest parent."""
    while path and path not in managers:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return managers.get(path, "")


def _rendered(manifest: Manifest) -> RenderedRow:
    body = mask_body(manifest, msgspec.json.decode(manifest.body))
    return RenderedRow(manifest=msgspec.json.encode(body).decode(), file=str(manifest.origin))
