"""Acting through `/api/v1`."""

from datetime import UTC, datetime, timedelta

import pytest

from fleet.hub.view import HoldRequest, PauseRequest, SyncRequest
from fleet.store.token import Role
from tests.harness.hub import NOW, FakeHub, approval, event
from tests.integration.server.conftest import ADMIN, APPROVER, DEV_ADMIN, DEV_OPERATOR, OPERATOR, Api


async def test_sync_answers_the_targets_meant(api: Api, hub: FakeHub) -> None:
    """It is accepted, not done; the actor is the token's name."""
    answer = await api.post("/sync", {"app": "shop", "cluster": "eu-2"}, token=OPERATOR)
    assert answer.status == 202
    assert [(t["cluster"], t["app"]) for t in answer.json["items"]] == [("eu-2", "shop")]
    assert hub.acts == [("sync", SyncRequest(app="shop", cluster="eu-2"), "otto")]


async def test_an_empty_body_syncs_everything(api: Api, hub: FakeHub) -> None:
    """A body of nothing is an empty object."""
    headers = {"Content-Type": "application/json"}
    answer = await api("POST", "/api/v1/sync", token=OPERATOR, headers=headers, data=b"")
    assert (answer.status, len(answer.json["items"])) == (202, 4)
    assert hub.acts == [("sync", SyncRequest(), "otto")]


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("/sync", {"app": "shpo"}, "there is no app shpo; did you mean shop?"),
        ("/sync", {"cluster": "eu-3"}, "there is no cluster eu-3; did you mean"),
        ("/sync", {"repository": "confg"}, "there is no repository confg; did you mean config?"),
        ("/sync", {"app": "db", "cluster": "us-1"}, "no target matches all of these names"),
        ("/pause", {"reason": "r", "environment": "prd"}, "there is no environment prd; did you mean prod?"),
        ("/targets/eu-1/shp/restart", {}, "did you mean shop?"),
    ],
)
async def test_a_wrong_name_is_never_silently_nothing(
    api: Api, hub: FakeHub, path: str, body: dict[str, str], detail: str
) -> None:
    """404 names the nearest; nothing happens."""
    answer = await api.post(path, body, token=OPERATOR)
    assert answer.status == 404
    assert detail in answer.json["detail"]
    assert hub.acts == []


async def test_pause_and_resume(api: Api, hub: FakeHub) -> None:
    """A pause is stored with its reason and end, shown, and ended by its scope."""
    body = {"reason": "freeze", "app": "shop", "until": "2030-02-01T08:00:00+01:00"}
    paused = await api.post("/pause", body, token=OPERATOR)
    assert (paused.status, paused.json["reason"], paused.json["actor"]) == (200, "freeze", "otto")
    until = datetime(2030, 2, 1, 7, 0, tzinfo=UTC)
    assert hub.acts[0][:2] == ("pause", PauseRequest(reason="freeze", app="shop", until=until))
    assert [p["scope"] for p in (await api.get("/pauses")).json["items"]] == ["app shop"]
    assert (await api.post("/resume", {"app": "shop"}, token=OPERATOR)).json == {"resumed": 1}


async def test_resume_of_what_left_the_inventory(api: Api, hub: FakeHub) -> None:
    """Names of a resume are not checked: what was paused may be gone."""
    assert (await api.post("/resume", {"app": "gone"}, token=OPERATOR)).json == {"resumed": 0}


async def test_a_pause_of_a_file_is_ended_in_the_file(api: Api) -> None:
    """The hub's refusal is a conflict with its reason."""
    answer = await api.post("/resume", {"app": "db"}, token=OPERATOR)
    assert (answer.status, answer.json["reason"]) == (409, "PausedByFile")


@pytest.mark.parametrize(
    ("until", "end"),
    [("2h", NOW + timedelta(hours=2)), ("1d12h", NOW + timedelta(hours=36)), ("", None)],
)
async def test_an_end_may_be_a_length_of_time(api: Api, hub: FakeHub, until: str, end: datetime | None) -> None:
    """It counts from the hub's clock."""
    await api.post("/pause", {"reason": "r", "until": until}, token=OPERATOR)
    assert hub.acts == [("pause", PauseRequest(reason="r", until=end), "otto")]


@pytest.mark.parametrize("until", ["tomorrow", "2030-01-31T11:00:00Z", "2030-02-01T08:00:00", "0s", "9999999999d"])
async def test_an_end_that_is_none_is_refused(api: Api, hub: FakeHub, until: str) -> None:
    """Neither form, no time zone, or not in the future."""
    answer = await api.post("/pause", {"reason": "r", "until": until}, token=OPERATOR)
    assert (answer.status, answer.json["reason"]) == (400, "InvalidField")
    assert hub.acts == []


