"""The part of JSONPath (RFC 9535) that checks need: names, indexes and wildcards. Pure.

| form | means |
|---|---|
| `$` | the document; every path begins with it |
| `.name` `['name']` `["name"]` | a member of an object |
| `[0]` `[-1]` | an element of a list; negative counts from the end |
| `.*` `[*]` | every member or element |

Unlike RFC 9535 a path finds nothing at all when one of the places that a wildcard leads to lacks what the rest of the
path names: a check of `$.items[*].ready` must not pass because the broken item has no `ready`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

MOST_STEPS = 100
_STEP = re.compile(
    r"""\.(?P<name>[A-Za-z_][A-Za-z0-9_-]*)"""
    r"""|\[(?P<index>0|-?[1-9][0-9]{0,8})\]"""
    r"""|\['(?P<single>(?:[^'\\]|\\['\\])*)'\]"""
    r"""|\["(?P<double>(?:[^"\\]|\\["\\])*)"\]"""
    r"""|(?P<every>\.\*|\[\*\])"""
)


class Every(Enum):
    """The wildcard."""

    EVERY = "*"


Step: TypeAlias = str | int | Every


@dataclass(frozen=True, slots=True)
class JsonPath:
    """Steps from the document inwards."""

    steps: tuple[Step, ...]

    def find(self, document: Any) -> list[Any] | None:
        """Return what the path leads to, in order; None when it, or one branch of it, leads nowhere."""
        found = [document]
        for step in self.steps:
            try:
                found = [inner for value in found for inner in _enter(value, step)]
            except LookupError:
                return None
        return found


def parse_json_path(text: str) -> JsonPath:
    """Read a path.

    >>> parse_json_path("$.pods[0]['ready']").find({"pods": [{"ready": True}]})
    [True]

    Raises: ValueError, for people.
    """
    if not text.startswith("$"):
        raise ValueError("must begin with $, the document: $.status or $.items[0]['name']")
    steps: list[Step] = []
    at = 1
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            rest = text[at : at + 20]
            raise ValueError(f"cannot be read from {rest!r} on; write .name, ['name'], [0] or [*]")
        steps.append(_read_step(found))
        at = found.end()
    if len(steps) > MOST_STEPS:
        raise ValueError(f"has more than {MOST_STEPS} steps")
    return JsonPath(tuple(steps))


def _read_step(found: re.Match[str]) -> Step:
    if found["every"]:
        return Every.EVERY
    if found["index"]:
        return int(found["index"])
    if found["name"]:
        return found["name"]
    quoted = found["single"] if found["single"] is not None else found["double"]
    return re.sub(r"\\(.)", r"\1", quoted)


def _enter(value: Any, step: Step) -> Iterator[Any]:
    if isinstance(step, Every):
        if not isinstance(value, dict | list):
            raise LookupError(step)
        yield from value.values() if isinstance(value, dict) else value
    elif (isinstance(value, dict) and isinstance(step, str)) or (isinstance(value, list) and isinstance(step, int)):
        yield value[step]  # type: ignore[index]  # each with its own kind of step
    else:
        raise LookupError(step)
