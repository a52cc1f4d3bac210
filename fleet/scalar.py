"""What an unquoted YAML scalar means to kubectl. Pure.

Source: sigs.k8s.io/yaml and its copy of go-yaml v2 (`resolve.go`), compared with a real kubectl in the tests.
"""

import math
import re
import struct
from typing import Any

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INT = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_DOT_FLOAT = re.compile(r"\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+(?:_[0-9]+)*)?")
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**63, 2**64)


def resolve_plain(text: str) -> Any:
    """Return what an unquoted scalar means to kubectl: bool, None, int, float or str.

    A whole number beyond int64 is a float, as it is to an API server.

    >>> [resolve_plain(text) for text in ("y", "1:30", "2024-01-02", "1e3", "0o10", "08", "0777", "=", "~")]
    [True, '1:30', '2024-01-02', 1000, 8, 8, 511, '=', None]
    """
    return as_json_number(resolve(text))


def resolve(text: str) -> Any:
    """Return the same before numbers are put into their JSON form: what tags and keys are decided by."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first == ".":
        number = float(text) if _DOT_FLOAT.fullmatch(text) else math.inf
        return text if math.isinf(number) else number
    if first in "+-0123456789":
        return _resolve_number(text)
    return text


def _resolve_number(text: str) -> Any:
    plain = text.replace("_", "")
    match = _INT.fullmatch(plain)
    if match:
        sign, sixteen, two, eight, ten = match.groups()
        digits, base = next((d, b) for d, b in ((sixteen, 16), (two, 2), (eight, 8), (ten, 10)) if d is not None)
        if len(digits) <= 64:
            number = -int(digits, base) if sign == "-" else int(digits, base)
            if number in _INT64 or (number in _UINT64 and not sign):
                return number
    if _FLOAT.fullmatch(plain):
        approximate = float(plain)
        return text if math.isinf(approximate) else approximate
    return text


def as_json_number(value: Any) -> Any:
    """Make 1000.0 the integer that it is once encoded, and a number beyond int64 the float that it is once decoded."""
    if isinstance(value, float) and value.is_integer() and int(value) in _INT64:
        return int(value)
    if type(value) is int and value not in _INT64:
        return float(value)
    return value


def format_key(value: Any) -> str | None:
    """Return a key as the string that kubectl makes of it; None when it refuses."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value in _INT64 else None
    return _format_float(value) if isinstance(value, float) and math.isfinite(value) else None


def _format_float(value: float) -> str:
    """Format as Go's `strconv.FormatFloat(value, 'g', -1, 32)`: kubectl rounds keys to float32.

    >>> _format_float(1e6), _format_float(0.5), _format_float(123456.75), _format_float(0.123456789)
    ('1e+06', '0.5', '123456.75', '0.12345679')
    """
    single = _to_float32(value)
    shortest = next(t for t in (f"{value:.{n}e}" for n in range(17)) if _to_float32(float(t)) == single)
    mantissa, _, exponent = shortest.partition("e")
    if not -4 <= int(exponent) < 6:
        return shortest
    places = max(0, len(mantissa.lstrip("-").replace(".", "")) - 1 - int(exponent))
    return f"{float(shortest):.{places}f}"


def _to_float32(value: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return value
