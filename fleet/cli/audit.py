"""`fleet audit`: who did what, when and why."""

import click

from fleet.cli.client import Client
from fleet.cli.exit import Exit, Failure
from fleet.cli.option import connected, output
from fleet.cli.table import Column, Row, field, print_rows, print_value


@click.group(name="audit", invoke_without_command=True)
@click.option(
    "--since", default="", metavar="TIME", help="Acts since then: 24h, or 2030-01-31T18:00:00Z. Default: the newest."
)
@click.option("--actor", default="", metavar="NAME", help="Only acts of this token.")
@click.option("--app", default="", metavar="NAME", help="Only acts on this app.")
@click.option("--cluster", default="", metavar="NAME", help="Only acts on this cluster.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, help="How many at most without --since. Default: 100."
)
@output("table", "wide", "json", "yaml", "name")
@connected
@click.pass_context
def command(
    context: click.Context,
    client: Client,
    *,
    since: str,
    actor: str,
    app: str,
    cluster: str,
    limit: int,
    output: str,
) -> None:
    """Show every act that changed something: who, what, why, and what it was before.

    An act without a result is under way, or the hub ended before it did. Nothing is ever removed from this log.
    """
    if context.invoked_subcommand is not None:
        return
    query = {"actor": actor, "app": app, "cluster": cluster, "since": since}
    rows = client.items("audit", query=query) if since else _newest(client, query, limit)
    print_rows(rows, _COLUMNS, output, lambda row: str(row["seq"]))


def _newest(client: Client, query: dict[str, str], limit: int) -> list[Row]:
    rows: list[Row] = client.get("audit", query={**query, "limit": str(limit)})["items"]
    return rows


@command.command(name="verify")
@click.option("--head", default="", metavar="SEQ:HASH", help="What an earlier check printed, to be still there.")
@output("table", "json", "yaml")
@connected
def verify(client: Client, *, head: str, output: str) -> None:
    """Check that no row was altered, taken out or put in; exit 1 names the first that is not as it was written.

    Keep what it prints somewhere else, and give it as --head the next time: then a log that was written anew shows, too.
    """
    verdict = client.get("audit", "verify", query={"head": head})
    if output != "table":
        print_value(verdict, output)
    elif verdict["intact"]:
        click.echo(f"intact: {verdict['rows']} rows, {verdict['head'] or 'nothing yet'}")
    if not verdict["intact"]:
        raise Failure(
            f"the audit log is broken at row {verdict['broken']}: {verdict['message']};"
            " compare it with a backup of the data directory",
            Exit.DIFFERS,
        )


def _target(row: Row) -> str:
    return "/".join(part for part in (row["cluster"], row["app"]) if part)


def _change(row: Row) -> str:
    """Say what was so before and is so now, name by name."""
    before, after = row["before"], row["after"]
    return "; ".join(
        f"{name}: {before.get(name) or '-'} -> {after.get(name) or '-'}" for name in dict.fromkeys([*before, *after])
    )


_COLUMNS = (
    field("SEQ", "seq", wide=True),
    Column("TIME", lambda row: row["at"]),
    field("ACTOR", "actor"),
    field("ACTION", "action"),
    Column("TARGET", _target),
    Column("RESULT", lambda row: row["result"] or "not known"),
    Column("CHANGE", _change, wide=True),
    field("HASH", "hash", wide=True),
    Column("MESSAGE", lambda row: ": ".join(filter(None, (row["subject"], row["reason"])))),
)
