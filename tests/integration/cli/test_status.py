"""`fleet status`, as people and programs read it."""

import json

import pytest
import yaml

from fleet.hub.view import DriftRow, ObjectCounts, ProblemRow, RepositoryRow, TargetDetail
from tests.integration.cli.hub import NEW, NOW, OLD, FakeHub, late, pause, status, target, thing


def test_a_healthy_fleet_at_a_glance(hub: FakeHub) -> None:
    """A summary, then one line per target; ages count by the hub's clock."""
    hub.on("GET status", status())
    hub.on_items("GET targets", target(), target("prod-1"))
    result = hub.run("status")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "hub c0ffee 0.1.0, up 2h",
        "clusters      2: 2 Ready",
        "targets       2: 2 Synced",
        "repositories  1: 1 Ready",
        "",
        "CLUSTER  APP   STATE   SINCE  REVISION  RELEASE  OBJECTS  MESSAGE",
        "dev-1    shop  Synced  10m    bbbbbbb   shop#7   4/4      Current: everything is as Git says",
        "prod-1   shop  Synced  10m    bbbbbbb   shop#7   4/4      Current: everything is as Git says",
    ]


def test_troubles_come_before_the_table(hub: FakeHub) -> None:
    """Faults of the inventory, repositories that cannot be read, and pauses are never hidden."""
    repository = RepositoryRow(
        name="shop", url="", ref="main", revision="", state="Failed", reason="FetchFailed", message="401", fetched_at=""
    )
    problem = ProblemRow(file="clusters.d/a.yaml", line=3, column=5, field="spec.aftr", message="no such field")
    hub.on("GET status", status(repositories=(repository,), problems=(problem,), pauses=(pause(until=NOW),)))
    hub.on_items("GET targets")
    lines = hub.run("status").output.splitlines()
    assert "  shop: Failed: FetchFailed: 401" in lines
    assert "  clusters.d/a.yaml:3:5: spec.aftr: no such field" in lines
    assert f"  app shop: incident 12 (alice, 1h ago, until {NOW})" in lines


def test_a_pause_of_a_file_says_so(hub: FakeHub) -> None:
    """What a file sets can only be ended there."""
    hub.on("GET status", status(pauses=(pause(origin="file", actor="", since=""),)))
    hub.on_items("GET targets")
    assert "  app shop: incident 12 (in a file)\n" in hub.run("status").output


def test_a_target_on_its_way_shows_both_revisions(hub: FakeHub) -> None:
    """What runs, and what will."""
    hub.on_items("GET targets", late(), late("dev-2", applied_revision=""))
    lines = hub.run("status", "shop").output.splitlines()
    assert "aaaaaaa->bbbbbbb" in lines[1]
    assert "none->bbbbbbb" in lines[2]


def test_filters_go_to_the_hub(hub: FakeHub) -> None:
    """The hub filters; the summary of everything is left out."""
    hub.on_items("GET targets", target())
    result = hub.run("status", "--environment", "dev", "--state", "synced", "--label", "region=eu")
    assert result.exit_code == 0
    assert hub.calls() == ["GET targets"]
    assert hub.asked[0].query == {"environment": "dev", "state": "Synced", "label": "region=eu", "limit": "500"}


def test_pages_are_put_together(hub: FakeHub) -> None:
    """A list of several pages is one list."""
    hub.on("GET targets", {"items": [target()], "continue": "x/y"}, {"items": [target("dev-2")], "continue": ""})
    assert hub.run("status", "shop", "-o", "name").output == "dev-1/shop\ndev-2/shop\n"
    assert [asked.query.get("continue") for asked in hub.asked] == [None, "x/y"]


def test_json_holds_rows_as_the_hub_sent_them(hub: FakeHub) -> None:
    """Programs get the API's field names."""
    hub.on("GET status", status())
    hub.on_items("GET targets", target())
    answer = json.loads(hub.run("status", "-o", "json").output)
    assert (answer["status"]["hub_id"], answer["items"][0]["applied_revision"]) == ("c0ffee", NEW)


