"""Sealed documents through `/api/v1/seal`: who may have them changed."""

import pytest

from tests.harness.hub import FakeHub
from tests.integration.server.conftest import OPERATOR, VIEWER, Api

BODY = {"document": {"metadata": {"name": "db"}}}
VERBS = ["rewrap", "reseal"]


@pytest.mark.parametrize("verb", VERBS)
async def test_an_operator_changes_a_document(verb: str, api: Api, hub: FakeHub) -> None:
    """The document reaches the hub with the token's name, and comes back."""
    answer = await api.post(f"/seal/{verb}", BODY, token=OPERATOR)
    assert (answer.status, hub.keys.acts) == (200, [(verb, "db", "otto")])
    assert answer.json["document"] == BODY["document"]


@pytest.mark.parametrize("verb", VERBS)
async def test_a_viewer_and_a_stranger_do_not(verb: str, api: Api, hub: FakeHub) -> None:
    """Nothing that opens values is anonymous, nor for who may only read."""
    for token, status in ((VIEWER, 403), ("", 401)):
        assert (await api.post(f"/seal/{verb}", BODY, token=token)).status == status
    assert hub.keys.acts == []


@pytest.mark.parametrize("verb", VERBS)
async def test_an_operator_of_one_environment_keeps_to_it(verb: str, api: Api, hub: FakeHub) -> None:
    """A document that opens in another environment is out of bounds."""
    assert (await api.post(f"/seal/{verb}", BODY, token="flt_dev-operator-secret")).status == 403
    assert hub.keys.acts == []
