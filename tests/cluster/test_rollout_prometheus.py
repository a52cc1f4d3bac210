"""A rollout over three real API servers whose checks are asked of a real Prometheus."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.test_rollout import House, house, state
from tests.integration.net.test_prometheus import endpoint, prometheus

__all__ = ["house"]


def below(limit: int, url: str) -> Mapping[str, Any]:
    """Return rules with one check: the largest number of errors, which is 3, stays below a limit."""
    query = {"url": url, "query": "max(errors)", "condition": f"< {limit}"}
    return {"checks": [{"name": "errors", "interval": "1s", "count": 2, "prometheus": query}]}


async def test_a_metric_stops_a_rollout(house: House, tmp_path: Path) -> None:
    """While nothing was scraped it waits; what passes goes on, what fails stops, with the value in the history."""
    async with endpoint() as target, prometheus(tmp_path, target) as url:
        house.declare(dev=below(5, url), staging=below(2, url))
        house.commit("1")
        await house.start()
        shown = await house.until(1, state("Paused"))
        assert shown["rollout"]["reason"] == "CheckFailed"
        assert "staging: check errors" in shown["rollout"]["message"]
        samples = {s["environment"]: [(x["outcome"], x["value"]) for x in s["samples"]] for s in shown["stages"]}
        assert [each for each in samples["dev"] if each[0] != "inconclusive"] == [("passed", "3")] * 2
        assert samples["staging"] == [("failed", "3")]
        assert await house.images() == {"dev": "1/1", "staging": "1/1", "production": ""}
        house.declare(dev=below(5, url), staging=below(5, url))
        before = shown["stages"][1]["digest"]
        await house.until(1, lambda now: bool(now["stages"][1]["digest"] != before))
        await house.say("retry")
        await house.until(1, state("Succeeded"))
        assert await house.images() == {"dev": "1/1", "staging": "1/1", "production": "1/1"}
