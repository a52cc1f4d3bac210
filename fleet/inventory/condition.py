"""Comparisons with a number, as checks write them. Pure."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

_CONDITION = re.compile(r"\s*(<=?|>=?|==|!=)\s*([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?)\s*")
_COMPARE: Mapping[str, Callable[[float, float], bool]] = MappingProxyType({
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """An operator and a finite number."""

    operator: str
    number: float

    def holds(self, value: float) -> bool:
        """Tell whether a value satisfies it; NaN is nobody's business here."""
        return _COMPARE[self.operator](value, self.number)


def parse_condition(text: str) -> Comparison:
    """Read a comparison.

    >>> parse_condition("< 0.01").holds(0.5), parse_condition("!=1").holds(2)
    (False, True)

    Raises: ValueError, for people.
    """
    found = _CONDITION.fullmatch(text)
    if found is None or not math.isfinite(float(found[2])):
        raise ValueError("must be a comparison with a number, such as < 0.01 or >= 2")
    return Comparison(found[1], float(found[2]))
