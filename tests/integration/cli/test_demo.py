"""The demo, as a newcomer runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "fleet.cli", "demo")
CHAPTERS = ("targets are in sync", "clusters run it", "healed", "nothing was harmed", "has caught up")


def run(*args: str, timeout_s: float = 100) -> subprocess.CompletedProcess[str]:
    """Run `fleet demo`."""
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.mark.timeout(120)
def test_the_story_is_told_once_and_ends_well(tmp_path: Path) -> None:
    """`fleet demo --once` tells every chapter, ends with 0, says nothing on stderr, and leaves its files where asked."""
    place = tmp_path / "demo"
    done = run("--once", "--listen", "127.0.0.1:0", "--dir", str(place))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert [word for word in CHAPTERS if word not in done.stdout] == []
    assert sorted(path.name for path in place.iterdir()) == ["clusters.d", "data", "key-backups", "repository"]


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    """A directory that holds anything is not touched."""
    (tmp_path / "mine.txt").write_text("precious")
    done = run("--once", "--dir", str(tmp_path))
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
