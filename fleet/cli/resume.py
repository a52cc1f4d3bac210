"""`fleet resume`: the end of a pause."""

import click

from fleet.cli.client import Client
from fleet.cli.exit import Exit, Failure
from fleet.cli.option import connected
from fleet.cli.pause import check_scope, scope


@click.command(name="resume")
@scope
@connected
def command(client: Client, *, app: str, cluster: str, environment: str, everything: bool) -> None:
    """End a pause.

    The options are those of the pause, as `fleet status` shows it. A pause that an inventory file sets is removed there.
    Exits with 1 when there is no such pause.
    """
    names = {"app": app, "cluster": cluster, "environment": environment}
    check_scope(names, everything)
    ended = client.post("resume", body=names)["resumed"]
    if not ended:
        raise Failure("there is no such pause; fleet status shows the pauses in force", Exit.DIFFERS)
    click.echo("resumed")
