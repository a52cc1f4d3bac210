"""`fleet release`: what an app could go back to."""

import click

from fleet.cli.client import Client
from fleet.cli.duration import format_age
from fleet.cli.option import connected, output
from fleet.cli.table import Column, Row, clean, field, heading, print_rows

SIGNS = (("+", "added"), ("~", "changed"), ("-", "removed"))


@click.command(name="release")
@click.argument("app")
@click.option("--changes", is_flag=True, help="Also list the objects that each release added, changed and removed.")
@output("table", "json", "yaml", "name")
@connected
def command(client: Client, *, app: str, changes: bool, output: str) -> None:
    """Show the releases of an app: what changed, where each runs, what is held.

    Newest first. CHANGES counts objects added, changed and removed against the release before, over all clusters.
    """
    rows = client.items("apps", app, "releases")
    columns = [
        field("RELEASE", "release"),
        Column("REVISION", lambda row: row["revision"][:7]),
        field("REASON", "reason"),
        Column("AGE", lambda row: format_age(row["created_at"], client.now())),
        Column("CHANGES", _count),
        Column("RUNS ON", lambda row: ", ".join(row["runs_on"])),
        Column("HELD", lambda row: "; ".join(row["holds"])),
    ]
    print_rows(rows, columns, output, lambda row: row["release"])
    if changes and output == "table":
        for row in rows:
            _print_changes(row)
    if not rows and output != "name":
        click.echo(f"{app} has no release yet; fleet status {app} says why", err=True)


def _count(row: Row) -> str:
    return " ".join(f"{sign}{len(row[name])}" for sign, name in SIGNS if row[name])


def _print_changes(row: Row) -> None:
    heading(row["release"])
    for sign, name in SIGNS:
        for item in row[name]:
            click.echo(clean(f"  {sign} {item}"))
