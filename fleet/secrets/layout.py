"""How documents of ours are written: one line per value, equal values giving equal text. Pure."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from fleet.errors import SealError


def write_yaml(value: Mapping[str, Any]) -> str:
    """Write mappings, lists of mappings and scalars as YAML that every reader takes for the same.

    >>> print(write_yaml({"a": {"b": "yes", "c": []}, "d": [{"e": "x/y", "f": 1}]}), end="")
    a:
      b: "yes"
      c: []
    d:
      - e: x/y
        f: 1
    """
    lines: list[str] = []
    _write(value, "", lines)
    return "\n".join([*lines, ""])


def _write(value: Mapping[str, Any], indent: str, lines: list[str]) -> None:
    for key, below in value.items():
        if isinstance(below, Mapping) and below:
            lines.append(f"{indent}{_scalar(key)}:")
            _write(below, indent + "  ", lines)
        elif isinstance(below, list) and below:
            lines.append(f"{indent}{_scalar(key)}:")
            for entry in below:
                start = len(lines)
                _write(entry, indent + "    ", lines)
                lines[start] = f"{indent}  - {lines[start].lstrip()}"
        else:
            lines.append(f"{indent}{_scalar(key)}: {_scalar(below)}")


def _scalar(value: Any) -> str:
    """Write what every YAML reader takes for the same value: bare words only where no reader sees more in them."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./:+=-]*(?<!:)", value) and not _ambiguous(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _ambiguous(word: str) -> bool:
    return (
        word.lower() in {"y", "n", "yes", "no", "true", "false", "on", "off", "null", "nan", "inf"}
        or not word.isascii()
    )


def encode_base64(data: bytes) -> str:
    """Encode as standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str, what: str) -> bytes:
    """Decode standard base64, in its one right spelling.

    Raises: SealError Corrupt saying what it was.
    """
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, ValueError):
        raise SealError(f"{what} is not base64") from None
    if len(text) % 4 or binascii.b2a_base64(data, newline=False) != text.encode("ascii"):
        raise SealError(f"{what} is base64 in a spelling of its own")
    return data
