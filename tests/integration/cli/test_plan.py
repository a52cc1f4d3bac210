"""`fleet plan`."""

import json
from typing import Any

import msgspec

from tests.harness.hub import plan_row
from tests.integration.cli.hub import FakeHub


def planned(**changes: Any) -> dict[str, Any]:
    """A plan as the hub sends it."""
    built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(plan_row()))
    return {**built, **changes}


def test_a_plan_is_shown_by_stage_and_cluster(hub: FakeHub) -> None:
    """Batches, gates, changes, and the refusal with its reason and words; exit 1, as there are changes."""
    hub.on("GET apps/shop/plan", planned())
    result = hub.run("plan", "shop")
    assert result.exit_code == 1
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "shop#42 at 2222222"
    assert "stage prod after dev" in lines
    assert "- approval by one person" in lines
    assert "1 (1) us-1 shop#41 refused 1 configure, 3 unchanged -" in lines
    assert "unchanged: eu-9" in lines
    assert "held: us-2" in lines
    assert "configure shop Deployment/web refused QuotaExceeded: exceeded quota: small" in lines
    assert lines[-1] == "1 refused (us-1), 1 ok"


def test_a_plan_of_another_release(hub: FakeHub) -> None:
    """What --to says is the hub's to understand; JSON is what it sent."""
    hub.on("GET apps/shop/plan", planned(release=""))
    result = hub.run("plan", "shop", "--to", "abc123", "-o", "json")
    assert hub.asked[0].query == {"to": "abc123"}
    assert json.loads(result.stdout) == planned(release="")


def test_an_empty_plan_is_no_difference(hub: FakeHub) -> None:
    """Exit 0, and a sentence on stderr."""
    hub.on("GET apps/shop/plan", planned(stages=[], clusters=[]))
    result = hub.run("plan", "shop")
    assert (result.exit_code, result.stderr) == (0, "nothing would change\n")


def test_a_cluster_that_was_not_asked_says_why(hub: FakeHub) -> None:
    """Its reason stands where its objects would."""
    away = {**planned()["clusters"][0], "outcome": "unverified", "reason": "Unreachable", "message": "no answer"}
    hub.on("GET apps/shop/plan", planned(clusters=[{**away, "objects": [], "counts": {}, "waits": ["app db"]}]))
    result = hub.run("plan", "shop")
    assert "  Unreachable: no answer" in result.stdout.splitlines()
    assert "app db" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 unverified (eu-1), 0 ok"
