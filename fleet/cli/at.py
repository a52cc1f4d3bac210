"""`fleet at`: what ran at a past moment."""

import click

from fleet.cli.client import Client
from fleet.cli.option import connected, filters, output
from fleet.cli.status import target_name
from fleet.cli.table import Column, field, print_rows


@click.command(name="at")
@click.argument("time")
@click.option("--app", default="", metavar="NAME", help="Only this app.")
@filters
@output("table", "json", "yaml", "name")
@connected
def command(client: Client, *, time: str, app: str, cluster: str, environment: str, label: str, output: str) -> None:
    """Show which release every target had at a past moment.

    TIME is a moment, such as 2030-01-02T15:04:05Z, or how long ago, such as 2h.
    """
    query = {"at": time, "app": app, "cluster": cluster, "environment": environment, "label": label}
    rows = client.items("targets", query=query)
    print_rows(rows, _COLUMNS, output, target_name)
    if not rows and output != "name":
        click.echo("nothing that matches was applied then", err=True)


_COLUMNS = (
    field("CLUSTER", "cluster"),
    field("APP", "app"),
    field("ENVIRONMENT", "environment"),
    field("RELEASE", "release"),
    Column("REVISION", lambda row: row["applied_revision"][:7]),
    field("APPLIED AT", "since"),
)
