"""Ends of pauses and tokens, and past moments: RFC 3339, or a length of time from now. Pure."""

import re
from datetime import datetime, timedelta

from fleet.errors import RequestError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LENGTH = re.compile(r"(?:\d{1,9}[smhdw])+")
MOST = timedelta(days=3650)


def parse_end(field: str, text: str, now: datetime) -> datetime | None:
    """Return when something ends; None for an empty text.

    Raises: RequestError when it is neither form, or not in the future.
    """
    if not text.strip():
        return None
    end = _parse(field, text.strip(), now)
    if end <= now:
        raise RequestError(
            f"{field}: {text} is not in the future; the hub's clock says {now.isoformat()}", reason="InvalidField"
        )
    return end


def parse_past(field: str, text: str, now: datetime) -> datetime:
    """Return a past moment; a length of time counts back from now.

    Raises: RequestError when it is neither form, or in the future.
    """
    moment = _parse(field, text.strip(), now)
    if _LENGTH.fullmatch(text.strip()):
        return now - (moment - now)
    if moment > now:
        raise RequestError(
            f"{field}: {text} is in the future; the hub's clock says {now.isoformat()}", reason="InvalidField"
        )
    return moment


def _parse(field: str, text: str, now: datetime) -> datetime:
    if _LENGTH.fullmatch(text):
        length = sum(
            (timedelta(**{_UNITS[unit]: int(n)}) for n, unit in re.findall(r"(\d+)([smhdw])", text)), timedelta()
        )
        return now + min(length, MOST)
    try:
        end = datetime.fromisoformat(text)
    except ValueError as error:
        raise RequestError(
            f"{field}: {text!r} is neither RFC 3339, such as 2030-01-31T18:00:00Z, nor a length of time, such as 90m or 2h",
            reason="InvalidField",
        ) from error
    if end.tzinfo is None:
        raise RequestError(f"{field}: {text!r} has no time zone; end it with Z or an offset", reason="InvalidField")
    return end
