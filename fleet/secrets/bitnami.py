"""Bitnami `SealedSecret` documents: opened with RSA keys, and values sealed as kubeseal does. Pure.

Source: sealed-secrets, `pkg/crypto` and `pkg/apis/sealedsecrets/v1alpha1`. A value is a 2-byte length, an RSA-OAEP
(SHA-256) wrapped session key and AES-256-GCM with a nonce of zeros, in base64. Only namespace and name are bound to it,
as the OAEP label. Templates are never executed: what holds `{{` is refused.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key

from fleet.errors import SealError
from fleet.secrets.key import Algorithm, Keyring
from fleet.secrets.layout import decode_base64, encode_base64
from fleet.secrets.opened import Opened, Scope
from fleet.secrets.plain import Plain

API_VERSION: Final = "bitnami.com/v1alpha1"
KIND: Final = "SealedSecret"
NAMESPACE_WIDE: Final = "sealedsecrets.bitnami.com/namespace-wide"
CLUSTER_WIDE: Final = "sealedsecrets.bitnami.com/cluster-wide"
MANAGED: Final = "sealedsecrets.bitnami.com/managed"
"""On the Secret: one that was there before may be taken over."""
PATCH: Final = "sealedsecrets.bitnami.com/patch"
"""On the Secret: items are added to one that was there before."""

_SESSION_BYTES: Final = 32
_TAG_BYTES: Final = 16
_NONCE: Final = bytes(12)  # the key is used once


@dataclass(frozen=True, slots=True, kw_only=True)
class BitnamiSecret:
    """A document as it stands in Git; still sealed."""

    namespace: str
    name: str
    scope: str
    """`strict`, `namespace-wide` or `cluster-wide`, as the document's own annotations say."""
    values: Mapping[str, bytes]
    """Item -> sealed value, decoded from base64."""
    type: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    immutable: bool | None
    literals: Mapping[str, str] = field(repr=False)
    """Items that the template gives in the clear."""


@dataclass(frozen=True, slots=True)
class BitnamiKey:
    """A private key that was read once; opening with it releases the interpreter for others."""

    kid: str
    private: RSAPrivateKey = field(repr=False)


def is_bitnami(body: Any) -> bool:
    """Tell whether a decoded document is one of these."""
    return (
        isinstance(body, Mapping)
        and str(body.get("apiVersion", "")).partition("/")[0] == "bitnami.com"
        and body.get("kind") == KIND
    )


def parse(body: bytes | Mapping[str, Any]) -> BitnamiSecret:
    """Read a document from canonical JSON, or from its decoded form.

    Raises: SealError Corrupt naming the field, Unsupported for what fleet does not do (v1 `spec.data`, templates).
    """
    root = _load(body)
    if not is_bitnami(root):
        raise SealError(f"this is no {KIND} of {API_VERSION}")
    metadata, spec = _mapping(root, "metadata"), _mapping(root, "spec")
    if spec.get("data"):
        raise _unsupported("spec.data is the form before 0.9; seal it again with kubeseal, item by item")
    template = _mapping(spec, "template", optional=True)
    shape = _mapping(template, "metadata", optional=True, path="spec.template.metadata")
    if shape.get("finalizers"):
        raise _unsupported("spec.template.metadata.finalizers would keep the Secret from going; take them out")
    annotations = _texts(metadata, "annotations", "metadata.annotations")
    sealed = _texts(spec, "encryptedData", "spec.encryptedData")
    return BitnamiSecret(
        namespace=_text(metadata, "namespace", "metadata.namespace"),
        name=_text(metadata, "name", "metadata.name", required=True),
        scope=read_scope(annotations),
        values={item: decode_base64(value, f"spec.encryptedData.{item}") for item, value in sealed.items()},
        type=_text(template, "type", "spec.template.type") or "Opaque",
        labels=_texts(shape, "labels", "spec.template.metadata.labels"),
        annotations=_texts(shape, "annotations", "spec.template.metadata.annotations"),
        immutable=_flag(template, "immutable", "spec.template.immutable"),
        literals=_literals(template),
    )


def read_scope(annotations: Mapping[str, str]) -> str:
    """Return the scope that annotations ask for; exactly "true" counts, and the widest wins.

    >>> read_scope({NAMESPACE_WIDE: "true", CLUSTER_WIDE: "yes"})
    'namespace-wide'
    """
    if annotations.get(CLUSTER_WIDE) == "true":
        return "cluster-wide"
    return "namespace-wide" if annotations.get(NAMESPACE_WIDE) == "true" else "strict"


