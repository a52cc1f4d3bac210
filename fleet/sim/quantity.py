"""Resource quantities in the form the API server stores: as few digits and as large a suffix as possible."""

import re
from decimal import ROUND_UP, Decimal
from typing import Final

_FORM: Final = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))(?P<suffix>Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+|)"
)
_BINARY: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SUFFIXES: Final = {exponent: suffix for suffix, exponent in _DECIMAL.items()}

MESSAGE: Final = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


class BadQuantity(ValueError):
    """The text is no quantity."""


def canonical(value: object, *, finest: int = -9) -> str:
    """Return a quantity as the server writes it; `finest` is the smallest decimal exponent that is kept.

    Raises:
        BadQuantity: the value is no quantity.
    """
    found = _FORM.fullmatch(str(value).strip()) if isinstance(value, (str, int, float)) else None
    if found is None or isinstance(value, bool):
        raise BadQuantity(MESSAGE)
    suffix = found["suffix"]
    amount = Decimal(found["number"])
    if suffix in _BINARY[1:]:
        return _binary(amount * Decimal(1024) ** _BINARY.index(suffix), finest)
    if suffix in _DECIMAL:
        return _decimal(_rounded(amount.scaleb(_DECIMAL[suffix]), finest))
    return _exponential(_rounded(amount.scaleb(int(suffix[1:])), finest))


def _rounded(amount: Decimal, finest: int) -> Decimal:
    return amount.quantize(Decimal(1).scaleb(finest), rounding=ROUND_UP) if amount % 1 else amount


def _binary(amount: Decimal, finest: int) -> str:
    amount = _rounded(amount, finest)
    if amount % 1 or abs(amount) < 1024:
        return _decimal(amount)
    whole, power = int(amount), 0
    while power < len(_BINARY) - 1 and whole and whole % 1024 == 0:
        whole, power = whole // 1024, power + 1
    return f"{whole}{_BINARY[power]}"


def _decimal(amount: Decimal) -> str:
    digits, exponent = _scaled(amount)
    return f"{digits}{_SUFFIXES[exponent]}"


def _exponential(amount: Decimal) -> str:
    digits, exponent = _scaled(amount)
    return f"{digits}e{exponent}" if exponent else str(digits)


def _scaled(amount: Decimal) -> tuple[int, int]:
    """Return the amount as a whole number and the largest exponent, in steps of three, that allows one."""
    if not amount:
        return 0, 0
    for exponent in sorted(_SUFFIXES, reverse=True):
        scaled = amount.scaleb(-exponent)
        if scaled == scaled.to_integral_value():
            return int(scaled), exponent
    return int(amount.scaleb(9).to_integral_value(rounding=ROUND_UP)), -9


def magnitude(text: str) -> Decimal:
    """Return the size of a quantity, to compare two.

    Raises:
        BadQuantity: the text is no quantity.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise BadQuantity(MESSAGE)
    suffix, amount = found["suffix"], Decimal(found["number"])
    if suffix in _BINARY[1:]:
        return amount * Decimal(1024) ** _BINARY.index(suffix)
    return amount.scaleb(_DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:]))
