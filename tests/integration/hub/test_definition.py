"""Definitions that somebody else brings, while what they define is waited for. In virtual time."""

import asyncio
import json
from typing import Any

import pytest

from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import config
from tests.integration.kube.test_discovery import crd

WIDGET: dict[str, Any] = {
    "apiVersion": "example.com/v1",
    "kind": "Widget",
    "metadata": {"name": "w", "namespace": "default"},
    "spec": {"size": 1},
}


@pytest.mark.parametrize("outage_s", [0, 20])
async def test_a_definition_of_somebody_else_wakes_who_waits(stage: Stage, outage_s: int) -> None:
    """A kind is used soon after its definition came, even if the server says for a while nothing of what it serves."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/widget.yaml": json.dumps(WIDGET), "app/a.yaml": config(name="a")})
    async with stage.running(stage.world):
        await stage.state("one", "shop", "Waiting", "MissingKind")
        rule = cluster.faults.fail(503, path="^/apis$") if outage_s else None
        cluster.create(crd())
        await asyncio.sleep(outage_s)
        if rule is not None:
            cluster.faults.rules.remove(rule)
        await stage.synced(("one", "shop"), timeout_s=60)
        assert cluster.get("example.com/v1", "Widget", "default", "w")["spec"] == {"size": 1}
