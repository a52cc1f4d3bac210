"""`fleet rollout`: releases on their way through environments."""

import click

from fleet.cli.client import Client
from fleet.cli.duration import format_age
from fleet.cli.exit import Exit, Failure
from fleet.cli.option import connected, output
from fleet.cli.pipeline import describe_step, draw
from fleet.cli.table import Column, clean, field, heading, paint_line, print_rows, print_value

STATES = (
    "Planned",
    "AwaitingApproval",
    "Running",
    "Paused",
    "Succeeded",
    "Failed",
    "Aborted",
    "Superseded",
    "RolledBack",
)
REASON = click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit log.")
RELEASE = click.option(
    "--release",
    default=0,
    metavar="N",
    help="Only if this is the newest rollout; else nothing is done, and the exit code is 2.",
)


@click.group(name="rollout")
def command() -> None:
    """Watch and steer releases on their way through environments.

    Verbs are about the newest rollout of APP. Saying the same twice does no harm.
    """


@command.command(name="list")
@click.option("--app", default="", metavar="NAME", help="Only this app.")
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only rollouts in this state.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, help="How many at most. Default: 20.")
@output("table", "wide", "json", "yaml", "name")
@connected
def list_(client: Client, *, app: str, state: str | None, limit: int, output: str) -> None:
    """List rollouts, newest first, also those that ended."""
    rows = client.get("rollouts", query={"app": app, "state": state or "", "limit": str(limit)})["items"]
    print_rows(rows, _columns(client), output, lambda row: str(row["release"]))
    if not rows and output != "name":
        click.echo("no rollout matches", err=True)


def _columns(client: Client) -> list[Column]:
    return [
        field("RELEASE", "release"),
        Column("REVISION", lambda row: row["revision"][:7]),
        field("STATE", "state", state=True),
        Column("STAGE", lambda row: row["stage"]),
        Column("CLUSTERS", lambda row: ", ".join(f"{number} {state}" for state, number in row["clusters"].items())),
        Column("BEGAN", lambda row: format_age(row["created_at"], client.now())),
        Column("ENDED", lambda row: format_age(row["finished_at"], client.now()), wide=True),
        Column("MESSAGE", lambda row: row["waits_for"] or row["message"]),
    ]


@command.command(name="show")
@click.argument("app")
@click.option("--release", type=click.IntRange(1), metavar="NUMBER", help="Another than the newest: 42.")
@click.option("--history", is_flag=True, help="Also show every step, with who asked for it.")
@output("table", "json", "yaml")
@connected
def show(client: Client, *, app: str, release: int | None, history: bool, output: str) -> None:
    """Show a rollout: stages, batches, clusters, gates with what is left of them, checks.

    JSON and YAML hold all of it, with the history and every check result.
    """
    long = history or output != "table"
    detail = client.get("rollouts", app, *([str(release)] if release else []), query={"history": str(long).lower()})
    if output != "table":
        print_value(detail, output)
        return
    for line in draw(detail, client.now(), everything=True):
        click.echo(paint_line(clean(str(line)), line.state))
    if history:
        heading("HISTORY")
        for step in detail["history"]:
            click.echo(clean(f"  {describe_step(step)}"))


@command.command(name="watch")
@click.argument("app")
@click.option("--exit", "leave", is_flag=True, help="Also end, with 1, when the rollout is paused.")
@connected
def watch_(client: Client, *, app: str, leave: bool) -> None:
    """Watch the newest rollout of APP until it ends.

    A live tree on a terminal; elsewhere a line for each step, and for what is waited for. Exits with 0 if it succeeded,
    else with 1.
    """
    from fleet.cli.rollout_watch import watch

    code = watch(client, app, leave_when_paused=leave)
    if code is not Exit.OK:
        raise click.exceptions.Exit(code)


def _tell(client: Client, app: str, verb: str, release: int, **body: str) -> None:
    chosen = {"release": release} if release else {}
    row = client.post("rollouts", app, verb, body={**body, **chosen})
    told = row["waits_for"] or row["message"]
    click.echo(clean(f"{row['release']} is {row['state']}{f': {told}' if told else ''}"))


