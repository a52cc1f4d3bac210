"""`fleet cluster`."""

import json
from typing import Any

import msgspec

from fleet.hub.view import ClusterRow
from tests.integration.cli.hub import FakeHub, target


def cluster(**fields: Any) -> dict[str, Any]:
    """One cluster's row."""
    row = ClusterRow(
        name="dev-1",
        environment="dev",
        state="Ready",
        reason="Connected",
        message="",
        since="2026-01-02T03:00:00Z",
        observed_at="2026-01-02T03:59:58Z",
        server="https://dev-1.example.com",
        version="v1.36.3",
        uid="u-1",
        labels={"region": "eu"},
        targets=2,
        synced=1,
        objects=7,
        watches=3,
    )
    return {**msgspec.to_builtins(row), **fields}


def test_list_shows_what_is_the_matter(hub: FakeHub) -> None:
    """A reason and a drain are in the message; what is well has none."""
    held = cluster(name="dev-2", state="Failed", reason="OwnedByAnotherHub", message="hub h2 holds this cluster")
    hub.on_items("GET clusters", cluster(), held, cluster(name="dev-3", drained="by ada: retired"))
    lines = hub.run("cluster", "list").stdout.splitlines()
    assert lines[0].split() == ["CLUSTER", "ENVIRONMENT", "STATE", "SINCE", "VERSION", "SYNCED", "OBJECTS", "MESSAGE"]
    assert lines[1].split() == ["dev-1", "dev", "Ready", "1h", "v1.36.3", "1/2", "7", "-"]
    assert lines[2].endswith("OwnedByAnotherHub: hub h2 holds this cluster")
    assert lines[3].endswith("drained: by ada: retired")
    assert hub.run("cluster", "list", "-o", "name").stdout == "dev-1\ndev-2\ndev-3\n"


def test_show_one_cluster_with_its_apps(hub: FakeHub) -> None:
    """Where it is, which it is, and what is on it."""
    hub.on("GET clusters/dev-1", cluster())
    hub.on_items("GET targets", target())
    shown = hub.run("cluster", "show", "dev-1").stdout
    assert "uid         u-1" in shown
    assert "APPS" in shown
    assert hub.asked[-1].query["cluster"] == "dev-1"
    assert json.loads(hub.run("cluster", "show", "dev-1", "-o", "json").stdout)["uid"] == "u-1"


def test_accept_names_the_identity(hub: FakeHub) -> None:
    """The uid is typed, so that nobody accepts what he has not seen."""
    hub.on("POST clusters/dev-1/accept", cluster(uid="u-2"))
    result = hub.run("cluster", "accept", "dev-1", "--uid", "u-2", "--reason", "rebuilt")
    assert (result.exit_code, result.stdout) == (0, "accepted dev-1 with uid u-2\n")
    assert hub.asked[0].body == {"uid": "u-2", "reason": "rebuilt"}
    assert hub.run("cluster", "accept", "dev-1", "--reason", "rebuilt").exit_code == 2


def test_takeover_needs_a_reason(hub: FakeHub) -> None:
    """It is asked for, not done: the other hub needs a moment."""
    hub.on("POST clusters/dev-1/takeover", cluster())
    assert hub.run("cluster", "takeover", "dev-1").exit_code == 2
    result = hub.run("cluster", "takeover", "dev-1", "--reason", "moving")
    assert (result.exit_code, hub.asked[0].body) == (0, {"reason": "moving"})
    assert "fleet cluster show dev-1" in result.stdout


def test_drain_and_undrain(hub: FakeHub) -> None:
    """One app or all; the end of a drain that is not there is exit 1."""
    row = {"cluster": "dev-1", "app": "shop", "reason": "r", "actor": "ada", "since": "", "objects": 3}
    hub.on("POST clusters/dev-1/drain", row)
    result = hub.run("cluster", "drain", "dev-1", "--app", "shop", "--reason", "broken")
    assert result.stdout.startswith("draining app shop on dev-1: 3 objects")
    assert hub.asked[0].body == {"app": "shop", "reason": "broken"}
    hub.on("POST clusters/dev-1/undrain", {"undrained": 1}, {"undrained": 0})
    assert hub.run("cluster", "undrain", "dev-1", "--app", "shop").stdout == "undrained\n"
    result = hub.run("cluster", "undrain", "dev-1")
    assert (result.exit_code, "no such drain" in result.stderr) == (1, True)


def test_manifests_can_be_piped_into_kubectl(hub: FakeHub) -> None:
    """YAML documents; what they do not cover is a comment."""
    answer = {"cluster": "dev-1", "manifests": ['{"kind":"Namespace","apiVersion":"v1"}'], "missing": ["shop"]}
    hub.on("GET clusters/dev-1/manifests", answer)
    printed = hub.run("cluster", "manifests", "dev-1").stdout
    assert printed.splitlines()[0].startswith("# not covered, since it could not be rendered: app shop")
    assert printed.splitlines()[1:] == ["---", "kind: Namespace", "apiVersion: v1"]
