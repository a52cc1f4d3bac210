"""`fleet cluster`: whose a cluster is, what it may hold, and which rights the hub needs there."""

import json

import click

from fleet.cli.client import Client
from fleet.cli.duration import format_age
from fleet.cli.exit import Exit, Failure
from fleet.cli.option import connected, filters, output
from fleet.cli.status import format_message, target_columns
from fleet.cli.table import Column, Row, clean, field, format_yaml, heading, paint, print_rows, print_table, print_value

REASON = click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the events.")


@click.group(name="cluster")
def command() -> None:
    """Show clusters, and decide whose they are and what may be on them.

    Acts need an admin's token.
    """


@command.command(name="list")
@filters
@output("table", "wide", "json", "yaml", "name")
@connected
def list_(client: Client, *, cluster: str, environment: str, label: str, output: str) -> None:
    """List clusters."""
    rows = client.items("clusters", query={"cluster": cluster, "environment": environment, "label": label})
    print_rows(rows, _columns(client), output, lambda row: str(row["name"]))


def _columns(client: Client) -> list[Column]:
    return [
        field("CLUSTER", "name"),
        field("ENVIRONMENT", "environment"),
        field("STATE", "state", state=True),
        Column("SINCE", lambda row: format_age(row["since"], client.now())),
        field("VERSION", "version"),
        Column("SYNCED", lambda row: f"{row['synced']}/{row['targets']}"),
        Column("OBJECTS", lambda row: str(row["objects"])),
        Column("OBSERVED", lambda row: format_age(row["observed_at"], client.now()), wide=True),
        field("SERVER", "server", wide=True),
        field("UID", "uid", wide=True),
        Column("LABELS", lambda row: ",".join(f"{k}={v}" for k, v in row["labels"].items()), wide=True),
        Column("MESSAGE", _message),
    ]


def _message(row: Row) -> str:
    reason = "" if row["reason"] == "Connected" else format_message(row)
    return "; ".join(part for part in (reason, f"drained: {row['drained']}" if row["drained"] else "") if part)


@command.command(name="show")
@click.argument("name")
@output("table", "json", "yaml")
@connected
def show(client: Client, *, name: str, output: str) -> None:
    """Show one cluster and its apps."""
    row = client.get("clusters", name)
    if output != "table":
        print_value(row, output)
        return
    click.echo(f"{clean(row['name'])}  {paint(row['state'])} for {format_age(row['since'], client.now())}")
    if message := _message(row):
        click.echo(f"  {clean(message)}")
    for title in ("environment", "server", "version", "uid"):
        if row[title]:
            click.echo(f"  {title:<12}{clean(row[title])}")
    heading("APPS")
    columns = [column for column in target_columns(client)[1:] if not column.wide]
    print_table(client.items("targets", query={"cluster": name}), columns)


@command.command(name="accept")
@click.argument("name")
@click.option("--uid", required=True, metavar="UID", help="That of namespace kube-system, as the refusal names it.")
@REASON
@connected
def accept(client: Client, *, name: str, uid: str, reason: str) -> None:
    """Take the cluster that answers for the one known by NAME.

    For a cluster that was rebuilt on purpose (IdentityChanged). What was applied to the cluster before is forgotten; the
    new one gets all of its apps at once.
    """
    client.post("clusters", name, "accept", body={"uid": uid, "reason": reason})
    click.echo(clean(f"accepted {name} with uid {uid}"))


@command.command(name="takeover")
@click.argument("name")
@REASON
@connected
def takeover(client: Client, *, name: str, reason: str) -> None:
    """Take a cluster from the hub that holds it.

    That hub stops writing when it next renews its Lease, within a minute. Objects that it applied for an app of this hub
    are taken over as they are; others stay, and are nobody's.
    """
    client.post("clusters", name, "takeover", body={"reason": reason})
    click.echo(clean(f"taking over {name}; fleet cluster show {name} says how that goes"))


@command.command(name="drain")
@click.argument("name")
@click.option("--app", default="", metavar="NAME", help="Only this app.")
@REASON
@connected
def drain(client: Client, *, name: str, app: str, reason: str) -> None:
    """Delete everything that was applied to a cluster, and keep it away.

    Namespaces, CRDs, volumes and what is marked `fleet/prune: disabled` stay, without fleet's labels. Nothing is applied
    again before `fleet cluster undrain`.
    """
    row = client.post("clusters", name, "drain", body={"app": app, "reason": reason})
    what = f"app {app} on {name}" if app else name
    click.echo(clean(f"draining {what}: {row['objects']} objects; fleet status --cluster {name} says how that goes"))


@command.command(name="undrain")
@click.argument("name")
@click.option("--app", default="", metavar="NAME", help="The app that was drained.")
@connected
def undrain(client: Client, *, name: str, app: str) -> None:
    """End a drain: its apps are applied again."""
    if not client.post("clusters", name, "undrain", body={"app": app})["undrained"]:
        raise Failure("there is no such drain; fleet cluster list shows the drains in force", Exit.DIFFERS)
    click.echo("undrained")


@command.command(name="manifests")
@click.argument("name")
@output("yaml", "json")
@connected
def manifests(client: Client, *, name: str, output: str) -> None:
    """Print the RBAC that the hub and the apps of a cluster need, and no more.

    Made from what the apps render now. Apply it with a cluster administrator's kubectl; `impersonate` in an App or Cluster
    moves rights from the hub's service account to others.
    """
    answer = client.get("clusters", name, "manifests")
    documents = [json.loads(text) for text in answer["manifests"]]
    if output == "json":
        print_value({**answer, "manifests": documents}, output)
        return
    for app in answer["missing"]:
        click.echo(clean(f"# not covered, since it could not be rendered: app {app}; see fleet status {app}"))
    click.echo("".join(f"---\n{format_yaml(document)}" for document in documents), nl=False)
