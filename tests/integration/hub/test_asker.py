"""Checks over the memory network, in virtual time: what is asked, of whom, and what comes of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web

from fleet.aio import spawn
from fleet.hub.asker import MOST_AT_ONCE, Asker
from fleet.inventory.value import Inventory
from fleet.rollout.answer import MOST_SHOWN
from fleet.rollout.decision import Ask
from fleet.rollout.policy import Check, HttpProbe, PrometheusQuery, Question
from fleet.rollout.state import Run, Sample
from fleet.sim.loop import SimLoop, deterministic
from fleet.sim.network import MemoryNetwork, MemoryReach
from tests.integration.hub.conftest import VirtualClock
from tests.unit.inventory.build import app, cluster, environment, inventory, repository

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
FLEET = inventory(
    repository(),
    environment("prod", "variables: {DOMAIN: example}"),
    cluster("eu", "prod", spec="variables: {ZONE: z1}"),
    app(),
)


class Site:
    """One server of the memory network; `asked` holds path and form of every request."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(seed=1)
        self.asked: list[str] = []
        self.reply = web.Response
        self.wait_s = 0.0
        self.known: Inventory | None = FLEET
        self.clock = VirtualClock()
        self.asker = Asker(reach=MemoryReach(self.network), clock=self.clock, inventory=lambda: self.known)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer after a while."""
        self.asked.append(f"{request.method} {request.path} {dict(await request.post())}")
        await asyncio.sleep(self.wait_s)
        return self.reply()

    async def ask(self, question: Question, *, cluster: str = "", timeout_s: float = 5.0) -> Sample:
        """Ask a check of the run of shop#7 once."""
        run = Run(id=1, app="shop", release=7, revision="abc", created_at=self.clock.now())
        check = Check(name="c", question=question, timeout_s=timeout_s)
        return await self.asker.ask(Ask(check=check, environment="prod", cluster=cluster, round=3), run)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A server at p.example:80."""
    made = Site()
    server = web.Server(made.answer, access_log=None)
    made.network.listen("p.example", 80, server)
    with deterministic(asyncio.get_running_loop()):
        yield made
        await server.shutdown(1.0)


def http(path: str = "", **fields: str) -> HttpProbe:
    """Return a probe of the server."""
    return HttpProbe(url=f"http://p.example/{path}", **fields)  # type: ignore[arg-type]  # only text is given


QUERY = PrometheusQuery(url="http://p.example", query='up{c="${cluster}"}', condition="< 1")


def scalar(value: str) -> web.Response:
    """Answer as Prometheus does."""
    return web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [1, value]}})


async def test_a_cluster_is_asked_with_its_variables(site: Site) -> None:
    """Built-in words and variables of every layer; the result says when, and of which attempt."""
    sample = await site.ask(http("${app}/${environment}/${cluster}/${revision}/${DOMAIN}/${ZONE}"), cluster="eu")
    assert site.asked == ["GET /shop/prod/eu/abc/example/z1 {}"]
    now = cast("SimLoop", asyncio.get_running_loop()).now()
    assert sample == Sample(check="c", at=now, outcome="passed", value="200", round=3)


async def test_a_stage_is_asked_without_those_of_clusters(site: Site) -> None:
    """What differs between clusters has no value there, and nothing is sent."""
    assert (await site.ask(http("${DOMAIN}"))).outcome == "passed"
    for name in ("cluster", "ZONE"):
        sample = await site.ask(http(f"${{{name}}}"))
        assert (sample.outcome, sample.message) == ("inconclusive", f"${{{name}}} has no value here")
    assert len(site.asked) == 1


async def test_prometheus_is_asked_for_an_instant(site: Site) -> None:
    """The query goes in the body, never into an access log."""
    for value, outcome in (("0.5", "passed"), ("2", "failed"), ("NaN", "inconclusive")):
        site.reply = lambda value=value: scalar(value)  # type: ignore[misc, assignment]
        assert (await site.ask(QUERY, cluster="eu")).outcome == outcome
    assert set(site.asked) == {"POST /api/v1/query {'query': 'up{c=\"eu\"}'}"}


@pytest.mark.parametrize(("question", "outcome"), [(http(), "failed"), (QUERY, "inconclusive")])
async def test_who_does_not_answer_in_time(site: Site, question: Question, outcome: str) -> None:
    """A service fails; of a silent Prometheus nothing follows; neither takes longer than its timeout."""
    site.wait_s = 60.0
    loop = asyncio.get_running_loop()
    began = loop.time()
    sample = await site.ask(question, cluster="eu")
    assert (sample.outcome, sample.message) == (outcome, "p.example:80 did not answer in time")
    assert loop.time() - began == pytest.approx(5.0)


async def test_only_its_own_timeout_cuts_a_question_short(site: Site) -> None:
    """A connection that takes longer than is usual elsewhere is waited for as long as the check allows."""
    site.network.conditions("p.example", 80).latency_s = 7.0
    assert (await site.ask(http(), timeout_s=30.0)).outcome == "passed"
    assert (await site.ask(http(), timeout_s=27.0)).outcome == "failed"


@pytest.mark.parametrize("lead", ["", "x" * (MOST_SHOWN - 5)])
async def test_a_token_that_is_repeated_is_not_shown(site: Site, tmp_path: Path, lead: str) -> None:
    """Nor its beginning where the message ends within it, nor however the server wrote it in JSON."""
    file, token = tmp_path / "token", "tok/<en>+1"
    file.write_text(token)
    query = replace(QUERY, token_file=str(file))
    written = f"{lead}{token} is wrong".replace("/", r"\/").replace("<", r"\u003c")
    site.reply = lambda: web.Response(status=422, text=f'{{"status": "error", "error": "{written}"}}')  # type: ignore[assignment, misc]
    sample = await site.ask(query, cluster="eu")
    assert sample.outcome == "inconclusive"
    assert "tok/" not in sample.message
    assert ("[token] is wrong" in sample.message) is (not lead)
    series = [{"metric": {"t": token, token: "u"}, "value": [1, "7"]}]
    body = {"status": "success", "data": {"resultType": "vector", "result": series}, "warnings": [token]}
    site.reply = lambda: web.json_response(body)  # type: ignore[assignment, misc]
    for condition, message in (
        ("< 1", '7 for {[token]="u", t="[token]"} is not < 1'),
        ("> 1", "Prometheus lacks some of the data: [token]"),
    ):
        assert (await site.ask(replace(query, condition=condition), cluster="eu")).message == message


async def test_only_so_many_questions_are_under_way(site: Site) -> None:
    """The others wait for a turn, and that does not count as time of theirs."""
    site.wait_s = 3.0
    async with asyncio.TaskGroup() as group:
        asked = [spawn(group, "ask", site.ask(http())) for _ in range(MOST_AT_ONCE + 20)]
        await asyncio.sleep(1.0)
        assert site.network.connection_count("p.example", 80) == MOST_AT_ONCE
    assert {task.result().outcome for task in asked} == {"passed"}


async def test_a_port_that_is_none(site: Site) -> None:
    """A variable may hold anything: said in words, and nothing fails."""
    sample = await site.ask(HttpProbe(url="http://p.example:${app}"))
    assert (sample.outcome, sample.message[:19]) == ("inconclusive", "the port of the url")


async def test_nobody_listens(site: Site) -> None:
    """The same for a connection that is refused."""
    site.network.unlisten("p.example", 80)
    assert (await site.ask(http())).outcome == "failed"
    assert (await site.ask(QUERY, cluster="eu")).outcome == "inconclusive"


async def test_what_cannot_be_asked_is_inconclusive(site: Site) -> None:
    """A forbidden address, a file that is not there, an inventory that is not read yet: nothing is sent."""
    forbidden = HttpProbe(url="http://169.254.169.254/")
    for question, words in ((forbidden, "allowLinkLocal"), (http(ca_file="/nowhere"), "caFile /nowhere")):
        sample = await site.ask(question)
        assert sample.outcome == "inconclusive"
        assert words in sample.message
    site.known = None
    assert (await site.ask(http("${DOMAIN}"))).outcome == "inconclusive"
    assert site.asked == []
