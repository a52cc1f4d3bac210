"""`fleet doctor`: what is missing on this machine and on the way to the hub, and what to do about it."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from fleet import __version__
from fleet.cli.client import Client, Refused, Unreachable
from fleet.cli.connection import is_loopback
from fleet.cli.exit import Exit, Failure
from fleet.cli.option import connected, output
from fleet.cli.table import align, clean, paint, print_value

PYTHON = (3, 11)
TOOL_TIMEOUT_S = 20.0
MOST_SKEW_S = 30.0


class Finding(NamedTuple):
    """One check: `ok`, `warning` (something will not work) or `failed` (fleet will not work), and what to do."""

    check: str
    state: str
    message: str
    todo: str = ""


@click.command(name="doctor")
@click.option("--local", is_flag=True, help="Check this machine only, not the hub.")
@output("table", "json", "yaml")
@connected
def command(client: Client, *, local: bool, output: str) -> None:
    """Check this machine and the way to the hub, and say what to do.

    Exits with 1 if a check failed; warnings do not count.
    """
    findings = [*check_machine(client.connection.data), *(() if local else check_hub(client))]
    if output == "table":
        _print_findings(findings)
    else:
        print_value({"items": [finding._asdict() for finding in findings]}, output)
    if any(finding.state == "failed" for finding in findings):
        raise click.exceptions.Exit(Exit.DIFFERS)


def _print_findings(findings: list[Finding]) -> None:
    lines = align([[finding.check, finding.state.ljust(7), clean(finding.message)] for finding in findings])
    for finding, line in zip(findings, lines, strict=True):
        click.echo(line.replace(f"  {finding.state}", f"  {paint(finding.state)}", 1))
        if finding.todo:
            click.echo(f"    -> {clean(finding.todo)}")


def check_machine(data: Path) -> Iterator[Finding]:
    """Check what the hub needs of a machine, one thing after the other."""
    yield _check_python()
    yield _check_git()
    yield _check_kustomize()
    yield _check_network()
    yield check_data(data)


def _check_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < PYTHON:
        return Finding("python", "failed", version, "install Python 3.11 or newer")
    return Finding("python", "ok", f"{version}, fleet {__version__}")


def _check_git() -> Finding:
    if version := _ask_version("git", "--version"):
        return Finding("git", "ok", version)
    return Finding("git", "warning", "not on PATH", "only fleet demo needs it: install git to run the demo")


def _check_kustomize() -> Finding:
    configured = os.environ.get("FLEET_KUSTOMIZE", "")
    for name in [configured] if configured else ["kustomize", "kubectl"]:
        verb = ("version", "--client") if Path(name).name.startswith("kubectl") else ("version",)
        if version := _ask_version(name, *verb):
            return Finding("kustomize", "ok", f"{name} {version}")
    return Finding(
        "kustomize",
        "warning",
        f"{configured} does not run" if configured else "neither kustomize nor kubectl is on PATH",
        "apps with a kustomization.yaml will fail to render: install kustomize, or name it with FLEET_KUSTOMIZE",
    )


def _ask_version(name: str, *arguments: str) -> str:
    """Return the first line a tool says of itself; empty if it does not run."""
    path = shutil.which(name)
    if path is None:
        return ""
    try:
        ran = subprocess.run(
            [path, *arguments],
            capture_output=True,
            text=True,
            timeout=TOOL_TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(ran.stdout.splitlines()), "runs")


def _check_network() -> Finding:
    """Try in a process of its own: leaving the network is for good."""
    trial = "import sys; from fleet.child import leave_network; sys.exit(not leave_network())"
    try:
        left = subprocess.run([sys.executable, "-c", trial], timeout=TOOL_TIMEOUT_S, check=False, capture_output=True)
    except subprocess.SubprocessError:
        return Finding("isolation", "warning", "the trial process did not end", "try again on a quieter machine")
    if left.returncode == 0:
        return Finding("isolation", "ok", "processes that read Git and YAML have no network")
    return Finding(
        "isolation",
        "warning",
        "the kernel lets worker processes keep the network",
        "allow unprivileged user namespaces (sysctl user.max_user_namespaces), or cut the network by a policy around the hub",
    )


def check_data(data: Path) -> Finding:
    """Check that nobody else may read the data directory, and that we may write it."""
    if not data.exists():
        return Finding("data", "ok", f"{data} does not exist yet; fleet run makes it")
    try:
        mode = stat.S_IMODE(data.stat().st_mode)
        token_mode, master_mode = (_mode_of(data / name) for name in ("admin.token", "master.key"))
    except OSError as error:
        return Finding("data", "failed", f"{data}: {error.strerror}", "run as the user that the hub runs as")
    if not data.is_dir() or not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            "data", "failed", f"{data} cannot be written", f"give it to the hub's user: chown -R {_user()} {data}"
        )
    if mode & 0o077 or token_mode & 0o077 or master_mode & 0o077:
        return Finding("data", "failed", f"others may read {data}", f"chmod -R go= {data}")
    return Finding("data", "ok", f"{data}, mode {mode:04o}")


def _mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o600


def _user() -> str:
    return str(os.geteuid())


def check_hub(client: Client) -> Iterator[Finding]:
    """Check the way to the hub, and what it lets us do there."""
    server, origin = client.connection.server, client.connection.token_from
    try:
        status = client.get("status")
    except Unreachable as error:
        yield Finding("hub", "failed", "not reached", error.message)
        return
    except Failure as error:
        yield Finding("hub", "failed", f"{server} refused", error.message)
        return
    yield Finding("hub", "ok", f"{server}, hub {status['hub_id']}")
    yield _check_version(status["version"])
    yield _check_skew(client)
    yield _check_token(client, origin)
    yield from _check_keys(client)
    if server.startswith("http:") and not is_loopback(server):
        yield Finding(
            "tls", "warning", f"{server} is not encrypted", "who listens on the way reads the token: use https://"
        )


def _check_version(version: str) -> Finding:
    if version == __version__:
        return Finding("version", "ok", f"hub and client have {version}")
    return Finding(
        "version", "warning", f"the hub has {version}, this is {__version__}", "use the same version on both"
    )


def _check_skew(client: Client) -> Finding:
    from fleet.clock import SystemClock

    skew = (client.now() - SystemClock().now()).total_seconds()
    if abs(skew) <= MOST_SKEW_S:
        return Finding("clock", "ok", "agrees with the hub's")
    way = "ahead of" if skew > 0 else "behind"
    return Finding("clock", "warning", f"the hub's is {abs(skew):.0f}s {way} ours", "synchronise both machines (NTP)")


def _check_token(client: Client, origin: str) -> Finding:
    if client.dropped is not None and client.dropped.reason in ("TokenRevoked", "TokenExpired"):
        return Finding("token", "warning", f"{origin} is refused", client.dropped.message)
    if origin and not client.connection.token:
        return Finding("token", "warning", f"{origin} is another hub's", "point --data at this hub's data directory")
    if not origin:
        return Finding(
            "token",
            "warning",
            "none",
            "reading works, acting does not: set FLEET_TOKEN or FLEET_TOKEN_FILE; an admin makes tokens with fleet token create",
        )
    try:
        actor: dict[str, Any] = client.get("whoami")
    except Refused as error:
        return Finding("token", "failed", f"{origin} is refused", error.message)
    environments = ", ".join(actor.get("environments") or ()) or "all environments"
    return Finding("token", "ok", f"{actor['name']}, {actor['role']} of {environments}, from {origin}")


def _check_keys(client: Client) -> Iterator[Finding]:
    """Check that losing the hub's disk would lose no sealed value; not where keys are not shown to us, or there are none."""
    try:
        rows = client.items("keys")
    except Failure:
        return
    needed = [row for row in rows if row["state"] not in ("destroyed", "compromised")]
    bare = [f"{row['kid']} of {row['cluster']}" for row in needed if not row["backed_up_at"]]
    if bare:
        yield Finding(
            "keys",
            "warning",
            f"in no backup: {', '.join(bare)}",
            "what is sealed for a lost key is lost: run fleet keys backup FILE, or give the hub --keys-backup",
        )
    elif needed:
        yield Finding("keys", "ok", f"{len(needed)} sealing key{'' if len(needed) == 1 else 's'}, each in a backup")
