"""Names, labels, annotations and keys: what they may look like, in the words of the API server."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from fleet.sim.cause import Causes, invalid, too_long

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_PART: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE: Final = f"({_PART})?"
_CONFIG_KEY: Final = "[-._a-zA-Z0-9]+"
_ANNOTATIONS_LIMIT_BYTES: Final = 256 * 1024
_USED_FOR: Final = "regex used for validation is"
_LABEL_SAYS: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', {_USED_FOR} '{_LABEL}')"
)
_SUBDOMAIN_SAYS: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    f"and end with an alphanumeric character (e.g. 'example.com', {_USED_FOR} '{_SUBDOMAIN}')"
)
_PART_SAYS: Final = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', {_USED_FOR} '{_PART}')"
)
_VALUE_SAYS: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', {_USED_FOR} '{_VALUE}')"
)
_CONFIG_KEY_SAYS: Final = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    f"or 'key-name', {_USED_FOR} '{_CONFIG_KEY}')"
)

Rule = Callable[[str], list[str]]
"""What is wrong with a text, in the server's words; empty if nothing is."""


def label_faults(text: str) -> list[str]:
    """Tell what keeps a text from being a DNS label."""
    faults = [f"must be no more than {63} bytes"] if len(text) > 63 else []
    return faults if re.fullmatch(_LABEL, text) else [*faults, _LABEL_SAYS]


def dotless_faults(text: str) -> list[str]:
    """Tell what keeps a text from being the name of a Service or a Namespace."""
    return ["must not contain dots"] if "." in text and subdomain_faults(text) == [] else label_faults(text)


def subdomain_faults(text: str) -> list[str]:
    """Tell what keeps a text from being a DNS subdomain."""
    faults = ["must be no more than 253 characters"] if len(text) > 253 else []
    return faults if re.fullmatch(_SUBDOMAIN, text) else [*faults, _SUBDOMAIN_SAYS]


def segment_faults(text: str) -> list[str]:
    """Tell what keeps a text from being one segment of a path."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{mark}'" for mark in ("/", "%") if mark in text]


def key_faults(text: str) -> list[str]:
    """Tell what keeps a text from being a qualified name: an optional subdomain, a slash, a name."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        said = f"{_PART_SAYS} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return [f"a valid label key {said}"]
    faults = [f"prefix part {fault}" for fault in subdomain_faults(prefix)] if slash else []
    if not name:
        faults.append("name part must be non-empty")
    if len(name) > 63:
        faults.append("name part must be no more than 63 bytes")
    return faults if re.fullmatch(_PART, name) else [*faults, f"name part {_PART_SAYS}"]


def value_faults(text: str) -> list[str]:
    """Tell what keeps a text from being the value of a label."""
    faults = ["must be no more than 63 bytes"] if len(text) > 63 else []
    return faults if re.fullmatch(_VALUE, text) else [*faults, _VALUE_SAYS]


def config_key_faults(text: str) -> list[str]:
    """Tell what keeps a text from being a key of a ConfigMap or a Secret."""
    faults = ["must be no more than 253 bytes"] if len(text) > 253 else []
    if text in (".", ".."):
        return [*faults, f"must not be '{text}'"]
    return faults if re.fullmatch(_CONFIG_KEY, text) else [*faults, _CONFIG_KEY_SAYS]


def port_name_faults(text: str) -> list[str]:
    """Tell what keeps a text from being the name of a port."""
    faults = ["must be no more than 15 characters"] if len(text) > 15 else []
    if not re.fullmatch("[-a-z0-9]+", text):
        faults.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", text):
        faults.append("must contain at least one letter (a-z)")
    if "--" in text:
        faults.append("must not contain consecutive hyphens")
    if text[:1] == "-" or text[-1:] == "-":
        faults.append("must not begin or end with a hyphen")
    return faults


def check(field: str, value: str, rule: Rule) -> Causes:
    """Check a text by a rule."""
    for fault in rule(value):
        yield invalid(field, value, fault)


def check_labels(field: str, labels: Mapping[str, str] | None) -> Causes:
    """Check labels, keys and values."""
    for key in sorted(labels or {}):
        yield from check(field, key, key_faults)
        yield from check(field, (labels or {})[key], value_faults)


def check_annotations(field: str, annotations: Mapping[str, str] | None) -> Causes:
    """Check annotations: their keys, in lower case, and their size."""
    size = 0
    for key, value in sorted((annotations or {}).items()):
        for fault in key_faults(key.lower()):
            yield invalid(field, key, fault)
        size += len(key.encode()) + len(value.encode())
    if size > _ANNOTATIONS_LIMIT_BYTES:
        yield too_long(field, _ANNOTATIONS_LIMIT_BYTES)


def check_port(field: str, port: Any) -> Causes:
    """Check a port number."""
    if not 1 <= port <= 65535:
        yield invalid(field, port, "must be between 1 and 65535, inclusive")


def check_port_or_name(field: str, port: int | str) -> Causes:
    """Check a port given by number or by name."""
    if isinstance(port, str):
        yield from check(field, port, port_name_faults)
    else:
        yield from check_port(field, port)
