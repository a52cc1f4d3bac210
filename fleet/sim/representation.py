"""How objects leave the server: whole or as metadata only, single, as a list, or as watch events."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from fleet.sim import status
from fleet.sim.resource import Resource
from fleet.sim.storage import Object

ACCEPTED: Final = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_FORMS: Final = ("PartialObjectMetadata", "PartialObjectMetadataList")
_META: Final = "meta.k8s.io/v1"
encode: Final = msgspec.json.Encoder().encode


def wants_metadata(accept: str, *, a_list: bool = False) -> bool:
    """Tell whether the Accept header asks first for PartialObjectMetadata, or for a list of it.

    Raises:
        ApiError: 406, nothing in the header can be served.
    """
    if not accept:
        return False
    for choice in accept.split(","):
        media, _, rest = choice.strip().partition(";")
        if media not in ("application/json", "application/*", "*/*"):
            continue
        parameters = dict(part.strip().partition("=")[::2] for part in rest.split(";") if part)
        form = parameters.get("as", "")
        if form in _FORMS:
            if form != _FORMS[a_list]:
                raise status.wrong_form(form, a_list=a_list)
            return True
        if not form:
            return False
    raise status.not_acceptable(ACCEPTED)


def shown(obj: Object, resource: Resource, *, metadata_only: bool) -> Object:
    """Return an object as this version of the resource shows it."""
    if metadata_only:
        return {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": obj["metadata"]}
    if obj.get("apiVersion") == resource.api_version:
        return obj
    return {**obj, "apiVersion": resource.api_version}


def listed(
    objects: Sequence[Object], resource: Resource, metadata: Mapping[str, Any], *, metadata_only: bool
) -> Object:
    """Return a List; items of built-in kinds carry no apiVersion and kind, as on a real server."""
    if metadata_only:
        items = [shown(obj, resource, metadata_only=True) for obj in objects]
        return {"kind": "PartialObjectMetadataList", "apiVersion": _META, "metadata": dict(metadata), "items": items}
    if resource.custom:
        items = [shown(obj, resource, metadata_only=False) for obj in objects]
        head = {"apiVersion": resource.api_version, "items": items, "kind": resource.list_kind}
        return {**head, "metadata": dict(metadata)}
    items = [{name: value for name, value in obj.items() if name not in ("apiVersion", "kind")} for obj in objects]
    return {
        "kind": resource.list_kind,
        "apiVersion": resource.api_version,
        "metadata": dict(metadata),
        "items": items,
    }


def event_line(kind: str, obj: Mapping[str, Any]) -> bytes:
    """Return one line of a watch stream."""
    return encode({"type": kind, "object": obj}) + b"\n"
