"""YAML and JSON files as JSON values, meaning exactly what kubectl takes them to mean.

kubectl reads YAML with a 1.1-like resolver of its own that no Python loader shares: `y` is true, `1:30` and dates are
strings, `1e3` is 1000, `0o10` and `08` are 8, keys become strings. Beyond that, what kubectl passes over in silence is
refused here: duplicate keys, unknown tags, alias bombs, deep nesting.

libyaml does the scanning; values are built straight from its events, so that nothing is built before it is counted.
Positions of single fields are computed only when asked for (an error, as a rule).

Source: sigs.k8s.io/yaml and its copy of go-yaml v2 (`resolve.go`, `decode.go`).
"""

import base64
import binascii
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml
from yaml._yaml import CParser

from fleet.errors import DocumentError, Problem
from fleet.scalar import as_json_number, format_key, resolve, resolve_plain

__all__ = [
    "DEFAULT_LIMITS",
    "Document",
    "Limits",
    "Path",
    "format_path",
    "load_documents",
    "parse_documents",
    "resolve_plain",
]

Path = tuple[str | int, ...]
"""Where a value stands in a document: keys and list indexes from the root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one file may cost. A file without aliases is bounded by its bytes alone."""

    file_bytes: int = 1 << 20
    depth: int = 100
    """Real CustomResourceDefinitions nest about 50 deep; far beyond, every walker of the value would be at risk."""
    alias_nodes: int = 100_000
    """Nodes that all aliases of a document may expand to."""
    alias_bytes: int = 3 << 20
    """Text that all aliases of a document may expand to; the API server takes no object this large."""
    problems: int = 100
    """Faults listed per file before giving up on the rest."""


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a file. `value` is what `json.loads` could return; no part of it is shared with another."""

    value: Any = field(repr=False)
    file: str
    line: int
    """Line of its first key or item, from 1."""
    _segment: "_Segment" = field(repr=False, compare=False)
    _index: int = field(repr=False, compare=False)

    def position(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Return (line, column), both from 1, of the value at `path`, or with `key` of the key that holds it.

        Where `path` does not exist, the key of the deepest part that does: that is where something is missing.
        """
        node = self._segment.node(self._index)
        if node is None:
            return self.line, 1
        found, held_by = node, node
        for part in path:
            step = _step(found, part)
            if step is None:
                found = held_by
                break
            held_by, found = step
        at = (held_by if key else found).start_mark
        return self._segment.line + at.line + 1, at.column + 1

    def is_plain(self, path: Path) -> bool:
        """Tell whether the scalar at `path` stands there without quotes, so that its text decides what it is."""
        node = self._segment.node(self._index)
        for part in path:
            step = _step(node, part) if node is not None else None
            if step is None:
                return False
            node = step[1]
        return isinstance(node, yaml.ScalarNode) and not node.style


def load_documents(data: bytes, file: str, *, limits: Limits = DEFAULT_LIMITS) -> list[Document]:
    """Return the non-empty documents of a file.

    Raises: DocumentError listing every fault of the file.
    """
    documents, problems = parse_documents(data, file, limits=limits)
    if problems:
        raise DocumentError(problems)
    return documents


def parse_documents(data: bytes, file: str, *, limits: Limits = DEFAULT_LIMITS) -> tuple[list[Document], list[Problem]]:
    """Return the documents that could be read, and every fault found; a broken document does not hide its siblings."""
    if len(data) > limits.file_bytes:
        return [], [Problem(file, 0, 0, "", f"the file has {len(data)} bytes; at most {limits.file_bytes} are read")]
    unreadable = _find_unreadable(data, file)
    if unreadable is not None:
        return [], [unreadable]
    documents: list[Document] = []
    problems: list[Problem] = []
    segment: _Segment | None = _Segment(data, 0)
    while segment is not None and len(problems) < limits.problems:
        reader = _Reader(segment, file, limits)
        documents += reader.read()
        problems += reader.problems
        segment = reader.rest()
    if problems and data.lstrip()[:1] == b"{":
        # Escapes such as surrogate pairs are JSON but not YAML.
        plain = _parse_json(data, file, limits)
        if plain is not None:
            return [plain], []
    return documents, problems[: limits.problems]


