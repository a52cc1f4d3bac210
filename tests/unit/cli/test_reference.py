"""The generated page of the command line."""

import subprocess
import sys
from pathlib import Path

from fleet.cli.main import COMMANDS
from fleet.cli.reference import write_reference

ROOT = Path(__file__).parents[3]


def test_the_pages_are_up_to_date() -> None:
    """`python tools/reference.py` would change nothing; CI asks with --check."""
    command = [sys.executable, "tools/reference.py", "--check"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_every_command_and_option_has_its_text() -> None:
    """No section without prose, no row without a meaning."""
    lines = write_reference().splitlines()
    assert [name for name in COMMANDS if f"## `fleet {name}`" not in lines] == []
    assert [line for line in lines if line.endswith("|  |")] == []
    assert "## `fleet token create`" in lines
