"""Acting on whole clusters through `/api/v1`."""

import pytest

from tests.harness.hub import FakeHub
from tests.integration.server.conftest import ADMIN, OPERATOR, Api

REASON = {"reason": "rebuilt"}
ACTS = {
    "accept": ({"uid": "uid-eu-2", **REASON}, ("accept_cluster", ("eu-2", "uid-eu-2", "rebuilt"), "ada")),
    "takeover": (REASON, ("take_over_cluster", ("eu-2", "rebuilt"), "ada")),
    "drain": ({"app": "shop", **REASON}, ("drain_cluster", ("eu-2", "shop", "rebuilt"), "ada")),
    "undrain": ({"app": "shop"}, ("undrain_cluster", ("eu-2", "shop"), "ada")),
}


@pytest.mark.parametrize("act", ACTS)
async def test_an_administrator_decides(act: str, api: Api, hub: FakeHub) -> None:
    """The act reaches the hub with its reason and the token's name."""
    body, expected = ACTS[act]
    answer = await api.post(f"/clusters/eu-2/{act}", body, token=ADMIN)
    assert answer.status in (200, 202)
    assert hub.acts == [expected]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("token", [OPERATOR, "flt_dev-admin-secret"])
async def test_nobody_else_does(act: str, token: str, api: Api, hub: FakeHub) -> None:
    """An operator may not, nor may an administrator of another environment."""
    answer = await api.post(f"/clusters/eu-2/{act}", ACTS[act][0], token=token)
    assert (answer.status, hub.acts) == (403, [])


@pytest.mark.parametrize("act", ["accept", "takeover", "drain"])
async def test_a_wrong_name_is_answered_with_the_nearest(act: str, api: Api, hub: FakeHub) -> None:
    """404; nothing happens."""
    answer = await api.post(f"/clusters/eu-3/{act}", ACTS[act][0], token=ADMIN)
    assert (answer.status, hub.acts) == (404, [])
    assert "did you mean" in answer.json["detail"]


async def test_a_reason_must_be_given(api: Api, hub: FakeHub) -> None:
    """What cannot be undone is never unexplained."""
    answer = await api.post("/clusters/eu-2/drain", {}, token=ADMIN)
    assert (answer.status, hub.acts) == (400, [])


async def test_a_refusal_of_the_hub_is_a_conflict(api: Api) -> None:
    """It names what to do."""
    answer = await api.post("/clusters/eu-2/accept", {"uid": "other", **REASON}, token=ADMIN)
    assert (answer.status, answer.json["reason"]) == (409, "UidDiffers")


async def test_a_cluster_that_left_the_inventory_can_be_undrained(api: Api) -> None:
    """The drain may be all that is left of it."""
    answer = await api.post("/clusters/gone/undrain", {}, token=ADMIN)
    assert answer.json == {"undrained": 1}


async def test_the_rights_that_a_cluster_needs_can_be_read(api: Api) -> None:
    """Documents as JSON texts, and the apps that they do not cover."""
    answer = await api.get("/clusters/eu-2/manifests")
    assert answer.json == {"cluster": "eu-2", "manifests": ['{"kind":"Namespace"}'], "missing": ["db"]}
    assert (await api.get("/clusters/eu-3/manifests")).status == 404
