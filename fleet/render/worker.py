"""The child's side of rendering: one revision's files become manifests. Pure but for reading the object store.

Runs in limited processes (`fleet.child`); everything here may be killed at any point.
"""

import msgspec

from fleet.child import Job
from fleet.errors import Problem
from fleet.git.tree import open_tree
from fleet.object import DEFAULT_FLAGS, Flags, Manifest, ObjectKey, Origin
from fleet.render.assembly import Settled, assemble, read_objects
from fleet.render.build import find_tool, read_built, run_build
from fleet.render.kustomize import find_closure
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
    manifests, warnings, used, tool = render_files(files, order)
    return msgspec.msgpack.encode(
        Reply(
            manifests=[_pack(manifest) for manifest in manifests],
            warnings=list(warnings),
            reads=files.marks,
            used=used,
            tool=tool,
        )
    )


def render_files(files: Files, order: Order) -> tuple[list[Manifest], tuple[Problem, ...], list[str], str]:
    """Return manifests, warnings, the variables asked for, and the identity of the tool that built.

    Raises: RenderError, PathMissing, TreeRefused.
    """
    settled = Settled(
        path=order.path,
        namespace=order.namespace,
        create_namespace=order.create_namespace,
        digest_key=order.digest_key,
        variables=Variables(order.variables) if order.substitute else None,
    )
    problems: list[Problem] = []
    warnings: tuple[Problem, ...] = ()
    identity = ""
    if detect_kind(files, order.path) is Kind.KUSTOMIZE:
        closure = find_closure(files, order.path)
        tool = find_tool(order.kustomize)
        built = run_build(closure, tool, scratch=order.scratch, timeout_s=order.timeout_s)
        identity, warnings = tool.identity if tool else "", built.warnings
        objects = read_built(closure, built, problems)
    else:
        objects = read_objects(read_plain(files, order.path), problems)
    manifests = assemble(objects, settled, problems)
    return manifests, warnings, sorted(settled.variables.used) if settled.variables else [], identity


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
    )


def check(payload: bytes) -> bytes:
    """Answer one `Question`: what a cache needs to know before it reuses a render."""
    question = msgspec.msgpack.decode(payload, type=Question)
    tree = open_tree(question.repository, question.revision)
    tool = find_tool(question.kustomize)
    answer = Answer(marks=read_marks(tree, question.paths), tool=tool.identity if tool else "")
    return msgspec.msgpack.encode(answer)
