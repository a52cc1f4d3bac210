"""`fleet approve`: allow a deletion that the mass-change guard holds."""

from typing import Any

import click

from fleet.cli.client import Client
from fleet.cli.duration import format_age
from fleet.cli.exit import Failure
from fleet.cli.option import connected, find_target, output
from fleet.cli.table import Column, Row, clean, field, print_rows


@click.command(name="approve")
@click.argument("name", metavar="[APP | CLUSTER/APP]", default="")
@click.option("--cluster", default="", metavar="NAME", help="The cluster; may be left out if the app goes to one only.")
@click.option("--digest", default="", metavar="DIGEST", help="What was looked at; another change is refused.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit log.")
@click.option("--list", "listing", is_flag=True, help="Show what waits for approval, with every object.")
@output("table", "wide", "json", "yaml", "name")
@connected
def command(client: Client, *, name: str, cluster: str, digest: str, reason: str, listing: bool, output: str) -> None:
    """Allow a deletion that is held because it is large, or takes all of an app.

    The approval is for exactly the objects that are listed; when the change grows, it waits again. Without --digest,
    what waits now is meant. Needs a token with role approver.
    """
    if listing:
        _list(client, name, cluster, output)
        return
    if not name or not reason:
        raise Failure(
            "say what and why: fleet approve CLUSTER/APP --reason TEXT; fleet approve --list shows what waits"
        )
    cluster, app = find_target(client, name, cluster)
    row = _find(client, cluster, app)
    if not digest and row is None:
        raise Failure(f"nothing of {cluster}/{app} waits for approval; see fleet approve --list")
    body = {"digest": digest or (row or {})["digest"], "reason": reason}
    done = client.post("targets", cluster, app, "approve", body=body)
    number = done["count"]
    click.echo(clean(f"approved: {number} object{'' if number == 1 else 's'} of {cluster}/{app} may be deleted"))


def _find(client: Client, cluster: str, app: str) -> Row | None:
    waiting = (row for row in client.items("approvals") if row["state"] == "waiting")
    return next((row for row in waiting if (row["cluster"], row["app"]) == (cluster, app)), None)


def _list(client: Client, name: str, cluster: str, output: str) -> None:
    before, slash, after = name.partition("/")
    app, cluster = (after, before) if slash else (name, cluster)
    rows: list[dict[str, Any]] = [
        row for row in client.items("approvals") if app in ("", row["app"]) and cluster in ("", row["cluster"])
    ]
    print_rows(rows, _columns(client), output, lambda row: f"{row['cluster']}/{row['app']}")
    if output in ("table", "wide"):
        for row in rows:
            click.echo(clean(f"\n{row['cluster']}/{row['app']} {row['digest']}"))
            for each in row["objects"]:
                click.echo(clean(f"  {each}"))
    if not rows and output in ("table", "wide"):
        click.echo("nothing waits for approval", err=True)


def _columns(client: Client) -> list[Column]:
    return [
        field("CLUSTER", "cluster"),
        field("APP", "app"),
        field("STATE", "state"),
        field("DIGEST", "digest"),
        Column("OBJECTS", lambda row: str(row["count"])),
        Column("SINCE", lambda row: format_age(row["since"], client.now())),
        field("BY", "actor"),
        field("REASON", "reason"),
        field("MESSAGE", "message", wide=True),
    ]
