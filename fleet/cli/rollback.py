"""`fleet rollback`: back to an earlier release, and held there."""

from collections.abc import Callable
from typing import Any

import click

from fleet.cli.client import Client
from fleet.cli.exit import Failure
from fleet.cli.option import connected
from fleet.cli.table import clean


def scope(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what names the targets of a hold."""
    command = click.option("--cluster", default="", metavar="NAME", help="Only on this cluster.")(command)
    command = click.option("--environment", default="", metavar="NAME", help="Only in this environment.")(command)
    return click.argument("app")(command)


def check_scope(environment: str, cluster: str) -> None:
    """Refuse a scope that is said twice. Raises: Failure."""
    if environment and cluster:
        raise Failure("give --environment or --cluster, not both: a cluster is in one environment")


@click.command(name="rollback")
@scope
@click.option("--to", default="", metavar="RELEASE", help="42, shop#42 or a commit. Default: the last good one before.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; shown to everyone.")
@connected
def command(client: Client, *, app: str, environment: str, cluster: str, to: str, reason: str) -> None:
    """Hold an app at an earlier release.

    Targets get exactly the manifests of that release and stay there, whatever Git says, until `fleet unhold` with the
    same scope. `fleet release APP` lists the releases. --to the release that runs now freezes an app.
    """
    check_scope(environment, cluster)
    body = {"app": app, "environment": environment, "cluster": cluster, "to": to, "reason": reason}
    row = client.post("rollback", body=body)
    options = "".join(f" --{name} {row[name]}" for name in ("environment", "cluster") if row[name])
    click.echo(clean(f"{row['scope']} is held at {row['release']}; fleet unhold {app}{options} ends it"))
