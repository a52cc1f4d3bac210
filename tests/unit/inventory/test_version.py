"""Version ranges against versions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.inventory.version import parse_range, parse_version


def _matches(text: str, version: str) -> bool:
    parsed = parse_version(version)
    assert parsed is not None
    return parsed in parse_range(text)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=1.2 <2", "1.2.0 1.99.0", "1.1.9 2.0.0 2.0.0-rc.1"),
        (">=1.2,<2", "1.2.0 1.99.0", "1.1.9 2.0.0"),
        (">= 1.2, < 2", "1.2.0", "2.0.0"),
        ("^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0.0", "0.0.0 0.0.9", "0.1.0"),
        ("^1", "1.0.0 1.9.9", "2.0.0 0.9.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
        ("~>1.2", "1.2.0 1.2.9", "1.3.0"),
        ("~1", "1.0.0 1.9.0", "2.0.0"),
        ("1.x", "1.0.0 1.9.9", "2.0.0 0.9.9"),
        ("1.2.*", "1.2.0", "1.3.0"),
        ("v1.2", "1.2.0 1.2.9", "1.3.0"),
        ("*", "0.0.0 99.0.0", "1.0.0-rc.1"),
        ("x", "1.0.0", "1.0.0-rc.1"),
        ("1.2.3", "1.2.3", "1.2.4"),
        ("=1.2.3", "1.2.3", "1.2.4"),
        ("!=1.2.3", "1.2.4", "1.2.3"),
        (">=1 !=1.2", "1.1.0 1.3.0", "1.2.5"),
        (">1.2", "1.3.0", "1.2.9"),
        (">1.2.3", "1.2.4", "1.2.3"),
        ("<=1.2", "1.2.9", "1.3.0"),
        ("<=1.2.3", "1.2.3", "1.2.4"),
        ("1.2 - 1.4", "1.2.0 1.4.9", "1.5.0 1.1.0"),
        ("1.2.3 - 2.0.0", "2.0.0", "2.0.1"),
        ("<1 || >=3", "0.9.0 3.0.0", "1.0.0 2.9.0"),
        (">=1.0.0-0", "1.0.0-rc.1 1.5.0-rc.1 2.0.0", "0.9.0"),
        (">=1.0.0-rc.2 <2.0.0-0", "1.0.0-rc.10 1.0.0", "1.0.0-rc.1 2.0.0 2.0.0-rc.1"),
        ("~1.2.3-rc.1", "1.2.3-rc.2 1.2.4", "1.2.3-beta 1.3.0"),
    ],
)
def test_ranges_hold_what_they_say(text: str, inside: str, outside: str) -> None:
    """Operators, open places, alternatives and pre-releases, as Flux and Helm read them."""
    assert [version for version in inside.split() if not _matches(text, version)] == []
    assert [version for version in outside.split() if _matches(text, version)] == []


@pytest.mark.parametrize("text", ["", " ", "latest", ">=", ">=a", "1.2.3.4", ">=1 ||", "==1", "1.-2", "^^1", ">=1 foo"])
def test_what_is_no_range_is_refused(text: str) -> None:
    """Nothing is guessed from a range that cannot be read."""
    with pytest.raises(ValueError, match=r"is (not a version|empty)"):
        parse_range(text)


@pytest.mark.parametrize(("tag", "version"), [("v1.2.3", "1.2.3"), ("1.2.3-rc.1+b5", "1.2.3-rc.1+b5")])
def test_tags_are_versions_with_or_without_v(tag: str, version: str) -> None:
    """The leading v is passed over."""
    assert str(parse_version(tag)) == version


@pytest.mark.parametrize("tag", ["1.2", "v1", "release-1.2.3", "V1.2.3", "1.02.3", "vv1.2.3", ""])
def test_other_tags_are_no_versions(tag: str) -> None:
    """Half versions and prefixes are not guessed at."""
    assert parse_version(tag) is None


@given(st.text(max_size=30))
def test_any_text_is_a_range_or_refused(text: str) -> None:
    """No text makes the reader fail in another way."""
    try:
        parsed = parse_range(text)
    except ValueError:
        return
    version = parse_version("1.2.3")
    assert version is not None
    assert (version in parsed) in (True, False)