@command.command(name="pause")
@click.argument("app")
@REASON
@RELEASE
@connected
def pause(client: Client, *, app: str, reason: str, release: int) -> None:
    """Start no more clusters; those under way are watched to their end."""
    _tell(client, app, "pause", release, reason=reason)


@command.command(name="resume")
@click.argument("app")
@REASON
@RELEASE
@connected
def resume(client: Client, *, app: str, reason: str, release: int) -> None:
    """Go on after a pause; failures so far no longer count."""
    _tell(client, app, "resume", release, reason=reason)


@command.command(name="abort")
@click.argument("app")
@REASON
@RELEASE
@connected
def abort(client: Client, *, app: str, reason: str, release: int) -> None:
    """End a rollout where it is; every cluster keeps what it has."""
    _tell(client, app, "abort", release, reason=reason)


@command.command(name="retry")
@click.argument("app")
@REASON
@RELEASE
@connected
def retry(client: Client, *, app: str, reason: str, release: int) -> None:
    """Try again what failed, was aborted or was sent back, the preflight included."""
    _tell(client, app, "retry", release, reason=reason)


@command.command(name="skip")
@click.argument("app")
@click.argument("cluster")
@REASON
@RELEASE
@connected
def skip(client: Client, *, app: str, cluster: str, reason: str, release: int) -> None:
    """Leave a cluster out of the rollout; it keeps what it has."""
    _tell(client, app, "skip", release, cluster=cluster, reason=reason)


@command.command(name="promote")
@click.argument("app")
@click.option("--stage", required=True, metavar="ENVIRONMENT", help="The stage.")
@REASON
@RELEASE
@connected
def promote(client: Client, *, app: str, stage: str, reason: str, release: int) -> None:
    """Let a stage do without windows, freezes, pace, soak and checks.

    For emergencies. Health and approvals still count.
    """
    _tell(client, app, "promote", release, stage=stage, reason=reason)


@command.command(name="approve")
@click.argument("app")
@click.option("--stage", default="", metavar="ENVIRONMENT", help="The stage; may be left out if only one waits.")
@click.option("--plan", default="", metavar="DIGEST", help="What was looked at; another plan is refused.")
@REASON
@RELEASE
@connected
def approve(client: Client, *, app: str, stage: str, plan: str, reason: str, release: int) -> None:
    """Approve a stage as it is planned.

    The approval is for this release, these clusters in this order, and these rules; when one of them changes, it no longer
    counts. `fleet rollout show` has the digest; without --plan the plan as it is now is meant. Needs a token with role
    approver; people are told apart by the names of their tokens.
    """
    if not stage:
        stage, plan = _find_waiting(client, app, plan)
    _tell(client, app, "approve", release, stage=stage, plan=plan, reason=reason)


def _find_waiting(client: Client, app: str, plan: str) -> tuple[str, str]:
    """Return the only stage that waits for approval, and its plan. Raises: Failure."""
    stages = client.get("rollouts", app, query={"history": "false"})["stages"]
    waiting = [s for s in stages if any(gate["kind"] == "Approval" for gate in s["gates"])]
    if not waiting:
        raise Failure(f"no stage of {app} waits for approval; see fleet rollout show {app}")
    if len(waiting) > 1:
        names = ", ".join(s["environment"] for s in waiting)
        raise Failure(f"{len(waiting)} stages wait for approval; choose with --stage: {names}")
    return waiting[0]["environment"], plan or waiting[0]["digest"]


@command.command(name="rollback")
@click.argument("app")
@REASON
@RELEASE
@connected
def rollback(client: Client, *, app: str, reason: str, release: int) -> None:
    """Send every cluster that the rollout touched back to what it had.

    At once, without gates. The release is not rolled out again unless `fleet rollout retry` says so.
    """
    _tell(client, app, "rollback", release, reason=reason)
