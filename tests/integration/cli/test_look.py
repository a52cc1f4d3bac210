"""`fleet render`, `diff`, `where` and `events`."""

import json

import pytest
import yaml

from fleet.hub.view import HoldRow, PlannedRow, RenderedRow, Rendering
from tests.integration.cli.hub import NEW, OLD, Answer, FakeHub, planned, status, target, where


def _rendering() -> Rendering:
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": "shop"},
        "data": {"on": "yes", "size": "1e3", "text": "x\ny\n"},
    }
    return Rendering(
        app="shop",
        cluster="dev-1",
        revision=NEW,
        manifests=(RenderedRow(manifest=json.dumps(manifest), file="apps/shop/a.yaml"),),
        variables={"REGION": "eu", "TIER": "a\nb"},
        origins={"REGION": "Cluster clusters.d/dev-1.yaml"},
    )


def test_render_prints_yaml_documents(hub: FakeHub) -> None:
    """What kubectl would read as something else is quoted; long texts are blocks."""
    hub.on("GET targets/dev-1/shop/render", _rendering())
    result = hub.run("render", "shop", "--cluster", "dev-1", "--revision", "v2")
    assert (result.exit_code, hub.asked[0].query) == (0, {"revision": "v2"})
    assert result.output.splitlines() == [
        "---",
        "# apps/shop/a.yaml",
        "apiVersion: v1",
        "kind: ConfigMap",
        "metadata:",
        "  name: a",
        "  namespace: shop",
        "data:",
        "  'on': 'yes'",
        "  size: '1e3'",
        "  text: |",
        "    x",
        "    y",
    ]


def test_render_explains_variables(hub: FakeHub) -> None:
    """Each variable with its value and where it was set, as comments: the output stays YAML."""
    hub.on("GET targets/dev-1/shop/render", _rendering())
    output = hub.run("render", "dev-1/shop", "--explain").output
    assert output.splitlines()[:3] == [
        f"# dev-1/shop at {NEW}",
        '# REGION = "eu"  from Cluster clusters.d/dev-1.yaml',
        '# TIER = "a\\nb"  from unknown',
    ]
    assert [document["kind"] for document in yaml.safe_load_all(output)] == ["ConfigMap"]


def test_render_speaks_json_and_names(hub: FakeHub) -> None:
    """In JSON, manifests are objects, not texts."""
    hub.on("GET targets/dev-1/shop/render", _rendering())
    answer = json.loads(hub.run("render", "dev-1/shop", "-o", "json").output)
    assert answer["manifests"][0]["manifest"]["data"]["on"] == "yes"
    assert hub.run("render", "dev-1/shop", "-o", "name").output == "shop ConfigMap/a\n"


def test_an_app_of_one_cluster_needs_no_cluster(hub: FakeHub) -> None:
    """The only cluster is meant; among several, they are named."""
    hub.on("GET targets/dev-1/shop/render", _rendering())
    hub.on_items("GET targets", target())
    assert hub.run("render", "shop").exit_code == 0
    hub.on_items("GET targets", target(), target("dev-2"))
    result = hub.run("render", "shop")
    assert result.exit_code == 2
    assert result.stderr == "fleet: app shop goes to 2 clusters; choose with --cluster: dev-1, dev-2\n"


def test_a_render_error_is_the_answer(hub: FakeHub) -> None:
    """What the hub says of a broken manifest reaches the person who wrote it."""
    hub.refuse("GET targets/dev-1/shop/render", 422, "apps/shop/a.yaml:3:1: no kind", "RenderFailed")
    result = hub.run("render", "dev-1/shop")
    assert (result.exit_code, result.stderr) == (2, "fleet: apps/shop/a.yaml:3:1: no kind\n")


def test_every_problem_of_a_render_is_listed(hub: FakeHub) -> None:
    """One line per fault, in file order."""
    problem = {"status": 422, "detail": "a:1: x (and 1 more)", "problems": ["a:1: x", "b:2: y"]}
    hub.on("GET targets/dev-1/shop/render", Answer(problem, 422, "application/problem+json"))
    assert hub.run("render", "dev-1/shop").stderr.splitlines() == ["fleet: 2 problems", "  a:1: x", "  b:2: y"]


def test_diff_shows_fields_and_managers(hub: FakeHub) -> None:
    """What Git has, what the cluster has, who put it there; exit 1."""
    hub.on_items("GET targets", target(), target("dev-2"))
    hub.on_items("GET targets/dev-1/shop/diff", planned(), planned(action="unchanged", fields=()))
    hub.on_items("GET targets/dev-2/shop/diff", planned(action="skip", reason="OptedOut", fields=()))
    result = hub.run("diff", "shop")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "dev-1/shop",
        "  configure shop Deployment/web  (Drifted)",
        "    spec.replicas: live 5, Git 3  by kubectl-edit",
    ]


