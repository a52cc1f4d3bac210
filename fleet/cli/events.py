"""`fleet events`: what happened."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import click

from fleet.cli.client import Client, Unreachable
from fleet.cli.option import connected, output, wrong_name
from fleet.cli.patience import Patience
from fleet.cli.table import Column, Row, clean, field, format_yaml, print_rows

KINDS = ("apply", "drift", "prune", "adopt", "health", "git", "inventory", "cluster", "rollout", "audit")
RETRY_S = 2.0


@click.command(name="events")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@click.option("--app", default="", metavar="NAME", help="Only events of this app.")
@click.option("--cluster", default="", metavar="NAME", help="Only events of this cluster.")
@click.option("--kind", type=click.Choice(KINDS), default=None, help="Only events of this kind.")
@click.option("--since", type=int, default=None, metavar="SEQ", help="Only events after this number.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="How many at most. Default: 100.")
@output("table", "wide", "json", "yaml", "name")
@connected
def command(
    client: Client,
    *,
    follow: bool,
    app: str,
    cluster: str,
    kind: str | None,
    since: int | None,
    limit: int,
    output: str,
) -> None:
    """Show what happened, newest last.

    With --follow, JSON comes as one event per line and YAML as one document per event. Numbers may have gaps.
    """
    query = {"app": app, "cluster": cluster, "kind": kind or "", "since": "" if since is None else str(since)}
    rows = client.get("events", query={**query, "limit": str(limit)})["items"]
    if not rows and (wrong := wrong_name(client, query)) is not None:
        raise wrong
    if not follow:
        columns = [c._replace(wide=c.wide and not (kind == "audit" and c.title == "ACTOR")) for c in _COLUMNS]
        print_rows(rows, columns, output, lambda row: str(row["seq"]))
        return
    show = _WRITERS[output]
    for row in rows:
        show(row)
    last = max((row["seq"] for row in rows), default=since or 0)
    _follow(client, {**query, "since": str(last)}, show)


def _follow(client: Client, query: Mapping[str, str], show: Callable[[Row], None]) -> None:
    """Show events as they come; a stream that breaks off is taken up where it was."""
    last = query["since"]
    patience = Patience(float("inf"))
    while True:
        try:
            for message in client.stream("events", query={**query, "since": last}, last_id=last):
                last = message.id or last
                row = json.loads(message.data)
                if "seq" in row:
                    show(row)
        except Unreachable as error:
            click.echo(f"fleet: {error.message}; trying again", err=True)
        patience.sleep(RETRY_S)


def _subject(row: Row) -> str:
    return "/".join(part for part in (row["cluster"], row["app"]) if part)


def _moment(row: Row) -> str:
    return f"{row['at'][:19]}Z"


_COLUMNS = (
    field("SEQ", "seq", wide=True),
    Column("TIME", _moment),
    field("KIND", "kind"),
    Column("TARGET", _subject),
    field("REASON", "reason"),
    Column("REVISION", lambda row: row["revision"][:7], wide=True),
    field("ACTOR", "actor", wide=True),
    Column("MESSAGE", lambda row: ": ".join(part for part in (row["object"], row["message"]) if part)),
)


def _write_line(row: Row) -> None:
    subject, what = _subject(row), _COLUMNS[-1].read(row)
    actor = f"  by {row['actor']}" if row["actor"] else ""
    click.echo(
        " ".join(clean(f"{_moment(row)}  {row['kind']:<9} {subject:<24} {row['reason']}  {what}{actor}").splitlines())
    )


_WRITERS: dict[str, Callable[[Any], None]] = {
    "table": _write_line,
    "wide": _write_line,
    "json": lambda row: click.echo(json.dumps(row, ensure_ascii=False)),
    "yaml": lambda row: click.echo(f"---\n{format_yaml(row)}", nl=False),
    "name": lambda row: click.echo(str(row["seq"])),
}
