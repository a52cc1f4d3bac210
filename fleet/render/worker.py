"""The child's side of rendering: one revision's files become manifests. Pure but for reading the object store.

Runs in limited processes (`fleet.child`); everything here may be killed at any point.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from fleet.child import Job
from fleet.errors import Problem, RenderError
from fleet.git.tree import open_tree
from fleet.object import DEFAULT_FLAGS, Flags, Manifest, ObjectKey, Origin, Seal
from fleet.render.assembly import Settled, assemble, read_objects
from fleet.render.build import Tool, find_tool, read_built, run_build
from fleet.render.kustomize import Closure, find_closure
from fleet.render.opened import find_sealed, hide_values, may_spread
from fleet.render.sealed import Sealing
from fleet.render.source import Files, Kind, detect_kind, read_plain
from fleet.render.substitute import Variables
from fleet.render.tree import GitFiles, read_marks

RENDER = Job("fleet.render.worker", "render", "render")
CHECK = Job("fleet.render.worker", "check", "render")


class Order(msgspec.Struct, array_like=True, frozen=True):
    """What to render: `fleet.render.renderer.RenderInput` and the hub's settings."""

    repository: str
    revision: str
    path: str
    substitute: bool
    variables: dict[str, str]
    namespace: str
    create_namespace: bool
    digest_key: bytes
    kustomize: str
    scratch: str
    timeout_s: float
    sops: bool = False
    passthrough: bool = False
    memory: str = ""
    """A directory on tmpfs, for builds of what was opened."""
    opened: dict[str, bytes] = {}
    """Files encrypted with SOPS, as the hub has opened them."""


class Wire(msgspec.Struct, array_like=True, frozen=True):
    """A manifest on its way to the hub."""

    key: ObjectKey
    version: str
    body: bytes
    digest: bytes
    flags: Flags | None
    origin: Origin
    sensitive: bool
    scoped: bool
    seal: Seal

    def open(self) -> Manifest:
        """Return the manifest."""
        return Manifest(
            key=self.key,
            version=self.version,
            body=self.body,
            digest=self.digest,
            flags=self.flags or DEFAULT_FLAGS,
            origin=self.origin,
            sensitive=self.sensitive,
            scoped=self.scoped,
            seal=self.seal,
        )


class Reply(msgspec.Struct, array_like=True, frozen=True):
    """Manifests, and everything that they depend on besides the order's other fields."""

    manifests: list[Wire]
    warnings: list[Problem]
    reads: dict[str, str]
    """Marks of what was read or found missing, by path."""
    used: list[str]
    """Variables asked for, set or not."""
    tool: str
    """Identity of the binary that built; empty for plain directories."""
    sealed: dict[str, bytes] = {}
    """Files encrypted with SOPS that must be opened before anything can be built; then there are no manifests."""


class Question(msgspec.Struct, array_like=True, frozen=True):
    """What is at these paths at a revision, and which binary would build?"""

    repository: str
    revision: str
    paths: list[str]
    kustomize: str


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """Marks by path, as `read_marks` makes them."""

    marks: dict[str, str]
    tool: str


def render(payload: bytes) -> bytes:
    """Render one `Order` into one `Reply`.

    Raises: RenderError, PathMissing, TreeRefused, RevisionMissing.
    """
    order = msgspec.msgpack.decode(payload, type=Order)
    files = GitFiles(open_tree(order.repository, order.revision))
    found = render_files(files, order)
    return msgspec.msgpack.encode(
        Reply(
            manifests=[_pack(manifest) for manifest in found.manifests],
            warnings=list(found.warnings),
            reads=files.marks,
            used=sorted(found.used),
            tool=found.tool,
            sealed=dict(found.sealed),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What files render to; with `sealed`, what must be opened first."""

    manifests: Sequence[Manifest] = ()
    warnings: tuple[Problem, ...] = ()
    used: Collection[str] = ()
    """Variables asked for."""
    tool: str = ""
    sealed: Mapping[str, bytes] = field(default_factory=dict)


def render_files(files: Files, order: Order) -> Found:
    """Return what the files of an app are.

    Raises: RenderError, PathMissing, TreeRefused.
    """
    if detect_kind(files, order.path) is not Kind.KUSTOMIZE:
        problems: list[Problem] = []
        settled = _settle(order)
        manifests = assemble(read_objects(read_plain(files, order.path), problems), settled, problems)
        return Found(manifests=manifests, used=settled.variables.used if settled.variables else ())
    closure = find_closure(files, order.path)
    sealed = find_sealed(closure) if order.sops else {}
    tool = find_tool(order.kustomize)
    if not sealed:
        return _build(closure, tool, order, _settle(order))
    if not sealed.keys() <= order.opened.keys():
        return Found(sealed=sealed, tool=tool.identity if tool else "")
    everywhere = may_spread(closure, sealed)
    for path in sealed:
        closure.files[path] = order.opened[path]
    try:
        return replace(_build(closure, tool, order, _settle(order, opened=everywhere)), warnings=())
    except RenderError as error:
        raise hide_values(error, closure.root) from None


def _build(closure: Closure, tool: Tool | None, order: Order, settled: Settled) -> Found:
    problems: list[Problem] = []
    memory = order.memory if order.opened else ""
    built = run_build(closure, tool, scratch=order.scratch, timeout_s=order.timeout_s, memory=memory)
    return Found(
        manifests=assemble(read_built(closure, built, problems), settled, problems),
        warnings=built.warnings,
        used=settled.variables.used if settled.variables else (),
        tool=tool.identity if tool else "",
    )


def _settle(order: Order, *, opened: bool = False) -> Settled:
    return Settled(
        path=order.path,
        namespace=order.namespace,
        create_namespace=order.create_namespace,
        digest_key=order.digest_key,
        variables=Variables(order.variables) if order.substitute else None,
        sealing=Sealing(sops=order.sops, passthrough=order.passthrough),
        opened=opened,
    )


def _pack(manifest: Manifest) -> Wire:
    return Wire(
        key=manifest.key,
        version=manifest.version,
        body=manifest.body,
        digest=manifest.digest,
        flags=None if manifest.flags == DEFAULT_FLAGS else manifest.flags,
        origin=manifest.origin,
        sensitive=manifest.sensitive,
        scoped=manifest.scoped,
        seal=manifest.seal,
    )


def check(payload: bytes) -> bytes:
    """Answer one `Question`: what a cache needs to know before it reuses a render."""
    question = msgspec.msgpack.decode(payload, type=Question)
    tree = open_tree(question.repository, question.revision)
    tool = find_tool(question.kustomize)
    answer = Answer(marks=read_marks(tree, question.paths), tool=tool.identity if tool else "")
    return msgspec.msgpack.encode(answer)
