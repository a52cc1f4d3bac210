"""`${VAR}` in manifests: the subset of shell parameter expansion that Flux offers, strict and without side doors. Pure.

| form | value |
|---|---|
| `${VAR}` | the value; unset is an error |
| `${VAR:-word}` `${VAR:=word}` `${VAR=word}` | `word` when unset or empty |
| `${VAR-word}` | `word` when unset |
| `${VAR:offset}` `${VAR:offset:length}` | a part; negative counts from the end |
| `${VAR/old/new}` `//` `/#` `/%` | the first, every, a leading, a trailing `old` replaced |
| `${VAR#pattern}` `##` `%` `%%` | the shortest or longest match cut off the front or the end |
| `${VAR^}` `^^` `,` `,,` | first or all letters upper or lower case |
| `${#VAR}` | the length |
| `$$` | `$` |

Words may hold expansions themselves. `$VAR` without braces is text.

Values go into scalars of the parsed document, never into its text: `replicas: ${REPLICAS}` becomes the number that YAML
reads there, `"${REPLICAS}"` stays a string, and a value with line breaks, colons or dashes stays one scalar. Where
Kubernetes wants text (environment values, labels, annotations, ConfigMap data) the result is text, quoted or not.
"""

import fnmatch
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.annotation import parse_flags
from fleet.document import Path, resolve_plain
from fleet.object import parse_gvk
from fleet.render import schema
from fleet.render.normalize import Fault
from fleet.render.schema import Bundle, Encoded, Items, Shape, Struct, Text, Texts

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTEGER = re.compile(r"\s*[-+]?[0-9]+\s*")
MOST_DEPTH = 20
MOST_TEXT = 1 << 20
"""Characters that one scalar may become."""
_TOO_LONG = f"the value grows beyond {MOST_TEXT} characters"


class SubstitutionError(Exception):
    """An expansion that is unset, malformed or too large. The message names the variable, never its value."""


@dataclass(slots=True)
class Variables:
    """Values by name; `used` grows by every name that was asked for, so that a cache knows what mattered."""

    values: Mapping[str, str]
    used: set[str] = field(default_factory=set)

    def find(self, name: str) -> str | None:
        """Return a variable's value; None when it is unset."""
        self.used.add(name)
        return self.values.get(name)


def substitute_text(text: str, variables: Variables) -> str:
    """Expand a text.

    >>> substitute_text("${A} $A $${A} ${B:-b${A^^}} ${A/x/z}", Variables({"A": "xy"}))
    'xy $A ${A} bXY zy'

    Raises: SubstitutionError.
    """
    if "$" not in text:
        return text
    result = _Expansion(text, variables).outside()
    if len(result) > MOST_TEXT:
        raise SubstitutionError(_TOO_LONG)
    return result


def substitute(
    value: Any, variables: Variables, is_plain: Callable[[Path], bool], at: Path = ()
) -> tuple[Any, list[Fault]]:
    """Return an object with every scalar expanded, and the expansions that failed; `at` is its place in the document.

    `is_plain` tells whether the scalar at a path was written without quotes: only then may the result be a number, a
    bool or null. An object whose annotations opt out is returned as it is.
    """
    if not _wants(value):
        return value, []
    walk = _Substitution(variables, is_plain)
    return walk.any(value, at, _find_shape(value)), walk.faults


def _wants(value: Any) -> bool:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    if not isinstance(annotations, dict):
        return True
    return parse_flags({name: text for name, text in annotations.items() if isinstance(text, str)}).substitute


def _find_shape(value: Any) -> Shape | None:
    if not isinstance(value, dict):
        return None
    return schema.find_shape(parse_gvk(str(value.get("apiVersion")), str(value.get("kind"))).group_kind)


class _Substitution:
    def __init__(self, variables: Variables, is_plain: Callable[[Path], bool]) -> None:
        self._variables = variables
        self._is_plain = is_plain
        self.faults: list[Fault] = []

    def any(self, value: Any, path: Path, shape: Shape | None) -> Any:
        if isinstance(value, str):
            return self._scalar(value, path, shape) if "$" in value else value
        if isinstance(value, list):
            of = shape.of if isinstance(shape, Items) else None
            return [self.any(item, (*path, index), of) for index, item in enumerate(value)]
        return self._mapping(value, path, shape) if isinstance(value, dict) else value

    def _mapping(self, value: dict[str, Any], path: Path, shape: Shape | None) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, below in value.items():
            where = (*path, name)
            key = self._expand(name, where)
            if key in made:
                self.faults.append(Fault(where, f"the key {name!r} becomes one that stands beside it already"))
            made[key] = self.any(below, where, _step(shape, key))
        return made

    def _scalar(self, text: str, path: Path, shape: Shape | None) -> Any:
        result = self._expand(text, path)
        if result == text or isinstance(shape, Text | Bundle) or not self._is_plain(path):
            return result
        value = resolve_plain(result)
        return result if isinstance(value, float) and not math.isfinite(value) else value

    def _expand(self, text: str, path: Path) -> str:
        try:
            return substitute_text(text, self._variables)
        except SubstitutionError as error:
            self.faults.append(Fault(path, str(error)))
            return text


def _step(shape: Shape | None, name: str) -> Shape | None:
    match shape:
        case Struct():
            return shape.fields.get(name)
        case Texts() | Encoded():
            return _TEXT
        case _:
            return None


