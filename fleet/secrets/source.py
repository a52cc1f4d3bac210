"""Secrets in the clear, as people have them: manifests, literals, files; and the traps in them. Pure."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fleet.document import Document
from fleet.errors import SealError
from fleet.secrets.document import Template

_DROPPED: Final = "kubectl.kubernetes.io/last-applied-configuration"
"""Holds the whole Secret in the clear."""
_LOOKS_ENCODED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A Secret that is to be sealed."""

    name: str
    namespace: str
    template: Template = field(default_factory=Template)
    items: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def is_secret(value: Any) -> bool:
    """Tell whether a decoded document is a Kubernetes Secret."""
    return isinstance(value, Mapping) and (value.get("apiVersion"), value.get("kind")) == ("v1", "Secret")


def parse_secret(document: Document) -> Draft:
    """Read a Secret manifest; `stringData` wins over `data`.

    Raises: SealError naming the line, never a value.
    """
    value = document.value
    if not is_secret(value):
        raise _wrong(document, "this is no Secret (apiVersion v1); seal Secrets only")
    metadata = value.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str):
        raise _wrong(document, "metadata.name is missing")
    annotations = _texts(document, metadata.get("annotations"), "metadata.annotations")
    template = Template(
        type=str(value.get("type") or "Opaque"),
        labels=_texts(document, metadata.get("labels"), "metadata.labels"),
        annotations={name: text for name, text in annotations.items() if name != _DROPPED},
        immutable=value["immutable"] if isinstance(value.get("immutable"), bool) else None,
    )
    data = _texts(document, value.get("data"), "data")
    items = {item: _decode(document, item, text) for item, text in data.items()}
    strings = _texts(document, value.get("stringData"), "stringData")
    items |= {item: text.encode(errors="surrogatepass") for item, text in strings.items()}
    return Draft(name=metadata["name"], namespace=str(metadata.get("namespace") or ""), template=template, items=items)


def has_values(value: Any) -> bool:
    """Tell whether a decoded Secret holds a value that is in the clear; what SOPS encrypted is not."""
    if not is_secret(value) or isinstance(value.get("sops"), Mapping):
        return False
    held = [each for name in ("data", "stringData") for each in _values(value.get(name))]
    return any(isinstance(each, str) and each and not _is_encrypted_item(each) for each in held)


def _is_encrypted_item(text: str) -> bool:
    """Tell whether a value is a file that SOPS encrypted, in base64 or not."""
    from fleet.secrets.sops import is_sops

    try:
        return is_sops(base64.b64decode(text, validate=True)) or is_sops(text.encode(errors="replace"))
    except (binascii.Error, ValueError):
        return is_sops(text.encode(errors="replace"))


def _values(mapping: Any) -> list[Any]:
    return list(mapping.values()) if isinstance(mapping, Mapping) else []


def find_traps(items: Mapping[str, bytes]) -> Iterator[str]:
    """Yield a warning for each value that is probably not what was meant; no warning holds a value.

    >>> list(find_traps({"a": b"hunter2" + bytes([10]), "b": b"aHVudGVyMg=="}))
    ['item a ends with a newline; printf or --from-literal leaves it out', 'item b looks like base64 already; it would arrive encoded']
    """
    for item, value in items.items():
        if value.endswith(b"\n") and value.count(b"\n") == 1:
            yield f"item {item} ends with a newline; printf or --from-literal leaves it out"
        if _looks_encoded(value.strip()):
            yield f"item {item} looks like base64 already; it would arrive encoded"


def _looks_encoded(value: bytes) -> bool:
    """Tell whether it is base64 of a text: chance makes few passwords that are."""
    if len(value) < _LOOKS_ENCODED or len(value) % 4 or value.isalpha() or value.isdigit():
        return False
    try:
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        return False
    return text.isprintable() or text.rstrip("\n").isprintable()


def _decode(document: Document, item: str, text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(document, f"data.{item} is not base64; text belongs under stringData") from None


def _texts(document: Document, value: Any, path: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
        raise _wrong(document, f"{path} must be a mapping of strings; put numbers and true in quotes")
    return dict(value)


def _wrong(document: Document, message: str) -> SealError:
    return SealError(f"{document.file}:{document.line}: {message}")
