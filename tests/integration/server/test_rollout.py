"""Rollouts over `/api/v1`."""

import pytest

from fleet.hub.rolloutview import Steering, SteerRequest
from tests.harness.hub import FakeHub
from tests.harness.rollout import DIGEST, rollout_detail, rollout_row
from tests.integration.server.conftest import ADMIN, APPROVER, DEV_ADMIN, DEV_OPERATOR, OPERATOR, VIEWER, Api

PLAIN = [Steering.PAUSE, Steering.RESUME, Steering.ABORT, Steering.RETRY, Steering.ROLLBACK]


@pytest.fixture(autouse=True)
def _under_way(hub: FakeHub) -> None:
    """One rollout is under way, one of the app before it and one of another app are over."""
    done, old = rollout_row("db", 7, "Succeeded"), rollout_row("shop", 41, "RolledBack")
    hub.rollouts.details = [rollout_detail(), rollout_detail(done), rollout_detail(old)]


async def test_rollouts_are_listed_newest_first_in_pages(api: Api) -> None:
    """By app and state; `continue` goes on where the page before ended."""
    everything = (await api.get("/rollouts")).json
    assert [row["release"] for row in everything["items"]] == ["shop#42", "db#7", "shop#41"]
    assert everything["continue"] == ""
    first = (await api.get("/rollouts?limit=2")).json
    rest = (await api.get(f"/rollouts?limit=2&continue={first['continue']}")).json
    assert [row["release"] for row in [*first["items"], *rest["items"]]] == ["shop#42", "db#7", "shop#41"]
    assert [r["number"] for r in (await api.get("/rollouts?app=shop&state=rolledback")).json["items"]] == [41]


@pytest.mark.parametrize(
    ("query", "status", "detail"),
    [
        ("/rollouts?app=shpo", 404, "did you mean shop?"),
        ("/rollouts?state=Runing", 400, "did you mean Running?"),
        ("/rollouts?continue=x", 400, "start over"),
        ("/rollouts/shpo", 404, "did you mean shop?"),
        ("/rollouts/shop/40", 404, "shop#40 has no rollout"),
        ("/rollouts/shop/first", 400, "is not the number of a release"),
    ],
)
async def test_a_wrong_name_is_said(api: Api, query: str, status: int, detail: str) -> None:
    """As problem+json, with the nearest right one."""
    answer = await api.get(query)
    assert answer.status == status
    assert detail in answer.json["detail"]
    assert answer.headers["Content-Type"].startswith("application/problem+json")


async def test_one_rollout_shows_stages_gates_and_history(api: Api) -> None:
    """The newest without a number, and any by its number."""
    shown = (await api.get("/rollouts/shop")).json
    assert [stage["environment"] for stage in shown["stages"]] == ["dev", "prod", "last"]
    soak = shown["stages"][1]["clusters"][0]["gates"][0]
    assert (soak["kind"], soak["at"]) == ("Soak", "2030-01-31T12:04:00Z")
    assert shown["stages"][2]["approvals"][0]["actor"] == "petra"
    assert [step["actor"] for step in shown["history"]] == ["", "ada"]
    assert (await api.get("/rollouts/shop/41")).json["rollout"]["state"] == "RolledBack"
    assert [(await api.get(f"/rollouts/{name}?history=false")).json["history"] for name in ("shop", "shop/41")] == [
        [],
        [],
    ]


@pytest.mark.parametrize("verb", PLAIN)
async def test_a_verb_is_passed_on_with_actor_and_reason(api: Api, hub: FakeHub, verb: Steering) -> None:
    """It answers how the rollout is then."""
    answer = await api.post(f"/rollouts/shop/{verb}", {"reason": "night"}, token=OPERATOR)
    assert (answer.status, answer.json["release"]) == (200, "shop#42")
    assert hub.acts == [(f"rollout {verb}", SteerRequest(app="shop", verb=verb, reason="night"), "otto")]


