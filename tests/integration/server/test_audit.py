"""The audit log over HTTP."""

import pytest

from tests.harness.hub import FakeHub, act
from tests.integration.server.conftest import VIEWER, Api


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [1, 3, 5]),
        ("actor=otto", [3]),
        ("app=db&cluster=eu-1", [5]),
        ("limit=2", [3, 5]),
        ("since=24h", [1, 3, 5]),
        ("since=2030-01-31T11:59:00Z", []),
    ],
)
async def test_acts_are_filtered(api: Api, query: str, found: list[int]) -> None:
    """Filters narrow the log; without a beginning the newest come."""
    answer = await api.get(f"/audit?{query}")
    assert (answer.status, [row["seq"] for row in answer.json["items"]]) == (200, found)


async def test_acts_are_paged(api: Api, hub: FakeHub) -> None:
    """Following `continue` gives every act since a time once."""
    hub.audit_rows = [act(number) for number in range(1, 8)]
    seen, at = [], ""
    for _ in range(9):
        answer = await api.get("/audit", params={"since": "24h", "limit": "3", "continue": at})
        seen += [row["seq"] for row in answer.json["items"]]
        at = answer.json["continue"]
        if not at:
            break
    assert (seen, at) == ([1, 2, 3, 4, 5, 6, 7], "")


@pytest.mark.parametrize("query", ["since=x", "since=2040-01-01T00:00:00Z", "continue=x", "limit=1001", "who=ada"])
async def test_a_wrong_query_is_refused(api: Api, query: str) -> None:
    """With status 400 and what is wrong."""
    assert (await api.get(f"/audit?{query}")).status == 400


async def test_the_chain_is_checked(api: Api, hub: FakeHub) -> None:
    """The verdict comes as the hub finds it; a head has one form."""
    answer = await api.get("/audit/verify")
    assert (answer.status, answer.json["intact"], answer.json["rows"]) == (200, True, 6)
    other = await api.get(f"/audit/verify?head=6:{'1' * 64}")
    assert (other.status, other.json["intact"]) == (200, False)
    assert (await api.get("/audit/verify?head=6")).status == 400


async def test_reading_away_from_loopback_needs_a_token(remote: Api) -> None:
    """As for everything else that is read."""
    assert (await remote.get("/audit")).status == 401
    assert (await remote.get("/audit", token=VIEWER)).status == 200
