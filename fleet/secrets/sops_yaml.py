"""YAML files of SOPS. Pure.

Values are replaced in the text of the file, and SOPS's block is cut out of it. libyaml's events say where they stand; a
stack of our own bounds how deep and how much is read.
Source: how SOPS reads unencrypted scalars is go-yaml v3's `resolve.go`.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import yaml
from yaml._yaml import CParser

from fleet.errors import SealError
from fleet.secrets.sops_leaf import Leaf, Opened, format_float, is_encrypted
from fleet.secrets.sops_text import SopsFile

DEPTH: Final = 100
BLOCK: Final = "sops"

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
_SPECIAL: Final = {
    **dict.fromkeys((".nan", ".NaN", ".NAN"), "NaN"),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), "+Inf"),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), "-Inf"),
}
_SHOWN: Final = {"NaN": ".nan", "+Inf": ".inf", "-Inf": "-.inf"}
_INT: Final = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TIME: Final = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:(?:[Tt]|\s+)(\d{1,2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?\s*(Z|[-+]\d{1,2}(?::\d{2})?)?)?"
)
_TEXT_TAGS: Final = frozenset({"!", "tag:yaml.org,2002:str"})


@dataclass(slots=True)
class _Open:
    """A mapping or list that the reader is inside."""

    mapping: bool
    path: tuple[str, ...]
    start: int
    flow: bool
    key: str | None = None
    key_start: int = 0
    keys: set[str] = field(default_factory=set)
    value: Any = None
    """Built inside SOPS's block only."""


