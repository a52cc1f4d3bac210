"""What a preflight found, in few words."""

from collections.abc import Mapping

import pytest

from fleet.errors import TargetError
from fleet.hub.inquiry import tell
from fleet.object import TargetId
from fleet.reconcile.preflight import Preflight


def found(troubles: Mapping[str, str]) -> list[Preflight]:
    """What was found of clusters."""
    return [
        Preflight(target=TargetId(name, "shop"), release=2, trouble=TargetError(why, reason="Wrong"))
        for name, why in troubles.items()
    ]


@pytest.mark.parametrize(
    ("troubles", "said"),
    [
        ({}, []),
        ({"a": "quota"}, ["a: quota"]),
        ({"a": "quota", "b": "away", "c": "quota"}, ["a, c: quota", "b: away"]),
        (dict.fromkeys("abcdef", "quota"), ["a, b, c and 3 more: quota"]),
        (
            {f"c{n}": f"w{n}" for n in range(7)},
            [*(f"c{n}: w{n}" for n in range(5)), "and 2 other things: fleet plan shop"],
        ),
    ],
)
def test_what_was_found_is_said_once(troubles: Mapping[str, str], said: list[str]) -> None:
    """Of a thousand clusters of which the same is found, one line tells."""
    assert list(tell("shop", found(troubles))) == said
