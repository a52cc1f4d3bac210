"""`fleet sync`: fetch and reconcile now."""

from collections.abc import Sequence

import click

from fleet.cli.client import Client
from fleet.cli.exit import Exit, Failure
from fleet.cli.option import Duration, connected, split_target
from fleet.cli.status import describe_unfetched, target_name
from fleet.cli.table import Row
from fleet.cli.wait import POLL_S, Goal, wait_for

SETTLED = frozenset(
    {
        "RenderFailed",
        "PathMissing",
        "PathEscapes",
        "EmptyRender",
        "TargetInvalid",
        "TreeRefused",
        "DocumentInvalid",
        "HelmUnsupported",
        "KustomizeMissing",
        "LfsPointer",
        "LinkDangling",
        "LinkEscapes",
        "LinkLoop",
        "Submodule",
        "BlobTooLarge",
        "RevisionMissing",
    }
)
"""Reasons of a failed target that only a commit or another inventory ends: waiting on brings nothing."""


@click.command(name="sync")
@click.argument("name", metavar="[APP | CLUSTER/APP]", default="")
@click.option("--cluster", default="", metavar="NAME", help="Only this cluster.")
@click.option("--repository", default="", metavar="NAME", help="Only apps of this repository.")
@click.option("--wait", is_flag=True, help="Wait until the targets are Synced; paused ones are not waited for.")
@click.option("--timeout", type=Duration(), default="5m", metavar="DURATION", help="How long to wait. Default: 5m.")
@click.option("--interval", type=Duration(), default=POLL_S, metavar="DURATION", help="How often to ask. Default: 1s.")
@connected
def command(
    client: Client, *, name: str, cluster: str, repository: str, wait: bool, timeout: float, interval: float
) -> None:
    """Fetch and reconcile now.

    Polling does the same a little later; nothing is forced. With --wait it exits with 1 when a repository cannot be
    fetched or a target cannot be rendered, and with 124 when the time is over.
    """
    cluster, app = split_target(name, cluster)
    rows = client.post("sync", body={"app": app, "cluster": cluster, "repository": repository})["items"]
    if not rows:
        raise Failure("no target matches; fleet status lists what there is")
    click.echo(f"syncing {len(rows)} target{'' if len(rows) == 1 else 's'}", err=True)
    if wait:
        _check_fetched(client, rows)
        _wait(client, rows, timeout, interval)


def _check_fetched(client: Client, rows: Sequence[Row]) -> None:
    """End when what was to be fetched could not be: Synced would then mean the commit before."""
    if told := describe_unfetched(client, rows):
        raise Failure(told, Exit.DIFFERS)


def _wait(client: Client, rows: Sequence[Row], timeout_s: float, interval_s: float) -> None:
    names = frozenset(target_name(row) for row in rows if row["state"] != "Paused")
    paused = [target_name(row) for row in rows if row["state"] == "Paused"]
    if paused:
        click.echo(f"paused, not waited for: {', '.join(paused)}", err=True)
    if names:
        wait_for(client, Goal(query={}, names=names, hopeless=SETTLED), timeout_s, interval_s)
        click.echo(f"{len(names)} target{'' if len(names) == 1 else 's'} Synced", err=True)