def make_label(scope: str, namespace: str, name: str) -> bytes:
    """Return the OAEP label: what a value of this scope is bound to.

    >>> make_label("strict", "shop", "db"), make_label("namespace-wide", "shop", "db"), make_label("cluster-wide", "", "")
    (b'shop/db', b'shop', b'')
    """
    return {"strict": f"{namespace}/{name}", "namespace-wide": namespace, "cluster-wide": ""}[scope].encode()


def load_keys(keyring: Keyring, cluster: str) -> list[BitnamiKey]:
    """Read the RSA keys of a cluster that may open, newest first.

    Raises: SealError UnknownKey when there is none.
    """
    keys = keyring.usable(cluster, Algorithm.RSA)
    if not keys:
        raise SealError(
            f"cluster {cluster} has no RSA key that may open; fleet keys import takes those of its controller",
            reason="UnknownKey",
        )
    return [BitnamiKey(each.public.kid, load_private_key(each.secret)) for each in keys]


def load_private_key(der: bytes) -> RSAPrivateKey:
    """Read a PKCS#8 RSA key of the store, which was checked when it came in: again would hold every thread for 0.2 s.

    Raises: SealError Corrupt.
    """
    try:
        key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError):
        raise SealError("an RSA key in the store is not readable; restore it from a backup") from None
    if not isinstance(key, RSAPrivateKey):
        raise SealError("a key in the store is not an RSA key")
    return key


def open_(sealed: BitnamiSecret, scope: Scope, keyring: Keyring) -> Opened:
    """Open every item of a document at one place. Costs 3 ms of one core per item: call it in a thread.

    Raises: SealError UnknownKey, ScopeMismatch, Corrupt.
    """
    return open_with(sealed, scope, load_keys(keyring, scope.cluster))


def open_with(sealed: BitnamiSecret, scope: Scope, keys: Sequence[BitnamiKey]) -> Opened:
    """Open every item with keys that were read already; what opened the last item is tried first for the next.

    Raises: SealError UnknownKey, ScopeMismatch, Corrupt.
    """
    order = list(keys)
    label = make_label(sealed.scope, scope.namespace, scope.name)
    items: dict[str, Plain] = {}
    kids: dict[str, str] = {}
    for item, value in sealed.values.items():
        for key in order:
            plain = _try_open(value, key.private, label, item)
            if plain is not None:
                items[item], kids[item] = Plain(plain), key.kid
                order.sort(key=lambda each, first=key: each is not first)  # type: ignore[misc]
                break
        else:
            raise _explain(sealed, scope, item, keys)
    items |= {item: Plain(text.encode()) for item, text in sealed.literals.items()}
    return Opened(
        type=sealed.type,
        labels=sealed.labels,
        annotations=sealed.annotations,
        immutable=sealed.immutable,
        items=items,
        kids={**kids, **dict.fromkeys(sealed.literals, "")},
    )


def seal_value(plain: bytes, public: RSAPublicKey, label: bytes) -> str:
    """Seal one value as kubeseal does; the form that stands in `spec.encryptedData`."""
    session = os.urandom(_SESSION_BYTES)
    wrapped = public.encrypt(session, _oaep(label))
    return encode_base64(len(wrapped).to_bytes(2, "big") + wrapped + AESGCM(session).encrypt(_NONCE, plain, None))


def open_value(value: bytes, private: RSAPrivateKey, label: bytes) -> bytes:
    """Open one value with one key.

    Raises: SealError UnknownKey when the key or the label does not fit, Corrupt.
    """
    plain = _try_open(value, private, label, "value")
    if plain is None:
        raise SealError("this key does not open the value in this scope", reason="UnknownKey")
    return plain


def _try_open(value: bytes, private: RSAPrivateKey, label: bytes, item: str) -> bytes | None:
    """Return the value; None when the key or the label does not fit."""
    wrapped, ciphertext = _split(value, item)
    if len(wrapped) * 8 != (private.key_size + 7) // 8 * 8:
        return None
    try:
        session = private.decrypt(wrapped, _oaep(label))
    except ValueError:
        return None
    try:
        return AESGCM(session).decrypt(_NONCE, ciphertext, None)
    except (InvalidTag, ValueError):
        raise SealError(f"item {item} was changed or cut after it was sealed; seal it again") from None


def _split(value: bytes, item: str) -> tuple[bytes, bytes]:
    size = int.from_bytes(value[:2], "big")
    if len(value) < 2 + size + _TAG_BYTES or size < 128:
        raise SealError(f"item {item} is too short for a sealed value; seal it again")
    return value[2 : 2 + size], value[2 + size :]


def _oaep(label: bytes) -> padding.OAEP:
    return padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=label)


# --- why it does not open ----------------------------------------------------------------------------------------


