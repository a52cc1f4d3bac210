"""`fleet pause`: no more writes to an app, a cluster or an environment."""

from collections.abc import Callable
from typing import Any

import click

from fleet.cli.client import Client
from fleet.cli.duration import parse_at, write_length
from fleet.cli.exit import Failure
from fleet.cli.option import Duration, connected
from fleet.cli.table import clean


def scope(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name what is paused."""
    command = click.option("--all", "everything", is_flag=True, help="Everything.")(command)
    for name in ("environment", "cluster", "app"):
        command = click.option(f"--{name}", default="", metavar="NAME", help=f"This {name}.")(command)
    return command


def check_scope(names: dict[str, str], everything: bool) -> None:
    """Refuse a scope that is not said, or said twice. Raises: Failure."""
    if everything and any(names.values()):
        raise Failure("--all goes with no --app, --cluster or --environment")
    if not everything and not any(names.values()):
        raise Failure("say what is meant: --app, --cluster, --environment (together: where all match), or --all")


@click.command(name="pause")
@scope
@click.option("--reason", required=True, metavar="TEXT", help="Why; shown to everyone.")
@click.option("--until", metavar="TIME", help="When it ends by itself: 2026-01-02T15:04:05Z.")
@click.option("--for", "duration", type=Duration(), metavar="DURATION", help="How long it lasts: 2h.")
@connected
def command(
    client: Client,
    *,
    app: str,
    cluster: str,
    environment: str,
    everything: bool,
    reason: str,
    until: str | None,
    duration: float | None,
) -> None:
    """Stop writing to an app, a cluster or an environment; watching goes on.

    With several of the options, only what all of them match is paused. The pause survives restarts of the hub and ends
    with `fleet resume` and the same options, or by itself at --until or after --for.
    """
    names = {"app": app, "cluster": cluster, "environment": environment}
    check_scope(names, everything)
    if until is not None and duration is not None:
        raise Failure("give --until or --for, not both")
    end = _check_until(until) if until else write_length(duration)
    row = client.post("pause", body={**names, "reason": reason, "until": end})
    ends = f" until {row['until']}" if row["until"] else ""
    click.echo(clean(f"paused {row['scope']}{ends}"))


def _check_until(text: str) -> str:
    try:
        return parse_at(text).isoformat()
    except ValueError as error:
        raise Failure(f"--until {text!r} is not a time; write for example 2026-01-02T15:04:05Z") from error
