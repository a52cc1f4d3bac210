"""`fleet diff`: desired against live, per object and field."""

from collections.abc import Sequence
from typing import Any

import click

from fleet.cli.client import Client, Refused
from fleet.cli.exit import Exit
from fleet.cli.option import connected, filters, no_target, output, split_target
from fleet.cli.status import object_name, target_name
from fleet.cli.table import Row, clean, paint, print_value

SAME = ("OptedOut", "HandedOver", "NotObserved")
"""Reasons of a skip that alone say nothing of a difference: only a field does."""


@click.command(name="diff")
@click.argument("name", metavar="[APP | CLUSTER/APP]", default="")
@filters
@output("text", "json", "yaml", "name")
@connected
def command(client: Client, *, name: str, cluster: str, environment: str, label: str, output: str) -> None:
    """Show what differs between Git and the clusters, field by field.

    Asks the clusters themselves. A field's line says what Git has, what the cluster has, and who put it there; values
    of Secrets are masked. Exits with 1 if anything differs.
    """
    cluster, app = split_target(name, cluster)
    query = {"app": app, "cluster": cluster, "environment": environment, "label": label}
    targets = client.items("targets", query=query)
    if not targets:
        raise no_target(client, query)
    found, failures = _ask(client, targets)
    _print(found, output)
    for failure in failures:
        click.echo(f"fleet: {clean(failure)}", err=True)
    if output == "text" and not failures and not any(entry["changes"] for entry in found):
        click.echo(f"nothing differs on {len(targets)} target{'' if len(targets) == 1 else 's'}", err=True)
    if failures or any(entry["changes"] for entry in found):
        raise click.exceptions.Exit(Exit.ERROR if failures else Exit.DIFFERS)


def _ask(client: Client, targets: Sequence[Row]) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare target by target; one that cannot be compared stops no other."""
    found: list[dict[str, Any]] = []
    failures: list[str] = []
    for target in targets:
        try:
            rows = client.get("targets", target["cluster"], target["app"], "diff")["items"]
        except Refused as error:
            if error.exit_code == Exit.DENIED:
                raise
            failures.append(f"{target_name(target)}: {error.message}")
            continue
        changes = [row for row in rows if _differs(row)]
        found.append({"cluster": target["cluster"], "app": target["app"], "changes": changes})
    return found, failures


def _differs(row: Row) -> bool:
    """Tell whether an object is not as Git says, also where fleet leaves it as it is."""
    if row["action"] != "skip":
        return bool(row["action"] != "unchanged")
    return bool(row["fields"]) or row["reason"] not in SAME


def _print(found: Sequence[Row], output: str) -> None:
    if output in ("json", "yaml"):
        print_value({"items": list(found)}, output)
        return
    for entry in found:
        if output == "name" and entry["changes"]:
            click.echo(clean(target_name(entry)))
        elif entry["changes"]:
            _print_target(entry)


def _print_target(entry: Row) -> None:
    click.echo(click.style(clean(target_name(entry)), bold=True))
    for row in entry["changes"]:
        why = ": ".join(part for part in (row["reason"], row["message"]) if part)
        click.echo(f"  {paint(row['action'])} {clean(object_name(row))}{clean(f'  ({why})' if why else '')}")
        for field in row["fields"]:
            click.echo(f"    {clean(_describe_field(field))}")


def _describe_field(field: Row) -> str:
    desired, live = (value or "(none)" for value in (field["desired"], field["live"]))
    return f"{field['path']}: live {live}, Git {desired}" + (f"  by {field['manager']}" if field["manager"] else "")