def format_path(path: Path) -> str:
    """Write a path the way people write it.

    >>> format_path(("spec", "targets", "environments", 0)), format_path(("metadata", "labels", "a.b/c"))
    ('spec.targets.environments[0]', 'metadata.labels["a.b/c"]')
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[^.\[\]\"\s]+", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part)}]"
    return text


# --- events to values --------------------------------------------------------------------------------------------

_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "binary", "timestamp")}
_TAGS["!"] = "str"
# Neither tags nor aliases are named in messages: a password that begins with ! or * is taken for one.
_UNKNOWN_TAG = "the tag (!) is not one that Kubernetes reads; put it in quotes if it is text"
_MAPPING_TAG = "tag:yaml.org,2002:map"
_SEQUENCE_TAG = "tag:yaml.org,2002:seq"
_KINDS = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}
_MERGE = object()


class _Refused(Exception):
    """Stop reading this document; its fault is recorded."""


@dataclass(slots=True)
class _Anchor:
    """What an alias stands for, and what it adds when it is expanded."""

    value: Any
    nodes: int
    text: int
    height: int
    open: bool = True


class _Reader:
    """Reads one segment of a file; after `read`, `problems` holds the faults and `rest` the part not reached."""

    def __init__(self, segment: "_Segment", file: str, limits: Limits) -> None:
        self.problems: list[Problem] = []
        self._segment = segment
        self._file = file
        self._limits = limits
        self._parser = CParser(segment.data)
        self._broken_at: int | None = None
        self._document_at = 0

    def read(self) -> list[Document]:
        """Return the documents that are whole."""
        documents: list[Document] = []
        try:
            for index, event in enumerate(self._document_starts()):
                self._document_at = event.start_mark.line
                document = self._read_document(index)
                if document is not None:
                    documents.append(document)
        except yaml.YAMLError as error:
            self._problem_of(error)
        except _Refused:
            # Not even scanned further: libyaml needs quadratic time for deep nesting.
            self._broken_at = 0
        return documents

    def rest(self) -> "_Segment | None":
        """Return what follows a document that could not be read to its end, from the next document marker on."""
        if self._broken_at is None:
            return None
        first = max(self._broken_at, self._document_at + 1)
        for line, start in _marker_lines(self._segment.data):
            if line >= first:
                return _Segment(self._segment.data[start:], self._segment.line + line)
        return None

    def _next(self) -> Any:
        return self._parser.get_event()

    def _document_starts(self) -> Iterator[Any]:
        while (event := self._next()) is not None:
            if isinstance(event, yaml.DocumentStartEvent):
                yield event

    def _read_document(self, index: int) -> Document | None:
        self._anchors: dict[str, _Anchor] = {}
        self._nodes = self._text = self._expanded_nodes = self._expanded_text = 0
        known = len(self.problems)
        first = self._next()
        line = self._segment.line + first.start_mark.line + 1
        value = self._read_value(first, ())[0]
        self._next()  # what stands behind the value may not belong to any document
        if len(self.problems) > known or value is None:
            return None
        return Document(value=value, file=self._file, line=line, _segment=self._segment, _index=index)

    def _read_value(self, event: Any, path: Path) -> tuple[Any, int]:
        """Return the value that starts with `event`, and its height."""
        self._nodes += 1
        if isinstance(event, yaml.ScalarEvent):
            self._text += len(event.value)
            value = self._read_scalar(event, path)
            if event.anchor is not None:
                self._anchors[event.anchor] = _Anchor(value, 1, len(event.value), 0, open=False)
            return value, 0
        if isinstance(event, yaml.AliasEvent):
            return self._expand(event, path)
        if len(path) >= self._limits.depth:
            self._refuse(event, (), f"nested deeper than {self._limits.depth} levels")
        anchor = _Anchor(None, self._nodes, self._text, 0)
        if event.anchor is not None:
            self._anchors[event.anchor] = anchor
        if isinstance(event, yaml.MappingStartEvent):
            self._check_tag(event, _MAPPING_TAG, path)
            value, height = self._read_mapping(path)
        else:
            self._check_tag(event, _SEQUENCE_TAG, path)
            value, height = self._read_sequence(path)
        anchor.value, anchor.height, anchor.open = value, height, False
        anchor.nodes, anchor.text = self._nodes - anchor.nodes + 1, self._text - anchor.text
        return value, height

    def _read_sequence(self, path: Path) -> tuple[list[Any], int]:
        items: list[Any] = []
        height = 0
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            item, below = self._read_value(event, (*path, len(items)))
            items.append(item)
            height = max(height, below)
        return items, height + 1

    def _read_mapping(self, path: Path) -> tuple[dict[str, Any], int]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Any] = {}
        height = 0
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._read_key(event, path)
            below_path = path if key is _MERGE else (*path, key)
            value, below = self._read_value(self._next(), below_path)
            height = max(height, below)
            if key is _MERGE:
                merged = self._merge(event, path, value, set(values) | set(merged))
            elif key in lines:
                self._problem(event, below_path, f"the key {key!r} is given twice; the first is on line {lines[key]}")
            else:
                values[key] = value
                lines[key] = self._segment.line + event.start_mark.line + 1
        return ({**merged, **values} if merged else values), height + 1

    def _read_key(self, event: Any, path: Path) -> Any:
        """Return a key as a string, `_MERGE` for `<<`; a fault is recorded and the key passed over."""
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, path, "a key must be a plain word, not a list, a mapping or an alias")
        if event.value == "<<" and event.implicit[0]:
            return _MERGE
        self._nodes += 1
        self._text += len(event.value)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchor(event.value, 1, len(event.value), 0, open=False)
        raw = event.value if not event.implicit[0] and event.tag is None else self._read_raw(event, path)
        key = format_key(raw)
        if key is None:
            self._problem(event, path, f"the key {event.value!r} is no string; put it in quotes")
            return event.value
        return key

    def _merge(self, event: Any, path: Path, source: Any, before: set[str]) -> dict[str, Any]:
        """Return what `<<` brings in; earlier mappings of a list win."""
        sources = source if isinstance(source, list) else [source]
        merged: dict[str, Any] = {}
        for mapping in sources:
            if not isinstance(mapping, dict):
                self._problem(event, (*path, "<<"), "only a mapping or a list of mappings can be merged")
                continue
            for key, value in mapping.items():
                merged.setdefault(key, value)
        # kubectl lets a later << overrule a key, other readers do not; where it stands first all of them agree.
        clash = sorted(before & set(merged))
        if clash:
            self._problem(event, (*path, "<<"), f"<< brings the key {clash[0]!r} given before it; put << first")
        return merged

    def _read_scalar(self, event: Any, path: Path) -> Any:
        if event.tag is None:
            if not event.implicit[0]:
                return event.value
            value = as_json_number(resolve(event.value))
        else:
            value = as_json_number(self._read_raw(event, path))
        if isinstance(value, float) and not math.isfinite(value):
            self._problem(event, path, "not-a-number and infinity have no form in JSON; put it in quotes if it is text")
            return None
        return value

    def _read_raw(self, event: Any, path: Path) -> Any:
        """Return a scalar that may carry a tag, before numbers are put into their JSON form."""
        if event.tag is None:
            return resolve(event.value)
        wanted = _TAGS.get(event.tag)
        if wanted is None:
            self._problem(event, path, _UNKNOWN_TAG)
        if wanted in (None, "str", "timestamp"):
            return event.value
        if wanted == "binary":
            return self._decode_binary(event, path)
        value = resolve(event.value)
        kind = _KINDS[type(value)]
        if wanted == "float" and kind == "int":
            return float(value)
        if kind != wanted:
            self._problem(event, path, f"the value is {kind}, not {wanted} as its tag says")
        return value

    def _decode_binary(self, event: Any, path: Path) -> str:
        try:
            return base64.b64decode(event.value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            self._problem(event, path, "the value is not base64 of UTF-8 text as its tag says")
            return ""

    def _expand(self, event: Any, path: Path) -> tuple[Any, int]:
        """Return a copy of what an alias stands for, within the budget."""
        anchor = self._anchors.get(event.anchor)
        if anchor is None:
            self._refuse(event, path, "the alias (*) names no anchor above it; put it in quotes if it is text")
        if anchor.open:
            self._refuse(event, path, "the anchor of this alias contains itself")
        self._expanded_nodes += anchor.nodes
        self._expanded_text += anchor.text
        if self._expanded_nodes > self._limits.alias_nodes or self._expanded_text > self._limits.alias_bytes:
            self._refuse(event, path, "the aliases of this document expand to too much; write the values out")
        if len(path) + anchor.height > self._limits.depth:
            self._refuse(event, (), f"nested deeper than {self._limits.depth} levels")
        self._nodes += anchor.nodes
        self._text += anchor.text
        return _copy(anchor.value), anchor.height

    def _check_tag(self, event: Any, expected: str, path: Path) -> None:
        if event.tag not in (None, "!", expected):
            self._problem(event, path, _UNKNOWN_TAG)

    def _problem(self, event: Any, path: Path, message: str) -> None:
        mark = event.start_mark
        place = (self._segment.line + mark.line + 1, mark.column + 1)
        self.problems.append(Problem(self._file, *place, format_path(path), message))
        if len(self.problems) >= self._limits.problems:
            raise _Refused

    def _refuse(self, event: Any, path: Path, message: str) -> NoReturn:
        self._problem(event, path, message)
        raise _Refused

    def _problem_of(self, error: yaml.YAMLError) -> None:
        if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
            self.problems.append(Problem(self._file, 0, 0, "", f"not readable as YAML: {type(error).__name__}"))
            return
        mark = error.problem_mark
        self._broken_at = mark.line
        context = f" ({error.context})" if error.context else ""
        started = error.context_mark
        if started is not None and started.line != mark.line:
            context = f" ({error.context} that starts on line {self._segment.line + started.line + 1})"
        self.problems.append(
            Problem(self._file, self._segment.line + mark.line + 1, mark.column + 1, "", f"{error.problem}{context}")
        )


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(below) for key, below in value.items()}
    return [_copy(below) for below in value] if isinstance(value, list) else value


# --- files and positions -----------------------------------------------------------------------------------------


class _Segment:
    """A stretch of a file that one parser reads: the whole of it, or what follows a syntax error."""

    def __init__(self, data: bytes, line: int) -> None:
        self.data = data
        self.line = line
        self._nodes: list[yaml.Node] = []
        self._composing = self._compose()

    def node(self, index: int) -> yaml.Node | None:
        """Return the root node of the document number `index`.

        Composes up to there and no further: what comes behind may be what was refused.
        """
        missing = index + 1 - len(self._nodes)
        self._nodes += itertools.islice(self._composing, max(missing, 0))
        return self._nodes[index] if index < len(self._nodes) else None

    def _compose(self) -> Iterator[yaml.Node]:
        loader = yaml.CSafeLoader(self.data)
        try:
            while loader.check_node():
                node = loader.get_node()
                assert node is not None
                yield node
        except yaml.YAMLError:
            return


def _step(node: yaml.Node, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Return (the node that names `part`, its value) inside `node`."""
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        return (node.value[part], node.value[part]) if part < len(node.value) else None
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and _names(key, part):
            return key, value
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == "<<" and not key.style:
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                step = _step(source, part)
                if step is not None:
                    return step
    return None


