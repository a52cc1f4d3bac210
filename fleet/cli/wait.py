"""`fleet wait`: until targets have a state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from fleet.cli.client import Client, Refused, Unreachable
from fleet.cli.exit import Exit, Failure
from fleet.cli.option import STATES, Duration, connected, filters, no_target, split_target
from fleet.cli.patience import Patience
from fleet.cli.status import format_message, target_name
from fleet.cli.table import Row, clean
from fleet.cli.where import RUNS

POLL_S = 1.0
MOST_NAMED = 5
CERTAIN = 3
"""How many answers in a row must say that a target failed: right after a fetch the state may still be the old one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is waited for: the state, at the desired revision, and the commit if one is named."""

    query: Mapping[str, str]
    state: str = "Synced"
    revision: str = ""
    names: frozenset[str] = frozenset()
    """Only these targets; empty: all that match the query."""
    hopeless: frozenset[str] = frozenset()
    """Reasons of a Failed target that end the waiting; empty: none does."""

    def reached(self, row: Row, runs: Mapping[str, str]) -> bool:
        """Tell whether a target is there. `runs` holds what `fleet where` says of the commit, by target name."""
        if row["state"].lower() != self.state.lower():
            return False
        if self.revision:
            return runs.get(target_name(row)) in RUNS
        return self.state != "Synced" or row["desired_revision"] in ("", row["applied_revision"])


@click.command(name="wait")
@click.argument("name", metavar="[APP | CLUSTER/APP]", default="")
@filters
@click.option(
    "--for",
    "state",
    type=click.Choice(STATES, case_sensitive=False),
    default="Synced",
    help="The state. Default: Synced.",
)
@click.option(
    "--revision", default="", metavar="COMMIT", help="Also wait until this commit, or a later one, runs there."
)
@click.option("--timeout", type=Duration(), default="5m", metavar="DURATION", help="How long to wait. Default: 5m.")
@click.option("--interval", type=Duration(), default=POLL_S, metavar="DURATION", help="How often to ask. Default: 1s.")
@connected
def command(
    client: Client,
    *,
    name: str,
    cluster: str,
    environment: str,
    label: str,
    state: str,
    revision: str,
    timeout: float,
    interval: float,
) -> None:
    """Wait until targets have a state.

    Without a name or filter it waits for all. Exits with 124 when the time is over, naming who is not there.
    """
    cluster, app = split_target(name, cluster)
    query = {"app": app, "cluster": cluster, "environment": environment, "label": label}
    wait_for(client, Goal(query=query, state=state, revision=revision), timeout, interval)


def wait_for(client: Client, goal: Goal, timeout_s: float, interval_s: float = POLL_S) -> None:
    """Ask until every target of the goal is there, telling on stderr how far it is.

    A hub that restarts meanwhile is waited for. Raises: Failure with code TIMEOUT, or DIFFERS when a target failed for
    a hopeless reason; Refused; Unreachable at first.
    """
    patience = Patience(timeout_s)
    late = _ask(client, goal)
    told = ""
    failed = 0
    while late:
        lost = [row for row in late if row["state"] == "Failed" and row["reason"] in goal.hopeless]
        failed = failed + 1 if lost else 0
        if failed >= CERTAIN:
            raise Failure(clean(_describe(lost, goal)), Exit.DIFFERS)
        text = _describe(late, goal)
        if text != told:
            click.echo(clean(text), err=True)
            told = text
        if not patience.sleep(interval_s):
            raise Failure(clean(f"timed out after {patience}: {text}"), Exit.TIMEOUT)
        try:
            late = _ask(client, goal)
        except Unreachable as error:
            click.echo(f"fleet: {error.message}; asking again", err=True)


def _ask(client: Client, goal: Goal) -> list[dict[str, Any]]:
    """Return the targets that are not there yet."""
    found = client.items("targets", query=goal.query)
    rows = [row for row in found if not goal.names or target_name(row) in goal.names]
    if not rows:
        raise no_target(client, goal.query)
    runs = _ask_where(client, goal.revision) if goal.revision else {}
    return [row for row in rows if not goal.reached(row, runs)]


def _ask_where(client: Client, revision: str) -> dict[str, str]:
    """Return where the commit runs; nowhere while the hub has not fetched it."""
    try:
        return {target_name(row): row["runs"] for row in client.get("where", revision)["items"]}
    except Refused as error:
        if error.status == 404:
            return {}
        raise


def _describe(late: Sequence[Row], goal: Goal) -> str:
    named = ", ".join(_describe_one(row) for row in late[:MOST_NAMED])
    more = f", and {len(late) - MOST_NAMED} more" if len(late) > MOST_NAMED else ""
    at = f" at {goal.revision}" if goal.revision else ""
    return f"{len(late)} not {goal.state}{at}: {named}{more}"


def _describe_one(row: Row) -> str:
    if row["state"] == "Synced":
        return f"{target_name(row)} is still at {row['applied_revision'][:7] or 'no commit'}"
    message = format_message(row)
    return f"{target_name(row)} {row['state']}" + (f" ({message})" if message else "")
