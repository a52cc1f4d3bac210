"""Opened values do not show themselves."""

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from fleet.secrets.opened import Opened
from fleet.secrets.plain import Plain

CANARY = b"canary-4711"


def test_no_way_of_printing_shows_it() -> None:
    """repr, str, format, and those of whatever holds it give a mask."""
    value = Plain(CANARY)
    opened = Opened(type="Opaque", labels={}, annotations={}, immutable=None, items={"a": value}, kids={})
    for text in (repr(value), str(value), f"{value:>20}", "%s %r" % (value, value), repr(opened), str([value])):  # noqa: UP031
        assert "canary" not in text
        assert "***" in text


def test_it_is_never_serialised_or_hashed() -> None:
    """pickle, JSON, hash and bytes are refused."""
    value = Plain(CANARY)
    attempts: list[Callable[[Any], Any]] = [pickle.dumps, json.dumps, hash, bytes]
    for attempt in attempts:
        with pytest.raises(TypeError) as caught:
            attempt(value)
        assert "canary" not in str(caught.value)


def test_it_is_compared_and_revealed() -> None:
    """Equal values are equal, and the bytes are there for who asks by name."""
    assert Plain(b"a") == Plain(b"a") != Plain(b"b")
    assert Plain(b"a") != b"a"
    assert Plain(CANARY).reveal() == CANARY
    assert len(Plain(CANARY)) == len(CANARY)
