"""`fleet prune`: delete what left Git although a failed apply blocks it."""

import click

from fleet.cli.client import Client
from fleet.cli.exit import Failure
from fleet.cli.option import connected, find_target


@click.command(name="prune")
@click.argument("name", metavar="APP | CLUSTER/APP")
@click.option("--cluster", default="", metavar="NAME", help="The cluster; may be left out if the app goes to one only.")
@click.option("--now", is_flag=True, help="Do not wait until everything else of the app is applied.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit log.")
@connected
def command(client: Client, *, name: str, cluster: str, now: bool, reason: str) -> None:
    """Delete what left Git, although a failed apply blocks that.

    Pruning is otherwise done by itself once everything of the app is applied: what failed may be the replacement of
    what would be deleted. A deletion that is held for approval is not freed by this. Needs a token with role admin.
    """
    if not now:
        raise Failure("pruning comes by itself after the last apply; to have it before that, add --now")
    cluster, app = find_target(client, name, cluster)
    number = client.post("targets", cluster, app, "prune", body={"reason": reason})["pruning"]
    if not number:
        click.echo(f"nothing of {cluster}/{app} is left to prune")
        return
    click.echo(f"pruning {number} object{'' if number == 1 else 's'} of {cluster}/{app}")
