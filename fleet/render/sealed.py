"""Documents whose values are sealed: what they open to is known before they are opened. Pure; nothing is opened here.

From rendering on such a document goes by the key of the object that it opens to, so that plan, ledger, ownership, prune
and duplicates need not know of sealing.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

from fleet.annotation import is_opted_out_of_decryption
from fleet.object import GroupKind, Gvk, Seal, parse_gvk

SECRET = Gvk("", "v1", "Secret")
NATIVE = GroupKind("fleet", "SealedSecret")
BITNAMI = GroupKind("bitnami.com", "SealedSecret")
SOPS = "sops"
_SOPS_MARKS = (b"sops", b"ENC[AES256_GCM")
_SOPS_MAC = (b'"mac"', b"mac:", b"sops_mac=")


class Sealing(NamedTuple):
    """Which sealed documents of an app are opened."""

    sops: bool = False
    """The App has `decryption: {provider: sops}`."""
    passthrough: bool = False
    """A controller in the cluster opens Bitnami's documents: they are applied as they are."""


UNSET = Sealing()


def find_seal(body: Mapping[str, Any], sealing: Sealing) -> Seal:
    """Tell how an object is sealed; `body` is normalised."""
    gvk = parse_gvk(body["apiVersion"], body["kind"])
    if gvk.group_kind == NATIVE:
        return Seal.NATIVE
    if gvk.group_kind == BITNAMI and not sealing.passthrough:
        return Seal.BITNAMI
    if not sealing.sops or is_opted_out(body):
        return Seal.NONE
    if isinstance(body.get(SOPS), dict):
        return Seal.SOPS
    return Seal.SOPS_ITEMS if gvk == SECRET and _has_sops_items(body) else Seal.NONE


def split_sops(value: Any, data: bytes, index: int) -> tuple[Any, dict[str, Any] | None]:
    """Take an object encrypted with SOPS apart: its identity, which is plain, and the file it stands in.

    `data` is the file's bytes, `index` the document's number in it. Other objects are given back with None.
    """
    if not isinstance(value, dict) or not isinstance(value.get(SOPS), dict) or not data:
        return value, None
    plain = {name: value[name] for name in ("apiVersion", "kind", "metadata") if name in value}
    return plain, {"file": data.decode(), "document": index}


def opened_gvk(gvk: Gvk, seal: Seal) -> Gvk:
    """Return the kind that a document opens to."""
    return SECRET if seal in (Seal.NATIVE, Seal.BITNAMI) else gvk


def annotations_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object's annotations."""
    metadata = body.get("metadata")
    found = metadata.get("annotations") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def is_opted_out(value: object) -> bool:
    """Tell whether an object encrypted with SOPS asks to stay so."""
    return isinstance(value, dict) and is_opted_out_of_decryption(annotations_of(value))


def opened_annotations(body: Mapping[str, Any], seal: Seal) -> Mapping[str, Any]:
    """Return what the annotations of the opened object will be, as far as fleet heeds them."""
    spec = body.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    if not isinstance(template, dict) or seal not in (Seal.NATIVE, Seal.BITNAMI):
        return annotations_of(body)
    # fleet's own template is flat, Bitnami's has a metadata of its own
    inner = annotations_of(template if seal is Seal.BITNAMI else {"metadata": template})
    return {**annotations_of(body), **inner}


def is_sops_file(data: bytes) -> bool:
    """Tell whether bytes are a file encrypted with SOPS, whatever its format; what opens it looks closer."""
    return all(mark in data for mark in _SOPS_MARKS) and any(mark in data for mark in _SOPS_MAC)


def _has_sops_items(body: Mapping[str, Any]) -> bool:
    data = body.get("data")
    return isinstance(data, dict) and any(is_sops_item(value) for value in data.values())


def is_sops_item(value: object) -> bool:
    """Tell whether an entry of a Secret's `data` is a file encrypted with SOPS."""
    try:
        return isinstance(value, str) and is_sops_file(base64.b64decode(value, validate=True))
    except binascii.Error:
        return False
