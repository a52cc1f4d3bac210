"""Fields that belong to others: which, and what is sent instead."""

import copy
import json
from typing import Any

import pytest

from fleet.kube.wire import ManagedEntry
from fleet.object import ObjectKey
from fleet.reconcile.ignore import holders, ignored_pointers, yield_fields
from fleet.reconcile.port import IgnoreRule

WEB = ObjectKey("apps", "Deployment", "shop", "web")


def entry(manager: str, fields: Any, operation: str = "Update") -> ManagedEntry:
    """One entry of managedFields."""
    return ManagedEntry(manager=manager, operation=operation, api_version="apps/v1", fields=json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (IgnoreRule(kind="Deployment", paths=("/x",)), True),
        (IgnoreRule(kind="Deployment", group="apps", namespace="shop", name="web", paths=("/x",)), True),
        (IgnoreRule(kind="Deployment", group="other", paths=("/x",)), False),
        (IgnoreRule(kind="Deployment", namespace="other", paths=("/x",)), False),
        (IgnoreRule(kind="Deployment", name="other", paths=("/x",)), False),
        (IgnoreRule(kind="StatefulSet", paths=("/x",)), False),
    ],
)
def test_which_objects_a_rule_means(rule: IgnoreRule, *, matches: bool) -> None:
    """Empty parts of a rule match everything."""
    assert ignored_pointers([rule], WEB, "", ()) == (("/x",) if matches else ())


@pytest.mark.parametrize(
    ("scaled_by", "yielded"),
    [("", False), ("kubectl", False), ("kube-controller-manager", True), ("keda", True)],
)
def test_replicas_go_to_autoscalers(scaled_by: str, *, yielded: bool) -> None:
    """Whoever scales and is no drift manager gets the replicas; a rule that says so too adds nothing."""
    expected = ("/spec/replicas",) if yielded else ()
    assert ignored_pointers([], WEB, scaled_by, ["kubectl*"]) == expected
    rule = IgnoreRule(kind="Deployment", paths=("/spec/replicas",))
    assert ignored_pointers([rule], WEB, scaled_by, ["kubectl*"]) == ("/spec/replicas",)


def test_who_holds_a_path() -> None:
    """Managers other than us that hold it or something below."""
    managed = [
        entry("fleet", {"f:spec": {"f:replicas": {}}}, "Apply"),
        entry("hpa", {"f:spec": {"f:replicas": {}}}),
        entry("x", {"f:spec": {"f:template": {}}}),
    ]
    assert holders(managed, "/spec/replicas") == ["hpa"]
    assert holders(managed, "/spec") == ["hpa", "x"]
    assert holders(managed, "/data") == []


DESIRED: dict[str, Any] = {
    "spec": {
        "replicas": 2,
        "template": {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]}},
        "args": ["x", "y"],
    }
}
LIVE: dict[str, Any] = {
    "spec": {
        "replicas": 5,
        "template": {"spec": {"containers": [{"name": "b", "image": "b:9"}, {"name": "a", "image": "a:9"}]}},
        "args": ["x", "z"],
    }
}
IMAGES = "/spec/template/spec/containers/{}/image"


@pytest.mark.parametrize(
    ("pointer", "path", "only_ours", "held"),
    [
        ("/spec/replicas", ("spec", "replicas"), 5, None),
        (IMAGES.format("[name=a]"), ("spec", "template", "spec", "containers", 0, "image"), "a:9", None),
        (IMAGES.format('[name="b"]'), ("spec", "template", "spec", "containers", 1, "image"), "b:9", None),
        (IMAGES.format("*"), ("spec", "template", "spec", "containers", 1, "image"), "b:9", None),
        (IMAGES.format("0"), ("spec", "template", "spec", "containers", 0, "image"), "a:9", None),
        ("/spec/args", ("spec", "args"), ["x", "z"], None),
        ("/spec/absent", ("spec", "absent"), None, None),
        ("", ("spec", "replicas"), 2, 2),
    ],
)
def test_what_is_sent(pointer: str, path: tuple[str | int, ...], only_ours: Any, held: Any) -> None:
    """A path that only we hold is sent with its live value, one that others hold is left out; the input stays as it is."""
    fields = {"f:spec": {"f:replicas": {}, "f:args": {}, "f:template": {"f:spec": {"f:containers": _CONTAINERS}}}}
    kept = copy.deepcopy((DESIRED, LIVE))
    alone = yield_fields(DESIRED, LIVE, [entry("fleet", fields, "Apply")], [pointer])
    assert _at(alone, path) == only_ours
    shared = yield_fields(DESIRED, LIVE, [entry("other", fields)], [pointer])
    assert _at(shared, path) == held
    assert kept == (DESIRED, LIVE)


_CONTAINERS: dict[str, Any] = {
    'k:{"name":"a"}': {"f:image": {}},
    'k:{"name":"b"}': {"f:image": {}},
    "i:0": {"f:image": {}},
}


def test_a_path_that_is_gone_is_not_sent() -> None:
    """An ignored path that somebody removed is not brought back."""
    sent = yield_fields({"data": {"a": "1", "b": "1"}}, {"data": {"b": "2"}}, [], ["/data/a"])
    assert sent == {"data": {"b": "1"}}


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError):
            return None
    return value
