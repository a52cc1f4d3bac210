"""One value of a file of SOPS: `ENC[AES256_GCM,...]`, opened and put into the form that the MAC is over. Pure.

Whether a value is encrypted is told from its form, not from the rules in SOPS's block (suffixes, regular expressions):
the MAC is over all values, so that neither one in the clear where it must not be nor a moved one passes.
"""

import base64
import binascii
import math
import re
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fleet.errors import SealError

_FORM: Final = re.compile(r"ENC\[AES256_GCM,data:([^,\]]+),iv:([^,\]]+),tag:([^,\]]+),type:([a-z]+)\]")
_KINDS: Final = frozenset({"str", "int", "float", "bool", "bytes", "time", "comment"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One value in document order."""

    path: tuple[str, ...]
    """Keys from the root; list indexes are not part of it."""
    text: str = field(repr=False)
    """As it stands in the file."""
    hashed: bytes = field(default=b"", repr=False)
    """What the MAC is over; of an encrypted leaf only once it is opened."""
    encrypted: bool = False
    shown: "Opened | None" = field(default=None, repr=False)
    """What takes its place; None leaves it as it is."""


class Opened(NamedTuple):
    """An opened value: its text, and what SOPS says it is."""

    text: str
    kind: str

    def __repr__(self) -> str:
        return f"Opened({self.kind})"


def is_encrypted(text: str) -> bool:
    """Tell whether a string has the form of an encrypted value."""
    return text.startswith("ENC[AES256_GCM,") and _FORM.fullmatch(text) is not None


def open_leaf(leaf: Leaf, key: bytes) -> Leaf:
    """Open a leaf; one in the clear is returned as it is.

    Raises: SealError Corrupt naming the path.
    """
    if not leaf.encrypted:
        return leaf
    opened = decrypt_text(leaf.text, key, ":".join(leaf.path) + ":", ".".join(leaf.path))
    return replace(leaf, hashed=encode_for_mac(opened), shown=opened)


def decrypt_text(text: str, key: bytes, bound: str, where: str) -> Opened:
    """Open one `ENC[...]` that is bound to `bound`.

    Raises: SealError Corrupt saying where.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise SealError(f"{where} is no encrypted value of SOPS")
    *parts, kind = match.groups()
    if kind not in _KINDS:
        raise SealError(f"{where} is encrypted as a {kind}, which fleet does not know", reason="Unsupported")
    try:
        data, iv, tag = (base64.b64decode(part, validate=True) for part in parts)
        plain = AESGCM(key).decrypt(iv, data + tag, bound.encode(errors="surrogatepass"))
        return Opened(plain.decode(errors="surrogateescape"), kind)
    except (InvalidTag, binascii.Error, ValueError, OverflowError):
        raise SealError(f"{where} was changed, or moved to another key; edit the file with sops") from None


def encode_for_mac(opened: Opened) -> bytes:
    """Return the bytes of an opened value that the MAC is over.

    Raises: SealError Corrupt for a value that is not of its kind.
    """
    text = opened.text
    match opened.kind:
        case "comment":
            return b""
        case "float":
            try:
                return format_float(float(text)).encode()
            except ValueError:
                raise SealError("an encrypted number is none") from None
        case "bool":
            return b"True" if text in ("True", "true", "TRUE", "t", "T", "1") else b"False"
        case _:
            return text.encode(errors="surrogateescape")


def format_float(value: float) -> str:
    """Write a number as Go's `strconv.FormatFloat(value, 'f', -1, 64)` does.

    >>> format_float(1e21), format_float(0.1), format_float(-3.0)
    ('1000000000000000000000', '0.1', '-3')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = format(Decimal(repr(value)), "f")
    return text.removesuffix(".0")