@pytest.mark.parametrize(
    ("body", "reason", "hint"),
    [
        (b'{"app": "shop"}', "InvalidField", "reason"),
        (b'{"reason": ""}', "InvalidField", "reason"),
        (b'{"reason": 1}', "InvalidField", "reason"),
        (b'{"reason": "r", "clustr": "a"}', "UnknownField", "did you mean cluster?"),
        (b'{"reason": "r", "app": "a\\nb"}', "InvalidField", "app"),
        (b'{"reason": "r", "app": "a\\n"}', "InvalidField", "app"),
        (b"[]", "BodyInvalid", "object"),
        (b"{", "BodyInvalid", "JSON"),
        (b"\xff", "BodyInvalid", "JSON"),
    ],
)
async def test_a_wrong_body_says_what_is_wrong(api: Api, body: bytes, reason: str, hint: str) -> None:
    """400 with the field and, for an unknown one, the nearest."""
    headers = {"Content-Type": "application/json"}
    answer = await api("POST", "/api/v1/pause", token=OPERATOR, headers=headers, data=body)
    assert (answer.status, answer.json["reason"]) == (400, reason)
    assert hint in answer.json["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_must_be_json_by_name(api: Api, hub: FakeHub, kind: str) -> None:
    """What a form on a foreign page could send is a 415."""
    headers = {"Content-Type": kind} if kind else {}
    answer = await api("POST", "/api/v1/sync", token=OPERATOR, headers=headers, data=b"{}")
    assert (answer.status, answer.json["reason"]) == (415, "ContentTypeInvalid")
    assert hub.acts == []


async def test_a_large_body_is_refused(api: Api) -> None:
    """More than 64 KiB is a 413."""
    answer = await api.post("/pause", {"reason": "r" * 70_000}, token=OPERATOR)
    assert (answer.status, answer.json["reason"]) == (413, "BodyTooLarge")


async def test_restart_passes_on_which_workload(api: Api, hub: FakeHub) -> None:
    """Kind, namespace and name reach the hub."""
    body = {"kind": "Deployment", "namespace": "default", "name": "web"}
    answer = await api.post("/targets/eu-2/shop/restart", body, token=OPERATOR)
    assert answer.json == {"restarted": 1}
    assert hub.acts == [("restart", ("eu-2", "shop", "Deployment", "default", "web"), "otto")]


async def test_a_deletion_is_approved_by_its_digest(api: Api, hub: FakeHub) -> None:
    """What waits is listed; an approver allows exactly it."""
    hub.approval_rows = [approval()]
    assert [row["digest"] for row in (await api.get("/approvals")).json["items"]] == ["0123456789abcdef"]
    body = {"digest": "0123456789abcdef", "reason": "meant so"}
    answer = await api.post("/targets/eu-2/shop/approve", body, token=APPROVER)
    assert (answer.status, answer.json["state"]) == (200, "approved")
    assert hub.acts == [("approve", ("eu-2", "shop", "0123456789abcdef", "meant so"), "petra")]


MEANT = {"digest": "0123456789abcdef", "reason": "r"}


@pytest.mark.parametrize(
    ("body", "token", "refusal"),
    [
        (MEANT, OPERATOR, "403 RoleInsufficient"),
        (MEANT, DEV_ADMIN, "403 EnvironmentForbidden"),
        (MEANT, ADMIN, "409 NothingHeld"),
        ({"digest": MEANT["digest"]}, ADMIN, "400 InvalidField"),
        ({**MEANT, "digest": "all"}, ADMIN, "400 InvalidField"),
    ],
)
async def test_an_approval_that_is_refused(
    api: Api, hub: FakeHub, body: dict[str, str], token: str, refusal: str
) -> None:
    """Too low a role, another environment, nothing that waits, no reason, no digest."""
    answer = await api.post("/targets/eu-2/shop/approve", body, token=token)
    assert f"{answer.status} {answer.json['reason']}" == refusal
    assert hub.acts == []


async def test_prune_now_is_for_admins_and_says_why(api: Api, hub: FakeHub) -> None:
    """An approver may not; an admin's reason reaches the hub."""
    refused = await api.post("/targets/eu-2/shop/prune", {"reason": "r"}, token=APPROVER)
    assert refused.status == 403
    answer = await api.post("/targets/eu-2/shop/prune", {"reason": "port is taken"}, token=ADMIN)
    assert (answer.status, answer.json) == (202, {"pruning": 2})
    assert hub.acts == [("prune", ("eu-2", "shop", "port is taken"), "ada")]


async def test_events_of_one_reason(api: Api, hub: FakeHub) -> None:
    """What was let go is found among the prunes."""
    hub.stored_events = [event(1, kind="prune", reason="NotInGit"), event(2, kind="prune", reason="Orphaned")]
    answer = await api.get("/events?kind=prune&reason=Orphaned")
    assert [row["seq"] for row in answer.json["items"]] == [2]


async def test_a_token_is_made_listed_and_revoked(api: Api, hub: FakeHub) -> None:
    """Its secret is in the first answer, whole, and in no other."""
    body = {"name": "ci", "role": "operator", "environments": ["dev"], "expires": "30d"}
    made = await api.post("/tokens", body, token=ADMIN)
    assert (made.status, made.json["token"], made.json["expires_at"]) == (
        201,
        "flt_new-secret-of-ci",
        "2030-03-02T12:00:00Z",
    )
    assert hub.acts == [("create_token", ("ci", Role.OPERATOR, ("dev",), NOW + timedelta(days=30)), "ada")]
    listed = await api.get("/tokens", token=ADMIN)
    assert "ci" in [t["name"] for t in listed.json["items"]]
    assert b"secret" not in listed.body
    assert (await api("DELETE", "/api/v1/tokens/ci", token=ADMIN)).json == {"revoked": "ci", "already": False}
    again = await api("DELETE", "/api/v1/tokens/ci", token=ADMIN)
    assert (again.status, again.json["reason"]) == (404, "NotFound")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"name": "ada", "role": "viewer"}, 409, "TokenExists"),
        ({"name": "ci", "role": "root"}, 400, "InvalidField"),
        ({"name": "C I", "role": "viewer"}, 400, "InvalidField"),
        ({"name": "", "role": "viewer"}, 400, "InvalidField"),
        ({"name": "ci", "role": "viewer", "environments": ["a,b"]}, 400, "InvalidField"),
        ({"name": "ci", "role": "viewer", "environments": ["prd"]}, 404, "NotFound"),
    ],
)
async def test_a_token_that_cannot_be_made(api: Api, body: dict[str, str], status: int, reason: str) -> None:
    """A taken name, an unknown role, a name or environment that is none."""
    answer = await api.post("/tokens", body, token=ADMIN)
    assert (answer.status, answer.json["reason"]) == (status, reason)


