"""Version ranges as people write them for tags: `>=1.2 <2`, `^1.4`, `~1.4.2`, `1.x`, `1.2 - 1.8`, `1.4 || >=2`.

As in Masterminds/semver, which Flux and Helm use: a pre-release matches only a condition that names one itself.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from semver import Version

Condition = Callable[[Version], bool]

_PARTIAL = re.compile(
    r"v?(?P<major>\d+|[xX*])(?:\.(?P<minor>\d+|[xX*])(?:\.(?P<patch>\d+|[xX*])"
    r"(?:-(?P<pre>[0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?)?)?"
)
_CONDITION = re.compile(r"(?P<operator><=|>=|!=|~>|[<>=~^]?)\s*(?P<version>[^\s,<>=~^!]+)")
_HYPHEN = re.compile(r"(\S+)\s+-\s+(\S+)")


def parse_version(tag: str) -> Version | None:
    """Return the version that a tag names, with or without a leading v; None for any other tag."""
    text = tag.removeprefix("v")
    return Version.parse(text) if Version.is_valid(text) else None


@dataclass(frozen=True, slots=True)
class Range:
    """Versions that meet all conditions of at least one alternative."""

    text: str
    alternatives: tuple[tuple[Condition, ...], ...]

    def __contains__(self, version: Version) -> bool:
        return any(all(meets(version) for meets in conditions) for conditions in self.alternatives)


def parse_range(text: str) -> Range:
    """Parse a version range.

    Raises: ValueError naming the part that is not understood.
    """
    return Range(text, tuple(_parse_alternative(part.strip()) for part in text.split("||")))


def _parse_alternative(text: str) -> tuple[Condition, ...]:
    text = _HYPHEN.sub(r">=\1 <=\2", text)
    conditions, at = [], 0
    while at < len(text):
        found = _CONDITION.match(text, at)
        if found is None:
            raise ValueError(f"{text[at:]!r} is not a version range such as >=1.2 <2")
        conditions.append(_make(found["operator"], _parse_partial(found["version"])))
        at = re.compile(r"[\s,]*").match(text, found.end()).end()  # type: ignore[union-attr]
    if not conditions:
        raise ValueError("is empty; write a version range such as >=1.2 <2, or * for any version")
    return tuple(conditions)


@dataclass(frozen=True, slots=True)
class _Partial:
    """A version whose last numbers may be open: 1.2 has two numbers."""

    numbers: tuple[int, ...]
    prerelease: str | None = None

    @property
    def floor(self) -> Version:
        """The lowest version it can mean."""
        major, minor, patch = (*self.numbers, 0, 0, 0)[:3]
        return Version(major, minor, patch, self.prerelease)

    def above(self, kept: int) -> Version | None:
        """Return the first version that differs in the first `kept` numbers; None where any version fits."""
        if kept == 0:
            return None
        numbers = [*self.numbers[:kept]]
        numbers[-1] += 1
        major, minor, patch = (*numbers, 0, 0, 0)[:3]
        return Version(major, minor, patch)

    @property
    def caret(self) -> int:
        """How many numbers ^ keeps: up to the first that is not zero."""
        given = len(self.numbers)
        return next((at + 1 for at, number in enumerate(self.numbers) if number), given)


def _parse_partial(text: str) -> _Partial:
    found = _PARTIAL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a version such as 1.2.3, 1.2 or 1.x")
    numbers: list[int] = []
    for part in (found["major"], found["minor"], found["patch"]):
        if part is None or not part.isdigit():
            break
        numbers.append(int(part))
    return _Partial(tuple(numbers), found["pre"] if len(numbers) == 3 else None)


def _make(operator: str, partial: _Partial) -> Condition:
    given = len(partial.numbers)
    low, exact = partial.floor, given == 3
    match operator:
        case "^":
            meets = _between(low, partial.above(partial.caret))
        case "~" | "~>":
            meets = _between(low, partial.above(min(given, 2)))
        case ">=":
            meets = _between(low, None)
        case "<":
            meets = low.__gt__
        case ">":
            above = partial.above(given)
            meets = low.__lt__ if exact else above.__le__ if above else _never
        case "<=":
            meets = low.__ge__ if exact else _between(None, partial.above(given))
        case "!=":
            equal = low.__eq__ if exact else _between(low, partial.above(given))
            meets = lambda version: not equal(version)  # noqa: E731
        case _:
            meets = low.__eq__ if exact else _between(low, partial.above(given))
    return lambda version: (not version.prerelease or partial.prerelease is not None) and bool(meets(version))


def _between(low: Version | None, high: Version | None) -> Condition:
    return lambda version: (low is None or version >= low) and (high is None or version < high)


def _never(_: Version) -> bool:
    return False
