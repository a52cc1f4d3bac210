"""Filters and pages of lists. Pure."""

import base64
import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from fleet.errors import RequestError
from fleet.hub.view import TargetRow
from fleet.reconcile.status import State
from fleet.server.model import Filter, Page, PageFilter, Paging
from fleet.server.nearest import suggest
from fleet.server.selector import Selector, parse_selector

T = TypeVar("T")
Key = tuple[str, ...]

CLUSTER_STATES = ("Ready", "Connecting", "Stale", "Failed", "Unknown")
REPOSITORY_STATES = ("Ready", "Progressing", "Failed")
TARGET_STATES = tuple(state.value for state in State)


def parse_names(text: str) -> frozenset[str]:
    """Split names written with commas; an empty set means any."""
    return frozenset(filter(None, (word.strip() for word in text.split(","))))


def parse_states(text: str, known: Iterable[str]) -> frozenset[str]:
    """Parse states; case does not matter. Raises: RequestError naming the nearest state."""
    by_lower = {state.lower(): state for state in known}
    for word in parse_names(text):
        if word.lower() not in by_lower:
            raise RequestError(
                f"there is no state {word}{suggest(word.title(), by_lower.values())}", reason="StateInvalid"
            )
    return frozenset(by_lower[word.lower()] for word in parse_names(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A filter, parsed. Empty sets match all."""

    apps: frozenset[str]
    clusters: frozenset[str]
    environments: frozenset[str]
    states: frozenset[str]
    selector: Selector

    @classmethod
    def parse(cls, query: PageFilter, states: Iterable[str] = TARGET_STATES) -> "Scope":
        """Parse a filter. Raises: RequestError for a state or selector that is none."""
        return cls(
            apps=parse_names(query.app),
            clusters=parse_names(query.cluster),
            environments=parse_names(query.environment),
            states=parse_states(query.state, states),
            selector=parse_selector(query.label),
        )

    def matches(self, row: TargetRow) -> bool:
        """Tell whether a target is meant."""
        return (
            _meant(row.app, self.apps)
            and _meant(row.cluster, self.clusters)
            and _meant(row.environment, self.environments)
            and _meant(row.state, self.states)
            and self.selector.matches(row.labels)
        )

    @property
    def is_of_targets(self) -> bool:
        """Tell whether more than the app's own name is asked for."""
        return bool(self.clusters or self.environments or self.states or self.selector.requirements)


def _meant(name: str, names: frozenset[str]) -> bool:
    return not names or name in names


def paginate(rows: Iterable[T], key: Callable[[T], Key], paging: Paging | Filter) -> Page[T]:
    """Return the page that `paging` asks for, in the order of `key`, which must be unique.

    A row that comes or goes between two pages moves no other row.

    Raises: RequestError for a `continue` that is not ours.
    """
    ordered = sorted(rows, key=key)
    start = bisect.bisect_right(ordered, _read_continue(paging.after), key=key) if paging.after else 0
    end = start + paging.limit if paging.limit else len(ordered)
    more = _write_continue(key(ordered[end - 1])) if end < len(ordered) else ""
    return Page(items=tuple(ordered[start:end]), after=more)


def _write_continue(key: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def _read_continue(text: str) -> Key:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=tuple[str, ...])
    except (ValueError, msgspec.DecodeError) as error:
        raise RequestError(
            "continue is not one that this list gave; start over without it", reason="ContinueInvalid"
        ) from error


def number(rows: Sequence[T]) -> list[tuple[str, T]]:
    """Give rows that have no name of their own a key that keeps their order."""
    return [(f"{index:08d}", row) for index, row in enumerate(rows)]
