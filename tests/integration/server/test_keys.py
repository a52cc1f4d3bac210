"""Sealing keys through `/api/v1`, and at the addresses where sealing tools look."""

from typing import Any

import pytest

from tests.harness.hub import FakeHub
from tests.harness.keydesk import KID
from tests.integration.server.conftest import ADMIN, OPERATOR, Api, serving

REASON = {"reason": "laptop lost"}
OLD = "e" * 20
IMPORTED = {"algorithm": "age", "secret": "c2VjcmV0", "name": "flux"}
ACTS: dict[str, tuple[dict[str, Any], tuple[str, object, str]]] = {
    "rotate": ({"cluster": "eu-1", **REASON}, ("rotate", ("eu-1", "x25519", "laptop lost"), "ada")),
    f"{OLD}/retire": ({**REASON, "how": "undo"}, ("retire", (OLD, "", "undo", False, "laptop lost"), "ada")),
    f"{KID}/compromise": (REASON, ("compromise", (KID, "", "laptop lost"), "ada")),
    "import": ({"cluster": "eu-1", "keys": [IMPORTED]}, ("take_in", ("eu-1", [("flux", "age", 6)]), "ada")),
    "export": ({"recipients": ["age1x"], **REASON}, ("export", ("", "", "fleet", ("age1x",), "laptop lost"), "ada")),
    "backup": ({}, ("back_up", (), "ada")),
    "backup/confirm": ({"digest": "a" * 64, "place": "/mnt"}, ("confirm", ("a" * 64, "/mnt"), "ada")),
    "master": (REASON, ("rotate_master", ("", "laptop lost"), "ada")),
}


@pytest.mark.parametrize("act", ACTS)
async def test_an_administrator_acts_on_keys(act: str, api: Api, hub: FakeHub) -> None:
    """The act reaches the hub with its reason and the token's name."""
    body, expected = ACTS[act]
    answer = await api.post(f"/keys/{act}", body, token=ADMIN)
    assert (answer.status, hub.keys.acts) == (200, [expected])


@pytest.mark.parametrize("act", ACTS)
async def test_an_operator_does_not(act: str, api: Api, hub: FakeHub) -> None:
    """Nobody below an administrator moves a key."""
    answer = await api.post(f"/keys/{act}", ACTS[act][0], token=OPERATOR)
    assert (answer.status, hub.keys.acts) == (403, [])


@pytest.mark.parametrize("act", ["export", "backup", "backup/confirm", "master"])
async def test_an_administrator_of_one_environment_does_not_take_all_keys(act: str, api: Api, hub: FakeHub) -> None:
    """What concerns every key needs a token for every environment."""
    answer = await api.post(f"/keys/{act}", ACTS[act][0], token="flt_dev-admin-secret")
    assert (answer.status, hub.keys.acts) == (403, [])


@pytest.mark.parametrize(
    ("act", "body"),
    [
        ("rotate", {"cluster": "eu-2", **REASON}),
        ("import", {"cluster": "eu-2", "keys": [IMPORTED]}),
        (f"{'f' * 20}/compromise", REASON),
        (f"{'f' * 20}/retire", REASON),
    ],
)
async def test_an_administrator_of_one_environment_keeps_to_it(
    act: str, body: dict[str, Any], api: Api, hub: FakeHub
) -> None:
    """A key of another environment's cluster is out of bounds."""
    answer = await api.post(f"/keys/{act}", body, token="flt_dev-admin-secret")
    assert (answer.status, hub.keys.acts) == (403, [])


async def test_keys_are_listed_and_shown(api: Api) -> None:
    """By cluster, environment and state; a wrong state names the nearest."""
    assert [row["kid"] for row in (await api.get("/keys?cluster=eu-1")).json["items"]] == [KID, OLD]
    assert [row["kid"] for row in (await api.get("/keys?environment=production")).json["items"]] == ["f" * 20]
    assert [row["kid"] for row in (await api.get("/keys?state=retiring")).json["items"]] == [OLD]
    assert "retired" in (await api.get("/keys?state=retird")).json["detail"]
    assert (await api.get(f"/keys/{KID}")).json["items"][0]["recipient"] == "age1abc"
    assert (await api.get(f"/keys/{'0' * 20}")).status == 404
    assert [row["item"] for row in (await api.get(f"/keys/usage?kid={KID}")).json["items"]] == ["password"]


async def test_a_refusal_of_the_hub_is_a_conflict(api: Api) -> None:
    """It names what to do."""
    answer = await api.post(f"/keys/{KID}/retire", REASON, token=ADMIN)
    assert (answer.status, answer.json["reason"]) == (409, "KeyActive")


@pytest.mark.parametrize("body", [REASON, {**REASON, "recipients": ["age1x"], "plain": True}])
async def test_an_export_in_the_clear_must_be_meant(body: dict[str, Any], api: Api, hub: FakeHub) -> None:
    """Neither by forgetting the recipients, nor by naming both."""
    answer = await api.post("/keys/export", body, token=ADMIN)
    assert (answer.status, answer.json["reason"], hub.keys.acts) == (400, "RecipientsMissing", [])


async def test_a_broken_import_shows_nothing_of_it(api: Api) -> None:
    """The error names the field, not its content."""
    keys = [{"algorithm": "age", "secret": "canary!"}]
    answer = await api.post("/keys/import", {"cluster": "eu-1", "keys": keys}, token=ADMIN)
    assert answer.status == 400
    assert b"canary" not in answer.body


async def test_public_keys_are_where_sealing_tools_look(api: Api) -> None:
    """The list as YAML, the certificate as kubeseal takes it; a cluster whose key waits says why."""
    bundle = await api("GET", "/v1/seal/keys")
    assert (bundle.status, bundle.headers["Content-Type"].split(";")[0]) == (200, "application/yaml")
    certificate = await api("GET", "/v1/clusters/eu-1/cert.pem")
    assert (certificate.status, certificate.headers["Content-Type"]) == (200, "application/x-pem-file")
    assert certificate.body.startswith(b"-----BEGIN CERTIFICATE-----")
    assert (await api("GET", "/v1/clusters/eu-2/cert.pem")).status == 409
    assert (await api("GET", "/v1/clusters/eu-9/cert.pem")).status == 404


@pytest.mark.parametrize("path", ["/v1/seal/keys", "/v1/clusters/eu-1/cert.pem"])
async def test_beyond_loopback_public_keys_need_a_token_or_a_setting(path: str, hub: FakeHub, remote: Api) -> None:
    """As other reading does; kubeseal sends no token, so that an operator may open these two."""
    assert (await remote("GET", path)).status == 401
    async with serving(hub, listen="0.0.0.0:0", insecure_http=True, anonymous_seal_keys=True) as opened:
        assert (await opened("GET", path)).status == 200
        assert (await opened.get("/keys")).status == 401