async def test_a_wrong_token_name_is_explained(api: Api) -> None:
    """In words, not by a pattern; an environment that is not there by the one that was meant."""
    wrong = await api.post("/tokens", {"name": "C I", "role": "viewer"}, token=ADMIN)
    assert wrong.json["detail"].startswith("field: name is no name: write small letters, digits, dots and dashes")
    away = await api.post("/tokens", {"name": "ci", "role": "viewer", "environments": ["prd"]}, token=ADMIN)
    assert away.json["detail"] == "there is no environment prd; did you mean prod?"


async def test_rollback_and_unhold(api: Api, hub: FakeHub) -> None:
    """A hold is stored with its reason, shown, and ended by its scope."""
    body = {"app": "shop", "cluster": "eu-2", "to": "shop#41", "reason": "incident"}
    held = await api.post("/rollback", body, token=OPERATOR)
    assert (held.status, held.json["release"], held.json["actor"]) == (200, "shop#41", "otto")
    assert hub.acts[0][:2] == ("rollback", HoldRequest(**body))
    assert [h["scope"] for h in (await api.get("/holds")).json["items"]] == ["app shop, cluster eu-2"]
    assert (await api.post("/unhold", {"app": "shop", "cluster": "eu-2"}, token=OPERATOR)).json == {"unheld": 1}


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"app": "shpo", "reason": "r"}, 404, "did you mean shop?"),
        ({"app": "shop"}, 400, "reason"),
        ({"app": "db", "reason": "r"}, 409, "see fleet release db"),
    ],
)
async def test_a_rollback_that_cannot_be(
    api: Api, hub: FakeHub, body: dict[str, str], status: int, detail: str
) -> None:
    """Nothing is held, and the answer says what to do."""
    answer = await api.post("/rollback", body, token=OPERATOR)
    assert (answer.status, hub.acts) == (status, [])
    assert detail in answer.json["detail"]


async def test_a_token_of_one_environment_rolls_back_there_only(api: Api, hub: FakeHub) -> None:
    """Without a scope, all environments are meant."""
    scopes: tuple[dict[str, str], ...] = (
        {"cluster": "eu-1"},
        {"environment": "dev"},
        {"cluster": "eu-2"},
        {"environment": "prod"},
        {},
    )
    answers = [
        (await api.post("/rollback", {"app": "shop", "reason": "r", **scope}, token=DEV_OPERATOR)).status
        for scope in scopes
    ]
    assert answers == [200, 200, 403, 403, 403]
    assert len(hub.acts) == 2


async def test_recover_lists_and_confirms(api: Api, hub: FakeHub) -> None:
    """What a lost ledger left behind is listed; confirming needs an approver, and answers what was meant."""
    listed = (await api.get("/recovery")).json["items"]
    assert [(row["cluster"], row["app"], row["name"]) for row in listed] == [("eu-1", "shop", "old")]
    assert (await api.post("/recover", {"reason": "r"}, token=OPERATOR)).status == 403
    assert (await api.post("/recover", {}, token=APPROVER)).status == 400
    confirmed = await api.post("/recover", {"cluster": "eu-1", "reason": "disk lost"}, token=APPROVER)
    assert (confirmed.json["items"], hub.acts[-1][:2]) == (listed, ("recover", ("eu-1", "", "disk lost")))
