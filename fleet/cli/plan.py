"""`fleet plan`: what a rollout would do, and whether the clusters would take it."""

from collections.abc import Mapping, Sequence

import click

from fleet.cli.client import Client
from fleet.cli.exit import Exit
from fleet.cli.option import connected, output
from fleet.cli.status import object_name
from fleet.cli.table import Column, Row, align, clean, field, heading, paint, print_table, print_value


@click.command(name="plan")
@click.argument("app")
@click.option("--to", default="", metavar="RELEASE", help="A release, or a commit. Default: the newest release.")
@output("table", "json", "yaml")
@connected
def command(client: Client, *, app: str, to: str, output: str) -> None:
    """Show what a rollout would do: which clusters when, what changes, what is refused.

    Asks every cluster to try each changed object, without keeping anything: admission, quota, missing kinds and rights
    show before a cluster is touched. `unverified` is what cannot be known beforehand, such as an object whose namespace
    comes with the same release. RELEASE is `42`, `shop#42` or a commit. Exits with 1 if anything would change.
    """
    plan = client.get("apps", app, "plan", query={"to": to})
    if output == "table":
        _print(plan)
    else:
        print_value(plan, output)
    if plan["clusters"]:
        raise click.exceptions.Exit(Exit.DIFFERS)


def _print(plan: Row) -> None:
    what = plan["release"] or f"{plan['app']} (no release)"
    click.echo(clean(f"{what} at {plan['revision'][:7]}"))
    for stage in plan["stages"]:
        _print_stage(stage, {row["cluster"]: row for row in plan["clusters"]})
    for cluster in plan["clusters"]:
        _print_cluster(cluster)
    if plan["clusters"]:
        click.echo(f"\n{clean(_summarize(plan['clusters']))}")
    else:
        click.echo("nothing would change", err=True)


def _print_stage(stage: Row, clusters: Mapping[str, Row]) -> None:
    after = f" after {', '.join(stage['after'])}" if stage["after"] else ""
    heading(clean(f"stage {stage['environment']}{after}"))
    for gate in stage["gates"]:
        click.echo(clean(f"  - {gate}"))
    rows = [
        {**clusters[name], "batch": f"{number} ({batch['size']})"}
        for number, batch in enumerate(stage["batches"], 1)
        for name in batch["clusters"]
        if name in clusters
    ]
    print_table(rows, _COLUMNS)
    for word in ("unchanged", "held"):
        if stage[word]:
            click.echo(clean(f"  {word}: {', '.join(stage[word])}"))


def _count(row: Row) -> str:
    return ", ".join(f"{number} {action}" for action, number in row["counts"].items())


_COLUMNS = (
    field("BATCH", "batch"),
    field("CLUSTER", "cluster"),
    field("HAS", "release"),
    field("PREFLIGHT", "outcome", state=True),
    Column("CHANGES", _count),
    Column("WAITS FOR", lambda row: "; ".join(row["waits"])),
)


def _print_cluster(cluster: Row) -> None:
    heading(clean(f"{cluster['cluster']}: {cluster['outcome']}"))
    if cluster["message"]:
        click.echo(clean(f"  {cluster['reason']}: {cluster['message']}"))
    lines = [[row["action"], object_name(row), row["outcome"], _explain(row)] for row in cluster["objects"]]
    for row, line in zip(cluster["objects"], align(lines), strict=True):
        shown = clean(line).replace(row["action"], paint(row["action"]), 1)
        click.echo(f"  {shown}")


def _explain(row: Row) -> str:
    """Say why an object is refused or unverified; of one that is taken, why it changes."""
    return ": ".join(part for part in (row["reason"], row["message"]) if part)


def _summarize(clusters: Sequence[Row]) -> str:
    """Say in one line whether the clusters would take it, the refusals first."""
    named = {
        word: [row["cluster"] for row in clusters if row["outcome"] == word] for word in ("refused", "unverified", "ok")
    }
    parts = [f"{len(names)} {word} ({', '.join(names)})" for word, names in named.items() if names and word != "ok"]
    return ", ".join([*parts, f"{len(named['ok'])} ok"])
