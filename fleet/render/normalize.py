"""Desired objects brought into the one form that is hashed, compared and applied. Pure.

What the API server would drop, fill in or write differently is settled here, so that equal intent is equal bytes, and
what it would refuse only after half of a commit is applied is refused before any of it is.

Dropped: `status`, what the server sets in `metadata`, nulls, and empty lists that the server merges (`schema`). Every
other empty list or map stays: `ingress: []`, `podSelector: {}` and `emptyDir: {}` all say something.
"""

import base64
import binascii
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, assert_never, cast

import msgspec

from fleet.annotation import parse_flags
from fleet.document import Path
from fleet.object import GroupKind, Manifest, ObjectKey, Origin, Seal, encode_canonical, parse_gvk
from fleet.render import schema, scope
from fleet.render.quantity import canonicalize_quantity
from fleet.render.schema import Bundle, Encoded, Items, Quantities, Quantity, Shape, Struct, Text, Texts
from fleet.render.sealed import NATIVE, SOPS, UNSET, Sealing, find_seal, is_opted_out, opened_annotations, opened_gvk

SERVER_SET = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
"""Fields of `metadata` that only the API server writes."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
DEFAULT_NAMESPACE = "default"
MOST_LIST_DEPTH = 5


class Fault(NamedTuple):
    """Something wrong at a place of one document; `first` is the place it clashes with."""

    path: Path
    message: str
    first: Path | None = None


class _Drop:
    """The value is left out."""


_DROP = _Drop()


def flatten(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield each object of a document with its path in it: `List` and `*List` kinds stand for their items."""
    if not _is_list(value) or len(path) >= 2 * MOST_LIST_DEPTH:
        yield path, value
        return
    for index, item in enumerate(value["items"]):
        yield from flatten(_inherit(item, value), (*path, "items", index))


def _is_list(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("items"), list):
        return False
    metadata = value.get("metadata")
    named = isinstance(metadata, dict) and "name" in metadata
    return str(value.get("kind")).endswith("List") and not named


def _inherit(item: Any, parent: Mapping[str, Any]) -> Any:
    """Items of a typed list may leave out what the list's kind says."""
    kind = str(parent["kind"]).removesuffix("List")
    if not kind or not isinstance(item, dict) or "kind" in item:
        return item
    return {"apiVersion": parent.get("apiVersion"), "kind": kind, **item}


def check_identity(value: Any, sealing: Sealing = UNSET) -> list[Fault]:
    """Return what keeps a document from being an object at all."""
    if not isinstance(value, dict):
        return [Fault((), "a Kubernetes object is a mapping; this is not")]
    faults = [
        Fault((name,), "is missing" if value.get(name) is None else "must be text")
        for name in ("apiVersion", "kind")
        if not isinstance(value.get(name), str) or not value[name]
    ]
    metadata = value.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        return [*faults, Fault(("metadata",), "metadata must be a mapping")]
    metadata = metadata or {}
    name = metadata.get("name")
    if name is not None and not isinstance(name, str):
        faults.append(Fault(("metadata", "name"), "the name must be text; put it in quotes"))
    elif not name and metadata.get("generateName"):
        message = "generateName makes a new object at every apply; give it a name"
        faults.append(Fault(("metadata", "generateName"), message))
    elif not name:
        faults.append(Fault(("metadata", "name"), "is missing"))
    if not isinstance(metadata.get("namespace", ""), str | None):
        faults.append(Fault(("metadata", "namespace"), "the namespace must be text; put it in quotes"))
    return faults or _check_foreign(value, sealing)


def _check_foreign(value: Mapping[str, Any], sealing: Sealing) -> list[Fault]:
    """Return why an object of another tool's configuration does not belong among manifests."""
    group = value["apiVersion"].rpartition("/")[0]
    kind = value["kind"]
    if group == "fleet" and kind != NATIVE.kind:
        return [Fault((), f"{kind} is a document of the inventory directory, not a manifest of an app")]
    if group == "kustomize.config.k8s.io":
        return [Fault((), f"{kind} configures Kustomize; it is read only from a file named kustomization.yaml")]
    if isinstance(value.get(SOPS), dict) and not sealing.sops and not is_opted_out(value):
        message = "the object is encrypted with SOPS; give its App `decryption: {provider: sops}` to have it opened"
        return [Fault((SOPS,), message)]
    return []


