"""One operation of the API: its route, what it takes and answers, who may, and what carries it out.

The table of operations is the only place that knows routes; the router and the OpenAPI document are made from it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from fleet.hub.view import Actor, Hub
from fleet.server.model import Nothing
from fleet.store.token import Role

PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, admitted: who asks, what the path names, and the hub to ask."""

    hub: Hub
    actor: Actor
    path: Mapping[str, str]

    @property
    def now(self) -> datetime:
        """Return the hub's wall time."""
        return datetime.fromisoformat(self.hub.status().now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation. `takes` describes the query string of a GET and the body of a POST.

    `carry_out` gets the call and what was read into `takes`, and returns an `answers`.
    """

    method: str
    path: str
    """Below `/api/v1`, with `{name}` for parts that vary."""
    summary: str
    carry_out: Callable[[Call, Any], Awaitable[Any]]
    answers: Any
    takes: type[msgspec.Struct] = Nothing
    needs: Role = Role.VIEWER
    status: int = 200
    refusals: tuple[int, ...] = ()
    """HTTP statuses of its own errors, beside those that any operation may answer."""
    secret: bool = False
    """The answer holds a credential on purpose, and leaves unredacted."""
    streams: bool = field(default=False)
    """Also answers `Accept: text/event-stream`."""

    @property
    def has_body(self) -> bool:
        """Tell whether `takes` is a body."""
        return self.method == "POST"

    @property
    def name(self) -> str:
        """Return its OpenAPI operationId."""
        return self.carry_out.__name__
