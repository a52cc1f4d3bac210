"""`fleet approve`, `prune` and `status --orphans`."""

import json
from typing import Any

import pytest

from tests.integration.cli.hub import NOW, FakeHub, target

DIGEST = "0123456789abcdef"


def held(cluster: str = "dev-1", app: str = "shop", **changes: Any) -> dict[str, Any]:
    """A deletion that waits."""
    row = {
        "cluster": cluster,
        "app": app,
        "state": "waiting",
        "digest": DIGEST,
        "count": 2,
        "objects": ["ConfigMap shop/a", "ConfigMap shop/b"],
        "reason": "MassChange",
        "message": "nothing of the app would stay",
        "actor": "",
        "since": "2026-01-02T03:00:00Z",
    }
    return {**row, **changes}


def test_what_waits_is_listed_with_every_object(hub: FakeHub) -> None:
    """One line per target, then its objects."""
    hub.on_items("GET approvals", held(), held("prod-1"))
    lines = hub.run("approve", "--list").output.splitlines()
    assert lines[0].split() == ["CLUSTER", "APP", "STATE", "DIGEST", "OBJECTS", "SINCE", "BY", "REASON"]
    assert lines[1].split() == ["dev-1", "shop", "waiting", DIGEST, "2", "1h", "-", "MassChange"]
    assert lines[3:7] == ["", f"dev-1/shop {DIGEST}", "  ConfigMap shop/a", "  ConfigMap shop/b"]


def test_a_list_of_one_target_for_programs(hub: FakeHub) -> None:
    """CLUSTER/APP narrows it."""
    hub.on_items("GET approvals", held(), held("prod-1"))
    rows = json.loads(hub.run("approve", "--list", "prod-1/shop", "-o", "json").output)["items"]
    assert [row["cluster"] for row in rows] == ["prod-1"]


def test_nothing_waits(hub: FakeHub) -> None:
    """An empty list is said, not an error."""
    hub.on_items("GET approvals")
    result = hub.run("approve", "--list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing waits for approval\n")


@pytest.mark.parametrize("given", [(), ("--digest", DIGEST)])
def test_approve_sends_the_digest_of_what_waits(hub: FakeHub, given: tuple[str, ...]) -> None:
    """Given or not, the hub is told which change is meant."""
    hub.on_items("GET approvals", held("prod-1"), held())
    hub.on("POST targets/dev-1/shop/approve", held(state="approved"))
    result = hub.run("approve", "dev-1/shop", "--reason", "meant so", *given)
    assert (result.exit_code, result.stdout) == (0, "approved: 2 objects of dev-1/shop may be deleted\n")
    assert hub.asked[-1].body == {"digest": DIGEST, "reason": "meant so"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what and why"),
        (("dev-1/shop",), "say what and why"),
        (("dev-1/shop", "--reason", "r"), "nothing of dev-1/shop waits for approval; see fleet approve --list"),
    ],
)
def test_an_approval_must_be_clear(hub: FakeHub, arguments: tuple[str, ...], message: str) -> None:
    """A target, a reason, and something that waits."""
    hub.on_items("GET approvals", held("prod-1"))
    result = hub.run("approve", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_prune_now(hub: FakeHub) -> None:
    """The only cluster of the app is meant."""
    hub.on_items("GET targets", target())
    hub.on("POST targets/dev-1/shop/prune", {"pruning": 1})
    result = hub.run("prune", "shop", "--now", "--reason", "port is taken")
    assert (result.exit_code, result.stdout) == (0, "pruning 1 object of dev-1/shop\n")
    assert hub.asked[-1].body == {"reason": "port is taken"}


def test_nothing_left_to_prune(hub: FakeHub) -> None:
    """It is said."""
    hub.on("POST targets/dev-1/shop/prune", {"pruning": 0})
    assert hub.run("prune", "dev-1/shop", "--now", "--reason", "r").stdout == "nothing of dev-1/shop is left to prune\n"


def test_prune_without_now_is_nothing_to_ask_for(hub: FakeHub) -> None:
    """It comes by itself; exit 2 says so."""
    result = hub.run("prune", "dev-1/shop", "--reason", "r")
    assert (result.exit_code, hub.asked) == (2, [])
    assert "add --now" in result.stderr


def test_orphans_are_listed_once_each(hub: FakeHub) -> None:
    """The newest event of each object; filters go to the hub."""
    row = {"cluster": "dev-1", "app": "shop", "object": "Namespace shop", "message": "never deleted by itself"}
    old, new = {**row, "seq": 1, "at": "2026-01-01T00:00:00Z"}, {**row, "seq": 2, "at": "2026-01-02T03:00:00Z"}
    hub.on_items("GET events", old, new)
    head, line = hub.run("status", "--orphans", "dev-1/shop").output.splitlines()
    assert head.split() == ["CLUSTER", "APP", "OBJECT", "LET", "GO", "MESSAGE"]
    assert line.split()[:5] == ["dev-1", "shop", "Namespace", "shop", "1h"]
    assert NOW.startswith("2026-01-02")
    asked = hub.asked[-1].query
    assert (asked["kind"], asked["reason"], asked["app"], asked["cluster"]) == ("prune", "Orphaned", "shop", "dev-1")


def test_no_orphans(hub: FakeHub) -> None:
    """An empty list is said."""
    hub.on_items("GET events")
    assert hub.run("status", "--orphans").stderr == "nothing was let go\n"
