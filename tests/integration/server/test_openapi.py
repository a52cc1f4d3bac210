"""The description of the API against the API."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from fleet.server.answer import Exit
from fleet.server.api import OPERATIONS
from fleet.server.app import make_app
from fleet.server.listener import Listeners
from fleet.server.openapi import document
from fleet.server.operation import PREFIX
from fleet.server.stream import Streams
from fleet.settings import Settings
from tests.harness.hub import NEW, FakeHub
from tests.harness.keydesk import KID
from tests.integration.server.conftest import ADMIN, Api

EXAMPLES = {
    "{cluster}": "eu-1",
    "{app}": "shop",
    "{name}": "eu-1",
    "{commit}": NEW[:7],
    "{kid}": KID,
    "{release}": "42",
}


async def test_every_route_is_described_and_every_description_is_a_route(hub: FakeHub) -> None:
    """Method by method; HEAD goes with GET."""
    settings = Settings()
    with ThreadPoolExecutor(1) as executor:
        app = make_app(hub, settings, Listeners.from_settings(settings), Exit(executor), Streams(hub))
    routes = {
        (route.resource.canonical, route.method.lower())
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    described = {(path, method) for path, methods in document()["paths"].items() for method in methods}
    assert routes == described


async def test_the_document_is_served(api: Api) -> None:
    """As JSON, of the version that it claims."""
    served = (await api.get("/openapi.json")).json
    assert served["openapi"] == "3.1.0"
    assert served == msgspec.json.decode(msgspec.json.encode(document()))


def test_references_lead_somewhere_and_ids_are_unique() -> None:
    """Every $ref names a component, every component is used, no operationId comes twice."""
    text = msgspec.json.encode(document()).decode()
    names = set(document()["components"]["schemas"])
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) == names
    assert all(re.fullmatch(r"[A-Za-z]+", name) for name in names)
    ids = re.findall(r'"operationId":"([^"]+)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.method == "GET"], ids=lambda o: o.name)
async def test_answers_have_the_shape_that_is_described(api: Api, operation: Any) -> None:
    """Each reading operation's answer decodes into the type that its description was made from."""
    path = re.sub(r"\{\w+\}", lambda match: EXAMPLES[match[0]], operation.path)
    answer = await api("GET", PREFIX + path, token=ADMIN)
    assert answer.status == operation.status
    msgspec.json.decode(answer.body, type=operation.answers)


async def test_a_head_is_a_get_without_a_body(api: Api) -> None:
    """Also where a stream could be asked for."""
    answer = await api("HEAD", f"{PREFIX}/status")
    assert (answer.status, answer.body) == (200, b"")
