"""Names, digests and what they look like to people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.clock import SystemClock, format_at, jitter, new_id
from fleet.object import Gvk, Manifest, ObjectKey, Origin, TargetId, encode_canonical, parse_gvk


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ObjectKey("", "ConfigMap", "shop", "web"), "ConfigMap shop/web"),
        (ObjectKey("apps", "Deployment", "shop", "web"), "Deployment.apps shop/web"),
        (ObjectKey("", "Namespace", "", "shop"), "Namespace shop"),
        (Gvk("apps", "v1", "Deployment"), "apps/v1 Deployment"),
        (Gvk("", "v1", "Pod"), "v1 Pod"),
        (TargetId("one", "shop"), "one/shop"),
        (Origin("a.yaml", 3), "a.yaml:3"),
        (Origin("a.yaml", 0), "a.yaml"),
    ],
)
def test_names_as_people_read_them(value: object, text: str) -> None:
    """Names are shown in the form that kubectl users know."""
    assert str(value) == text


@pytest.mark.parametrize("api_version", ["v1", "apps/v1", "a.b.example/v1beta1"])
def test_api_versions_go_there_and_back(api_version: str) -> None:
    """Splitting and joining an apiVersion are inverse."""
    assert parse_gvk(api_version, "X").api_version == api_version


def test_a_manifest_does_not_show_its_body() -> None:
    """A body may hold secret values; printing a manifest shows none."""
    m = Manifest(key=ObjectKey("", "Secret", "a", "b"), version="v1", body=b"hunter2", digest=b"d")
    assert "hunter2" not in repr(m)
    assert m.gvk == Gvk("", "v1", "Secret")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON))
def test_equal_values_are_equal_bytes(value: dict[str, object]) -> None:
    """The order in which keys were written does not reach the canonical form."""
    assert encode_canonical(dict(reversed(value.items()))) == encode_canonical(value)


def test_time_and_chance_come_from_the_clock() -> None:
    """Wall time is aware, ids are 32 hex digits and differ, jitter stays within its spread."""
    clock = SystemClock()
    assert clock.now().tzinfo is not None
    assert format_at(clock.now()).endswith("Z")
    ids = {new_id(clock) for _ in range(100)}
    assert len(ids) == 100
    assert all(len(i) == 32 and int(i, 16) >= 0 for i in ids)
    assert all(8 <= jitter(clock, 10) <= 12 for _ in range(100))
