"""The benches run, and print what they measured."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.sim.real import find_binaries

ROOT = Path(__file__).resolve().parents[2]
MEASURED = {
    "install",
    "one commit, all objects",
    "one commit, one app",
    "drift, edit to repaired, p99",
    "idle, requests for objects",
    "memory per object",
    "seal one value for 200 clusters",
    "open 100 values, one per document",
    "open 20 RSA-4096 values, longest stall of the loop",
    "rollout over 12 clusters, commit to done",
    "decide for 12 clusters, median",
    "failure seen to rollout stopped, 12 clusters",
}


async def test_a_quick_bench_measures_everything() -> None:
    """`python -m bench --quick -o json` ends by itself and its output is JSON with every measure."""
    if find_binaries() is None:
        pytest.skip("there is no kube-apiserver to measure")
    command = [sys.executable, "-m", "bench", "--quick", "-o", "json"]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert {each["name"] for each in printed["measures"]} >= MEASURED
    assert next(each for each in printed["measures"] if each["name"] == "one commit, all objects")["bare"] > 0