def check_plain_metadata(value: Mapping[str, Any]) -> list[Fault]:
    """Return a fault if even the metadata of an object is encrypted: who it is must be known before it is opened."""
    if "ENC[AES256_GCM" not in str(value):
        return []
    message = "is encrypted; encrypt only values: sops encrypt --encrypted-regex '^(data|stringData)$'"
    return [Fault(("metadata",), message)]


def normalize(value: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Return an object that `check_identity` passed in its one form, or as it is with what is wrong inside it.

    `value` is not changed. Normalising twice changes nothing.
    """
    kind = parse_gvk(value["apiVersion"], value["kind"]).group_kind
    faults: list[Fault] = []
    shaped = _Walk(faults).struct(schema.find_shape(kind), value, ())
    if faults:
        return dict(value), faults
    body = cast("dict[str, Any]", _without_nulls(shaped))
    body.pop("status", None)
    _normalize_metadata(body)
    if kind == GroupKind("", "Secret"):
        _encode_string_data(body)
    if body.get("aggregationRule") is not None and body.get("rules") == []:
        del body["rules"]  # a controller fills them in; applying [] would empty them at every repair
    return body, faults


def _normalize_metadata(body: dict[str, Any]) -> None:
    metadata = {name: value for name, value in body["metadata"].items() if name not in SERVER_SET}
    annotations = metadata.get("annotations")
    if annotations and LAST_APPLIED in annotations:
        metadata["annotations"] = {name: text for name, text in annotations.items() if name != LAST_APPLIED}
        if not metadata["annotations"]:
            del metadata["annotations"]
    if metadata.get("namespace") == "":
        del metadata["namespace"]
    body["metadata"] = metadata


def _encode_string_data(body: dict[str, Any]) -> None:
    """Server-side apply would never remove a key again that was once given as `stringData`."""
    texts = body.pop("stringData", None)
    if texts:
        encoded = {name: base64.b64encode(str(text).encode()).decode() for name, text in texts.items()}
        body["data"] = {**(body.get("data") or {}), **encoded}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(below) for name, below in value.items() if below is not None}
    return [_without_nulls(below) for below in value] if isinstance(value, list) else value


_MAPPINGS = (Struct, Texts, Encoded, Quantities)


class _Walk:
    """Applies a shape to a value, recording what does not fit."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults

    def any(self, shape: Shape, value: Any, path: Path) -> Any:
        wanted = "a list" if isinstance(shape, Items) else "a mapping" if isinstance(shape, _MAPPINGS) else ""
        if wanted and wanted != _describe(value):
            self._faults.append(Fault(path, f"{_describe(value)} where Kubernetes wants {wanted}"))
            return value
        match shape:
            case Struct():
                return self.struct(shape, value, path)
            case Items():
                return self._items(shape, value, path)
            case Texts():
                return self._texts(shape, value, path)
            case Quantities():
                return self._map(self._quantity, value, path)
            case Encoded():
                return self._map(self._encoded, value, path)
            case Quantity():
                return self._quantity(value, path)
            case Text():
                return self._text(value, path)
            case Bundle():
                return _DROP if value in ("", "Cg==") else value
            case _:
                assert_never(shape)

    def struct(self, shape: Struct, value: Mapping[str, Any], path: Path) -> dict[str, Any]:
        made = {**shape.defaults, **value} if shape.defaults else dict(value)
        for name, default in shape.defaults.items():
            if made[name] in (None, ""):
                made[name] = default
        for name, below in shape.fields.items():
            if made.get(name) is not None:
                made[name] = self.any(below, made[name], (*path, name))
                if made[name] is _DROP:
                    del made[name]
        return made

    def _items(self, shape: Items, value: list[Any], path: Path) -> Any:
        if shape.keys and not value:
            return _DROP
        of = shape.of
        items = [self.any(of, item, (*path, index)) for index, item in enumerate(value)] if of else value
        if shape.keys:
            self._check_keys(shape.keys, items, path)
        return items

    def _check_keys(self, keys: tuple[str, ...], items: list[Any], path: Path) -> None:
        seen: dict[tuple[str, ...], int] = {}
        for index, item in enumerate(items):
            entry = _entry_key(keys, item)
            if entry is None:
                continue
            if entry in seen:
                message = f"the entry {', '.join(entry)} is given twice, which the API server refuses"
                self._faults.append(Fault((*path, index), message, (*path, seen[entry])))
            seen.setdefault(entry, index)

    def _map(self, each: Callable[[Any, Path], Any], value: Mapping[str, Any], path: Path) -> dict[str, Any]:
        return {name: each(below, (*path, name)) for name, below in value.items() if below is not None}

    def _texts(self, shape: Texts, value: Mapping[str, Any], path: Path) -> Any:
        if shape.droppable and not value:
            return _DROP
        return {name: self._text("" if text is None else text, (*path, name)) for name, text in value.items()}

    def _text(self, value: Any, path: Path) -> Any:
        if not isinstance(value, str) and value is not None:
            self._faults.append(Fault(path, f"{_describe(value)} where Kubernetes wants text; put it in quotes"))
        return value

    def _quantity(self, value: Any, path: Path) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self._faults.append(Fault(path, f"{_describe(value)} where Kubernetes wants a quantity"))
            return value
        text = value if isinstance(value, str) else _write_number(value)
        canonical = canonicalize_quantity(text)
        if canonical is None:
            self._faults.append(Fault(path, f"{text!r} is not a quantity such as 500m, 2 or 1Gi"))
        return canonical or value

    def _encoded(self, value: Any, path: Path) -> Any:
        try:
            text = "".join(value.split("\n")).replace("\r", "")
            base64.b64decode(text, validate=True)
        except (AttributeError, binascii.Error, ValueError):
            # the value itself is never shown: it is a secret, however badly written
            self._faults.append(Fault(path, "not base64; write plain text under stringData"))
            return value
        return text


def _entry_key(keys: tuple[str, ...], item: Any) -> tuple[str, ...] | None:
    if keys == schema.SET:
        return (item,) if isinstance(item, str) else None
    if not isinstance(item, dict) or any(item.get(key) is None for key in keys):
        return None
    return tuple(f"{key}={item[key]}" for key in keys)


def _describe(value: Any) -> str:
    if isinstance(value, bool):
        return f"the word {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {_write_number(value)}"
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else "text"


def _write_number(value: float) -> str:
    """Write a number as Go's JSON does, close enough for a quantity.

    >>> _write_number(0.5), _write_number(2), _write_number(1e-07)
    ('0.5', '2', '1e-07')
    """
    return repr(value)


def digest_body(body: bytes, digest_key: bytes) -> bytes:
    """Return the keyed digest of a canonical body."""
    return hashlib.blake2b(body, digest_size=16, key=digest_key).digest()


def make_manifest(
    body: Mapping[str, Any],
    *,
    namespace: str,
    scopes: Mapping[GroupKind, bool],
    digest_key: bytes,
    origin: Origin,
    sealing: Sealing = UNSET,
) -> Manifest:
    """Return the manifest of a normalised body; a sealed one goes by the key of what it opens to.

    `namespace` is for namespaced objects that name none. `scopes` are those of CRDs beside it; a custom kind that
    neither they nor its own namespace tells about is not `scoped`.
    """
    seal = find_seal(body, sealing)
    gvk = opened_gvk(parse_gvk(body["apiVersion"], body["kind"]), seal)
    metadata: Mapping[str, Any] = body["metadata"]
    named = metadata.get("namespace", "")
    namespaced = scope.BUILT_IN.get(gvk.group_kind, scopes.get(gvk.group_kind))
    where = named if namespaced is None else (named or namespace or DEFAULT_NAMESPACE) if namespaced else ""
    encoded = encode_canonical(_place(body, where) if where != named else body)
    return Manifest(
        key=ObjectKey(gvk.group, gvk.kind, where, metadata["name"]),
        version=gvk.version,
        body=encoded,
        digest=digest_body(encoded, digest_key),
        flags=parse_flags(opened_annotations(body, seal)),
        origin=origin,
        sensitive=gvk.group_kind == GroupKind("", "Secret") and seal in (Seal.NONE, Seal.SOPS_ITEMS),
        scoped=namespaced is not None or bool(named),
        seal=seal,
    )


def with_namespace(manifest: Manifest, namespace: str, digest_key: bytes) -> Manifest:
    """Return the manifest in `namespace` (empty: cluster-scoped), once discovery has told the scope of its kind."""
    body = encode_canonical(_place(msgspec.json.decode(manifest.body), namespace))
    return dataclasses.replace(
        manifest,
        key=manifest.key._replace(namespace=namespace),
        body=body,
        digest=digest_body(body, digest_key),
        scoped=True,
    )


def _place(body: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    metadata = {name: value for name, value in body["metadata"].items() if name != "namespace"}
    if namespace:
        metadata["namespace"] = namespace
    return {**body, "metadata": metadata}
