"""What of a manifest is never shown to people, whoever asks. Pure."""

from collections.abc import Callable
from typing import Any

from fleet.log import MASK
from fleet.object import GroupKind, Manifest, Seal
from fleet.render.normalize import LAST_APPLIED

SECRET = GroupKind("", "Secret")
_SHOWN = ("apiVersion", "kind", "metadata")

Hidden = Callable[[str], bool]
"""Whether the value at a path such as `.data.password` is masked."""


def hidden_of(m: Manifest) -> Hidden:
    """Say which values of an object are masked.

    Of a Secret what is in it; of another object that may hold opened values everything that is not its name.
    """
    if m.key.group_kind == SECRET:
        return lambda path: path.startswith((".data", ".stringData")) or LAST_APPLIED in path
    if m.sensitive:
        return lambda path: not path.startswith((".metadata.name", ".metadata.namespace", ".metadata.labels"))
    return lambda _path: False


def mask_body(m: Manifest, body: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest's body for people. A sealed one stays sealed; what its template gives in the clear is masked."""
    if m.seal is Seal.SOPS:
        return {name: body[name] for name in _SHOWN if name in body} | {"sops": MASK}
    if m.seal in (Seal.NATIVE, Seal.BITNAMI):
        return _mask_template(body)
    if m.key.group_kind == SECRET:
        return {name: _mask(below) if name in ("data", "stringData") else below for name, below in body.items()}
    if m.sensitive:
        shown = {name: body[name] for name in _SHOWN if name in body}
        shown["metadata"] = {n: v for n, v in body["metadata"].items() if n in ("name", "namespace", "labels")}
        return shown | {name: _mask(below) for name, below in body.items() if name not in _SHOWN}
    return body


def _mask_template(body: dict[str, Any]) -> dict[str, Any]:
    spec = body.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(template, dict) or "data" not in template:
        return body
    return {**body, "spec": {**spec, "template": {**template, "data": _mask(template["data"])}}}


def _mask(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _mask(below) for name, below in value.items()}
    return [_mask(below) for below in value] if isinstance(value, list) else MASK