@pytest.mark.parametrize(
    "row",
    [
        planned(action="skip", message="repair is off (drift: report)"),
        planned(action="skip", reason="OptedOut"),
        planned(action="skip", reason="NotLookedUp", fields=()),
        planned(action="create", reason="Absent", message="the API server would refuse it: forbidden", fields=()),
    ],
)
def test_diff_shows_what_is_left_as_it_is(hub: FakeHub, row: PlannedRow) -> None:
    """What fleet does not or may not repair differs all the same; exit 1."""
    hub.on_items("GET targets", target())
    hub.on_items("GET targets/dev-1/shop/diff", row)
    result = hub.run("diff", "shop")
    assert (result.exit_code, result.stderr) == (1, "")
    assert f"  {row.action} shop Deployment/web  ({row.reason}" in result.stdout
    assert result.stdout.count("live 5, Git 3") == len(row.fields)


def test_diff_of_nothing(hub: FakeHub) -> None:
    """Exit 0, and a word on stderr."""
    hub.on_items("GET targets", target())
    hub.on_items("GET targets/dev-1/shop/diff", planned(action="unchanged", fields=()))
    result = hub.run("diff")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing differs on 1 target\n")


def test_one_dead_cluster_does_not_hide_the_others(hub: FakeHub) -> None:
    """The rest is compared; the exit code says that something could not be."""
    hub.on_items("GET targets", target(), target("dev-2"))
    hub.refuse("GET targets/dev-1/shop/diff", 502, "the API server does not answer", "Unreachable")
    hub.on_items("GET targets/dev-2/shop/diff", planned())
    result = hub.run("diff", "shop", "-o", "name")
    assert (result.exit_code, result.stdout) == (2, "dev-2/shop\n")
    assert result.stderr == "fleet: dev-1/shop: the API server does not answer\n"


def test_diff_speaks_json(hub: FakeHub) -> None:
    """Only what differs is listed."""
    hub.on_items("GET targets", target())
    hub.on_items("GET targets/dev-1/shop/diff", planned(), planned(action="unchanged"))
    (entry,) = json.loads(hub.run("diff", "dev-1/shop", "-o", "json").output)["items"]
    assert (entry["cluster"], [row["fields"][0]["live"] for row in entry["changes"]]) == ("dev-1", ["5"])


def test_where_a_commit_runs(hub: FakeHub) -> None:
    """Environments are summed up; a later commit that contains it counts; exit 1 until it runs everywhere."""
    rows = [
        where(),
        where("dev-2", runs="contained"),
        where("prod-1", environment="prod", runs="no", applied_revision=OLD),
    ]
    hub.on_items("GET where/bbbb", *rows)
    result = hub.run("where", "bbbb")
    assert result.exit_code == 1
    assert result.output.splitlines()[:4] == [
        "dev 2/2, prod 0/1",
        "",
        "ENVIRONMENT  CLUSTER  APP   RUNS       STATE   REVISION  MESSAGE",
        "dev          dev-1    shop  yes        Synced  bbbbbbb   shop#7",
    ]
    assert hub.run("where", "bbbb", "--environment", "dev").exit_code == 0
    assert hub.run("where", "bbbb", "-o", "name").output == "dev-1/shop\ndev-2/shop\n"


def test_where_of_an_unknown_commit(hub: FakeHub) -> None:
    """The hub's words, and exit 2."""
    hub.refuse("GET where/zzz", 404, "no repository has the commit zzz", "RevisionMissing")
    result = hub.run("where", "zzz")
    assert (result.exit_code, result.stderr) == (2, "fleet: no repository has the commit zzz\n")


def _event(seq: int, **changes: object) -> dict[str, object]:
    return {
        "at": "2026-01-02T03:04:05.678Z",
        "kind": "drift",
        "reason": "Repaired",
        "message": "spec.replicas",
        "cluster": "dev-1",
        "app": "shop",
        "object": "Deployment/web",
        "actor": "",
        "revision": NEW,
        "seq": seq,
        **changes,
    }


def test_events_are_listed(hub: FakeHub) -> None:
    """Filters go to the hub; one line per event."""
    hub.on_items("GET events", _event(1), _event(2, cluster="", app="", kind="git", object="", message="main moved"))
    result = hub.run("events", "--kind", "drift", "--since", "0", "--limit", "5")
    assert hub.asked[0].query == {"kind": "drift", "since": "0", "limit": "5"}
    assert result.output.splitlines() == [
        "TIME                  KIND   TARGET      REASON    MESSAGE",
        "2026-01-02T03:04:05Z  drift  dev-1/shop  Repaired  Deployment/web: spec.replicas",
        "2026-01-02T03:04:05Z  git    -           Repaired  main moved",
    ]


