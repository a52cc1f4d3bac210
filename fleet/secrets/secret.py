"""A Secret from what a sealed document opened to. Pure."""

import base64
from collections.abc import Mapping
from typing import Any

from fleet.annotation import HEEDED
from fleet.errors import SealError
from fleet.render.normalize import normalize
from fleet.render.sealed import annotations_of
from fleet.secrets.opened import Opened


def compose_secret(document: Mapping[str, Any], opened: Opened) -> dict[str, Any]:
    """Return the Secret of a document: name and namespace are the document's, the rest is its template's.

    Annotations of the document by which fleet is told what to do go along: some count on the object in the cluster.
    """
    metadata: dict[str, Any] = {name: document["metadata"].get(name) for name in ("name", "namespace")}
    own = {name: value for name, value in annotations_of(document).items() if name in HEEDED}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**metadata, "labels": dict(opened.labels), "annotations": {**own, **opened.annotations}},
        "type": opened.type or "Opaque",
        "immutable": opened.immutable,
        "data": {item: base64.b64encode(value.reveal()).decode() for item, value in opened.items.items()},
    }
    return in_one_form(body)


def in_one_form(body: Mapping[str, Any]) -> dict[str, Any]:
    """Normalise an opened object as rendering does any other.

    Raises: SealError Corrupt, naming fields and no values.
    """
    normal, faults = normalize(body)
    if faults:
        fields = ", ".join(".".join(str(part) for part in fault.path) for fault in faults[:3])
        raise SealError(f"what it opens to is no valid {body.get('kind')}; see its field {fields}")
    return normal