class _Reader:
    """Goes through the events once; afterwards `leaves`, `places`, `cuts` and `metadata` are full."""

    def __init__(self, text: str) -> None:
        self.leaves: list[Leaf] = []
        self.places: list[tuple[int, int]] = []
        self.cuts: list[tuple[int, int]] = []
        self.metadata: dict[str, Any] | None = None
        self._text = text
        self._stack: list[_Open] = []
        self._within_block = 0
        self._pending_cut: tuple[int, int, _Open] | None = None

    def read(self) -> None:
        """Raises: SealError Corrupt, Unsupported."""
        parser = CParser(self._text)
        try:
            while (event := parser.get_event()) is not None:
                self._take(event)
        except yaml.YAMLError:
            raise SealError("the file is not readable as YAML") from None

    def _take(self, event: Any) -> None:
        match event:
            case yaml.AliasEvent():
                raise _unsupported("uses aliases (*), which sops itself never writes")
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._enter(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._leave(event)
            case _:
                pass

    def _enter(self, event: Any) -> None:
        mapping = isinstance(event, yaml.MappingStartEvent)
        if len(self._stack) >= DEPTH:
            raise SealError(f"the file is nested deeper than {DEPTH} levels")
        if event.anchor is not None or event.tag is not None:
            raise _unsupported("has anchors or tags on mappings or lists, which sops itself never writes")
        parent = self._stack[-1] if self._stack else None
        if parent is not None and parent.mapping and parent.key is None:
            raise SealError("a key of the file is not a string")
        self._end_cut(event.start_mark.index)
        path = self._path()
        opened = _Open(mapping, path, event.start_mark.index, bool(event.flow_style), value={} if mapping else [])
        if self._within_block or (len(self._stack) == 1 and path == (BLOCK,)):
            self._within_block += 1
        self._stack.append(opened)

    def _leave(self, event: Any) -> None:
        closed = self._stack.pop()
        self._end_cut(event.start_mark.index, closing=True)
        if not self._within_block:
            self._after_value()
            return
        self._within_block -= 1
        if self._within_block:
            self._put(closed.value)
        else:
            self._finish_block(closed, event.end_mark.index)
        self._after_value()

    def _finish_block(self, closed: _Open, end: int) -> None:
        if not closed.mapping:
            raise SealError("the block of SOPS is not a mapping")
        root = self._stack[-1]
        if self.metadata is None:
            self.metadata = closed.value
        self._pending_cut = (root.key_start, end, root)

    def _end_cut(self, index: int, *, closing: bool = False) -> None:
        """Cut SOPS's block once it is known what follows it."""
        if self._pending_cut is None:
            return
        start, end, root = self._pending_cut
        self._pending_cut = None
        if not root.flow:
            self.cuts.append((start, end))
        elif not closing:
            self.cuts.append((start, index))
        else:
            comma = self._text.rfind(",", root.start, start)
            self.cuts.append((start if comma < 0 or len(root.keys) == 1 else comma, end))

    def _scalar(self, event: Any) -> None:
        parent = self._stack[-1] if self._stack else None
        if parent is None:
            if event.value or event.anchor or event.tag:
                raise SealError("a document of the file is not a mapping")
            return
        if parent.mapping and parent.key is None:
            self._key(parent, event)
            return
        if self._within_block:
            self._put(_read_metadata(event))
        else:
            self._leaf(event)
        self._after_value()

    def _key(self, parent: _Open, event: Any) -> None:
        self._end_cut(event.start_mark.index)
        plain = event.implicit[0] and event.tag is None
        if event.anchor is not None or (plain and resolve(event.value)[0] not in ("str", "null")):
            raise SealError("a key of the file is not a string, which sops itself refuses; put it in quotes")
        if event.value in parent.keys:
            raise SealError(f"the key {event.value!r} is given twice on line {event.start_mark.line + 1}")
        parent.key, parent.key_start = event.value, event.start_mark.index
        parent.keys.add(event.value)

    def _leaf(self, event: Any) -> None:
        if event.anchor is not None:
            raise _unsupported("has anchors (&), which sops itself never writes")
        encrypted = is_encrypted(event.value)
        hashed = b"" if encrypted else hash_scalar(event)
        if hashed is None:
            return
        self.places.append((event.start_mark.index, event.end_mark.index))
        self.leaves.append(Leaf(path=self._path(), text=event.value, encrypted=encrypted, hashed=hashed))

    def _path(self) -> tuple[str, ...]:
        if not self._stack:
            return ()
        parent = self._stack[-1]
        return (*parent.path, parent.key) if parent.mapping and parent.key is not None else parent.path

    def _put(self, value: Any) -> None:
        parent = self._stack[-1]
        if parent.mapping:
            parent.value[parent.key] = value
        else:
            parent.value.append(value)

    def _after_value(self) -> None:
        if self._stack:
            self._stack[-1].key = None


def parse(data: bytes) -> SopsFile:
    """Read a YAML file of one or several documents.

    Raises: SealError Corrupt, Unsupported for what SOPS itself never writes.
    """
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise SealError("the file is not UTF-8") from None
    reader = _Reader(text)
    reader.read()
    if reader.metadata is None:
        raise SealError("the file has no block of SOPS")

    def write(opened: Sequence[Opened | None]) -> bytes:
        shown = zip(reader.places, opened, strict=True)
        edits = [_edit(text, place, each) for place, each in shown if each is not None]
        return _splice(text, [*edits, *((*cut, "") for cut in reader.cuts)]).encode(errors="surrogateescape")

    return SopsFile(leaves=reader.leaves, metadata=reader.metadata, write=write)


def _splice(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    out: list[str] = []
    at = 0
    for start, end, new in sorted(edits):
        out += [text[at:start], new]
        at = end
    return "".join([*out, text[at:]])


def _edit(text: str, place: tuple[int, int], opened: Opened) -> tuple[int, int, str]:
    """Return what takes the place of an encrypted value.

    A comment inside a list is encrypted as an item of it: that item goes, the other lines stay where they are.
    """
    start, end = place
    if opened.kind != "comment":
        return start, end, _quote(opened)
    before = text[:start].rstrip(" ")
    if not before.endswith("-"):
        raise SealError("the file has a comment where a value must be")
    return len(before) - 1, end, ""


def _quote(opened: Opened) -> str:
    """Write an opened value so that every reader of YAML takes it for what it was before it was encrypted."""
    match opened.kind:
        case "int" | "float":
            if opened.text in _SHOWN:
                return _SHOWN[opened.text]
            if not _FLOAT.fullmatch(opened.text):
                raise SealError("an encrypted number is none")
            return opened.text
        case "bool":
            return "true" if opened.text in ("True", "true", "TRUE", "t", "T", "1") else "false"
        case _:
            return _escape(opened.text)


def _escape(text: str) -> str:
    """Write a string in double quotes, on one line.

    >>> print(_escape('a "b"' + chr(10) + chr(0x85) + chr(0x1f600)))
    "a \\"b\\"\\n\\u0085\U0001f600"
    """
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub(
        "[\x7f-\x9f\ufeff\u2028\u2029\ud800-\udfff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", quoted
    )


def _unsupported(what: str) -> SealError:
    return SealError(f"the file {what}; write the values out", reason="Unsupported")


# --- unencrypted scalars -----------------------------------------------------------------------------------------


def hash_scalar(event: Any) -> bytes | None:
    """Return what the MAC is over for a scalar in the clear; None for null, which is no value to SOPS."""
    if event.tag in _TEXT_TAGS or not event.implicit[0]:
        if event.tag not in (None, *_TEXT_TAGS):
            raise _unsupported("has tags (!), which sops itself never writes")
        return str(event.value).encode()
    if event.tag is not None:
        raise _unsupported("has tags (!), which sops itself never writes")
    kind, shown = resolve(event.value)
    return None if kind == "null" else shown.encode()


def resolve(text: str) -> tuple[str, str]:
    """Return (kind, the form that the MAC is over) of an unquoted scalar.

    >>> [resolve(word) for word in ("yes", "True", "0x10", "010", "1e3", "1_000", "2024-01-02")]  # doctest: +ELLIPSIS
    [('str', 'yes'), ('bool', 'True'), ('int', '16'), ('int', '8'), ('float', '1000'), ('int', '1000'), ('time', ...)]
    """
    if text in _NULLS:
        return "null", ""
    if text in _TRUE or text in _FALSE:
        return "bool", "True" if text in _TRUE else "False"
    if text in _SPECIAL:
        return "float", _SPECIAL[text]
    if text[0] not in ".+-0123456789":
        return "str", text
    return _resolve_time(text) or _resolve_number(text) or ("str", text)


def _resolve_number(text: str) -> tuple[str, str] | None:
    plain = text.replace("_", "")
    match = _INT.fullmatch(plain)
    if match and len(plain) <= 70:
        sign, sixteen, two, eight, ten = match.groups()
        digits, base = next((d, b) for d, b in ((sixteen, 16), (two, 2), (eight, 8), (ten, 10)) if d is not None)
        number = int(digits, base) * (-1 if sign == "-" else 1)
        if -(2**63) <= number < 2**63:
            return "int", str(number)
    if not _FLOAT.fullmatch(plain) or math.isinf(float(plain)):
        return None
    return "float", format_float(float(plain))


def _resolve_time(text: str) -> tuple[str, str] | None:
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
        moment = moment.replace(tzinfo=_zone(zone))
    except ValueError:
        return None
    part = (fraction or "").rstrip("0")
    stamp, offset = moment.isoformat()[:19], moment.isoformat()[19:]
    return "time", stamp + (f".{part}" if part else "") + ("Z" if offset == "+00:00" else offset)


def _zone(text: str | None) -> timezone:
    if text in (None, "Z"):
        return UTC
    hours, _, minutes = text[1:].partition(":")
    return timezone((1 if text[0] == "+" else -1) * timedelta(hours=int(hours), minutes=int(minutes or 0)))


def _read_metadata(event: Any) -> Any:
    if not event.implicit[0]:
        return event.value
    return _METADATA.get(event.value, event.value)


_METADATA: Final[dict[str, Any]] = {
    **dict.fromkeys(_NULLS),
    **dict.fromkeys(_TRUE, True),
    **dict.fromkeys(_FALSE, False),
    "[]": [],
}
