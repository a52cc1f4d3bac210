"""Ways back: which releases an app has, holding targets at an earlier one, and what ran where at any past moment."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from fleet.clock import format_at
from fleet.errors import TargetError
from fleet.hub.board import hold_row
from fleet.hub.supervisor import Supervisor
from fleet.hub.view import HoldRequest, HoldRow, ObjectCounts, ReleaseRow, TargetRow
from fleet.inventory.value import Target
from fleet.object import ObjectKey
from fleet.store.archive import ArchiveStore, Made
from fleet.store.hold import Hold, HoldStore
from fleet.store.release import Release, ReleaseStore

MOST_RELEASES = 100
MOST_DIGITS = 9


class History:
    """Reads and changes what targets go back to."""

    def __init__(
        self, *, supervisor: Supervisor, releases: ReleaseStore, archive: ArchiveStore, holds: HoldStore
    ) -> None:
        self._supervisor = supervisor
        self._releases = releases
        self._archive = archive
        self._holds = holds

    async def releases(self, app: str) -> Sequence[ReleaseRow]:
        """List an app's releases, newest first."""
        made: dict[int, dict[str, Made]] = {}
        for one in await self._archive.list(app):
            made.setdefault(one.number, {})[one.target.cluster] = one
        digests = await self._load_digests({m.digest for by_cluster in made.values() for m in by_cluster.values()})
        listed = await self._releases.list(app, MOST_RELEASES)
        return [self._release_row(release, made, digests) for release in listed]

    async def _load_digests(self, renders: Iterable[str]) -> dict[str, dict[ObjectKey, bytes]]:
        """Read what is in renders: the digest of each object."""
        found = {}
        for render in renders:
            manifests = await self._archive.load_render(render)
            if manifests is not None:
                found[render] = {m.key: m.digest for m in manifests}
        return found

    def _release_row(
        self,
        release: Release,
        made: Mapping[int, Mapping[str, Made]],
        digests: Mapping[str, Mapping[ObjectKey, bytes]],
    ) -> ReleaseRow:
        here = made.get(release.number, {})
        before = made.get(max((n for n in made if n < release.number), default=0), {})
        changes = [
            compare(digests[before[cluster].digest] if cluster in before else {}, digests[one.digest])
            for cluster, one in here.items()
            if one.digest in digests and (cluster not in before or before[cluster].digest in digests)
        ]
        feed = self._supervisor.feed
        return ReleaseRow(
            app=release.app,
            number=release.number,
            release=f"{release.app}#{release.number}",
            repository=release.repository,
            revision=release.revision,
            reason=release.reason,
            created_at=format_at(release.created_at),
            added=_names(key for added, _, _ in changes for key in added),
            changed=_names(key for _, changed, _ in changes for key in changed),
            removed=_names(key for _, _, removed in changes for key in removed),
            runs_on=tuple(
                sorted(
                    t.cluster
                    for t, r in feed.rows.items()
                    if (t.app, r.applied_release) == (release.app, release.number)
                )
            ),
            good_on=tuple(sorted(cluster for cluster, one in here.items() if one.applied_at is not None)),
            holds=tuple(hold.scope for hold in feed.holds if (hold.app, hold.release) == (release.app, release.number)),
        )

    async def rollback(self, request: HoldRequest, actor: str) -> HoldRow:
        """Hold targets at an earlier release. Idempotent.

        Raises: TargetError (`NothingInScope`, `NoEarlierRelease`, `ReleaseUnknown`); SourceError, RenderError when the
        release cannot be had again.
        """
        feed, targets = self._supervisor.feed, self._targets(request)
        number = await self._find(request) if request.to else await self._find_earlier(request, targets)
        for target in targets:
            await feed.recall(target, number)
        hold = await self._holds.add(
            app=request.app,
            environment=request.environment,
            cluster=request.cluster,
            release=number,
            reason=request.reason,
            actor=actor,
        )
        await self._reload(request.app)
        return hold_row(hold)

    def _targets(self, request: HoldRequest) -> list[Target]:
        inventory = self._supervisor.inventory
        targets = [
            t
            for t in (inventory.targets.values() if inventory else ())
            if t.id.app == request.app
            and request.cluster in ("", t.id.cluster)
            and request.environment in ("", t.environment.name)
        ]
        if not targets:
            raise TargetError(
                f"app {request.app} has no target there; fleet status {request.app} shows where it goes",
                reason="NothingInScope",
            )
        return targets

    async def _find_earlier(self, request: HoldRequest, targets: Sequence[Target]) -> int:
        """Return the newest release that was good on a target before what it should have now, and differs from it."""
        rows = {t.id: row for t in targets if (row := self._supervisor.feed.rows.get(t.id)) is not None}
        current = max((row.release for row in rows.values()), default=0)
        earlier = [
            made.number
            for made in await self._archive.list(request.app)
            if made.applied_at is not None
            and made.number < current
            and made.target in rows
            and made.digest != rows[made.target].render_digest
        ]
        if not earlier:
            raise TargetError(
                f"no earlier good release of {request.app} is kept for these targets; fleet release {request.app} lists"
                " the releases, and git revert goes back further",
                reason="NoEarlierRelease",
            )
        return max(earlier)

    async def _find(self, request: HoldRequest) -> int:
        """Return the release that a person named by `shop#42`, `42` or a commit."""
        listed = await self._releases.list(request.app, MOST_RELEASES)
        number = release_number(request.app, request.to)
        if number not in {release.number for release in listed}:
            number = await self._find_commit(request.to, listed) if is_commit(request.to) else 0
        kept = {made.number for made in await self._archive.list(request.app)}
        if number not in kept:
            what = (
                f"{request.app}#{number} is no longer kept"
                if number
                else f"{request.to} is no release of {request.app}"
            )
            raise TargetError(
                f"{what}; fleet release {request.app} lists those to choose from, and git revert goes back further",
                reason="ReleaseUnknown",
            )
        return number

    async def _find_commit(self, commit: str, listed: Sequence[Release]) -> int:
        """Return the newest release that was in force at a commit; 0 when there was none."""
        wanted = await self._supervisor.mirrors.find(commit.lower())
        for release in listed:
            if release.revision == wanted:
                return release.number
        for release in listed:
            if await self._supervisor.mirrors.contains(release.repository, release.revision, wanted):
                return release.number
        return 0

    async def unhold(self, request: HoldRequest) -> int:
        """End the hold of exactly this scope; returns how many ended. Idempotent.

        Raises: TargetError (`HeldOtherwise`) when only holds of other scopes are in force.
        """
        ended = await self._holds.remove(app=request.app, environment=request.environment, cluster=request.cluster)
        others = [hold for hold in self._supervisor.feed.holds if hold.app == request.app]
        if not ended and others:
            raise TargetError(
                f"no hold has this scope; {request.app} is held by: {'; '.join(map(_describe_command, others))}",
                reason="HeldOtherwise",
            )
        if ended:
            await self._reload(request.app)
        return ended

    async def _reload(self, app: str) -> None:
        feed = self._supervisor.feed
        feed.holds = await self._holds.load()
        feed.review(app)
        await feed.settle([app])

    async def at(self, moment: datetime) -> Sequence[TargetRow]:
        """Say which release every target had at a moment; state and health of then are not kept."""
        inventory = self._supervisor.inventory
        known = inventory.targets if inventory else {}
        return [
            TargetRow(
                app=row.target.app,
                cluster=row.target.cluster,
                environment=known[row.target].environment.name if row.target in known else "",
                state="",
                reason="",
                message="",
                since=format_at(row.at),
                desired_revision="",
                applied_revision=row.revision,
                release=f"{row.target.app}#{row.release}",
                observed_at=format_at(moment),
                objects=ObjectCounts(),
                labels=dict(known[row.target].cluster.labels) if row.target in known else {},
            )
            for row in await self._archive.applied_at(moment)
        ]


