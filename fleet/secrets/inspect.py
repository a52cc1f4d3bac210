"""What public data tells of a sealed file, whatever sealed it: who can open it, and what is bound to what. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.errors import SealError
from fleet.secrets import age, bitnami, sops
from fleet.secrets.bundle import Bundle
from fleet.secrets.document import is_sealed, parse_sealed
from fleet.secrets.recipient import judge

Summary = dict[str, Any]
Row = Mapping[str, Any]


def inspect_document(value: Any, bundle: Bundle) -> tuple[Summary, Sequence[Row]]:
    """Return a summary (`kind namespace name bound items`) and a row per recipient; nothing is opened.

    Raises: SealError for what is no sealed document.
    """
    if is_sealed(value):
        return _inspect_native(value, bundle)
    if bitnami.is_bitnami(value):
        return _inspect_bitnami(value)
    if sops.is_sops(value):
        return _inspect_sops(value, bundle)
    raise SealError("this is no SealedSecret of fleet or Bitnami, and no YAML or JSON file of SOPS")


def _inspect_native(value: Mapping[str, Any], bundle: Bundle) -> tuple[Summary, Sequence[Row]]:
    document = parse_sealed(value)
    bound = f"scope {document.binding}, for {document.audience}"
    rows = [
        _row(each.cluster, each.state, each.kid, f"{len(each.items)}/{len(document.values)}", stale=each.stale)
        for each in judge(bundle, document)
    ]
    return _summary("SealedSecret", document.namespace, document.name, bound, list(document.values)), rows


def _inspect_bitnami(value: Mapping[str, Any]) -> tuple[Summary, Sequence[Row]]:
    """A Bitnami value names no key: only opening tells whose it is."""
    document = bitnami.parse(value)
    bound = f"sealed by kubeseal, {document.scope}; it does not say for which key"
    return _summary("SealedSecret", document.namespace, document.name, bound, list(document.values)), []


def _inspect_sops(value: Mapping[str, Any], bundle: Bundle) -> tuple[Summary, Sequence[Row]]:
    known = {age.format_recipient(key.age_public): key for key in bundle.keys if key.age_public}
    rows = []
    for recipient in sops.list_recipients(value["sops"]):
        key = known.get(recipient)
        state = key.state.value if key else "elsewhere"
        stale = key is not None and state != "active"
        rows.append(_row(key.cluster if key else "?", state, recipient, "all", stale=stale))
    metadata = value.get("metadata")
    named = metadata if isinstance(metadata, Mapping) else {}
    place = (str(named.get("namespace", "")), str(named.get("name", "")))
    items = [item for field in ("data", "stringData") for item in _keys(value.get(field))]
    return _summary(str(value.get("kind", "file")), *place, "encrypted with SOPS, bound to no place", items), rows


def _keys(value: Any) -> list[str]:
    return [str(key) for key in value] if isinstance(value, Mapping) else []


def _summary(kind: str, namespace: str, name: str, bound: str, items: list[str]) -> Summary:
    return {"kind": kind, "namespace": namespace, "name": name, "bound": bound, "items": sorted(items)}


def _row(recipient: str, state: str, kid: str, items: str, *, stale: bool) -> Row:
    return {"recipient": recipient, "state": state, "kid": kid, "items": items, "stale": stale}
