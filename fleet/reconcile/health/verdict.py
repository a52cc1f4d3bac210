"""The value that every health rule returns."""

from datetime import datetime
from enum import StrEnum

import msgspec


class Health(StrEnum):
    """kstatus's words."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"
    NOT_FOUND = "NotFound"
    UNKNOWN = "Unknown"


class Verdict(msgspec.Struct, frozen=True):
    """Health with a CamelCase reason and a sentence; `recheck_at` when time alone may change it."""

    health: Health
    reason: str = ""
    message: str = ""
    recheck_at: datetime | None = None


CURRENT = Verdict(Health.CURRENT, "Current")


def progressing(message: str, reason: str = "InProgress") -> Verdict:
    """Say what is still to happen."""
    return Verdict(Health.IN_PROGRESS, reason, message)


def failed(message: str, reason: str) -> Verdict:
    """Say what went wrong."""
    return Verdict(Health.FAILED, reason, message)
