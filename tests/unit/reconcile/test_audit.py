"""What of two objects is compared, and how it is named."""

from typing import Any

import pytest

from fleet.kube.ownership import FieldSet
from fleet.reconcile.audit import differing
from fleet.reconcile.drift import Finding

WEB = 'k:{"name":"web"}'
PORT = 'k:{"containerPort":80,"protocol":"TCP"}'


@pytest.mark.parametrize(
    ("path", "wanted", "found", "named"),
    [
        (("f:data", "f:a"), {"data": {"a": "1"}}, {"data": {"a": "1"}}, []),
        (("f:data", "f:a"), {"data": {"a": "1"}}, {"data": {"a": "2"}}, [".data.a"]),
        (("f:data", "f:a"), {"data": {"a": "1"}}, {}, [".data.a"]),
        (("f:data", "f:a"), {"data": {"a": "1"}}, {"data": None}, [".data.a"]),
        (("f:data", "f:a"), {"data": {"a": "1"}}, {"data": {"a": "1", "b": "2"}}, []),
        (("f:c", WEB, "f:i"), {"c": [{"name": "web", "i": 1}]}, {"c": [{"name": "x"}, {"name": "web", "i": 1}]}, []),
        (("f:c", WEB, "f:i"), {"c": [{"name": "web", "i": 1}]}, {"c": [{"name": "web"}]}, ['.c[name="web"].i']),
        (("f:p", PORT, "f:n"), {"p": [{"containerPort": 80, "n": 1}]}, {"p": [{"containerPort": 80, "n": 1}]}, []),
        (("f:finalizers", 'v:"a"'), {"finalizers": ["a"]}, {"finalizers": ["b", "a"]}, []),
        (("f:finalizers", 'v:"a"'), {"finalizers": ["a"]}, {"finalizers": ["b"]}, ['.finalizers[="a"]']),
        (("f:l", "i:1"), {"l": [1, 2]}, {"l": [1]}, [".l[1]"]),
        (("f:rules",), {"rules": [{"verbs": ["get"]}]}, {"rules": []}, [".rules"]),
        (("f:stringData", "f:a"), {"data": {"a": "x"}}, {"data": {"a": "x"}}, []),
    ],
)
def test_only_what_we_own_is_compared(path: tuple[str, ...], wanted: Any, found: Any, named: list[str]) -> None:
    """A path of our own set differs when its value does; what others have beside it does not matter."""
    assert differing(FieldSet.of([path]), wanted, found) == named


def test_a_finding_names_three_paths() -> None:
    """A long list is cut; a refusal is told as the server put it."""
    assert Finding(digest=b"", paths=(".a", ".b", ".c", ".d")).message.endswith(": .a, .b, .c and 1 more")
    assert "no such field" in Finding(digest=b"", refusal="no such field").message