def compare(
    before: Mapping[ObjectKey, bytes], after: Mapping[ObjectKey, bytes]
) -> tuple[set[ObjectKey], set[ObjectKey], set[ObjectKey]]:
    """Return the objects added, changed and removed from one render to the next. Pure."""
    both = before.keys() & after.keys()
    return set(after.keys() - both), {key for key in both if before[key] != after[key]}, set(before.keys() - both)


def _names(keys: Iterable[ObjectKey]) -> tuple[str, ...]:
    return tuple(map(str, sorted(set(keys))))


def release_number(app: str, text: str) -> int:
    """Read `42`, `#42` or `shop#42`; 0 for anything else.

    >>> release_number("shop", "shop#42"), release_number("shop", "7"), release_number("shop", "db#7")
    (42, 7, 0)
    """
    digits = text.removeprefix(f"{app}#").removeprefix("#")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS else 0


def is_commit(text: str) -> bool:
    """Tell whether a text may be a commit or the beginning of one."""
    return 4 <= len(text) <= 40 and set(text.lower()) <= set("0123456789abcdef")


def _describe_command(hold: Hold) -> str:
    options = [("environment", hold.environment), ("cluster", hold.cluster)]
    return " ".join(["fleet unhold", hold.app, *(f"--{word} {name}" for word, name in options if name)])
