"""Earlier releases of targets, to be had again: from their stored bytes, and from their commit where bytes are not kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from fleet.errors import FleetError, OnChange, SourceError
from fleet.inventory.value import Target
from fleet.object import Manifest, TargetId, encode_canonical
from fleet.reconcile.run import Desired
from fleet.render.renderer import Rendered, Renderer, RenderInput
from fleet.store.archive import ArchiveStore, Made
from fleet.store.release import Release


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A release as it was for a target, and what rendered it (JSON)."""

    desired: Desired
    inputs: str


class Archive:
    """Keeps what releases were, per target, and gives it back byte by byte."""

    def __init__(self, store: ArchiveStore, renderer: Renderer, digest_key: bytes) -> None:
        self.newest: dict[TargetId, Made] = {}
        """The newest release of every target, also of those that are held at an earlier one."""
        self._store = store
        self._renderer = renderer
        self._digest_key = digest_key
        self._stored: set[str] = set()

    async def load(self) -> None:
        """Read what the newest releases were when the hub stopped."""
        self.newest = await self._store.load_newest()

    async def note(self, made: Sequence[Made]) -> None:
        """Note what a release is for targets. Idempotent."""
        fresh = [m for m in made if replace(m, applied_at=None) != self._known(m.target)]
        if fresh:
            await self._store.save_made(fresh)
            self.newest.update({m.target: m for m in fresh})

    def _known(self, target: TargetId) -> Made | None:
        known = self.newest.get(target)
        return replace(known, applied_at=None) if known is not None else None

    async def store(self, rendered: Mapping[TargetId, Rendered]) -> None:
        """Store the bytes of what was rendered, each once. Idempotent."""
        by_digest = {r.digest: r for r in rendered.values() if r.digest not in self._stored}
        if not by_digest:
            return
        known = await self._store.known_renders(sorted(by_digest))
        for digest, one in by_digest.items():
            if digest not in known:
                await self._store.save_render(digest, one.manifests)
        # what is newest for a target is not dropped; of anything else the store is asked again
        self._stored = {made.digest for made in self.newest.values()} & (self._stored | by_digest.keys())

    async def recall(self, target: TargetId, release: Release, repository: str, fallback: RenderInput) -> Recalled:
        """Give a release back as it was for a target.

        What is stored is given byte by byte; manifests with secret values are rendered again from the release's commit
        in the clone at `repository`, and must be the same. A target that never had the release gets its commit,
        rendered by `fallback`.

        Raises: SourceError (`ReleaseLost`, `ReleaseChanged`); RenderError.
        """
        made = await self._store.get(target, release.number)
        if made is None:
            rendered = await self._renderer.render(replace(fallback, revision=release.revision))
            inputs = encode_input(replace(fallback, revision=release.revision))
            return Recalled(desired=_desired(release, rendered.digest, rendered.manifests), inputs=inputs)
        kept = await self._store.load_render(made.digest)
        if kept is None or any(m.sensitive for m in kept):
            again = await self._render_again(release, made, repository)
            if kept is None and again.digest != made.digest:
                raise _changed(release, "its files render to something else today")
            kept = again.manifests if kept is None else _fill(release, kept, again.manifests)
        return Recalled(desired=_desired(release, made.digest, kept), inputs=made.inputs)

    async def _render_again(self, release: Release, made: Made, repository: str) -> Rendered:
        name = f"{release.app}#{release.number}"
        if not repository:
            raise SourceError(
                f"{name} holds secret values, which are not stored, and repository {release.repository} cannot be read",
                reason="ReleaseLost",
                retry=OnChange(),
            )
        try:
            return await self._renderer.render(decode_input(made.inputs, repository, self._digest_key))
        except SourceError as error:
            raise SourceError(f"{name} cannot be rendered again: {error.message}", reason="ReleaseLost") from error

    async def revisions(self) -> Mapping[str, frozenset[str]]:
        """Return the commits that kept releases were made from, by repository."""
        return await self._store.revisions()

    async def note_applied(self, target: TargetId, number: int, revision: str) -> None:
        """Note that a target has everything of a release now; number 0 = that it was emptied."""
        await self._store.note_applied(target, number, revision)

    async def forget(self, target: TargetId) -> None:
        """Drop what was kept of a target that left."""
        await self._store.forget(target)
        self.newest.pop(target, None)


def _desired(release: Release, digest: str, manifests: tuple[Manifest, ...]) -> Desired:
    return Desired(release=release.number, revision=release.revision, digest=digest, manifests=manifests)


def _fill(release: Release, kept: Sequence[Manifest], again: Sequence[Manifest]) -> tuple[Manifest, ...]:
    """Put the bytes of secret values back in; keyed digests say that they are the same."""
    bodies = {(m.key, m.digest): m.body for m in again}
    missing = [m.key for m in kept if m.sensitive and (m.key, m.digest) not in bodies]
    if missing:
        raise _changed(release, f"{missing[0]} is not what it was")
    return tuple(replace(m, body=bodies[m.key, m.digest]) if m.sensitive else m for m in kept)


def _changed(release: Release, why: str) -> FleetError:
    return SourceError(
        f"{release.app}#{release.number} cannot be had again as it was: {why};"
        f" choose another with fleet release {release.app}, or revert in Git",
        reason="ReleaseChanged",
        retry=OnChange(),
    )


class _Input(msgspec.Struct, frozen=True, omit_defaults=True):
    revision: str
    path: str
    substitute: bool = False
    variables: dict[str, str] = {}
    namespace: str = ""
    create_namespace: bool = False
    sops: bool = False
    passthrough: bool = False
    cluster: str = ""


def input_of(target: Target, store: str, revision: str, digest_key: bytes) -> RenderInput:
    """Say what renders a target at a revision of the clone at `store`."""
    spec = target.app.spec
    return RenderInput(
        repository=store,
        revision=revision,
        path=target.path,
        substitute=spec.substitute,
        variables=tuple(target.variables.items()),
        namespace=spec.namespace or "",
        create_namespace=spec.create_namespace,
        digest_key=digest_key,
        sops=spec.decryption is not None,
        passthrough=target.cluster.spec.secrets.bitnami == "passthrough",
        cluster=target.id.cluster,
    )


def encode_input(i: RenderInput) -> str:
    """Write what renders a target, without where its clone is."""
    return encode_canonical(
        _Input(
            revision=i.revision,
            path=i.path,
            substitute=i.substitute,
            variables=dict(i.variables),
            namespace=i.namespace,
            create_namespace=i.create_namespace,
            sops=i.sops,
            passthrough=i.passthrough,
            cluster=i.cluster if i.sops else "",
        )
    ).decode()


def decode_input(text: str, store: str, digest_key: bytes) -> RenderInput:
    """Read what rendered a target, for the clone at `store`."""
    stored = msgspec.json.decode(text, type=_Input)
    return RenderInput(
        repository=store,
        revision=stored.revision,
        path=stored.path,
        substitute=stored.substitute,
        variables=tuple(stored.variables.items()),
        namespace=stored.namespace,
        create_namespace=stored.create_namespace,
        digest_key=digest_key,
        sops=stored.sops,
        passthrough=stored.passthrough,
        cluster=stored.cluster,
    )
