"""Durations and moments as people type and read them. Pure."""

import re
from datetime import UTC, datetime

_UNITS_S = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[wdhms])")


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as `30d` or `1h30m`.

    >>> parse_duration("1h30m"), parse_duration("30d")
    (5400.0, 2592000.0)

    Raises: ValueError.
    """
    if not re.fullmatch(f"(?:{_PART.pattern})+", text):
        raise ValueError(f"{text!r} is not a duration; write for example 30s, 10m, 1h30m or 30d")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def format_duration(seconds: float) -> str:
    """Return at most two units; less than a second, and the future, are `0s`.

    >>> format_duration(42), format_duration(3725), format_duration(90_000), format_duration(7200)
    ('42s', '1h2m', '1d1h', '2h')
    """
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, length)
        if number or parts:
            parts.append(f"{number}{unit}" if number else "")
    return "".join(parts[:2]) or "0s"


def write_length(seconds: float | None) -> str:
    """Return a length of time as the API reads it, whole seconds; it counts by the hub's clock. Empty for None.

    >>> write_length(7200.0), write_length(None)
    ('7200s', '')
    """
    return "" if seconds is None else f"{int(seconds)}s"


def parse_at(text: str) -> datetime:
    """Return the moment of an RFC 3339 timestamp; one without an offset is UTC.

    >>> parse_at("2026-01-02T03:04:05Z").isoformat()
    '2026-01-02T03:04:05+00:00'

    Raises: ValueError.
    """
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def format_age(at: str, now: datetime) -> str:
    """Return how long ago a timestamp was; `-` for none.

    >>> format_age("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 14, 5, tzinfo=UTC))
    '10m'
    """
    return format_duration((now - parse_at(at)).total_seconds()) if at else "-"