_TEXT = Text()


class _Expansion:
    """A recursive descent over one text, evaluating as it reads."""

    def __init__(self, text: str, variables: Variables) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._variables = variables

    def outside(self) -> str:
        """Read text up to its end, expanding as it goes."""
        parts: list[str] = []
        while (dollar := self._text.find("$", self._at)) >= 0:
            parts.append(self._text[self._at : dollar])
            self._at = dollar
            if self._take("$$"):
                parts.append("$")
            elif self._take("${"):
                parts.append(self._expand())
            else:
                self._at += 1
                parts.append("$")
        parts.append(self._text[self._at :])
        return "".join(parts)

    def _expand(self) -> str:
        """Read what follows `${` up to its `}`."""
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise SubstitutionError(f"expansions are nested deeper than {MOST_DEPTH}")
        if self._take("#"):
            name = self._name()
            self._close(name)
            result = str(len(self._value(name)))
        else:
            name = self._name()
            result = self._operate(name)
        self._depth -= 1
        return result

    def _operate(self, name: str) -> str:
        for operator in _OPERATORS:
            if self._take(operator):
                return self._apply(name, operator)
        self._close(name)
        return self._value(name)

    def _apply(self, name: str, operator: str) -> str:
        if operator in _DEFAULTS:
            word = self._word(name, "}")
            value = self._variables.find(name)
            return word if value is None or (not value and operator != "-") else value
        if operator in _CASES:
            self._close(name)
            return _CASES[operator](self._value(name))
        if operator == ":":
            return self._slice(name)
        if operator in _CUTS:
            return _cut(self._value(name), self._word(name, "}"), *_CUTS[operator])
        return self._replace(name, operator)

    def _slice(self, name: str) -> str:
        offset = self._integer(name, self._word(name, ":}"))
        length = self._integer(name, self._word(name, "}")) if self._text[self._at - 1] == ":" else None
        value = self._value(name)
        start = max(0, len(value) + offset) if offset < 0 else offset
        if length is None:
            return value[start:]
        return value[start : max(start, len(value) + length)] if length < 0 else value[start : start + length]

    def _replace(self, name: str, operator: str) -> str:
        old = self._word(name, "/}", escapes=True)
        new = self._word(name, "}", escapes=True) if self._text[self._at - 1] == "/" else ""
        value = self._value(name)
        if operator == "/#":
            return new + value[len(old) :] if value.startswith(old) else value
        if operator == "/%":
            return value[: len(value) - len(old)] + new if value.endswith(old) else value
        if not old:
            return value
        if value.count(old) * len(new) > MOST_TEXT:
            raise SubstitutionError(_TOO_LONG)
        return value.replace(old, new) if operator == "//" else value.replace(old, new, 1)

    def _word(self, name: str, ends: str, *, escapes: bool = False) -> str:
        """Read a word up to and including one of `ends`, expanding what is inside."""
        parts: list[str] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            if self._take("${"):
                parts.append(self._expand())
                continue
            self._at += 1
            if character in ends:
                return "".join(parts)
            if escapes and character == "\\" and self._text[self._at : self._at + 1] in ("/", "\\"):
                character = self._text[self._at]
                self._at += 1
            parts.append(character)
        raise SubstitutionError(f"the closing brace of the variable {name} is missing; write for example ${{{name}}}")

    def _value(self, name: str) -> str:
        value = self._variables.find(name)
        if value is None:
            raise SubstitutionError(f"the variable {name} is not set; set it, or give a default: ${{{name}:-...}}")
        return value

    def _name(self) -> str:
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise SubstitutionError("${ is not followed by a variable's name; write $${ for the text ${")
        self._at = match.end()
        return match[0]

    def _integer(self, name: str, word: str) -> int:
        if not _INTEGER.fullmatch(word) or len(word) > 10:
            raise SubstitutionError(f"the offset or length {word[:20]!r} of ${{{name}:...}} is no whole number")
        return int(word)

    def _close(self, name: str) -> None:
        if not self._take("}"):
            rest = self._text[self._at : self._at + 10]
            raise SubstitutionError(f"${{{name} goes on with {rest!r}, which is no operator known here")

    def _take(self, token: str) -> bool:
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True


_DEFAULTS = frozenset({":-", ":=", "=", "-"})
_CASES: Mapping[str, Callable[[str], str]] = {
    "^^": str.upper,
    ",,": str.lower,
    "^": lambda value: value[:1].upper() + value[1:],
    ",": lambda value: value[:1].lower() + value[1:],
}
_CUTS = {"##": ("front", "longest"), "#": ("front", "shortest"), "%%": ("end", "longest"), "%": ("end", "shortest")}
_OPERATORS = (":-", ":=", "=", "-", "^^", ",,", "^", ",", "##", "#", "%%", "%", "//", "/#", "/%", "/", ":")


def _cut(value: str, pattern: str, side: str, reach: str) -> str:
    """Cut the shortest or longest match of a glob off one side; `*` matches slashes too."""
    matches = re.compile(fnmatch.translate(pattern)).match
    sizes = range(len(value) + 1) if reach == "shortest" else range(len(value), -1, -1)
    for size in sizes:
        part = value[:size] if side == "front" else value[len(value) - size :]
        if matches(part):
            return value[size:] if side == "front" else value[: len(value) - size]
    return value
