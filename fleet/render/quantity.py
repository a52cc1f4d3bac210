"""Resource quantities written as the API server writes them: `1000m` is `1`, `1024Mi` is `1Gi`. Pure.

A live value is always in this form; a desired one in another would look like another value to a co-owner's conflict
check.

Source: k8s.io/apimachinery/pkg/api/resource, `Quantity.CanonicalizeBytes`.
"""

import re
from fractions import Fraction

_QUANTITY = re.compile(
    r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?[0-9]{1,3})?"
)
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_POWER = {suffix: power for power, suffix in _DECIMAL.items()}
_LARGEST = 2**63 - 1


def canonicalize_quantity(text: str) -> str | None:
    """Return the canonical form; None when `text` is no quantity.

    >>> [canonicalize_quantity(text) for text in ("1000m", "0.5", "1024Mi", "1.5Gi", "1e3", "0.1Ki", "2000", "1Gib")]
    ['1', '500m', '1Gi', '1536Mi', '1e3', '102400m', '2k', None]
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    sign, digits, suffix = match.group(1), match.group(2), match.group(3) or ""
    value = Fraction(digits if digits[0] != "." else "0" + digits) * _scale(suffix)
    nano = -(-value * 10**9 // 1)  # finer than nano rounds away from zero
    if nano > _LARGEST * 10**9:
        return text
    minus = "-" if sign == "-" and nano else ""
    if suffix.endswith("i") and value >= 1024 and nano % 10**9 == 0:
        return minus + _write_binary(nano // 10**9)
    return minus + _write_decimal(nano, exponent=suffix[:1] in ("e", "E") and len(suffix) > 1)


def _scale(suffix: str) -> Fraction:
    if suffix in _POWER:
        return Fraction(10) ** _POWER[suffix]
    if suffix in _BINARY:
        return Fraction(1024) ** _BINARY.index(suffix)
    return Fraction(10) ** int(suffix[1:])


def _write_binary(number: int) -> str:
    power = 0
    while number % 1024 == 0 and power < len(_BINARY) - 1:
        number //= 1024
        power += 1
    return f"{number}{_BINARY[power]}"


def _write_decimal(nano: int, *, exponent: bool) -> str:
    if nano == 0:
        return "0"
    power = -9
    while nano % 1000 == 0 and power < 18:
        nano //= 1000
        power += 3
    if exponent:
        return f"{nano}e{power}" if power else str(nano)
    return f"{nano}{_DECIMAL[power]}"
