"""`fleet sync`: fetch and reconcile now."""

from collections.abc import Sequence

import click

from fleet.cli.client import Client
from fleet.cli.exit import Failure
from fleet.cli.option import Duration, connected, split_target
from fleet.cli.status import target_name
from fleet.cli.table import Row
from fleet.cli.wait import Goal, wait_for


@click.command(name="sync")
@click.argument("name", metavar="[APP | CLUSTER/APP]", default="")
@click.option("--cluster", default="", metavar="NAME", help="Only this cluster.")
@click.option("--repository", default="", metavar="NAME", help="Only apps of this repository.")
@click.option("--wait", is_flag=True, help="Wait until the targets are Synced; paused ones are not waited for.")
@click.option("--timeout", type=Duration(), default="5m", metavar="DURATION", help="How long to wait. Default: 5m.")
@connected
def command(client: Client, *, name: str, cluster: str, repository: str, wait: bool, timeout: float) -> None:
    """Fetch and reconcile now.

    Polling does the same a little later; nothing is forced. With --wait it exits with 124 when the time is over.
    """
    cluster, app = split_target(name, cluster)
    rows = client.post("sync", body={"app": app, "cluster": cluster, "repository": repository})["items"]
    if not rows:
        raise Failure("no target matches; fleet status lists what there is")
    click.echo(f"syncing {len(rows)} target{'' if len(rows) == 1 else 's'}", err=True)
    if wait:
        _wait(client, rows, timeout)


def _wait(client: Client, rows: Sequence[Row], timeout_s: float) -> None:
    names = frozenset(target_name(row) for row in rows if row["state"] != "Paused")
    paused = [target_name(row) for row in rows if row["state"] == "Paused"]
    if paused:
        click.echo(f"paused, not waited for: {', '.join(paused)}", err=True)
    if names:
        wait_for(client, Goal(query={}, names=names), timeout_s)
        click.echo(f"{len(names)} target{'' if len(names) == 1 else 's'} Synced", err=True)
