"""Label selectors as text."""

import pytest

from fleet.errors import RequestError
from fleet.server.selector import parse_selector

LABELS = {"env": "prod", "tier": "web", "example.com/team": "a-1", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("env=prod", True),
        ("env==prod", True),
        ("env = prod", True),
        ("env=dev", False),
        ("env!=dev", True),
        ("env!=prod", False),
        ("missing!=x", True),
        ("missing=x", False),
        ("env in (dev, prod)", True),
        ("env in (dev)", False),
        ("env notin (dev)", True),
        ("env notin (prod,dev)", False),
        ("missing notin (a)", True),
        ("env", True),
        ("!env", False),
        ("! missing", True),
        ("missing", False),
        ("empty=", True),
        ("env=", False),
        ("empty in (,a)", True),
        ("example.com/team=a-1", True),
        ("env=prod,tier in (web,api),!missing", True),
        ("env=prod,tier in (db,api)", False),
    ],
)
def test_a_selector_matches_as_kubectl_does(text: str, matches: bool) -> None:
    """Equality, sets and presence; a label that is not there passes a negative condition."""
    assert parse_selector(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text", ["a b", "=x", "a=b=c", "a in b", "a in (b", "a,,b", "a>1", "a in (b c)", ",", "a/b/c=d"]
)
def test_what_is_no_selector_is_refused(text: str) -> None:
    """The part is named, with the forms there are."""
    with pytest.raises(RequestError, match="KEY in"):
        parse_selector(text)
