"""The objects of one app, from documents to manifests, with every fault at its place. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fleet.document import Document, Path, format_path, parse_documents
from fleet.errors import Problem, RenderError
from fleet.object import Manifest, ObjectKey, Origin
from fleet.render.normalize import Fault, check_identity, check_plain_metadata, flatten, make_manifest, normalize
from fleet.render.scope import read_scopes
from fleet.render.sealed import SOPS, UNSET, Sealing, is_opted_out, split_sops
from fleet.render.source import MOST_OBJECTS, too_large
from fleet.render.substitute import Variables, substitute

MOST_PROBLEMS = 200


class Place(Protocol):
    """Where an object was written."""

    @property
    def origin(self) -> Origin:
        """File and line of the object."""
        ...

    def find(self, path: Path) -> tuple[str, int, int]:
        """Return file, line and column of a field; zeros where they are not known."""
        ...

    def is_plain(self, path: Path) -> bool:
        """Tell whether the scalar at `path` is written without quotes."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """An object that stands in a file of the repository, at `at` inside a document."""

    document: Document
    at: Path
    data: bytes = b""
    """The whole file."""
    index: int = 0
    """The number of the document in it."""

    @property
    def origin(self) -> Origin:
        """File and line of the object."""
        line = self.document.position(self.at)[0] if self.at else self.document.line
        return Origin(self.document.file, line)

    def find(self, path: Path) -> tuple[str, int, int]:
        """Return file, line and column of a field."""
        return (self.document.file, *self.document.position((*self.at, *path)))

    def is_plain(self, path: Path) -> bool:
        """Tell whether the scalar at `path` is written without quotes."""
        return self.document.is_plain((*self.at, *path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How an app wants its objects: `variables` is None unless substitution was asked for."""

    path: str
    namespace: str
    create_namespace: bool
    digest_key: bytes
    variables: Variables | None
    sealing: Sealing = UNSET
    opened: bool = False
    """Values that were sealed may stand anywhere in these objects: none of them is ever shown."""


def read_objects(files: Mapping[str, bytes], problems: list[Problem]) -> Iterator[tuple[Any, Place]]:
    """Yield the objects of plain files in order; faults are added to `problems`."""
    for file, data in files.items():
        documents, found = parse_documents(data, file)
        problems += found
        for index, document in enumerate(documents):
            for at, value in flatten(document.value):
                yield value, Written(document, at, data, index)


@dataclass(slots=True)
class _Collection:
    problems: list[Problem]
    bodies: list[tuple[dict[str, Any], Place]] = field(default_factory=list)

    def add(self, value: Any, place: Place, settled: Settled) -> None:
        """Take one object in, substituted and normalised, or record why not."""
        faults: list[Fault] = []
        sealed = None
        if settled.sealing.sops and isinstance(place, Written) and not is_opted_out(value):
            value, sealed = split_sops(value, place.data, place.index)
            faults = check_plain_metadata(value) if sealed is not None else []
        if settled.variables is not None and not faults:
            value, faults = substitute(value, settled.variables, place.is_plain)
        faults = faults or check_identity(value, settled.sealing)
        if not faults:
            body, faults = normalize(value)
            self.bodies.append((body if sealed is None else {**body, SOPS: sealed}, place))
        self.problems += [describe(fault, place) for fault in faults]
        if len(self.bodies) > MOST_OBJECTS:
            raise too_large(place.origin.file, f"the app has more than {MOST_OBJECTS} objects; split the app")


def assemble(objects: Iterable[tuple[Any, Place]], settled: Settled, problems: list[Problem]) -> list[Manifest]:
    """Return the manifests of an app, sorted by key. `problems` may grow while `objects` is read.

    Raises: RenderError listing all problems, or `EmptyRender`, or `TooLarge`.
    """
    collection = _Collection(problems)
    for value, place in objects:
        collection.add(value, place, settled)
    manifests = _make_manifests(collection, settled)
    if problems:
        raise RenderError(sorted(problems)[:MOST_PROBLEMS])
    if not manifests:
        message = "nothing was rendered; an app with no objects is never taken for one that wants them gone"
        raise RenderError([Problem(settled.path or ".", 0, 0, "", message)], reason="EmptyRender")
    _add_namespace(manifests, settled)
    return [manifests[key] for key in sorted(manifests)]


def _make_manifests(collection: _Collection, settled: Settled) -> dict[ObjectKey, Manifest]:
    scopes = read_scopes(body for body, _ in collection.bodies)
    manifests: dict[ObjectKey, Manifest] = {}
    for body, place in collection.bodies:
        origin = place.origin
        manifest = make_manifest(
            body,
            namespace=settled.namespace,
            scopes=scopes,
            digest_key=settled.digest_key,
            origin=origin,
            sealing=settled.sealing,
        )
        if settled.opened:
            manifest = replace(manifest, sensitive=True)
        first = manifests.setdefault(manifest.key, manifest)
        if first is not manifest:
            message = f"{manifest.key} is rendered twice; the first is in {first.origin}"
            collection.problems.append(describe(Fault(("metadata", "name"), message), place))
    return manifests


def _add_namespace(manifests: dict[ObjectKey, Manifest], settled: Settled) -> None:
    key = ObjectKey("", "Namespace", "", settled.namespace)
    if settled.create_namespace and settled.namespace and key not in manifests:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": settled.namespace}}
        origin = Origin("createNamespace", 0)
        manifests[key] = make_manifest(body, namespace="", scopes={}, digest_key=settled.digest_key, origin=origin)


def describe(fault: Fault, place: Place) -> Problem:
    """Put a fault at its file, line and column."""
    file, line, column = place.find(fault.path)
    message = fault.message
    if fault.first is not None and line:
        message += f"; the first is on line {place.find(fault.first)[1]}"
    return Problem(file, line, column, format_path(fault.path), message)
