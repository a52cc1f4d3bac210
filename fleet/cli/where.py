"""`fleet where`: on which clusters a commit runs."""

from collections.abc import Sequence

import click

from fleet.cli.client import Client
from fleet.cli.exit import Exit
from fleet.cli.option import connected, output
from fleet.cli.status import target_name
from fleet.cli.table import Column, Row, field, print_rows

RUNS = ("yes", "contained")


@click.command(name="where")
@click.argument("commit")
@click.option("--app", default="", metavar="NAME", help="Only this app.")
@click.option("--cluster", default="", metavar="NAME", help="Only this cluster.")
@click.option("--environment", default="", metavar="NAME", help="Only clusters of this environment.")
@output("table", "wide", "json", "yaml", "name")
@connected
def command(client: Client, *, commit: str, app: str, cluster: str, environment: str, output: str) -> None:
    """Show on which clusters a commit runs.

    COMMIT may be shortened. `contained` means that a later commit runs, which has this one in its history; -o name
    lists where it runs. Exits with 1 unless it runs on every target shown.
    """
    wanted = {"app": app, "cluster": cluster, "environment": environment}
    found = client.get("where", commit)["items"]
    rows = [row for row in found if all(row[key] == value for key, value in wanted.items() if value)]
    shown = [row for row in rows if row["runs"] in RUNS] if output == "name" else rows
    if output in ("table", "wide") and rows:
        click.echo(f"{_summarize(rows)}\n")
    print_rows(shown, _COLUMNS, output, target_name)
    if not rows:
        click.echo("no target matches", err=True)
    if not rows or any(row["runs"] not in RUNS for row in rows):
        raise click.exceptions.Exit(Exit.DIFFERS)


_COLUMNS = (
    field("ENVIRONMENT", "environment"),
    field("CLUSTER", "cluster"),
    field("APP", "app"),
    field("RUNS", "runs", state=True),
    field("STATE", "state", state=True),
    Column("REVISION", lambda row: row["applied_revision"][:7]),
    field("MESSAGE", "message"),
)


def _summarize(rows: Sequence[Row]) -> str:
    parts = []
    for environment in dict.fromkeys(row["environment"] for row in rows):
        runs = [row["runs"] in RUNS for row in rows if row["environment"] == environment]
        parts.append(f"{environment or 'no environment'} {sum(runs)}/{len(runs)}")
    return ", ".join(parts)
