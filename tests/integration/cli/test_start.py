"""The command line as a process: what it imports, how it ends, what its help says."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fleet.cli.main import COMMANDS, LazyGroup
from tests.integration.cli.hub import FakeHub, late, run, status, target

HEAVY = (
    "aiohttp",
    "aiosqlite",
    "pydantic",
    "structlog",
    "asyncio",
    "rich",
    "pygit2",
    "kubernetes_asyncio",
    "cryptography",
)
PROBE = (
    "import json, sys; from fleet.cli.main import cli\n"
    "try: cli(sys.argv[1:])\n"
    "except SystemExit: pass\n"
    f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)"
)


def _fleet(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleet.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("status",),
        ("status", "-o", "json"),
        ("status", "-o", "yaml"),
        ("events",),
        ("wait", "--timeout", "0s"),
        ("pause", "--app", "shop", "--reason", "x", "--for", "1h"),
        ("where", "abc"),
    ],
)
def test_client_commands_import_nothing_heavy(hub: FakeHub, arguments: tuple[str, ...]) -> None:
    """No event loop, no models, no HTTP library of the hub: they start at once."""
    hub.on("GET status", status())
    hub.on_items("GET targets", late(message="a\nb"))
    server = () if arguments == ("--help",) else ("--server", hub.url)
    command = [sys.executable, "-c", PROBE, *arguments, *server]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert json.loads(ran.stderr.splitlines()[-1]) == []


def test_exit_codes_reach_the_shell(hub: FakeHub) -> None:
    """0 ok, 1 not ready, 2 usage, 3 unreachable, 4 denied, 124 timeout."""
    hub.on_items("GET targets", target(state="Failed"))
    hub.refuse("POST sync", 403, "a viewer may not sync")
    server = ("--server", hub.url)
    assert _fleet("status", "shop", *server).returncode == 0
    assert _fleet("status", "shop", "--exit-code", *server).returncode == 1
    assert _fleet("status", "--colour", *server).returncode == 2
    assert _fleet("status", "--server", "http://127.0.0.1:1").returncode == 3
    assert _fleet("sync", *server).returncode == 4
    assert _fleet("wait", "--timeout", "1ms", *server).returncode == 124


def test_a_poor_terminal_is_no_traceback(hub: FakeHub) -> None:
    """A character that the encoding of the output lacks is replaced."""
    hub.on_items("GET targets", target(message="für \u2192"))
    command = [sys.executable, "-m", "fleet.cli", "status", "shop", "--server", hub.url]
    environ = {"PYTHONIOENCODING": "ascii"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environ)
    assert (ran.returncode, ran.stderr, ran.stdout.count("Current: f")) == (0, "", 1)


def test_a_closed_pipe_is_no_traceback(hub: FakeHub) -> None:
    """`fleet status -o json | head -1` ends quietly."""
    hub.on_items("GET targets", *(target(f"c-{n}") for n in range(400)))
    script = f"'{sys.executable}' -m fleet.cli status shop -o json --server {hub.url} | head -1"
    ran = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert (ran.stdout, ran.stderr) == ("{\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    """`fleet --help` shows the first line of each command's help, without importing it."""
    command = importlib.import_module(f"fleet.cli.{name}").command
    assert isinstance(command, click.Command)
    assert command.name == name
    assert (command.help or "").partition("\n\n")[0].replace("\n", " ") == COMMANDS[name].help


def test_every_module_with_a_command_is_in_the_table() -> None:
    """No command is forgotten."""
    directory = Path(str(sys.modules["fleet.cli"].__file__)).parent
    modules = [*directory.glob("*.py"), *directory.glob("*/__init__.py")]
    found = {m.parent.name if m.stem == "__init__" else m.stem for m in modules if "@click" in m.read_text()}
    named = {name for name in found if hasattr(importlib.import_module(f"fleet.cli.{name}"), "command")}
    assert named == set(COMMANDS)


def test_a_wrong_command_is_answered_with_the_right_one() -> None:
    """Exit 2, and the nearest name."""
    result = run("statsu")
    assert result.exit_code == 2
    assert "no such command: statsu; did you mean status?" in result.stderr
    assert "see fleet --help" in run("zzz").stderr


def test_help_lists_every_command() -> None:
    """In sections."""
    output = run("--help").output
    assert [name for name in COMMANDS if f"\n  {name} " not in output] == []


def test_interrupting_is_130() -> None:
    """Ctrl-C is not an error of the command."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    group = LazyGroup(name="fleet", callback=interrupted, invoke_without_command=True)
    assert CliRunner().invoke(group, []).exit_code == 130
