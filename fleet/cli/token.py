"""`fleet token`: who may ask the hub for what."""

import click

from fleet.cli.client import Client
from fleet.cli.duration import write_length
from fleet.cli.exit import Failure
from fleet.cli.option import Duration, connected, output
from fleet.cli.table import Column, Row, field, print_rows

ADMIN = "admin"
ROLES = ("viewer", "operator", "approver", "admin")


@click.group(name="token")
def command() -> None:
    """Make, list and revoke the tokens that let people and scripts in.

    A viewer reads; an operator also syncs, pauses, resumes and restarts; an approver also approves; an admin also
    manages tokens and decides about clusters. All of these commands need an admin's token.
    """


@command.command(name="create")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the token may do.")
@click.option("--environment", multiple=True, metavar="NAME", help="Only in this environment; may be repeated.")
@click.option("--expires", type=Duration(), metavar="DURATION", help="When it ends: 30d. Default: never.")
@connected
def create(client: Client, *, name: str, role: str, environment: tuple[str, ...], expires: float | None) -> None:
    """Make a token and print it; it is shown this once only."""
    body = {"name": name, "role": role, "environments": list(environment), "expires": write_length(expires)}
    click.echo(client.post("tokens", body=body)["token"])
    click.echo(
        "Keep it: it is not shown again. Use it as FLEET_TOKEN, or in a file named by FLEET_TOKEN_FILE.", err=True
    )


@command.command(name="list")
@output("table", "wide", "json", "yaml", "name")
@connected
def list_(client: Client, *, output: str) -> None:
    """List tokens, without their secrets."""
    print_rows(client.items("tokens"), _COLUMNS, output, lambda row: str(row["name"]))


_COLUMNS = (
    field("NAME", "name"),
    field("ROLE", "role"),
    Column("ENVIRONMENTS", lambda row: ",".join(row["environments"]) or "all"),
    Column("CREATED", lambda row: _day(row, "created_at")),
    field("BY", "created_by"),
    Column("EXPIRES", lambda row: _day(row, "expires_at") or "never"),
    Column("USED", lambda row: _day(row, "used_at") or "never"),
    Column("REVOKED", lambda row: _day(row, "revoked_at")),
)


def _day(row: Row, name: str) -> str:
    return str(row[name] or "")[:16].replace("T", " ")


@command.command(name="revoke")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Also the token that the hub made for itself.")
@connected
def revoke(client: Client, *, name: str, yes: bool) -> None:
    """Revoke a token, from now on.

    The hub's own, admin, opens this machine to fleet: without it only a restart of the hub makes a new one.
    """
    if name == ADMIN and not yes:
        raise Failure(
            f"{name} is the hub's own token: once it is revoked, DATA/admin.token opens nothing until a restart of the hub"
            " makes a new one; say --yes if that is meant"
        )
    answer = client.delete("tokens", name)
    click.echo(f"{name} was revoked before" if answer.get("already") else f"revoked {name}")
