"""Everything one simulated API server knows, shared by the parts that serve requests and by the controllers."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from fleet.sim.resource import Registry, Resource
from fleet.sim.schema import Schema
from fleet.sim.storage import Storage

_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(slots=True, kw_only=True)
class State:
    """One cluster's content and what it serves. Wall time and ids come from here only."""

    name: str
    now: Callable[[], datetime]
    rng: Random
    storage: Storage = field(default_factory=Storage)
    registry: Registry = field(default_factory=Registry)
    schemas: dict[tuple[str, str, str], Schema] = field(default_factory=dict)
    documents: dict[tuple[str, str, str], Mapping[str, Any]] = field(default_factory=dict)
    flow_uid: str = ""

    def __post_init__(self) -> None:
        self.flow_uid = self.new_uid()

    def new_uid(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def new_suffix(self) -> str:
        """Return the five letters that generateName appends."""
        return "".join(self.rng.choices("bcdfghjklmnpqrstvwxz2456789", k=5))

    def timestamp(self) -> str:
        """Return the present as metadata holds it: seconds, UTC, with Z."""
        return self.timestamp_in(0)

    def timestamp_in(self, seconds: float) -> str:
        """Return the time `seconds` from now, as metadata holds it."""
        return (self.now().astimezone(UTC) + timedelta(seconds=seconds)).strftime(_FORMAT)

    def schema(self, resource: Resource) -> Schema:
        return self.schemas[resource.group, resource.version, resource.kind]
