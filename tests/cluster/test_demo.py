"""The demo on real API servers."""

import subprocess
import sys

import pytest

from fleet.sim.real import find_binaries
from tests.cluster.conftest import REASON

COMMAND = (sys.executable, "-m", "fleet.cli", "demo", "--real", "--once", "--listen", "127.0.0.1:0")
TOLD = (
    "9 targets are in sync",
    "all 3 clusters run it",
    "healed",
    "nothing was harmed",
    "container shop: exit code 1: panic: no table orders in the database of staging",
    "staging: staging-1 goes back to shop#2",
    "production was never touched",
    "production: prod-eu-1: it cannot be reached",
    "prod-eu-1 has caught up",
    "Secret ingress/upstream is in prod-eu-1: password is correct-horse",
    "it is sealed for prod-eu-1, not for cluster dev-1",
    "production: ada says yes: works in staging",
    "prod-eu-1 runs registry.example.com/shop:1.4",
)
"""In this order, each after those before it."""


@pytest.mark.skipif(find_binaries() is None, reason=REASON)
def test_the_story_is_told_by_real_api_servers() -> None:
    """`fleet demo --real --once` starts three servers of its own, tells every chapter, and ends with 0."""
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=220, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    places = [done.stdout.find(words) for words in TOLD]
    assert [words for words, place in zip(TOLD, places, strict=True) if place < 0] == [], done.stdout
    assert places == sorted(places), done.stdout
