"""What an API server sends, decoded no further than needed. Bodies stay bytes.

A list's items carry no kind and PartialObjectMetadata carries a wrong one, so the kind always comes from the request.
"""

import sys
from typing import TypeVar

import msgspec

from fleet.errors import ServerFailure
from fleet.object import Gvk, ObjectKey

JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"
METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"
"""A server that cannot reduce an object to its metadata (some aggregated APIs) sends it whole."""

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class ManagedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `metadata.managedFields`; `fields` is its fieldsV1 as sent."""

    manager: str = ""
    operation: str = ""
    api_version: str = ""
    subresource: str = ""
    time: str | None = None
    fields: bytes = b"{}"


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """An object as an API server showed it once."""

    key: ObjectKey
    version: str
    """The API version it was asked for in."""
    uid: str = ""
    rv: int = 0
    """resourceVersion; 0 when the server's are not numbers (some aggregated APIs)."""
    generation: int = 0
    deleting: bool = False
    """Has a deletionTimestamp."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    controller: str = ""
    """`Kind/name` of the controller ownerReference; empty for none."""
    managed: tuple[ManagedEntry, ...] = ()
    body: bytes | None = None
    """The whole object as JSON with apiVersion and kind, when it was asked for whole."""
    created_at: str = ""
    """RFC 3339."""


class _Owner(msgspec.Struct):
    kind: str = ""
    name: str = ""
    controller: bool | None = None


class _Managed(msgspec.Struct):
    manager: str = ""
    operation: str = ""
    apiVersion: str = ""  # noqa: N815 - the wire's names
    subresource: str = ""
    time: str | None = None
    fieldsV1: msgspec.Raw = msgspec.Raw(b"{}")  # noqa: N815


class _Metadata(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815
    generation: int = 0
    creationTimestamp: str | None = None  # noqa: N815
    deletionTimestamp: str | None = None  # noqa: N815
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = None
    ownerReferences: list[_Owner] | None = None  # noqa: N815
    managedFields: list[_Managed] | None = None  # noqa: N815


class _Object(msgspec.Struct):
    kind: str = ""
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


MOST_RV = 2**63 - 1
"""What a database can hold."""


class _ListMetadata(msgspec.Struct):
    resourceVersion: str = ""  # noqa: N815
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    metadata: _ListMetadata = msgspec.field(default_factory=_ListMetadata)
    items: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


class Page(msgspec.Struct, frozen=True):
    """One page of a list."""

    rv: str
    more: str
    """The continue token; empty at the end."""
    items: list[msgspec.Raw]


class Event(msgspec.Struct, frozen=True):
    """One line of a watch: `type` is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""

    type: str = ""
    object: msgspec.Raw = msgspec.Raw(b"{}")


T = TypeVar("T")

_OBJECT = msgspec.json.Decoder(_Object)
_LIST = msgspec.json.Decoder(_List)
_EVENT = msgspec.json.Decoder(Event)


def decode_observed(raw: bytes | msgspec.Raw, gvk: Gvk, *, whole: bool = False) -> Observed:
    """Decode one object of the kind that was asked for; `whole` keeps its body.

    Raises: ServerFailure when the bytes are not a Kubernetes object.
    """
    try:
        decoded = _OBJECT.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServerFailure(f"the API server sent a broken {gvk.kind}: {error}", reason="BrokenReply") from error
    meta = decoded.metadata
    if not meta.name:
        raise ServerFailure(f"the API server sent a {gvk.kind} without a name", reason="BrokenReply")
    return Observed(
        key=ObjectKey(gvk.group, gvk.kind, sys.intern(meta.namespace), meta.name),
        version=gvk.version,
        uid=meta.uid,
        rv=parse_rv(meta.resourceVersion),
        generation=meta.generation,
        deleting=meta.deletionTimestamp is not None,
        labels=meta.labels or {},
        annotations=meta.annotations or {},
        finalizers=tuple(meta.finalizers or ()),
        controller=next((f"{o.kind}/{o.name}" for o in meta.ownerReferences or () if o.controller), ""),
        managed=tuple(_decode_managed(entry) for entry in meta.managedFields or ()),
        body=_complete(bytes(raw), decoded.kind, gvk) if whole else None,
        created_at=meta.creationTimestamp or "",
    )


def _decode_managed(entry: _Managed) -> ManagedEntry:
    fields = bytes(entry.fieldsV1)
    return ManagedEntry(
        manager=entry.manager,
        operation=entry.operation,
        api_version=entry.apiVersion,
        subresource=entry.subresource,
        time=entry.time,
        fields=b"{}" if fields == b"null" else fields,
    )


def _complete(body: bytes, kind: str, gvk: Gvk) -> bytes:
    """Give a list's item the kind that lists leave out."""
    if kind:
        return body
    head = msgspec.json.encode({"apiVersion": gvk.api_version, "kind": gvk.kind})[:-1]
    return head + b"," + body.lstrip()[1:]


def parse_rv(text: str) -> int:
    """Parse a resourceVersion; 0 when it is not a number and can be compared for equality only.

    >>> parse_rv("1042"), parse_rv("W/abc"), parse_rv("")
    (1042, 0, 0)
    """
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    return number if number <= MOST_RV else 0


def decode_page(raw: bytes) -> Page:
    """Decode a list. Raises: ServerFailure."""
    try:
        decoded = _LIST.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServerFailure(f"the API server sent a broken list: {error}", reason="BrokenReply") from error
    if decoded.items is msgspec.UNSET:
        # some proxies answer 200 and {} to everything, which must not read as "there is nothing"
        raise ServerFailure("the API server sent something else than a list", reason="BrokenReply")
    return Page(decoded.metadata.resourceVersion, decoded.metadata.continue_, decoded.items or [])


def decode_event(line: bytes) -> Event:
    """Decode one line of a watch. Raises: ServerFailure when the stream is corrupt."""
    try:
        return _EVENT.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServerFailure(f"the watch stream is corrupt: {error}", reason="BrokenReply") from error


class Bookmark(msgspec.Struct, frozen=True):
    """A bookmark's position; `initial_end` marks the end of a streaming list."""

    rv: str
    initial_end: bool


def decode_bookmark(raw: bytes | msgspec.Raw) -> Bookmark:
    """Decode the object of a BOOKMARK event. Raises: ServerFailure."""
    try:
        meta = _OBJECT.decode(raw).metadata
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServerFailure(f"the watch stream is corrupt: {error}", reason="BrokenReply") from error
    return Bookmark(meta.resourceVersion, (meta.annotations or {}).get(INITIAL_EVENTS_END) == "true")


def decode_answer(raw: bytes, kind: type[T]) -> T:
    """Decode the answer to a small question. Raises: ServerFailure when it has another shape."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServerFailure(f"the API server sent a broken answer: {error}", reason="BrokenReply") from error