def test_yaml_says_the_same(hub: FakeHub) -> None:
    """YAML is JSON in another dress."""
    hub.on_items("GET targets", late())
    listed = hub.run("status", "shop", "-o", "json").output
    assert yaml.safe_load(hub.run("status", "shop", "-o", "yaml").output) == json.loads(listed)


def test_wide_adds_columns(hub: FakeHub) -> None:
    """Environment, counts, observation and labels."""
    hub.on_items("GET targets", target(objects=ObjectCounts(total=4, current=3, drifted=1)))
    head, row = hub.run("status", "shop", "-o", "wide").output.splitlines()
    assert {"ENVIRONMENT", "DRIFTED", "FAILED", "OBSERVED", "LABELS"} <= set(head.split())
    assert "region=eu" in row


@pytest.mark.parametrize(("state", "code"), [("Synced", 0), ("Failed", 1), ("Progressing", 1), ("Paused", 1)])
def test_the_exit_code_on_request(hub: FakeHub, state: str, code: int) -> None:
    """Scripts ask with --exit-code; people are not bothered."""
    hub.on_items("GET targets", target(), target("dev-2", state=state))
    hub.on_items("GET apps", {"app": "shop", "repository": "shop"})
    hub.on_items("GET repositories")
    assert hub.run("status", "shop").exit_code == 0
    assert hub.run("status", "shop", "--exit-code").exit_code == code


def test_a_wrong_app_is_answered_with_the_right_one(hub: FakeHub) -> None:
    """Typing errors are no empty tables."""
    hub.on_items("GET targets")
    hub.on_items("GET apps", {"app": "shop"}, {"app": "monitoring"})
    result = hub.run("status", "shpo")
    assert (result.exit_code, result.stderr) == (2, "fleet: no app shpo goes to any cluster; did you mean shop?\n")


def test_synced_at_an_old_commit_is_no_success(hub: FakeHub) -> None:
    """With --exit-code, a repository that cannot be fetched is named and makes 1; that of another app does not."""
    broken = RepositoryRow(
        name="config", url="", ref="", revision=NEW, state="Failed", reason="FetchFailed", message="401", fetched_at=""
    )
    hub.on_items("GET targets", target())
    hub.on_items("GET repositories", broken)
    hub.on_items("GET apps", {"app": "shop", "repository": "config"})
    result = hub.run("status", "shop", "--exit-code")
    assert (result.exit_code, result.stderr) == (1, "fleet: repository config cannot be fetched: FetchFailed: 401\n")
    hub.on_items("GET apps", {"app": "shop", "repository": "own"}, {"app": "db", "repository": "config"})
    assert hub.run("status", "shop", "--exit-code").exit_code == 0


