"""What may be stored: objects read, given their defaults and validated, in the words of the API server."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.sim import defaulting, structural, validation, wire
from fleet.sim.cause import Cause
from fleet.sim.schema import Object, Schema
from fleet.sim.wire import Malformed, Reading

__all__ = ["Invalid", "Malformed", "Reading", "Subject", "check_new", "check_update", "defaulted", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The kind an object is of; `document` is the openAPIV3Schema of a custom resource, None for built-in kinds."""

    group: str
    kind: str
    schema: Schema
    document: Mapping[str, Any] | None = None


class Invalid(Exception):
    """Validation failed; `causes` are entries of details.causes: reason, message, field."""

    def __init__(self, causes: Sequence[Cause]) -> None:
        super().__init__("; ".join(f"{cause['field']}: {cause['message']}" for cause in causes))
        self.causes = tuple(causes)


def read(subject: Subject, obj: Object) -> Reading:
    """Return an object that came over the wire as the server understands it, and the fields it does not know.

    Raises:
        Malformed: a value is of the wrong type.
    """
    if subject.document is None:
        return wire.read(subject.schema, obj)
    metadata = wire.read_metadata(obj.get("metadata") or {})
    reading = structural.prune(subject.document, {**obj, "metadata": metadata.obj})
    reading.unknown[:0] = metadata.unknown
    return reading


def defaulted(subject: Subject, obj: Object) -> Object:
    """Return an object as it would be read and stored: unknown fields gone, canonical, with defaults.

    Raises:
        Malformed: a value is of the wrong type.
    """
    known = read(subject, obj).obj
    if subject.document is not None:
        return structural.with_defaults(subject.document, known)
    filled = defaulting.with_defaults(subject.schema, known)
    return _folded(filled) if (subject.group, subject.kind) == ("", "Secret") else filled


def _folded(secret: Object) -> Object:
    """Move a Secret's stringData into its data."""
    if "stringData" not in secret:
        return secret
    texts = {name: base64.b64encode(text.encode()).decode() for name, text in secret["stringData"].items()}
    data = {**secret.get("data", {}), **texts}
    return {name: value for name, value in secret.items() if name != "stringData"} | {"data": data}


def check_new(subject: Subject, obj: Object) -> None:
    """Check a new object, with its defaults.

    Raises:
        Invalid: with the server's causes.
    """
    _raise_if(_faults(subject, obj))


def check_update(subject: Subject, live: Object, new: Object) -> None:
    """Check an object that is to replace the live one.

    Raises:
        Invalid: with the server's causes.
    """
    causes = [*validation.check_finalizers(live, new), *_faults(subject, new)]
    if subject.document is None:
        causes += validation.check_change(subject.group, subject.kind, live, new)
    _raise_if(causes)


def _faults(subject: Subject, obj: Object) -> list[Cause]:
    metadata = validation.check_metadata(subject.kind, obj)
    if subject.document is not None:
        return [*metadata, *structural.check(subject.document, obj)]
    return [*metadata, *validation.check_kind(subject.group, subject.kind, obj)]


def _raise_if(causes: Sequence[Cause]) -> None:
    if causes:
        raise Invalid(causes)
