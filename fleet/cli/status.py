"""`fleet status`: how everything is."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from fleet.cli.client import Client
from fleet.cli.duration import format_age
from fleet.cli.exit import Exit, Failure
from fleet.cli.option import STATES, connected, filters, no_target, output, split_target, wrong_name
from fleet.cli.table import Column, Row, clean, field, heading, paint, print_rows, print_table, print_value

MOST_ORPHANS = 1000
MOST_CLUSTERS = 20
_EXIT_CODE = "Exit with 1 unless every target shown is Synced and its repository can be fetched."


@click.command(name="status")
@click.argument("name", metavar="[APP | CLUSTER/APP]", default="")
@filters
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only targets in this state.")
@click.option("--exit-code", is_flag=True, help=_EXIT_CODE)
@click.option("--orphans", is_flag=True, help="Show what left Git and was let go, and stayed in its cluster.")
@output("table", "wide", "json", "yaml", "name")
@connected
def command(
    client: Client,
    *,
    name: str,
    cluster: str,
    environment: str,
    label: str,
    state: str | None,
    exit_code: bool,
    orphans: bool,
    output: str,
) -> None:
    """Show how everything is, or one app, or the objects of CLUSTER/APP.

    The objects also come with `APP --cluster NAME`.
    """
    cluster, app = split_target(name, cluster)
    if orphans:
        _show_orphans(client, app, cluster, output)
        return
    if app and cluster:
        rows = [_show_target(client, cluster, app, output)]
    else:
        query = {"app": app, "cluster": cluster, "environment": environment, "label": label, "state": state or ""}
        rows = _show_targets(client, query, output)
    if exit_code:
        if not rows and not state:
            raise no_target(client, {"app": app, "cluster": cluster, "environment": environment})
        _check_synced(client, rows)


def _check_synced(client: Client, rows: Sequence[Row]) -> None:
    """End with 1 when a target is not Synced, or may be so at an old commit only."""
    if any(row["state"] != "Synced" for row in rows):
        raise click.exceptions.Exit(Exit.DIFFERS)
    if rows and (told := describe_unfetched(client, rows)):
        raise Failure(told, Exit.DIFFERS)


def describe_unfetched(client: Client, rows: Sequence[Row]) -> str:
    """Name the repositories of these targets that cannot be fetched, and why; empty when all can."""
    apps = {row["app"] for row in rows}
    meant = {row["repository"] for row in client.items("apps") if row["app"] in apps}
    failed = [row for row in client.items("repositories", query={"state": "Failed"}) if row["name"] in meant]
    return "; ".join(f"repository {row['name']} cannot be fetched: {format_message(row)}" for row in failed)


def _show_targets(client: Client, query: Mapping[str, str], output: str) -> list[dict[str, Any]]:
    everything = not any(query.values())
    status = client.get("status") if everything and output != "name" else {}
    rows = client.items("targets", query=query)
    if not rows and (wrong := wrong_name(client, query)) is not None:
        raise wrong
    if output in ("json", "yaml"):
        print_value({**({"status": status} if status else {}), "items": rows}, output)
        return rows
    if status:
        _print_summary(status, client)
    print_rows(rows, target_columns(client), output, target_name)
    if not rows and output != "name":
        click.echo("no target matches", err=True)
    return rows


def _show_orphans(client: Client, app: str, cluster: str, output: str) -> None:
    query = {"kind": "prune", "reason": "Orphaned", "app": app, "cluster": cluster, "limit": str(MOST_ORPHANS)}
    newest = {(row["cluster"], row["object"]): row for row in client.get("events", query=query)["items"]}
    columns = [
        field("CLUSTER", "cluster"),
        field("APP", "app"),
        field("OBJECT", "object"),
        Column("LET GO", lambda row: format_age(row["at"], client.now())),
        field("MESSAGE", "message"),
    ]
    print_rows(list(newest.values()), columns, output, lambda row: str(row["object"]))
    if not newest and output in ("table", "wide"):
        click.echo("nothing was let go", err=True)


def target_name(row: Row) -> str:
    """Return the name that other commands take."""
    return f"{row['cluster']}/{row['app']}"


def target_columns(client: Client) -> list[Column]:
    """Return the columns of a table of targets."""
    return [
        field("CLUSTER", "cluster"),
        field("APP", "app"),
        field("ENVIRONMENT", "environment", wide=True),
        field("STATE", "state", state=True),
        Column("SINCE", lambda row: format_age(row["since"], client.now())),
        Column("REVISION", _format_revision),
        field("RELEASE", "release"),
        Column("OBJECTS", lambda row: f"{row['objects']['current']}/{row['objects']['total']}"),
        Column("DRIFTED", lambda row: str(row["objects"]["drifted"]), wide=True),
        Column("FAILED", lambda row: str(row["objects"]["failed"]), wide=True),
        Column("OBSERVED", lambda row: format_age(row["observed_at"], client.now()), wide=True),
        Column("LABELS", lambda row: ",".join(f"{k}={v}" for k, v in row.get("labels", {}).items()), wide=True),
        Column("MESSAGE", format_message),
    ]


def format_message(row: Row) -> str:
    """Return reason and message of a row; a reason that only repeats the state or health is left out."""
    reason = "" if row["reason"] in (row.get("state"), row.get("health")) else row["reason"]
    return ": ".join(part for part in (reason, row["message"]) if part)


def _format_revision(row: Row) -> str:
    applied, desired = row["applied_revision"][:7], row["desired_revision"][:7]
    return applied if desired in ("", applied) else f"{applied or 'none'}->{desired}"


def _print_summary(status: Row, client: Client) -> None:
    now = client.now()
    click.echo(f"hub {status['hub_id']} {status['version']}, up {format_age(status['started_at'], now)}")
    click.echo(f"clusters      {_count_states(status['clusters'])}")
    click.echo(f"targets       {_count_states(status['targets'])}")
    states: dict[str, int] = {}
    for repository in status["repositories"]:
        states[repository["state"]] = states.get(repository["state"], 0) + 1
    click.echo(f"repositories  {_count_states(states)}")
    if any(state != "Ready" and number for state, number in status["clusters"].items()):
        _print_clusters(client)
    _print_troubles(status)
    if status.get("rollouts"):
        heading("ROLLOUTS (fleet rollout show APP says more)")
        for row in status["rollouts"]:
            told = row["waits_for"] or row["message"]
            click.echo(f"  {clean(row['release'])}: {paint(row['state'])}{clean(f': {told}' if told else '')}")
    if status["pauses"]:
        heading("PAUSED")
        for pause in status["pauses"]:
            click.echo(f"  {clean(_describe_pause(pause, client))}")
    if status.get("holds"):
        heading("HELD (not following Git; fleet unhold ends it)")
        for hold in status["holds"]:
            since = f"{format_age(hold['since'], client.now())} ago"
            click.echo(clean(f"  {hold['scope']} at {hold['release']}: {hold['reason']} ({hold['actor']}, {since})"))
    click.echo()


def _count_states(states: Mapping[str, int]) -> str:
    parts = [
        f"{number} {paint(state)}" for state, number in sorted(states.items(), key=lambda item: -item[1]) if number
    ]
    return f"{sum(states.values())}: {', '.join(parts)}" if parts else "none"


def _print_clusters(client: Client) -> None:
    heading("CLUSTERS THAT ARE NOT READY")
    rows = [row for row in client.items("clusters") if row["state"] != "Ready"]
    for row in rows[:MOST_CLUSTERS]:
        click.echo(clean(f"  {row['name']}: {row['state']}: {format_message(row)}"))
    if len(rows) > MOST_CLUSTERS:
        click.echo(f"  and {len(rows) - MOST_CLUSTERS} more; fleet cluster list shows all")


def _print_troubles(status: Row) -> None:
    troubled = [row for row in status["repositories"] if row["state"] not in ("Ready", "Fetching")]
    if troubled:
        heading("REPOSITORIES IN TROUBLE")
        for row in troubled:
            click.echo(clean(f"  {row['name']}: {row['state']}: {format_message(row)}"))
    if status["problems"]:
        heading("PROBLEMS IN THE INVENTORY (the last good version of these files holds)")
        for row in status["problems"]:
            click.echo(clean(f"  {_describe_problem(row)}"))


def _describe_problem(row: Row) -> str:
    place = ":".join([row["file"], *(str(n) for n in (row["line"], row["column"]) if n)])
    return ": ".join(part for part in (place, row["field"], row["message"]) if part)


def _describe_pause(pause: Row, client: Client) -> str:
    since = f"{format_age(pause['since'], client.now())} ago" if pause["since"] else ""
    until = f"until {pause['until']}" if pause["until"] else ""
    where = "in a file" if pause["origin"] == "file" else ""
    notes = ", ".join(part for part in (pause["actor"], since, until, where) if part)
    return f"{pause['scope']}: {pause['reason']}" + (f" ({notes})" if notes else "")


def _show_target(client: Client, cluster: str, app: str, output: str) -> dict[str, Any]:
    detail = client.get("targets", cluster, app)
    target: dict[str, Any] = detail["target"]
    if output in ("json", "yaml"):
        print_value(detail, output)
    elif output == "name":
        for row in detail["objects"]:
            click.echo(clean(object_name(row)))
    else:
        _print_head(client, detail)
        print_table(detail["objects"], [c for c in _OBJECT_COLUMNS if output == "wide" or not c.wide])
        _print_drift(client, detail["objects"])
    return target


def object_name(row: Row) -> str:
    """Return an object as `kind/name`, before it its namespace if it has one."""
    return f"{row['namespace'] + ' ' if row['namespace'] else ''}{row['kind']}/{row['name']}"


_OBJECT_COLUMNS = (
    field("NAMESPACE", "namespace"),
    Column("OBJECT", lambda row: f"{row['kind']}/{row['name']}"),
    Column("VERSION", lambda row: "/".join(filter(None, (row["group"], row["version"]))), wide=True),
    field("HEALTH", "health", state=True),
    field("ACTION", "action", state=True),
    Column("DRIFT", lambda row: str(len(row["drift"])) if row["drift"] else ""),
    field("FILE", "file", wide=True),
    Column("OVERRIDDEN", lambda row: ", ".join(row["overridden"]), wide=True),
    Column("MESSAGE", format_message),
)


def _print_head(client: Client, detail: Row) -> None:
    target = detail["target"]
    now = client.now()
    before = f" (before that: {detail['last_state']})" if detail.get("last_state") else ""
    click.echo(f"{clean(target_name(target))}  {paint(target['state'])} for {format_age(target['since'], now)}{before}")
    if message := format_message(target):
        click.echo(f"  {clean(message)}")
    lines = {
        "environment": target["environment"],
        "revision": _format_revision(target),
        "release": target["release"],
        "observed": f"{format_age(target['observed_at'], now)} ago" if target["observed_at"] else "never",
        "depends on": ", ".join(detail["depends_on"]),
    }
    for name, value in lines.items():
        if value:
            click.echo(f"  {name:<12}{clean(value)}")
    click.echo()


def _print_drift(client: Client, objects: list[Row]) -> None:
    drifted = [(row, drift) for row in objects for drift in row["drift"]]
    if not drifted:
        return
    heading("DRIFT")
    for row, drift in drifted:
        who = drift["manager"] or "someone"
        when = f" {format_age(drift['at'], client.now())} ago" if drift["at"] else ""
        click.echo(clean(f"  {object_name(row)}: {drift['path']} {drift['change']} by {who}{when}"))
