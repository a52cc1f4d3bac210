"""`kind: SealedSecret` of `fleet/v1`: the document as it stands in Git, read and written. Pure; nothing is opened here.

One value, one wrapped key and one recipient is one line each, so that a diff shows what changed.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from fleet.errors import SealError
from fleet.secrets.layout import decode_base64, encode_base64, write_yaml

API_VERSION: Final = "fleet/v1"
KIND: Final = "SealedSecret"
ALGORITHM: Final = "x25519-xsalsa20poly1305"
"""How data keys are wrapped: libsodium's sealed boxes."""
AGE_PREFIX: Final = "age1"
"""Begins the name of a recipient that holds an age identity instead of a cluster's key."""

_KID: Final = re.compile(r"[0-9a-f]{20}|age1[02-9ac-hj-np-z]{58}")
_ITEM: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_WORD: Final = re.compile(r"[a-z0-9]{1,32}")
_VALUE: Final = "fs1"


class Binding(StrEnum):
    """What a value is bound to, beside its recipients."""

    STRICT = "strict"
    """Audience, namespace, name and item."""
    SECRET = "secret"  # noqa: S105  # the kind of object, not one
    """Namespace and name: items may be renamed, and environments share the value."""
    NAMESPACE = "namespace"
    """Only the namespace."""
    ENVIRONMENT = "environment"
    """Only the audience."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """For whom a document is: one environment, one cluster, or (both empty) whoever is a recipient."""

    environment: str = ""
    cluster: str = ""

    def __str__(self) -> str:
        if self.cluster:
            return f"cluster/{self.cluster}"
        return f"environment/{self.environment}" if self.environment else "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey:
    """One key that values are encrypted with, wrapped once per recipient."""

    id: str
    commit: bytes
    """32 bytes that only this very key has: all recipients get one and the same."""
    wraps: Mapping[str, bytes]
    """kid (or `age1...`) -> wrapped key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One sealed item."""

    key_id: str
    place: bytes
    """8 bytes under the data key that say for which place it was sealed, so that a move and damage can be told apart."""
    nonce: bytes
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What the Secret has beside its values."""

    type: str = "Opaque"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    immutable: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A whole document."""

    namespace: str
    name: str
    binding: Binding = Binding.STRICT
    audience: Audience = field(default_factory=Audience)
    sealed_as: str = ""
    """`namespace/name` at the time of sealing. Only a hint for messages."""
    recipients: Mapping[str, str] = field(default_factory=dict)
    """kid -> cluster, for people and messages; nothing is decided by it."""
    template: Template = field(default_factory=Template)
    keys: Mapping[str, DataKey] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the document itself, as are the annotations."""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def clusters(self) -> list[str]:
        """The names of the recipients as the document gives them, sorted."""
        return sorted(set(self.recipients.values()))

    def compact(self) -> "Sealed":
        """Leave out data keys that no value uses and recipients that no data key is wrapped for."""
        used = {value.key_id for value in self.values.values()}
        keys = {id_: key for id_, key in self.keys.items() if id_ in used}
        wrapped = {kid for key in keys.values() for kid in key.wraps}
        return replace(self, keys=keys, recipients={k: v for k, v in self.recipients.items() if k in wrapped})


def is_sealed(body: Any) -> bool:
    """Tell whether a decoded document is one of these."""
    return isinstance(body, Mapping) and body.get("apiVersion") == API_VERSION and body.get("kind") == KIND


def parse_sealed(body: bytes | Mapping[str, Any]) -> Sealed:
    """Read a document from canonical JSON, or from its decoded form.

    Raises: SealError Corrupt naming the field.
    """
    root = _load(body)
    if not is_sealed(root):
        raise SealError(f"this is no {KIND} of {API_VERSION}")
    metadata = _Node(root, "").mapping("metadata")
    spec = _Node(root, "").mapping("spec")
    spec.only("scope", "audience", "sealedAs", "recipients", "template", "dataKeys", "values")
    sealed = Sealed(
        namespace=metadata.text("namespace", ""),
        name=metadata.text("name"),
        labels=metadata.texts("labels"),
        annotations=metadata.texts("annotations"),
        binding=_parse_binding(spec.text("scope", Binding.STRICT.value)),
        audience=_parse_audience(spec.text("audience", "*")),
        sealed_as=spec.text("sealedAs", ""),
        recipients=spec.texts("recipients"),
        template=_parse_template(spec.mapping("template", optional=True)),
        keys={key.id: key for key in map(_parse_key, spec.list("dataKeys"))},
        values={item: _parse_value(item, text) for item, text in spec.texts("values").items()},
    )
    for item, value in sealed.values.items():
        if value.key_id not in sealed.keys:
            raise SealError(f"item {item} uses the data key {value.key_id}, which the document does not hold")
    return sealed


def encode_sealed(sealed: Sealed) -> dict[str, Any]:
    """Return the decoded form, in the order in which it is written."""
    metadata: dict[str, Any] = {"name": sealed.name}
    if sealed.namespace:
        metadata["namespace"] = sealed.namespace
    metadata |= _given(labels=dict(sealed.labels), annotations=dict(sealed.annotations))
    template = sealed.template
    spec: dict[str, Any] = {
        "scope": sealed.binding.value,
        "audience": str(sealed.audience),
        "sealedAs": sealed.sealed_as,
        "recipients": dict(sorted(sealed.recipients.items(), key=lambda pair: (pair[1], pair[0]))),
        "template": {
            "type": template.type,
            **_given(labels=dict(template.labels), annotations=dict(template.annotations)),
            **({} if template.immutable is None else {"immutable": template.immutable}),
        },
        "dataKeys": [_encode_key(key, sealed.recipients) for key in sealed.keys.values()],
        "values": {item: _encode_value(value) for item, value in sorted(sealed.values.items())},
    }
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def write_sealed(sealed: Sealed) -> str:
    """Return the YAML text that is committed; equal documents give equal text."""
    return write_yaml(encode_sealed(sealed))


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


