"""`fleet unhold`: the end of a hold."""

import click

from fleet.cli.client import Client
from fleet.cli.exit import Exit, Failure
from fleet.cli.option import connected
from fleet.cli.rollback import check_scope, scope


@click.command(name="unhold")
@scope
@connected
def command(client: Client, *, app: str, environment: str, cluster: str) -> None:
    """End a hold: let targets follow Git again.

    The scope is that of the hold, as `fleet status` shows it.
    """
    check_scope(environment, cluster)
    ended = client.post("unhold", body={"app": app, "environment": environment, "cluster": cluster})["unheld"]
    if not ended:
        raise Failure(f"{app} is not held; fleet status shows the holds in force", Exit.DIFFERS)
    click.echo("targets follow Git again")
