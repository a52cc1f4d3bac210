"""Checks of rollouts over a whole hub in virtual time: what passes, fails, is waited for, and is kept."""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml
from aiohttp import web

from fleet.hub.rolloutview import Steering, SteerRequest
from fleet.rollout.state import ClusterState, Run, RunState, Sample, StageRun, StageState
from fleet.sim.network import MemoryNetwork
from tests.harness.fleet import ADA, environment_document, repository_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import colour, config
from tests.integration.hub.test_rollout import fleet_of, run_in, run_of

Reply = tuple[int, str]
GUIDE = Path(__file__).parents[3] / "docs/how-to/check-before-going-on.md"
GOOD, BAD = (200, "ok"), (500, "")


class Site:
    """A server of the memory network that answers from a script, whose last line is repeated.

    `asked` holds (seconds, what) of every request: its path, or the query of Prometheus.
    """

    def __init__(self, network: MemoryNetwork, host: str, port: int = 80) -> None:
        self.script: list[Reply] = [GOOD]
        self.answer: Callable[[str], Reply] | None = None
        self.asked: list[tuple[float, str]] = []
        self.tokens: set[str] = set()
        self.server = web.Server(self._serve, access_log=None)
        network.listen(host, port, self.server)

    @property
    def questions(self) -> list[str]:
        """What was asked."""
        return [what for _, what in self.asked]

    @property
    def pauses(self) -> list[float]:
        """Seconds between requests."""
        times = [at for at, _ in self.asked]
        return [later - earlier for earlier, later in itertools.pairwise(times)]

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        form = parse_qs(await request.text())
        what = form["query"][0] if "query" in form else request.path
        self.tokens.add(request.headers.get("Authorization", ""))
        self.asked.append((asyncio.get_running_loop().time(), what))
        if self.answer is not None:
            status, text = self.answer(what)
        else:
            status, text = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return web.Response(status=status, text=text)


Open = Callable[..., Site]


@pytest.fixture
async def site(stage: Stage) -> AsyncIterator[Open]:
    """Start servers."""
    made: list[Site] = []

    def start(host: str, port: int = 80) -> Site:
        made.append(Site(stage.network, host, port))
        return made[-1]

    yield start
    for each in made:
        await each.server.shutdown(1.0)


def vector(*values: str) -> Reply:
    """Return what Prometheus answers: a series for each value."""
    series = [{"metric": {"i": str(i)}, "value": [0, value]} for i, value in enumerate(values)]
    return 200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": series}})


def smoke(url: str = "http://web.example/ready", **fields: Any) -> dict[str, Any]:
    """Return a policy with one HTTP check."""
    return {"checks": [{"name": "smoke", "http": {"url": url}, **fields}]}


def errors(**fields: Any) -> dict[str, Any]:
    """Return a policy with one query."""
    query = {"url": "http://prometheus.example:9090", "query": 'errors{app="${app}"}', "condition": "< 1"}
    return {"checks": [{"name": "errors", "interval": "30s", "prometheus": query, **fields}]}


def part(run: Run | None, environment: str = "dev") -> StageRun:
    """Return one stage of a run."""
    found = run.stage(environment) if run is not None else None
    assert found is not None
    return found


def results(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    """Return outcome and value of each."""
    return [(s.outcome, s.value) for s in samples]


async def waiting(stage: Stage, words: str, environment: str = "dev") -> StageRun:
    """Wait until a stage says that it waits for something."""

    async def found() -> StageRun | None:
        run = await run_of(stage)
        known = run.stage(environment) if run is not None else None
        return known if known is not None and words in known.message else None

    known = await stage.until(found, timeout_s=1200)
    assert known is not None
    return known


async def test_a_check_is_asked_after_each_batch_and_the_run_goes_on(stage: Stage, site: Open) -> None:
    """Once the batch is healthy, before the next one and the next stage; its results are kept in the run."""
    web_ = site("web.example")
    clusters = await fleet_of(stage, counts=(2, 1, 1), dev={"batches": [1, "100%"], "soak": "30s", **smoke()})
    had: list[list[str | None]] = []

    def answer(_: str) -> Reply:
        had.append([colour(c) for c in clusters.values()])
        return GOOD

    web_.answer = answer
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world):
        run = await run_in(stage, RunState.SUCCEEDED)
        assert had == [["red", None, None, None], ["red", "red", None, None]]
        assert results(part(run).samples) == [("passed", "200")] * 2
        assert {s.round for s in part(run).samples} == {0, 1}
        assert [colour(c) for c in clusters.values()] == ["red"] * 4


