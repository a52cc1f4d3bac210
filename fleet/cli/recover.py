"""`fleet recover`: after the hub lost its database."""

from collections.abc import Sequence

import click

from fleet.cli.client import Client
from fleet.cli.exit import Exit, Failure
from fleet.cli.option import connected
from fleet.cli.status import object_name
from fleet.cli.table import Column, Row, field, print_table


@click.command(name="recover")
@click.option("--cluster", default="", metavar="NAME", help="Only on this cluster.")
@click.option("--app", default="", metavar="NAME", help="Only of this app.")
@click.option("--confirm", is_flag=True, help="Let what is listed be pruned.")
@click.option("--reason", default="", metavar="TEXT", help="Why; with --confirm.")
@connected
def command(client: Client, *, cluster: str, app: str, confirm: bool, reason: str) -> None:
    """Show what a hub that lost its database left behind, and confirm that it may go.

    These objects carry this hub's marks and Git does not have them. They stay until --confirm; look at the list first.
    Exits with 1 while there are any.
    """
    if confirm and not reason:
        raise Failure("say why with --reason; it is kept with the list of what goes")
    wanted = {"cluster": cluster, "app": app}
    if confirm:
        _print(client.post("recover", body={**wanted, "reason": reason})["items"])
        return
    rows = [r for r in client.items("recovery") if all(r[name] == value for name, value in wanted.items() if value)]
    _print(rows)
    if rows:
        click.echo("fleet recover --confirm --reason TEXT lets these objects be pruned", err=True)
        raise click.exceptions.Exit(Exit.DIFFERS)


def _print(rows: Sequence[Row]) -> None:
    print_table(rows, _COLUMNS)
    if not rows:
        click.echo("nothing is left behind", err=True)


_COLUMNS = (
    field("CLUSTER", "cluster"),
    field("APP", "app"),
    field("NAMESPACE", "namespace"),
    Column("OBJECT", lambda row: object_name({**row, "namespace": ""})),
)
