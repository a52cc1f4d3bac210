"""Kubernetes label selectors as text: `env=prod,tier in (web, api),!legacy`. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fleet.errors import RequestError

_KEY = r"(?:[A-Za-z0-9.-]+/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_VALUE = r"[A-Za-z0-9_.-]*"
_EQUALITY = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_PRESENCE = re.compile(rf"(!?)\s*({_KEY})")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition. `values` None asks only whether the label is there; a label that is absent passes `wanted=False`."""

    key: str
    values: frozenset[str] | None
    wanted: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels meet the condition."""
        value = labels.get(self.key)
        found = value is not None and (self.values is None or value in self.values)
        return found is self.wanted


@dataclass(frozen=True, slots=True)
class Selector:
    """Conditions that must all hold; none selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels meet every condition."""
        return all(requirement.matches(labels) for requirement in self.requirements)


def parse_selector(text: str) -> Selector:
    """Parse a selector as kubectl writes it.

    Raises: RequestError naming the part that is not one.

    >>> parse_selector("env in (dev, prod),!old").matches({"env": "dev"})
    True
    >>> parse_selector("env!=dev").matches({})
    True
    """
    if not text.strip():
        return Selector()
    return Selector(tuple(_parse_requirement(part.strip()) for part in re.split(r",(?![^(]*\))", text)))


def _parse_requirement(part: str) -> Requirement:
    if match := _EQUALITY.fullmatch(part):
        return Requirement(match[1], frozenset({match[3]}), match[2] != "!=")
    if match := _SET.fullmatch(part):
        values = frozenset(value.strip() for value in match[3].split(","))
        if all(re.fullmatch(_VALUE, value) for value in values):
            return Requirement(match[1], values, match[2] == "in")
    if match := _PRESENCE.fullmatch(part):
        return Requirement(match[2], None, not match[1])
    raise RequestError(
        f"label: {part!r} is not a selector; write KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY",
        reason="SelectorInvalid",
    )
