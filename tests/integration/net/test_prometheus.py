"""Checks against a real Prometheus that scrapes a real endpoint."""

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from fleet.clock import SystemClock
from fleet.hub.asker import Asker
from fleet.net.reach import DirectReach
from fleet.rollout.decision import Ask
from fleet.rollout.policy import Check, PrometheusQuery
from fleet.rollout.state import Run, Sample
from fleet.sim.program import free_port

ODD = "a\"b'c\\d`e\nf"
METRICS = r"""# TYPE errors gauge
errors{pod="a"} 0
errors{pod="b"} 3
# TYPE ratio gauge
ratio NaN
# TYPE odd gauge
odd{v="a\"b'c\\d`e\nf"} 5
"""


@contextlib.asynccontextmanager
async def endpoint() -> AsyncIterator[int]:
    """Serve metrics."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text=METRICS, content_type="text/plain")

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def prometheus(directory: Path, target: int) -> AsyncIterator[str]:
    """Run Prometheus, scraping a port every second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("REAL PROMETHEUS NOT TESTED: none on PATH (Debian: apt-get install prometheus)")
    jobs = [{"job_name": "web", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}]
    config = directory / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def guide() -> tuple[str, str]:
    """Return query and condition of the example in the guide."""
    text = Path(__file__).parents[3].joinpath("docs/how-to/check-before-going-on.md").read_text()
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    checks = yaml.safe_load(block[1])["spec"]["rollout"]["checks"]
    found = next(check["prometheus"] for check in checks if "prometheus" in check)
    return found["query"], found["condition"]


async def ask(url: str, query: str, condition: str, app: str = "shop") -> Sample:
    """Ask once, as a rollout does."""
    clock = SystemClock()
    run = Run(id=1, app=app, release=1, revision="abc", created_at=clock.now())
    check = Check(name="c", question=PrometheusQuery(url=url, query=query, condition=condition))
    asker = Asker(reach=DirectReach(), clock=clock, inventory=lambda: None)
    return await asker.ask(Ask(check=check, environment="prod", cluster="", round=0), run)


async def test_a_real_prometheus_passes_fails_and_does_not_know(tmp_path: Path) -> None:
    """Until it is up and has scraped nothing follows; then each kind of value means what it should."""
    async with endpoint() as target, prometheus(tmp_path, target) as url:
        first = await ask(url, "errors", ">= 0")
        while first.outcome == "inconclusive":
            await asyncio.sleep(0.2)
            first = await ask(url, "errors", ">= 0")
        assert (first.outcome, first.value) == ("passed", "0")
        failed = await ask(url, "errors", "< 1")
        assert (failed.outcome, failed.value) == ("failed", "3")
        assert failed.message.startswith("3 for errors{instance=")
        assert 'pod="b"' in failed.message
        for query, condition, expected in (
            ("scalar(sum(errors))", "== 3", ("passed", "3", "")),
            ("1 / 0", "< 1", ("failed", "inf", "inf is not < 1")),
            ("ratio", "< 1", ("inconclusive", "NaN", "the value is not a number: there is nothing to compare yet")),
            ("errors{pod='z'}", "< 1", ("inconclusive", "", "the query finds no series")),
        ):
            sample = await ask(url, query, condition)
            assert (sample.outcome, sample.value, sample.message) == expected
        for query in ('odd{v="${app}"}', "odd{v='${app}'}"):
            odd = await ask(url, query, "== 5", app=ODD)
            assert (odd.outcome, odd.value) == ("passed", "5")
            escaping = await ask(url, query, "== 0", app="\"'} or vector(0) # ")
            assert (escaping.outcome, escaping.message) == ("inconclusive", "the query finds no series")
        query, condition = guide()
        assert (await ask(url, query, condition)).outcome == "passed"
        matrix = await ask(url, "errors[1m]", "< 1")
        assert (matrix.outcome, matrix.message[:32]) == ("inconclusive", "the query does not give numbers;")
        wrong = await ask(url, "errors{", "< 1")
        assert wrong.outcome == "inconclusive"
        assert wrong.message.startswith("Prometheus refused the query (HTTP 400): invalid parameter")
    away = await ask(url, "errors", "< 1")
    assert (away.outcome, away.value) == ("inconclusive", "")
    assert "refused the connection" in away.message
