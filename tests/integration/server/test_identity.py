"""Who may ask what, from where, under which name."""

import pytest

from fleet.errors import FleetError, StoreError
from tests.harness.hub import FakeHub
from tests.integration.server.conftest import ADMIN, DEV_OPERATOR, OPERATOR, VIEWER, Api, serving


async def test_reading_on_loopback_is_free(api: Api) -> None:
    """Without a token one reads as anonymous viewer."""
    who = await api.get("/whoami")
    assert who.json == {"name": "anonymous", "role": "viewer", "environments": []}


@pytest.mark.parametrize("path", ["/api/v1/status", "/api/v1/events", "/api/v1/openapi.json", "/metrics", "/"])
async def test_reading_beyond_loopback_needs_a_token(remote: Api, path: str) -> None:
    """Without one it is a 401 that says how to get one; with a viewer's it works."""
    refused = await remote("GET", path)
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert b"fleet token create" in refused.body
    assert (await remote("GET", path, token=VIEWER)).status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
async def test_probes_ask_nobody(remote: Api, path: str) -> None:
    """Kubelets have no token and come with any Host."""
    assert (await remote("GET", path, headers={"Host": "anything.example.com"})).status == 200


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("Bearer flt_unknown", "TokenUnknown"),
        ("Bearer flt_expired", "TokenExpired"),
        ("Bearer flt_revoked", "TokenRevoked"),
        ("Basic dXNlcjpwYXNz", "TokenInvalid"),
        ("Bearer", "TokenInvalid"),
        ("Bearer a b", "TokenInvalid"),
    ],
)
async def test_a_bad_token_is_refused_even_where_none_is_needed(
    api: Api, hub: FakeHub, header: str, reason: str
) -> None:
    """A 401 says which it is: unknown, expired, revoked, or no bearer token at all."""
    hub.refused_tokens = {
        "flt_expired": FleetError("token ci expired; make another", reason="TokenExpired"),
        "flt_revoked": FleetError("token ci was revoked", reason="TokenRevoked"),
    }
    answer = await api.get("/status", headers={"Authorization": header})
    assert (answer.status, answer.json["reason"]) == (401, reason)
    assert "flt_" not in answer.json["detail"]


async def test_a_broken_store_is_not_a_bad_token(api: Api, hub: FakeHub) -> None:
    """When tokens cannot be read, the answer is 503, not 401."""
    hub.refused_tokens = {"flt_any": StoreError("the database is locked")}
    assert (await api.get("/status", token="flt_any")).status == 503


@pytest.mark.parametrize("path", ["/sync", "/pause", "/resume", "/targets/eu-1/shop/restart", "/tokens"])
async def test_acting_needs_a_token_also_on_loopback(api: Api, hub: FakeHub, path: str) -> None:
    """Nothing happens without one, whatever the body."""
    answer = await api.post(path, {"reason": "x"})
    assert (answer.status, answer.json["reason"]) == (401, "TokenMissing")
    assert hub.acts == []


async def test_a_viewer_may_not_act(api: Api, hub: FakeHub) -> None:
    """403 says which role it takes."""
    answer = await api.post("/sync", {}, token=VIEWER)
    assert (answer.status, answer.json["reason"]) == (403, "RoleInsufficient")
    assert "operator" in answer.json["detail"]
    assert hub.acts == []


async def test_an_operator_may_not_manage_tokens(api: Api) -> None:
    """Tokens are the admin's, reading them too, also on loopback."""
    body = {"name": "ci", "role": "viewer"}
    assert (await api.post("/tokens", body, token=OPERATOR)).status == 403
    assert (await api("DELETE", "/api/v1/tokens/vera", token=OPERATOR)).status == 403
    assert (await api.get("/tokens", token=OPERATOR)).status == 403
    assert (await api.get("/tokens")).status == 401
    assert (await api.get("/tokens", token=ADMIN)).status == 200


@pytest.mark.parametrize(
    ("path", "body", "allowed"),
    [
        ("/sync", {"app": "shop", "cluster": "eu-1"}, True),
        ("/sync", {"cluster": "eu-2"}, False),
        ("/sync", {}, False),
        ("/sync", {"repository": "base"}, True),
        ("/sync", {"repository": "config"}, False),
        ("/pause", {"reason": "r", "environment": "dev"}, True),
        ("/pause", {"reason": "r", "cluster": "eu-1"}, True),
        ("/pause", {"reason": "r", "cluster": "eu-2"}, False),
        ("/pause", {"reason": "r", "app": "db"}, False),
        ("/pause", {"reason": "r"}, False),
        ("/resume", {"environment": "prod"}, False),
        ("/resume", {"environment": "dev"}, True),
        ("/targets/eu-1/shop/restart", {}, True),
        ("/targets/eu-2/shop/restart", {}, False),
    ],
)
async def test_a_token_for_some_environments_acts_only_there(
    api: Api, hub: FakeHub, path: str, body: dict[str, str], allowed: bool
) -> None:
    """What would be touched decides, also what is yet to come; a refusal names it."""
    answer = await api.post(path, body, token=DEV_OPERATOR)
    assert (answer.status < 300) is allowed
    assert bool(hub.acts) is allowed
    if not allowed:
        assert (answer.status, answer.json["reason"]) == (403, "EnvironmentForbidden")


async def test_a_limited_admin_grants_no_more_than_it_has(api: Api, hub: FakeHub) -> None:
    """It can neither make nor revoke a token that acts where it may not act itself."""
    limited = "flt_dev-admin-secret"
    everywhere = {"name": "ci", "role": "admin"}
    assert (await api.post("/tokens", everywhere, token=limited)).status == 403
    assert (await api.post("/tokens", {**everywhere, "environments": ["prod"]}, token=limited)).status == 403
    assert (await api.post("/tokens", {**everywhere, "environments": ["dev"]}, token=limited)).status == 201
    assert (await api("DELETE", "/api/v1/tokens/ada", token=limited)).status == 403
    assert "ada" in hub.token_rows


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8420", 200),
        ("127.0.0.1", 200),
        ("[::1]:99", 200),
        ("fleet.example.com", 200),
        ("FLEET.example.com.:8420", 200),
        ("evil.example.com", 421),
        ("10.1.2.3", 421),
        ("localhost.evil.example.com", 421),
        ("a b", 421),
    ],
)
async def test_only_known_hosts_are_answered(hub: FakeHub, host: str, status: int) -> None:
    """A page that lets its own DNS name point here gets nothing, though reading is free."""
    async with serving(hub, allowed_hosts="fleet.example.com, other") as api:
        answer = await api.get("/status", headers={"Host": host})
    assert answer.status == status


async def test_beyond_loopback_addresses_are_hosts_but_names_are_listed(remote: Api) -> None:
    """Nobody can rebind an address; a name must be allowed."""
    assert (await remote.get("/status", token=VIEWER, headers={"Host": "10.1.2.3:8420"})).status == 200
    refused = await remote.get("/status", token=VIEWER, headers={"Host": "hub.example.com"})
    assert (refused.status, refused.json["reason"]) == (421, "HostNotAllowed")
    assert "--allowed-hosts" in refused.json["detail"]


async def test_answers_carry_what_keeps_browsers_away(api: Api) -> None:
    """No sniffing, no framing, no other origin, no cache."""
    headers = (await api.get("/status", headers={"Origin": "https://evil.example.com"})).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "fleet"
    assert not [name for name in headers if name.lower().startswith("access-control")]
