"""The demo, as a newcomer runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "fleet.cli", "demo")
TOLD = (
    "targets are in sync",
    "production: batch 1 of 2 is over",
    "all 8 clusters run it",
    "healed",
    "nothing was harmed",
    "staging-1: Deployment.apps shop/shop: pod shop-",
    "container shop: exit code 1: panic: no table orders in the database of staging",
    "staging: staging-1 and staging-2 go back to shop#2",
    "production was never touched",
    "production: prod-us-2: it cannot be reached",
    "prod-us-2 has caught up",
    "Secret ingress/upstream is in prod-eu-1: password is correct-horse",
    "it is sealed for prod-eu-1, prod-eu-2, prod-us-1, prod-us-2, not for cluster dev-1",
    "production waits: 0 of 1 approvals",
    "production: ada says yes: works in staging",
    "prod-eu-1 runs registry.example.com/shop:1.4",
)
"""In this order, each after those before it."""


def run(*args: str, timeout_s: float = 100) -> subprocess.CompletedProcess[str]:
    """Run `fleet demo`."""
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.mark.timeout(120)
def test_the_story_is_told_once_and_ends_well(tmp_path: Path) -> None:
    """`fleet demo --once` tells every chapter, ends with 0, says nothing on stderr, and leaves its files where asked."""
    place = tmp_path / "demo"
    done = run("--once", "--listen", "127.0.0.1:0", "--dir", str(place))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    places = [done.stdout.find(words) for words in TOLD]
    assert [words for words, place in zip(TOLD, places, strict=True) if place < 0] == [], done.stdout
    assert places == sorted(places), done.stdout
    left = sorted(path.name for path in place.iterdir())
    assert left == [".config", "clusters.d", "data", "key-backups", "repository"]
    written = [path for path in place.rglob("*") if path.is_file() and b"correct-horse" in path.read_bytes()]
    assert written == []  # Git's objects are compressed, but its working tree is there, too


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    """A directory that holds anything is not touched."""
    (tmp_path / "mine.txt").write_text("precious")
    done = run("--once", "--dir", str(tmp_path))
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