@pytest.mark.parametrize("verb", [("status",), ("status", "--exit-code"), ("diff",), ("wait",)])
@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--cluster", "dev-l"), "there is no cluster dev-l; did you mean dev-1?"),
        (("--environment", "prd"), "there is no environment prd; did you mean prod?"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(
    hub: FakeHub, verb: tuple[str, ...], option: tuple[str, str], message: str
) -> None:
    """A pipeline that names what is not there must not pass."""
    hub.on_items("GET targets")
    hub.on_items("GET clusters", {"name": "dev-1", "environment": "dev"}, {"name": "us", "environment": "prod"})
    result = hub.run(*verb, *option)
    assert (result.exit_code, result.stderr) == (2, f"fleet: {message}\n")


def test_a_filter_without_a_target_is_no_success(hub: FakeHub) -> None:
    """The names are right, and nothing matches: --exit-code ends with 2."""
    hub.on_items("GET targets")
    result = hub.run("status", "--label", "a=b", "--exit-code")
    assert (result.exit_code, "no target matches" in result.stderr) == (2, True)
    assert hub.run("status", "--label", "a=b").exit_code == 0


def test_clusters_that_are_not_ready_are_named(hub: FakeHub) -> None:
    """With state, reason and message, before the table; a long list is cut."""
    away = {"state": "Stale", "reason": "Unreachable", "message": "no answer"}
    rows = [{"name": "us", "state": "Ready", "reason": "Connected", "message": ""}]
    hub.on("GET status", status(clusters={"Ready": 1, "Stale": 25}))
    hub.on_items("GET targets")
    hub.on_items("GET clusters", *rows, *({"name": f"eu-{n}", **away} for n in range(25)))
    lines = hub.run("status").output.splitlines()
    assert "  eu-0: Stale: Unreachable: no answer" in lines
    assert "  and 5 more; fleet cluster list shows all" in lines
    assert not any(line.startswith("  us:") for line in lines)


def test_an_app_without_targets_under_a_filter(hub: FakeHub) -> None:
    """An app that exists, but not in this state, is an empty list."""
    hub.on_items("GET targets")
    hub.on_items("GET apps", {"app": "shop"})
    result = hub.run("status", "shop", "--state", "Failed")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no target matches\n")


@pytest.mark.parametrize("arguments", [("dev-1/shop",), ("shop", "--cluster", "dev-1")])
def test_one_target_shows_its_objects(hub: FakeHub, arguments: tuple[str, ...]) -> None:
    """Objects with health, and every drifted field with who did it and when."""
    drift = DriftRow(path="spec.replicas", manager="kubectl-edit", at="2026-01-02T03:59:00Z", change="changed")
    objects = (
        thing(health="Failed", reason="CrashLoop", message="web: exit code 1", drift=(drift,)),
        thing(kind="Namespace", namespace="", name="shop", group=""),
    )
    row = target(state="Degraded", reason="ObjectFailed", message="1 of 2", desired_revision=NEW, applied_revision=OLD)
    hub.on("GET targets/dev-1/shop", TargetDetail(target=row, objects=objects, depends_on=("base",)))
    result = hub.run("status", *arguments)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "dev-1/shop  Degraded for 10m",
        "  ObjectFailed: 1 of 2",
        "  environment dev",
        "  revision    aaaaaaa->bbbbbbb",
        "  release     shop#7",
        "  observed    5s ago",
        "  depends on  base",
        "",
        "NAMESPACE  OBJECT          HEALTH   ACTION     DRIFT  MESSAGE",
        "shop       Deployment/web  Failed   unchanged  1      CrashLoop: web: exit code 1",
        "-          Namespace/shop  Current  unchanged  -      -",
        "",
        "DRIFT",
        "  shop Deployment/web: spec.replicas changed by kubectl-edit 1m ago",
    ]


def test_a_stale_target_keeps_its_last_state(hub: FakeHub) -> None:
    """Stale says what was last seen."""
    hub.on("GET targets/dev-1/shop", TargetDetail(target=target(state="Stale"), objects=(), last_state="Synced"))
    assert "dev-1/shop  Stale for 10m (before that: Synced)" in hub.run("status", "dev-1/shop").output


def test_names_of_objects(hub: FakeHub) -> None:
    """-o name lists objects for other tools."""
    hub.on("GET targets/dev-1/shop", TargetDetail(target=target(), objects=(thing(),)))
    assert hub.run("status", "dev-1/shop", "-o", "name").output == "shop Deployment/web\n"


def test_two_clusters_in_one_question(hub: FakeHub) -> None:
    """`dev-1/shop --cluster dev-2` is refused before the hub is asked."""
    result = hub.run("status", "dev-1/shop", "--cluster", "dev-2")
    assert (result.exit_code, hub.asked) == (2, [])


def test_messages_cannot_move_the_cursor(hub: FakeHub) -> None:
    """Control characters from a cluster are shown, not obeyed; line breaks stay out of the table."""
    hub.on_items("GET targets", target(message="a\x1b[2J\nb\u202e"))
    output = hub.run("status", "shop").output
    assert "a\ufffd[2J b\ufffd" in output
    assert len(output.splitlines()) == 2
