"""Reading `/api/v1`."""

from typing import Any

import pytest

from fleet.errors import FetchFailed, Problem, RenderError, Unreachable
from tests.harness.hub import NEW, FakeHub, event, repository, target
from tests.integration.server.conftest import ADMIN, Api


def names(answer: Any, *fields: str) -> list[str]:
    """Name the items of a list."""
    return ["/".join(item[field] for field in fields) for item in answer.json["items"]]


async def test_status_shows_everything_at_a_glance(api: Api) -> None:
    """The hub's status comes as it is."""
    answer = await api.get("/status")
    assert answer.status == 200
    assert answer.json["targets"] == {"Synced": 1, "Progressing": 1, "Drifted": 1, "Stale": 1}
    assert answer.json["repositories"][0]["name"] == "base"


async def test_targets_have_the_stable_names(api: Api) -> None:
    """A list is items and continue; a target has the fields that the design names."""
    answer = await api.get("/targets")
    assert set(answer.json) == {"items", "continue"}
    wanted = {"app", "cluster", "environment", "state", "reason", "message", "since", "desired_revision"}
    wanted |= {"applied_revision", "release", "observed_at", "objects", "labels", "hold"}
    assert set(answer.json["items"][0]) == wanted
    assert answer.json["items"][0]["objects"] == {"total": 4, "current": 4, "drifted": 0, "failed": 0}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("app=shop", ["eu-1/shop", "eu-2/shop", "us-1/shop"]),
        ("cluster=eu-1", ["eu-1/db", "eu-1/shop"]),
        ("cluster=eu-1,us-1&app=shop", ["eu-1/shop", "us-1/shop"]),
        ("cluster=eu-1&cluster=us-1&app=shop", ["eu-1/shop", "us-1/shop"]),
        ("environment=prod", ["eu-2/shop", "us-1/shop"]),
        ("state=drifted,Stale", ["eu-2/shop", "us-1/shop"]),
        ("label=region%3Dus", ["us-1/shop"]),
        ("label=region%20notin%20(us),region", ["eu-1/db", "eu-1/shop", "eu-2/shop"]),
        ("app=none", []),
    ],
)
async def test_targets_are_filtered(api: Api, query: str, found: list[str]) -> None:
    """Each filter narrows the list; several values are alternatives."""
    assert names(await api.get(f"/targets?{query}"), "cluster", "app") == found


async def test_lists_are_paged(api: Api) -> None:
    """Following `continue` gives every item once, in order, and ends with an empty one."""
    seen, at = [], ""
    for _ in range(10):
        page = await api.get("/targets", params={"limit": "3", "continue": at})
        seen.append(names(page, "cluster", "app"))
        at = page.json["continue"]
        if not at:
            break
    assert seen == [["eu-1/db", "eu-1/shop", "eu-2/shop"], ["us-1/shop"]]


async def test_a_row_that_leaves_between_pages_moves_no_other(api: Api, hub: FakeHub) -> None:
    """Pages go on after the last row seen, also when it is gone."""
    first = await api.get("/targets?limit=2")
    del hub.target_rows[:2]
    rest = await api.get("/targets", params={"limit": "5", "continue": first.json["continue"]})
    assert names(rest, "cluster", "app") == ["eu-2/shop", "us-1/shop"]


@pytest.mark.parametrize("token", ["x", "!!!", "eyJhIjoxfQ"])
async def test_a_foreign_continue_is_refused(api: Api, token: str) -> None:
    """A continue that no list gave is a 400."""
    answer = await api.get("/targets", params={"continue": token})
    assert (answer.status, answer.json["reason"]) == (400, "ContinueInvalid")


@pytest.mark.parametrize(
    ("path", "reason", "hint"),
    [
        ("/targets?clustr=a", "UnknownQueryParameter", "did you mean cluster?"),
        ("/status?app=a", "UnknownQueryParameter", "none is known here"),
        ("/targets?state=Drift", "StateInvalid", "did you mean Drifted?"),
        ("/clusters?state=Synced", "StateInvalid", "known are"),
        ("/targets?limit=-1", "InvalidQueryParameter", "limit"),
        ("/targets?limit=many", "InvalidQueryParameter", "limit"),
        ("/targets?label=a%20is%20b", "SelectorInvalid", "KEY in (A,B)"),
        ("/events?since=x", "InvalidQueryParameter", "since"),
        ("/events?limit=100000", "InvalidQueryParameter", "1000"),
        ("/where/xyz", "CommitInvalid", "hex digits"),
    ],
)
async def test_a_wrong_question_says_what_is_wrong(api: Api, path: str, reason: str, hint: str) -> None:
    """A bad parameter is a 400 with a stable reason and a hint."""
    answer = await api.get(path)
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert (answer.status, answer.json["status"], answer.json["reason"]) == (400, 400, reason)
    assert answer.json["title"] == "Bad Request"
    assert hint in answer.json["detail"]