def _names(key: yaml.ScalarNode, part: str | int) -> bool:
    return key.value == part or (not key.style and format_key(resolve(key.value)) == part)


def _marker_lines(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (line from 0, byte offset) of each `---` line: inside no scalar, whatever its style, can one stand."""
    for match in _MARKER.finditer(data):
        yield data.count(b"\n", 0, match.start()), match.start()


_MARKER = re.compile(rb"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def _find_unreadable(data: bytes, file: str) -> Problem | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Problem(file, *_place(data[: error.start].decode("utf-8")), "", "not UTF-8 text")
    found = _CONTROL.search(text)
    if found is None:
        return None
    message = f"the control character U+{ord(found[0]):04X} may not stand in a file"
    return Problem(file, *_place(text[: found.start()]), "", message)


def _place(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _parse_json(data: bytes, file: str, limits: Limits) -> Document | None:
    """Return a file that is one JSON value; None when it is not, or breaks a limit, as the YAML faults then say."""
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=float)
    except (ValueError, RecursionError):
        return None
    if not _shallower(value, limits.depth):
        return None
    segment = _Segment(b"", 0)
    return Document(value=_normalise(value), file=file, line=1, _segment=segment, _index=0)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("duplicate key")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _shallower(value: Any, depth: int) -> bool:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth >= 0 and all(_shallower(item, depth - 1) for item in below)


def _normalise(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _normalise(below) for key, below in value.items()}
    return [_normalise(below) for below in value] if isinstance(value, list) else as_json_number(value)
