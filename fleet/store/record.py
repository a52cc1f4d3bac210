"""How values become columns: timestamps as RFC 3339 text (empty = none), names that SQL reserves renamed."""

from datetime import UTC, datetime


def write_at(at: datetime | None) -> str:
    """Write a timestamp; None is the empty text.

    >>> write_at(datetime(2026, 1, 2, tzinfo=UTC))
    '2026-01-02T00:00:00+00:00'
    """
    return at.astimezone(UTC).isoformat() if at else ""


def read_at(text: str) -> datetime | None:
    """Undo `write_at`."""
    return datetime.fromisoformat(text) if text else None


def read_some_at(text: str) -> datetime:
    """Undo `write_at` where a timestamp is always there."""
    return datetime.fromisoformat(text)
