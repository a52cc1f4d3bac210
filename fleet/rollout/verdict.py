"""What the results of a check say together. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from fleet.rollout.policy import Check
from fleet.rollout.state import Sample


@dataclass(frozen=True, slots=True)
class Passed:
    """The check is content."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The check failed more often than is forgiven."""

    why: str


@dataclass(frozen=True, slots=True)
class Pending:
    """More results are needed; the next one is due at a time, None = now."""

    next_at: datetime | None = None


Verdict: TypeAlias = Passed | Failed | Pending


def judge(samples: Sequence[Sample], check: Check) -> Verdict:
    """Say what results, oldest first, mean; an inconclusive one is waited out."""
    failed = [s for s in samples if s.outcome == "failed"]
    if len(failed) > check.failure_limit:
        return Failed(f"check {check.name}: {failed[-1].message}")
    if sum(s.outcome == "passed" for s in samples) >= check.count:
        return Passed()
    return Pending(samples[-1].at + timedelta(seconds=check.interval_s) if samples else None)