async def test_a_check_that_fails_pauses_the_run_until_somebody_retries(stage: Stage, site: Open) -> None:
    """Check, stage and value are named; nothing goes further; a retry asks anew, and its pass counts."""
    web_ = site("web.example")
    web_.script = [GOOD, BAD]
    clusters = await fleet_of(stage, counts=(1, 1, 1), dev=smoke())
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world) as hub:
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("second", {"app/settings.yaml": config("blue")})
        run = await run_in(stage, RunState.PAUSED)
        assert run.reason == "CheckFailed"
        assert run.message.startswith(
            "dev: check smoke: the answer was HTTP 500, not 200; go on with fleet rollout retry"
        )
        assert results(part(run).samples) == [("failed", "500")]
        await asyncio.sleep(900)
        assert [colour(c) for c in clusters.values()] == ["blue", "red", "red"]
        assert len(web_.asked) == 2
        web_.script = [GOOD]
        await hub.rollouts.steer(SteerRequest(app="shop", verb=Steering.RETRY, reason="mended"), ADA)
        done = await run_in(stage, RunState.SUCCEEDED, release=2)
        assert [colour(c) for c in clusters.values()] == ["blue"] * 3
        assert results(part(done).samples) == [("failed", "500"), ("passed", "200")]


async def test_a_check_that_fails_sends_clusters_back_when_the_policy_says_so(stage: Stage, site: Open) -> None:
    """What had the release gets the one before; the run says which check it was."""
    prometheus = site("prometheus.example", 9090)
    prometheus.script = [vector("0"), vector("0", "7")]
    clusters = await fleet_of(stage, counts=(2, 1, 1), dev={"onFailure": "rollback", **errors()})
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("second", {"app/settings.yaml": config("blue")})
        await stage.until(lambda: colour(clusters["d1"]) == "blue")
        run = await run_in(stage, RunState.ROLLED_BACK)
        assert (run.reason, run.message) == ("CheckFailed", 'dev: check errors: 7 for {i="1"} is not < 1')
        await stage.until(lambda: {colour(c) for c in clusters.values()} == {"red"})
        assert prometheus.questions == ['errors{app="shop"}'] * 2


async def test_a_run_waits_for_what_is_inconclusive_and_says_why(stage: Stage, site: Open) -> None:
    """As long as it takes, asking once per interval; in the history the last such result stands for all."""
    prometheus = site("prometheus.example", 9090)
    prometheus.script = [vector()]
    clusters = await fleet_of(stage, counts=(1, 1, 1), dev=errors())
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world):
        await waiting(stage, "waiting for errors: the query finds no series")
        await asyncio.sleep(900)
        known = await waiting(stage, "waiting for errors: the query finds no series")
        assert known.state is StageState.CHECKING
        assert results(known.samples) == [("inconclusive", "")]
        assert 28 <= len(prometheus.asked) <= 34
        assert colour(clusters["s1"]) is None
        prometheus.script = [vector("NaN"), vector("0.5")]
        run = await run_in(stage, RunState.SUCCEEDED)
        assert results(part(run).samples) == [("inconclusive", "NaN"), ("passed", "0.5")]


async def test_a_prometheus_that_is_away_never_passes(stage: Stage) -> None:
    """Nobody listens: the run waits, however often it asks, and the stage's deadline ends that."""
    clusters = await fleet_of(stage, counts=(1, 1, 1), dev={"stageDeadline": "30m", **errors()})
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world):
        known = await waiting(stage, "prometheus.example:9090 refused the connection")
        assert known.message.startswith("waiting for errors: ")
        await asyncio.sleep(1500)
        known = await waiting(stage, "refused the connection")
        assert (known.state, {s.outcome for s in known.samples}) == (StageState.CHECKING, {"inconclusive"})
        run = await run_in(stage, RunState.PAUSED)
        assert run.reason == "StageDeadlineExceeded"
        assert colour(clusters["s1"]) is None


async def test_each_cluster_is_asked_for_by_itself(stage: Stage, site: Open) -> None:
    """A cluster whose check passes is done, the one whose check fails is broken and named."""
    web_ = site("web.example")
    web_.answer = lambda path: BAD if path == "/p2/shop/production" else GOOD
    policy = smoke("http://web.example/${cluster}/${app}/${environment}", perCluster=True)
    await fleet_of(stage, counts=(1, 1, 3), production=policy)
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world) as hub:
        run = await run_in(stage, RunState.PAUSED)
        assert sorted(web_.questions) == [f"/p{i}/shop/production" for i in (1, 2, 3)]
        assert run.reason == "CheckFailed"
        assert run.message.startswith(
            "p2: check smoke: the answer was HTTP 500, not 200 (1 of production's clusters broke"
        )
        assert [run.clusters[f"p{i}"].state for i in (1, 2, 3)] == [
            ClusterState.DONE,
            ClusterState.FAILED,
            ClusterState.DONE,
        ]
        assert results(run.clusters["p2"].samples) == [("failed", "500")]
        web_.answer = None
        await hub.rollouts.steer(SteerRequest(app="shop", verb=Steering.RETRY, reason="mended"), ADA)
        run = await run_in(stage, RunState.SUCCEEDED)
        assert web_.questions[3:] == ["/p2/shop/production"]
        assert results(run.clusters["p2"].samples) == [("failed", "500"), ("passed", "200")]