def _explain(sealed: BitnamiSecret, scope: Scope, item: str, keys: Sequence[BitnamiKey]) -> SealError:
    """Tell a wrong scope from a wrong key, which the format itself does not."""
    wrapped, _ = _split(sealed.values[item], item)
    for key in keys:
        digest = _read_label_digest(wrapped, key.private)
        if digest is None:
            continue
        for other in ("strict", "namespace-wide", "cluster-wide"):
            if hashlib.sha256(make_label(other, scope.namespace, scope.name)).digest() == digest:
                return _mismatch(item, f"it is sealed {other}, the document's annotations say {sealed.scope}")
        return _mismatch(item, f"it is sealed for another namespace or name than {scope}")
    tried = ", ".join(key.kid for key in keys)
    return SealError(
        f"item {item} opens with none of the RSA keys of {scope.cluster} ({tried}); it is sealed for another key, or"
        f" was changed: import the key, or seal it again",
        reason="UnknownKey",
    )


def _mismatch(item: str, why: str) -> SealError:
    return SealError(f"item {item}: {why}; seal it for where it is used", reason="ScopeMismatch")


def _read_label_digest(wrapped: bytes, private: RSAPrivateKey) -> bytes | None:
    """Return the digest of the label that a value was sealed under; None if it was sealed for another key.

    Only a whole, well-formed OAEP block of the right length counts, so the answer tells nothing about a block that
    somebody made up: it is no padding oracle.
    Source: RFC 8017, 7.1.2.
    """
    numbers = private.private_numbers()
    size = (private.key_size + 7) // 8
    number = int.from_bytes(wrapped, "big")
    if len(wrapped) != size or number >= numbers.public_numbers.n:
        return None
    block = _decrypt_raw(number, numbers).to_bytes(size, "big")
    seed = _xor(block[1:33], _mask(block[33:], 32))
    data = _xor(block[33:], _mask(seed, size - 33))
    filler = bytes(size - 33 - 32 - 1 - _SESSION_BYTES)
    return data[:32] if block[0] == 0 and data[32:-_SESSION_BYTES] == filler + b"\x01" else None


def _decrypt_raw(number: int, key: RSAPrivateNumbers) -> int:
    """RSA without padding, which the library rightly does not offer; blinded, so that its time tells nothing."""
    public = key.public_numbers
    factor = int.from_bytes(os.urandom((public.n.bit_length() + 7) // 8), "big") % (public.n - 2) + 2
    blinded = number * pow(factor, public.e, public.n) % public.n
    first, second = _power(blinded, key.dmp1, key.p), _power(blinded, key.dmq1, key.q)
    return (second + key.q * ((first - second) * key.iqmp % key.p)) * pow(factor, -1, public.n) % public.n


def _power(base: int, exponent: int, modulus: int) -> int:
    """As `pow`, but in steps: `pow` would hold the interpreter, and with it the event loop, for 20 ms."""
    result = 1
    for bit in f"{exponent:b}":
        result = result * result % modulus
        if bit == "1":
            result = result * base % modulus
    return result


def _mask(seed: bytes, size: int) -> bytes:
    blocks = (hashlib.sha256(seed + i.to_bytes(4, "big")).digest() for i in range((size + 31) // 32))
    return b"".join(blocks)[:size]


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


# --- reading -----------------------------------------------------------------------------------------------------


def _load(body: bytes | Mapping[str, Any]) -> Any:
    if isinstance(body, Mapping):
        return body
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise SealError("the document is no JSON") from None


def _mapping(parent: Mapping[str, Any], name: str, *, optional: bool = False, path: str = "") -> Mapping[str, Any]:
    value = parent.get(name)
    if value is None and optional:
        return {}
    if not isinstance(value, Mapping):
        raise SealError(f"{path or name} must be a mapping")
    return value


def _text(parent: Mapping[str, Any], name: str, path: str, *, required: bool = False) -> str:
    value = parent.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise SealError(f"{path} must be a string")
    return value


def _texts(parent: Mapping[str, Any], name: str, path: str) -> dict[str, str]:
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for pair in value.items() for each in pair):
        raise SealError(f"{path} must be a mapping of strings")
    return dict(value)


def _flag(parent: Mapping[str, Any], name: str, path: str) -> bool | None:
    value = parent.get(name)
    if value is not None and not isinstance(value, bool):
        raise SealError(f"{path} must be true or false")
    return value


def _literals(template: Mapping[str, Any]) -> dict[str, str]:
    """Return the template's items; text of the template language is refused, never run."""
    literals = _texts(template, "data", "spec.template.data")
    for item, text in literals.items():
        if "{{" in text:
            raise _unsupported(
                f"spec.template.data.{item} is a template to execute, which fleet never does; seal the result"
            )
    return literals


def _unsupported(message: str) -> SealError:
    return SealError(message, reason="Unsupported")
