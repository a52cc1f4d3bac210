"""Selectors: what they match and what they refuse."""

import pytest

from fleet.sim.resource import Resource
from fleet.sim.selector import Selection, parse_fields, parse_labels
from fleet.sim.status import ApiError

POD = Resource(group="", version="v1", kind="Pod", plural="pods", fields=("status.phase",))


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a in (b, c)", {"a": "c"}, True),
        ("a notin (b,c)", {"a": "c"}, False),
        ("a notin (b,c)", {}, True),
        ("x.io/y=z,!q,k in (v)", {"x.io/y": "z", "k": "v"}, True),
        ("x.io/y=z,!q,k in (v)", {"x.io/y": "z", "k": "v", "q": "1"}, False),
    ],
)
def test_label_selectors(selector: str, labels: dict[str, str], matches: bool) -> None:
    """Every operator matches as Kubernetes documents it."""
    obj = {"metadata": {"name": "x", "labels": labels}}
    assert Selection("", parse_labels(selector)).matches(obj) is matches


def test_unparsable_label_selector() -> None:
    """A selector that is no selector is 400."""
    with pytest.raises(ApiError) as caught:
        parse_labels("a=b=c")
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("metadata.name=x", True),
        ("metadata.name!=x", False),
        ("status.phase=Running", True),
        ("status.phase=Running,metadata.name=y", False),
    ],
)
def test_field_selectors(selector: str, matches: bool) -> None:
    """Names and the fields a kind offers can be selected by."""
    obj = {"metadata": {"name": "x"}, "status": {"phase": "Running"}}
    assert Selection("", (), parse_fields(selector, POD)).matches(obj) is matches


def test_unknown_field_selector() -> None:
    """A field the kind does not offer is 400."""
    with pytest.raises(ApiError) as caught:
        parse_fields("spec.x=1", POD)
    assert caught.value.code == 400