async def test_clusters_are_filtered_by_their_own_state_and_apps(api: Api) -> None:
    """`state` is the cluster's; `app` keeps clusters that the app goes to."""
    assert names(await api.get("/clusters?state=Stale"), "name") == ["us-1"]
    assert names(await api.get("/clusters?app=db"), "name") == ["eu-1"]
    assert names(await api.get("/clusters?environment=prod&label=region=eu"), "name") == ["eu-2"]


async def test_apps_are_filtered_by_their_targets(api: Api) -> None:
    """An app is listed when one of its targets matches."""
    assert names(await api.get("/apps"), "app") == ["db", "shop"]
    assert names(await api.get("/apps?environment=prod"), "app") == ["shop"]
    assert names(await api.get("/apps?app=db"), "app") == ["db"]


async def test_repositories_are_filtered(api: Api, hub: FakeHub) -> None:
    """By the app that comes from them, and by state."""
    hub.repository_rows.append(repository("other", "Failed"))
    assert names(await api.get("/repositories?app=db"), "name") == ["base"]
    assert names(await api.get("/repositories?state=failed"), "name") == ["other"]


async def test_one_cluster(api: Api) -> None:
    """A cluster is found by name; a wrong one names the nearest."""
    assert (await api.get("/clusters/eu-1")).json["version"] == "v1.36.3"
    missing = await api.get("/clusters/eu-11")
    assert missing.status == 404
    assert "did you mean" in missing.json["detail"]


async def test_a_target_comes_with_its_objects(api: Api) -> None:
    """The detail has the row's fields, the row, and the objects with their drift."""
    answer = await api.get("/targets/eu-2/shop")
    assert answer.json["state"] == answer.json["target"]["state"] == "Drifted"
    [found] = answer.json["objects"]
    assert (found["kind"], found["drift"][0]["manager"]) == ("Deployment", "kubectl-edit")


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/targets/eu-9/shop", "there is no cluster eu-9; did you mean"),
        ("/targets/eu-1/shopp", "there is no app shopp; did you mean shop?"),
        ("/targets/eu-2/db", "app db does not go to cluster eu-2"),
        ("/targets/eu-2/db/diff", "app db does not go to cluster eu-2"),
        ("/targets/eu-2/db/render", "app db does not go to cluster eu-2"),
    ],
)
async def test_a_target_that_is_not_there_says_why(api: Api, path: str, detail: str) -> None:
    """404 tells which of the two names is wrong."""
    answer = await api.get(path)
    assert answer.status == 404
    assert detail in answer.json["detail"]


async def test_diff_and_render(api: Api) -> None:
    """Both ask the hub; a revision is passed on."""
    diff = await api.get("/targets/eu-2/shop/diff?limit=500")
    assert diff.json["items"][0]["fields"][0]["live"] == "5"
    rendering = await api.get("/targets/eu-2/shop/render?revision=abc1234")
    assert rendering.json["revision"] == "abc1234"


@pytest.mark.parametrize(
    ("failure", "status", "reason"),
    [
        (Unreachable("no answer"), 504, "Unreachable"),
        (FetchFailed("the remote is down"), 502, "FetchFailed"),
        (RenderError([Problem("a.yaml", 3, 1, "", "is not YAML")]), 422, "RenderFailed"),
        (ZeroDivisionError("secret detail"), 500, "InternalError"),
    ],
)
async def test_failures_of_the_hub_have_a_status(
    api: Api, hub: FakeHub, failure: Exception, status: int, reason: str
) -> None:
    """What goes wrong behind the server becomes a problem document; a bug does not tell its text."""
    hub.failure = failure
    answer = await api.get("/targets/eu-2/shop/diff")
    assert (answer.status, answer.json["reason"]) == (status, reason)
    assert "secret detail" not in answer.json["detail"]


async def test_where_a_commit_runs(api: Api) -> None:
    """A prefix is enough; an unknown commit is a 404."""
    found = await api.get(f"/where/{NEW[:7]}")
    assert [item["runs"] for item in found.json["items"]] == ["yes", "no", "no", "no"]
    assert (await api.get("/where/abcdef1")).status == 404


async def test_events_are_read_newest_or_after_a_number(api: Api, hub: FakeHub) -> None:
    """Without `since` the newest come; with it, pages from there on."""
    hub.stored_events += [event(n) for n in range(3, 8)]
    assert [e["seq"] for e in (await api.get("/events?limit=2")).json["items"]] == [6, 7]
    page = await api.get("/events?since=0&limit=4")
    assert ([e["seq"] for e in page.json["items"]], page.json["continue"]) == ([1, 2, 3, 4], "4")
    rest = await api.get("/events?since=0&limit=4&continue=4")
    assert ([e["seq"] for e in rest.json["items"]], rest.json["continue"]) == ([5, 6, 7], "")
    assert [e["seq"] for e in (await api.get("/events?kind=drift")).json["items"]] == [2]