def test_events_of_an_act_name_who_did_it(hub: FakeHub) -> None:
    """Among acts, the actor is the first question."""
    hub.on_items("GET events", _event(1, kind="audit", actor="ada", reason="Sync"))
    assert "ACTOR" in hub.run("events", "--kind", "audit").output.splitlines()[0].split()
    assert "ACTOR" not in hub.run("events").output.splitlines()[0].split()


@pytest.mark.parametrize("option", [("--cluster", "nope"), ("--app", "nope"), ("--cluster", "nope", "--follow")])
def test_events_of_what_is_not_there(hub: FakeHub, option: tuple[str, ...]) -> None:
    """A wrong name is an error, a name without events is not."""
    hub.on_items("GET events")
    hub.on_items("GET clusters", {"name": "dev-1", "environment": "dev"})
    hub.on_items("GET apps", {"app": "shop"})
    result = hub.run("events", *option)
    assert result.exit_code == 2
    assert " nope" in result.stderr
    assert hub.run("events", "--cluster", "dev-1").exit_code == 0


def test_events_are_followed_over_a_broken_stream(hub: FakeHub) -> None:
    """A stream that ends is taken up after the last event seen, until the hub says no."""
    stream = b": hello\n\nid: 8\nevent: event\ndata: " + json.dumps(_event(8)).encode() + b"\n\n"
    bad = Answer({"title": "Unauthorized", "status": 401, "detail": "token expired"}, 401, "application/problem+json")
    hub.on("GET events", {"items": [_event(7)], "continue": ""}, Answer(stream, kind="text/event-stream"), bad)
    result = hub.run("events", "--follow", "--app", "shop", "-o", "json")
    assert [json.loads(line)["seq"] for line in result.stdout.splitlines()] == [7, 8]
    assert [asked.headers.get("last-event-id") for asked in hub.asked] == [None, "7", "8"]
    assert [asked.query["app"] for asked in hub.asked] == ["shop"] * 3
    assert result.exit_code == 4


@pytest.mark.parametrize(("form", "first"), [("table", "2026-01-02T03:04:05Z  drift "), ("yaml", "---"), ("name", "7")])
def test_followed_events_have_every_form(hub: FakeHub, form: str, first: str) -> None:
    """Each event is written as it comes."""
    bad = Answer({"status": 403, "detail": "no"}, 403, "application/problem+json")
    hub.on("GET events", {"items": [_event(7)], "continue": ""}, bad)
    assert hub.run("events", "-f", "-o", form).stdout.startswith(first)


def test_releases_are_listed(hub: FakeHub) -> None:
    """What changed, where each runs, what is held; with --changes every object."""
    row = {
        "release": "shop#7", "revision": NEW, "reason": "Commit", "created_at": "2026-01-02T03:00:00Z",
        "added": ["ConfigMap shop/new"], "changed": ["Deployment.apps shop/web"], "removed": [],
        "runs_on": ["dev-1", "dev-2"], "holds": ["app shop"],
    }  # fmt: skip
    hub.on_items("GET apps/shop/releases", row)
    lines = hub.run("release", "shop", "--changes").stdout.splitlines()
    assert lines[1].split() == ["shop#7", NEW[:7], "Commit", "1h", "+1", "~1", "dev-1,", "dev-2", "app", "shop"]
    assert lines[-3:] == ["shop#7", "  + ConfigMap shop/new", "  ~ Deployment.apps shop/web"]
    assert hub.run("release", "shop", "-o", "name").stdout == "shop#7\n"


def test_at_a_past_moment(hub: FakeHub) -> None:
    """The moment is the hub's to understand."""
    hub.on_items("GET targets", target(state="", since="2026-01-01T00:00:00Z"))
    result = hub.run("at", "2h", "--app", "shop")
    assert result.stdout.splitlines()[1].split() == ["dev-1", "shop", "dev", "shop#7", NEW[:7], "2026-01-01T00:00:00Z"]
    assert (hub.asked[0].query["at"], hub.asked[0].query["app"]) == ("2h", "shop")


def test_a_hold_is_shown_by_status(hub: FakeHub) -> None:
    """Who holds what at which release, since when and why."""
    row = HoldRow(
        scope="app shop", app="shop", environment="", cluster="", release="shop#6", reason="incident 12", actor="ada",
        since="2026-01-02T03:00:00Z",
    )  # fmt: skip
    hub.on("GET status", status(holds=(row,)))
    hub.on_items("GET targets", target())
    assert "  app shop at shop#6: incident 12 (ada, 1h ago)" in hub.run("status").stdout