async def test_verbs_about_a_part_name_it(api: Api, hub: FakeHub) -> None:
    """Skip a cluster, promote a stage, approve one with the plan that was looked at."""
    await api.post("/rollouts/shop/skip", {"cluster": "us-1", "reason": "broken"}, token=OPERATOR)
    await api.post("/rollouts/shop/promote", {"stage": "prod", "reason": "fix"}, token=OPERATOR)
    given = await api.post("/rollouts/shop/approve", {"stage": "last", "plan": DIGEST, "reason": "ok"}, token=APPROVER)
    assert given.status == 200
    assert [(verb, r.cluster, r.stage, r.plan) for verb, r, _ in hub.acts if isinstance(r, SteerRequest)] == [
        ("rollout skip", "us-1", "", ""),
        ("rollout promote", "", "prod", ""),
        ("rollout approve", "", "last", DIGEST),
    ]


async def test_a_stale_plan_is_refused(api: Api, hub: FakeHub) -> None:
    """409 with the plan as it is; nothing is noted."""
    body = {"stage": "last", "plan": "f" * 16, "reason": "ok"}
    answer = await api.post("/rollouts/shop/approve", body, token=APPROVER)
    assert (answer.status, answer.json["reason"]) == (409, "StalePlan")
    assert DIGEST in answer.json["detail"]
    assert hub.acts == []


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (
            {"stage": "last", "plan": "3f0c", "reason": "ok"},
            "field: plan is no digest of what you looked at: 16 hex digits",
        ),
        ({"stage": "last", "reason": ""}, "field: reason must not be empty"),
    ],
)
async def test_a_wrong_field_is_explained(api: Api, hub: FakeHub, body: dict[str, str], detail: str) -> None:
    """In words, not by a pattern or a length."""
    answer = await api.post("/rollouts/shop/approve", body, token=APPROVER)
    assert (answer.status, answer.json["detail"][: len(detail)]) == (400, detail)
    assert hub.acts == []


@pytest.mark.parametrize(
    ("verb", "body", "refused"),
    [
        ("pause", {}, (VIEWER, "RoleInsufficient")),
        ("approve", {"stage": "last"}, (OPERATOR, "RoleInsufficient")),
        ("pause", {}, (DEV_OPERATOR, "EnvironmentForbidden")),
        ("skip", {"cluster": "us-1"}, (DEV_OPERATOR, "EnvironmentForbidden")),
        ("promote", {"stage": "prod"}, (DEV_ADMIN, "EnvironmentForbidden")),
    ],
)
async def test_who_may_not_is_refused(
    api: Api, hub: FakeHub, verb: str, body: dict[str, str], refused: tuple[str, str]
) -> None:
    """By role, and by the environments that the verb would touch."""
    token, reason = refused
    answer = await api.post(f"/rollouts/shop/{verb}", {**body, "reason": "r"}, token=token)
    assert (answer.status, answer.json["reason"]) == (403, reason)
    assert hub.acts == []


async def test_a_token_of_one_environment_steers_there(api: Api, hub: FakeHub) -> None:
    """Skipping a cluster of dev touches nothing else, nor does promoting dev."""
    skipped = await api.post("/rollouts/shop/skip", {"cluster": "eu-1", "reason": "r"}, token=DEV_OPERATOR)
    promoted = await api.post("/rollouts/shop/promote", {"stage": "dev", "reason": "r"}, token=DEV_OPERATOR)
    assert (skipped.status, promoted.status) == (200, 200)
    assert len(hub.acts) == 2


async def test_verbs_need_a_reason_and_a_rollout(api: Api, hub: FakeHub) -> None:
    """A body without reason is 400; an app that never had a rollout is 404."""
    assert (await api.post("/rollouts/shop/pause", {}, token=ADMIN)).status == 400
    hub.rollouts.details = []
    answer = await api.post("/rollouts/shop/pause", {"reason": "r"}, token=ADMIN)
    assert (answer.status, answer.json["reason"]) == (404, "NoRollout")
