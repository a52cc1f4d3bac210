"""Label and field selectors, parsed and matched as the API server does."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleet.sim import status
from fleet.sim.resource import Resource

_LABEL_TERM: Final = re.compile(
    r"""\s*(?:
        !\s*(?P<absent>[\w./-]+)
      | (?P<set_key>[\w./-]+)\s+(?P<set_op>in|notin)\s*\((?P<values>[^)]*)\)
      | (?P<key>[\w./-]+)\s*(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)
      | (?P<present>[\w./-]+)
    )\s*(?:,|$)""",
    re.VERBOSE,
)

Predicate = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One condition on a label."""

    key: str
    op: str
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        if self.op == "exists":
            return self.key in labels
        if self.op == "absent":
            return self.key not in labels
        inside = self.key in labels and labels[self.key] in self.values
        return inside if self.op == "in" else not inside


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a collection is asked for."""

    namespace: str = ""
    labels: tuple[Requirement, ...] = ()
    fields: tuple[tuple[str, str, str], ...] = ()

    def matches(self, obj: Mapping[str, Any]) -> bool:
        metadata = obj["metadata"]
        if self.namespace and metadata.get("namespace", "") != self.namespace:
            return False
        labels = metadata.get("labels") or {}
        return all(r.holds(labels) for r in self.labels) and all(_field_holds(obj, term) for term in self.fields)

    @property
    def narrow(self) -> bool:
        """Whether a selector (not only a namespace) is in force."""
        return bool(self.labels or self.fields)


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """Parse a label selector.

    Raises:
        ApiError: 400, the selector cannot be parsed.
    """
    requirements, position = [], 0
    while position < len(text.rstrip()):
        match = _LABEL_TERM.match(text, position)
        if match is None or match.end() == position:
            raise status.bad_request(f'unable to parse requirement: found "{text[position:]}", expected: an operator')
        requirements.append(_requirement(match))
        position = match.end()
    return tuple(requirements)


def _requirement(match: re.Match[str]) -> Requirement:
    part = match.groupdict()
    if part["absent"]:
        return Requirement(key=part["absent"], op="absent")
    if part["present"]:
        return Requirement(key=part["present"], op="exists")
    if part["set_key"]:
        values = frozenset(value.strip() for value in part["values"].split(","))
        return Requirement(key=part["set_key"], op=part["set_op"], values=values)
    op = "notin" if part["op"] == "!=" else "in"
    return Requirement(key=part["key"], op=op, values=frozenset({part["value"]}))


def parse_fields(text: str, resource: Resource) -> tuple[tuple[str, str, str], ...]:
    """Parse a field selector into (path, operator, value).

    Raises:
        ApiError: 400, a path that cannot be selected by.
    """
    terms = []
    for term in filter(None, text.split(",")):
        match = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", term)
        if match is None:
            raise status.bad_request(f'invalid selector: "{text}"; can\'t understand "{term}"')
        path, op, value = match.groups()
        if path not in ("metadata.name", "metadata.namespace", *resource.fields):
            raise status.bad_request(_unknown_field(path, resource))
        terms.append((path, "!=" if op == "!=" else "=", value))
    return tuple(terms)


def _unknown_field(path: str, resource: Resource) -> str:
    if resource.custom:
        return f"field label not supported: {path}"
    return f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def _field_holds(obj: Mapping[str, Any], term: tuple[str, str, str]) -> bool:
    path, op, wanted = term
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    found = "" if value is None else str(value)
    return (found == wanted) == (op == "=")
