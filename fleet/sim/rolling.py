"""How a Deployment moves from old replica sets to a new one: pure arithmetic, one step at a time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """A replica set in numbers: what it was asked for, what it has, and how many of these are available."""

    wanted: int
    replicas: int
    available: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many pods there may be over all, and how many must be available."""

    most: int
    least: int


def sized(replica_set: Mapping[str, Any] | None) -> Sized:
    """Return a replica set in numbers; one that does not exist yet is empty."""
    if replica_set is None:
        return Sized(wanted=0, replicas=0, available=0)
    status = replica_set.get("status") or {}
    return Sized(
        wanted=replica_set["spec"].get("replicas", 1),
        replicas=status.get("replicas", 0),
        available=status.get("availableReplicas", 0),
    )


def next_sizes(spec: Mapping[str, Any], new: Sized, old: Sequence[Sized]) -> tuple[int, list[int]]:
    """Return the sizes of the new and of the old replica sets that a Deployment's spec asks for next."""
    wanted = spec.get("replicas", 1)
    if spec.get("strategy", {}).get("type") == "Recreate":
        return (new.wanted if any(each.replicas for each in old) else wanted), [0] * len(old)
    limits = bounds(spec)
    room = limits.most - new.wanted - sum(each.wanted for each in old)
    grown = min(wanted, new.wanted + max(room, 0))
    return grown, _shrunk(limits, new, old)


def bounds(spec: Mapping[str, Any]) -> Bounds:
    """Return the bounds of a rolling update; surge rounds up, unavailability down."""
    wanted = spec.get("replicas", 1)
    rolling = spec.get("strategy", {}).get("rollingUpdate") or {}
    surge = math.ceil(share(rolling.get("maxSurge", "25%"), wanted))
    missing = math.floor(share(rolling.get("maxUnavailable", "25%"), wanted))
    if not surge and not missing:
        missing = 1
    return Bounds(most=wanted + surge, least=wanted - min(missing, wanted))


def share(value: int | str, whole: int) -> float:
    """Return a number, or a percentage of the whole."""
    return whole * int(value.removesuffix("%")) / 100 if isinstance(value, str) else value


def _shrunk(limits: Bounds, new: Sized, old: Sequence[Sized]) -> list[int]:
    """Return the sizes of old sets: the unhealthy go first, then as many as stay above what must be available."""
    total = new.wanted + sum(each.wanted for each in old)
    spare = total - limits.least - max(new.wanted - new.available, 0)
    sizes = []
    for each in old:
        sick = min(max(each.wanted - each.available, 0), max(spare, 0))
        spare -= sick
        sizes.append(each.wanted - sick)
    healthy = new.available + sum(min(each.available, size) for each, size in zip(old, sizes, strict=True))
    spare = healthy - limits.least
    for n, size in enumerate(sizes):
        gone = min(size, max(spare, 0))
        spare -= gone
        sizes[n] = size - gone
    return sizes