async def test_a_stage_that_is_promoted_does_without_its_checks(stage: Stage) -> None:
    """The way out when whoever is asked is away for long: a person says so, with a reason."""
    await fleet_of(stage, counts=(1, 1, 1), dev=errors())
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world) as hub:
        await waiting(stage, "refused the connection")
        request = SteerRequest(app="shop", verb=Steering.PROMOTE, stage="dev", reason="Prometheus is down")
        await hub.rollouts.steer(request, ADA)
        run = await run_in(stage, RunState.SUCCEEDED)
        assert {s.outcome for s in part(run).samples} == {"inconclusive"}


async def test_results_are_counted_and_some_failures_forgiven(stage: Stage, site: Open) -> None:
    """Three must pass, one may fail, ten seconds lie between two questions: four questions in half a minute."""
    web_ = site("web.example")
    web_.script = [GOOD, BAD, GOOD, GOOD]
    await fleet_of(stage, counts=(1, 1, 1), dev=smoke(count=3, failureLimit=1, interval="10s"))
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world):
        run = await run_in(stage, RunState.SUCCEEDED)
        assert [s.outcome for s in part(run).samples] == ["passed", "failed", "passed", "passed"]
        assert web_.pauses == pytest.approx([10, 10, 10], abs=0.5)


async def test_one_failure_more_than_is_forgiven_fails(stage: Stage, site: Open) -> None:
    """However many passed in between."""
    web_ = site("web.example")
    web_.script = [BAD, GOOD, GOOD, BAD, GOOD]
    await fleet_of(stage, counts=(1, 1, 1), dev=smoke(count=4, failureLimit=1, interval="10s"))
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world):
        run = await run_in(stage, RunState.PAUSED)
        assert (run.reason, len(web_.asked)) == ("CheckFailed", 4)


async def test_results_outlive_the_hub(stage: Stage, site: Open) -> None:
    """A hub that starts again goes on counting where the one before stopped, and keeps to the interval."""
    web_ = site("web.example")
    await fleet_of(stage, counts=(1, 1, 1), dev=smoke(count=3, interval="60s"))
    stage.repository.commit("first", {"app/settings.yaml": config("red")})

    async def two() -> bool:
        run = await run_of(stage)
        return run is not None and len(part(run).samples) == 2

    async with stage.running(stage.world):
        await stage.until(two, timeout_s=300)
    before = part(await run_of(stage)).samples
    async with stage.running(stage.world):
        run = await run_in(stage, RunState.SUCCEEDED)
        assert part(run).samples[:2] == before
        assert results(part(run).samples) == [("passed", "200")] * 3
        assert len(web_.asked) == 3
        assert min(web_.pauses) >= 59


async def test_the_example_of_the_guide_works_as_it_is_written(stage: Stage, site: Open) -> None:
    """Each cluster is asked for its revision, Prometheus four times after each batch, with the token."""
    token = stage.root / "prometheus-token"
    token.write_text("s3cret\n")
    block = re.search(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert block is not None
    await fleet_of(stage, counts=(1, 1, 3))
    example = yaml.safe_load(block[1].replace("/etc/fleet/prometheus-token", str(token)))
    stages = [environment_document("dev"), environment_document("staging", after=["dev"])]
    stage.declare("fleet.yaml", repository_document(stage.repository.path), *stages, example)
    revision = stage.repository.commit("first", {"app/settings.yaml": config("red")})
    shops = [site(f"shop.p{i}.prod.example.com", 443) for i in (1, 2, 3)]
    for shop in shops:
        shop.script = [(200, json.dumps({"revision": revision}))]
    prometheus = site("prometheus.example.com", 443)
    prometheus.script = [vector("0.02"), vector("0.3"), vector("0")]
    async with stage.running(stage.world):
        run = await run_in(stage, RunState.SUCCEEDED)
    assert [shop.questions for shop in shops] == [["/version"]] * 3
    assert prometheus.questions == ['sum(rate(http_requests_total{app="shop", code=~"5.."}[5m])) or vector(0)'] * 9
    assert prometheus.tokens == {"Bearer s3cret"}
    rounds = [[s.outcome for s in part(run, "production").samples if s.round == n] for n in (0, 1)]
    assert rounds == [["passed", "failed", "passed", "passed", "passed"], ["passed"] * 4]