async def test_many_rows_are_encoded_whole(api: Api, hub: FakeHub) -> None:
    """A list that is encoded off the loop is the same list, compressed for who takes that."""
    hub.target_rows = [target(f"app-{n}", "eu-1", "dev") for n in range(1000)]
    answer = await api.get("/targets")
    assert len(answer.json["items"]) == 1000
    assert answer.headers["Content-Encoding"] in ("gzip", "deflate")


async def test_credentials_never_leave(api: Api, hub: FakeHub) -> None:
    """Whatever a message quotes, it is masked on its way out, and the answer is still JSON."""
    hub.target_rows[0] = target(
        "db", "eu-1", "dev", "Failed", "https://user:hunter2@git.example.com refused flt_abcdefgh1"
    )
    answer = await api.get("/targets")
    assert answer.json["items"][0]["message"] == "https://***@git.example.com refused ***"
    hub.failure = Unreachable("Authorization: Bearer abcdefgh12345")
    assert "abcdefgh12345" not in (await api.get("/targets/eu-1/shop/diff")).body.decode()


@pytest.mark.parametrize(
    "quoted",
    [
        "refused:\nBearer canary-12345",
        "refused:\n\teyJhbGciOiJSUzI1NiJ9.canary12345.c2ln",
        "Bearer\x0bcanary-12345",
        "https://user:p@canary@git.example.com/x",
        "-----BEGIN PRIVATE KEY-----\ncanary",
    ],
)
async def test_credentials_are_found_beside_line_breaks(api: Api, hub: FakeHub, quoted: str) -> None:
    """JSON writes a line break with a letter, behind which a credential is still one."""
    hub.target_rows[0] = target("db", "eu-1", "dev", "Failed", quoted)
    answer = await api.get("/targets")
    assert b"canary" not in answer.body
    assert answer.json["items"][1]["app"] == "shop"


async def test_an_address_beside_a_name_is_not_a_credential(api: Api, hub: FakeHub) -> None:
    """Texts of different fields are not read as one: a URL before a mail address stays."""
    hub.repository_rows = [repository("config", "Failed", "ask ada@example.com")]
    [row] = (await api.get("/repositories")).json["items"]
    assert (row["url"], row["message"]) == ("https://git.example.com/config.git", "ask ada@example.com")


async def test_unknown_paths_and_methods(api: Api) -> None:
    """404 and 405 are problem documents too."""
    missing = await api.get("/target")
    assert (missing.status, missing.json["reason"]) == (404, "NotFound")
    assert "/api/v1/targets" in missing.json["detail"]
    wrong = await api("DELETE", "/api/v1/status", token=ADMIN)
    assert (wrong.status, wrong.json["reason"], wrong.headers["Allow"]) == (405, "MethodNotAllowed", "GET,HEAD")


async def test_releases_of_an_app(api: Api) -> None:
    """Newest first, with what changed and where each runs; an app without any is told from one that is not there."""
    rows = (await api.get("/apps/shop/releases")).json["items"]
    assert [(r["release"], r["runs_on"], r["changed"]) for r in rows] == [
        ("shop#42", [], ["ConfigMap default/settings"]),
        ("shop#41", ["us-1"], ["ConfigMap default/settings"]),
    ]
    assert (await api.get("/apps/db/releases")).json["items"] == []
    wrong = await api.get("/apps/shpo/releases")
    assert (wrong.status, "did you mean shop?" in wrong.json["detail"]) == (404, True)


@pytest.mark.parametrize(
    ("at", "since"),
    [("2030-01-31T10:00:00Z", "2030-01-31T10:00:00+00:00"), ("2h", "2030-01-31T10:00:00+00:00")],
)
async def test_targets_at_a_past_moment(api: Api, at: str, since: str) -> None:
    """The filters go on working; a length of time counts back."""
    rows = (await api.get(f"/targets?at={at}&cluster=eu-2")).json["items"]
    assert [(r["release"], r["since"], r["state"]) for r in rows] == [("shop#41", since, "")]


@pytest.mark.parametrize("query", ["at=2031-01-01T00:00:00Z", "at=soon", "at=2h&state=Synced"])
async def test_a_moment_that_cannot_be_told(api: Api, query: str) -> None:
    """Neither the future nor states of the past are known."""
    answer = await api.get(f"/targets?{query}")
    assert (answer.status, answer.json["reason"]) == (400, "InvalidField")


async def test_a_plan_of_a_release(api: Api) -> None:
    """Stages, clusters and what is refused; wrong names are told from wrong releases."""
    plan = (await api.get("/apps/shop/plan?to=42")).json
    assert (plan["release"], [row["outcome"] for row in plan["clusters"]]) == ("shop#42", ["ok", "refused"])
    assert plan["stages"][1]["gates"][0] == "approval by one person"
    wrong = await api.get("/apps/shpo/plan")
    assert (wrong.status, "did you mean shop?" in wrong.json["detail"]) == (404, True)
    unknown = await api.get("/apps/shop/plan?to=7")
    assert (unknown.status, unknown.json["reason"]) == (409, "ReleaseUnknown")