# --- parts -------------------------------------------------------------------------------------------------------


def _load(body: bytes | Mapping[str, Any]) -> Any:
    if isinstance(body, Mapping):
        return body
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise SealError("the document is no JSON") from None


class _Node:
    """A mapping of the document that says where it stands when something in it is wrong."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise SealError(f"{path.rstrip('.') or 'the document'} must be a mapping")
        self._value = value
        self._path = path

    def only(self, *names: str) -> None:
        """Refuse fields that no version of the format has."""
        for name in self._value:
            if name not in names:
                raise SealError(
                    f"{self._path}{name} is no field of this format; this fleet may be too old for the document"
                )

    def mapping(self, name: str, *, optional: bool = False) -> "_Node":
        """Return the mapping in a field; an empty one if it may be absent."""
        value = self._value.get(name)
        return _Node({} if value is None and optional else value, f"{self._path}{name}.")

    def list(self, name: str) -> list["_Node"]:
        """Return the mappings in a list."""
        value = self._value.get(name)
        if not isinstance(value, list):
            raise SealError(f"{self._path}{name} must be a list")
        return [_Node(each, f"{self._path}{name}[{i}].") for i, each in enumerate(value)]

    def text(self, name: str, default: str | None = None) -> str:
        """Return the string in a field."""
        value = self._value.get(name, default)
        if not isinstance(value, str):
            raise SealError(f"{self._path}{name} must be a string")
        return value

    def flag(self, name: str) -> bool | None:
        """Return true, false, or None where nothing is said."""
        value = self._value.get(name)
        if value is not None and not isinstance(value, bool):
            raise SealError(f"{self._path}{name} must be true or false")
        return value

    def texts(self, name: str) -> dict[str, str]:
        """Return a mapping of strings; an empty one where it is absent."""
        value = self._value.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(each, str) for pair in value.items() for each in pair):
            raise SealError(f"{self._path}{name} must be a mapping of strings")
        return dict(value)


def _parse_binding(text: str) -> Binding:
    try:
        return Binding(text)
    except ValueError:
        raise SealError(f"spec.scope must be one of {', '.join(Binding)}, not {text!r}") from None


def _parse_audience(text: str) -> Audience:
    kind, _, name = text.partition("/")
    if text == "*":
        return Audience()
    if not name or kind not in ("environment", "cluster"):
        raise SealError("spec.audience must be environment/NAME, cluster/NAME or *")
    return Audience(environment=name) if kind == "environment" else Audience(cluster=name)


def _parse_template(node: _Node) -> Template:
    node.only("type", "labels", "annotations", "immutable")
    return Template(
        type=node.text("type", "Opaque"),
        labels=node.texts("labels"),
        annotations=node.texts("annotations"),
        immutable=node.flag("immutable"),
    )


def _parse_key(node: _Node) -> DataKey:
    node.only("id", "alg", "commit", "wraps")
    id_ = node.text("id")
    if not _WORD.fullmatch(id_):
        raise SealError("the id of a data key must be up to 32 small letters and digits")
    if node.text("alg", ALGORITHM) != ALGORITHM:
        raise SealError(
            f"data key {id_} is wrapped by an algorithm that this fleet does not know", reason="Unsupported"
        )
    commit = decode_base64(node.text("commit"), f"the commitment of data key {id_}")
    if len(commit) != 32:
        raise SealError(f"the commitment of data key {id_} must be 32 bytes")
    wraps = {}
    for kid, text in node.texts("wraps").items():
        if not _KID.fullmatch(kid):
            raise SealError(f"data key {id_} has a recipient whose name is no key id and no age recipient")
        wraps[kid] = decode_base64(text, f"the wrap of data key {id_} for {kid}")
    return DataKey(id=id_, commit=commit, wraps=wraps)


def _encode_key(key: DataKey, recipients: Mapping[str, str]) -> dict[str, Any]:
    order = sorted(key.wraps, key=lambda kid: (recipients.get(kid, ""), kid))
    return {
        "id": key.id,
        "alg": ALGORITHM,
        "commit": encode_base64(key.commit),
        "wraps": {kid: encode_base64(key.wraps[kid]) for kid in order},
    }


def _parse_value(item: str, text: str) -> Value:
    if not _ITEM.fullmatch(item):
        raise SealError("an item's name must be 1 to 253 letters, digits, dots, dashes and underscores")
    form, *parts = text.split(":")
    if form != _VALUE or len(parts) != 4:
        raise SealError(f"item {item} is not of the form {_VALUE}:KEY:PLACE:NONCE:CIPHERTEXT")
    place, nonce, ciphertext = (decode_base64(part, f"item {item}") for part in parts[1:])
    return Value(key_id=parts[0], place=place, nonce=nonce, ciphertext=ciphertext)


def _encode_value(value: Value) -> str:
    return ":".join([_VALUE, value.key_id, *map(encode_base64, (value.place, value.nonce, value.ciphertext))])
