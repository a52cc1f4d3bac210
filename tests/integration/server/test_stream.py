"""Events as they happen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from fleet.server import stream
from tests.harness.hub import FakeHub, event
from tests.integration.server.conftest import Api, serving

SSE = {"Accept": "text/event-stream"}


class Reader:
    """Reads frames of one stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content

    async def frame(self) -> str:
        """Return the next frame."""
        return (await self._content.readuntil(b"\n\n")).decode()

    async def event(self) -> dict[str, Any]:
        """Return the next event, with its id."""
        while "data:" not in (text := await self.frame()):
            pass
        fields = dict(line.split(": ", 1) for line in text.strip().splitlines())
        return {"id": int(fields["id"]), **msgspec.json.decode(fields["data"])}


@asynccontextmanager
async def reading(api: Api, query: str = "", **headers: str) -> AsyncIterator[Reader]:
    """Open a stream."""
    async with api.session.get(f"{api.bound.url}/api/v1/events{query}", headers={**SSE, **headers}) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        yield Reader(response)


async def followed(hub: FakeHub) -> None:
    """Wait until the hub has a follower."""
    while not hub.followers:
        await asyncio.sleep(0.01)


async def test_a_stream_begins_now(api: Api, hub: FakeHub) -> None:
    """Without `since`, what happened before is not told."""
    async with reading(api) as reader:
        await followed(hub)
        hub.happen(event(3, cluster="eu-1"))
        found = await reader.event()
    assert (found["id"], found["seq"], found["cluster"], found["reason"]) == (3, 3, "eu-1", "Applied")


@pytest.mark.parametrize(("query", "header"), [("?since=1", ""), ("?since=0", "1"), ("?continue=1", "")])
async def test_a_stream_is_resumed_by_number(api: Api, query: str, header: str) -> None:
    """`Last-Event-ID` comes before `since`."""
    async with reading(api, query, **({"Last-Event-ID": header} if header else {})) as reader:
        assert (await reader.event())["id"] == 2


async def test_a_stream_can_begin_with_the_newest(api: Api, hub: FakeHub) -> None:
    """`limit` tells how many come first; none comes twice."""
    async with reading(api, "?limit=1") as reader:
        assert (await reader.event())["id"] == 2
        await followed(hub)
        hub.happen(event(3))
        assert (await reader.event())["id"] == 3


async def test_a_stream_is_filtered(api: Api, hub: FakeHub) -> None:
    """Only events of the cluster, app and kind asked for."""
    async with reading(api, "?cluster=eu-1&app=shop&kind=drift") as reader:
        await followed(hub)
        hub.happen(event(3, cluster="eu-1", app="db", kind="drift"))
        hub.happen(event(4, cluster="eu-2", app="shop", kind="drift"))
        hub.happen(event(5, cluster="eu-1", app="shop", kind="apply"))
        hub.happen(event(6, cluster="eu-1", app="shop", kind="drift"))
        assert (await reader.event())["id"] == 6


async def test_a_message_stays_one_frame_and_has_no_secret(api: Api, hub: FakeHub) -> None:
    """Line breaks are JSON's; credentials are masked."""
    async with reading(api) as reader:
        await followed(hub)
        hub.happen(event(3, "a\n\ndata: b flt_abcdefgh12"))
        assert (await reader.event())["message"] == "a\n\ndata: b ***"


async def test_silence_has_a_heartbeat(api: Api, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment now and then tells that the stream is alive."""
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.01)
    async with reading(api) as reader:
        assert (await reader.frame()).startswith("retry:")
        assert await reader.frame() == ": alive\n\n"


async def test_a_reader_that_leaves_is_forgotten(api: Api, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its follower goes when the next write finds nobody."""
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.01)
    async with reading(api):
        await followed(hub)
    while hub.followers:
        await asyncio.sleep(0.01)


async def test_streams_are_bounded(api: Api, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than the most is a 503."""
    monkeypatch.setattr(stream, "MOST_STREAMS", 1)
    async with reading(api):
        await followed(hub)
        refused = await api.get("/events", headers=SSE)
        assert (refused.status, refused.json["reason"]) == (503, "TooManyStreams")


async def test_a_bad_question_gets_no_stream(api: Api) -> None:
    """Parameters are checked before the stream begins."""
    assert (await api.get("/events?snce=1", headers=SSE)).status == 400


async def test_stopping_says_goodbye(hub: FakeHub) -> None:
    """When the server stops, streams end with a word instead of holding it up."""
    async with aiohttp.ClientSession() as session:
        async with serving(hub) as api:
            response = await session.get(f"{api.bound.url}/api/v1/events", headers=SSE)
            await followed(hub)
        text = (await response.read()).decode()
    assert 'event: bye\ndata: {"reason":"Stopping"}\n\n' in text
    assert hub.followers == []
