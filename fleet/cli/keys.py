"""`fleet keys`: the private keys behind sealed values, through their whole life."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fleet.cli.client import Client
from fleet.cli.cluster import REASON
from fleet.cli.duration import format_age
from fleet.cli.exit import Exit, Failure
from fleet.cli.keyfile import (
    import_body,
    lay_ready,
    master_options,
    open_backup,
    read_file,
    read_foreign,
    write_output,
)
from fleet.cli.option import connected, output
from fleet.cli.table import Column, clean, field, heading, print_rows, print_table, print_value
from fleet.secrets.key import count_keys

ALGORITHMS = ("x25519", "rsa4096")
CHANGE = "Change each of these at its source, then seal the new value; sealing the old one again protects nothing."
_FORM = "fleet: for fleet keys import; bitnami: key Secrets of Sealed Secrets; age: identities. Default: fleet."
CLUSTER = click.option("--cluster", default="", metavar="NAME", help="Only this cluster, where several have the key.")


@click.group(name="keys")
def command() -> None:
    """Show, replace, back up and restore the keys that open sealed values.

    Every cluster has its own. A new key is used once a confirmed backup holds it: run `fleet keys backup`, or give the hub
    --keys-backup. Acts need an admin's token.
    """


@command.command(name="list")
@click.option("--cluster", default="", metavar="NAME", help="Only this cluster.")
@click.option("--environment", default="", metavar="NAME", help="Only clusters of this environment.")
@click.option("--state", default="", metavar="STATES", help="Only keys in these states; several with commas.")
@output("table", "wide", "json", "yaml", "name")
@connected
def list_(client: Client, *, cluster: str, environment: str, state: str, output: str) -> None:
    """List keys, oldest first."""
    rows = client.items("keys", query={"cluster": cluster, "environment": environment, "state": state})
    print_rows(rows, _columns(client), output, lambda row: str(row["kid"]))
    if output in ("table", "wide") and any(row["state"] == "pending" for row in rows):
        click.echo("Pending keys are not used before a backup holds them: fleet keys backup FILE", err=True)


def _columns(client: Client) -> list[Column]:
    return [
        field("KEY", "kid"),
        field("CLUSTER", "cluster"),
        field("ENVIRONMENT", "environment"),
        field("ALGORITHM", "algorithm"),
        field("STATE", "state", state=True),
        Column("SINCE", lambda row: format_age(row["changed_at"], client.now())),
        Column("RENEWS", lambda row: row["renew_at"][:10] if row["state"] == "active" else ""),
        Column("USES", lambda row: str(row["uses"])),
        Column("BACKUP", lambda row: row["backed_up_at"][:10] or "none"),
        field("ORIGIN", "origin", wide=True),
        field("RECIPIENT", "recipient", wide=True),
        field("UID", "uid", wide=True),
        field("REASON", "reason", wide=True),
    ]


@command.command(name="show")
@click.argument("kid", metavar="KEY|CLUSTER")
@output("table", "json", "yaml")
@connected
def show(client: Client, *, kid: str, output: str) -> None:
    """Show a key, or the keys of a cluster: their age recipients, what needs them, and what is next for them."""
    rows = client.get("keys", kid)["items"] if _is_kid(kid) else client.items("keys", query={"cluster": kid})
    if not rows:
        raise Failure(f"{kid} is no key, and no cluster that has one; see fleet keys list", Exit.DIFFERS)
    if output != "table":
        print_value(rows, output)
        return
    for row in rows:
        click.echo(clean(f"{row['kid']}  {row['algorithm']} of {row['cluster']}: {row['state']}"))
        click.echo(clean(f"  {_EXPLAINED[row['state']]}"))
        for title, name in _SHOWN:
            if row[name]:
                click.echo(f"  {title:<12}{clean(str(row[name]))}")
    heading("USED BY")
    asked = {"kid": kid} if _is_kid(kid) else {"cluster": kid}
    print_table(client.items("keys", "usage", query=asked), _USAGE)


def _is_kid(text: str) -> bool:
    return len(text) == 20 and set(text) <= set("0123456789abcdef")


_SHOWN = (
    ("recipient", "recipient"),
    ("uid", "uid"),
    ("made", "created_at"),
    ("renews", "renew_at"),
    ("in backup", "backed_up_at"),
    ("origin", "origin"),
    ("replaced by", "replaced_by"),
    ("reason", "reason"),
    ("values", "uses"),
)
_EXPLAINED = {
    "pending": "opens, and is used for new values once a confirmed backup holds it",
    "active": "opens, and new values are sealed with it",
    "retiring": "opens what it sealed; seal that again, then retire it",
    "retired": "opens nothing; fleet keys retire --undo brings it back",
    "destroyed": "its private half is gone from this hub",
    "compromised": "opens nothing; every value it sealed must change at its source",
}
_USAGE = (
    field("CLUSTER", "cluster"),
    field("KEY", "kid"),
    field("APP", "app"),
    field("FILE", "path"),
    Column("SECRET", lambda row: f"{row['namespace']}/{row['name']}".strip("/")),
    field("ITEM", "item"),
    Column("REVISION", lambda row: str(row["revision"])[:7]),
    field("REPOSITORY", "repository", wide=True),
)


@command.command(name="usage")
@click.argument("kid", default="", metavar="[KEY]")
@click.option("--cluster", default="", metavar="NAME", help="Only values for this cluster.")
@output("table", "wide", "json", "yaml")
@connected
def usage(client: Client, *, kid: str, cluster: str, output: str) -> None:
    """Show which files and items in Git need a key, or any key.

    A key without any is safe to retire.
    """
    if kid and not _is_kid(kid):
        raise Failure(f"{kid} is no key; see fleet keys list, or name a cluster with --cluster")
    rows = client.items("keys", "usage", query={"kid": kid, "cluster": cluster})
    print_rows(rows, _USAGE, output, lambda row: str(row["path"]))


@command.command(name="rotate")
@click.argument("cluster")
@click.option(
    "--algorithm", type=click.Choice(ALGORITHMS), default="x25519", help="rsa4096 is for kubeseal. Default: x25519."
)
@REASON
@connected
def rotate(client: Client, *, cluster: str, algorithm: str, reason: str) -> None:
    """Make a new key of a cluster; the old one goes on opening what it sealed.

    Also the way to begin anew on a cluster whose keys are lost.
    """
    row = client.post("keys", "rotate", body={"cluster": cluster, "algorithm": algorithm, "reason": reason})
    click.echo(clean(f"{row['kid']} of {cluster} is {row['state']}: {_EXPLAINED[row['state']]}"))


@command.command(name="retire")
@click.argument("kid", metavar="KEY")
@click.option("--undo", "how", flag_value="undo", help="Let a retired key open again.")
@click.option("--destroy", "how", flag_value="destroy", help="Forget the private half of a retired key for good.")
@click.option("--force", is_flag=True, help="Also where Git still needs it.")
@CLUSTER
@REASON
@connected
def retire(client: Client, *, kid: str, how: str | None, force: bool, cluster: str, reason: str) -> None:
    """Let a key open nothing any more; refused while a value in Git needs it."""
    body = {"how": how or "retire", "force": force, "cluster": cluster, "reason": reason}
    for row in client.post("keys", kid, "retire", body=body)["items"]:
        click.echo(clean(f"{row['kid']} of {row['cluster']} is {row['state']}"))


@command.command(name="compromise")
@click.argument("kid", metavar="KEY")
@CLUSTER
@REASON
@output("table", "json", "yaml")
@connected
def compromise(client: Client, *, kid: str, cluster: str, reason: str, output: str) -> None:
    """Trust a key no more: it seals and opens nothing from now on, and a new one is made.

    Lists every value that somebody else may know now, and that must change where it comes from.
    """
    answer = client.post("keys", kid, "compromise", body={"cluster": cluster, "reason": reason})
    if output != "table":
        print_value(answer, output)
        return
    for row in answer["keys"]:
        click.echo(clean(f"{row['kid']} of {row['cluster']} is {row['state']}"))
    if any(not row["backed_up_at"] for row in answer["keys"]):
        click.echo("Run fleet keys backup: a backup from before would bring the key back as it was.")
    if answer["values"]:
        click.echo(CHANGE)
        print_table(answer["values"], _USAGE)


@command.command(name="export")
@click.option("--cluster", default="", metavar="NAME", help="Only keys of this cluster.")
@click.option("--key", "kid", default="", metavar="KEY", help="Only this key.")
@click.option("--form", type=click.Choice(("fleet", "bitnami", "age")), default="fleet", help=_FORM)
@click.option("--to", "recipients", multiple=True, metavar="age1...", help="Who can open it; repeat.")
@click.option("--plain", is_flag=True, help="In the clear, for whoever has the file.")
@click.option("-f", "--file", default="-", metavar="FILE", help="Where to; mode 0600. Default: standard output.")
@REASON
@connected
def export(
    client: Client, *, cluster: str, kid: str, form: str, recipients: Sequence[str], plain: bool, file: str, reason: str
) -> None:
    """Let private keys out, for a safe of break-glass keys or another tool."""
    body = {
        "cluster": cluster,
        "kid": kid,
        "form": form,
        "recipients": list(recipients),
        "plain": plain,
        "reason": reason,
    }
    write_output(file, base64.b64decode(client.post("keys", "export", body=body)["content"]))


@command.command(name="import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--cluster", default="", metavar="NAME", help="Whose keys they are; fleet's own exports say it.")
@click.option("--identity", default="", metavar="FILE", help="age identity file that opens an encrypted export.")
@connected
def import_(client: Client, *, files: Sequence[str], cluster: str, identity: str) -> None:
    """Take in keys that were made elsewhere: they open, and are not used for new values.

    Reads key Secrets of Sealed Secrets as kubectl dumps them (one, or a list), RSA keys in PEM, age identity files, Secrets
    with .agekey entries, and what fleet keys export wrote. - is standard input.
    """
    for file in files:
        for key in read_foreign(file, identity):
            whose = cluster or key.cluster
            if not whose:
                raise Failure(f"{key.name} does not say whose key it is; name the cluster with --cluster")
            for row in client.post("keys", "import", body=import_body(whose, key))["items"]:
                click.echo(clean(f"{row['kid']} ({row['algorithm']}) of {row['cluster']} is {row['state']}"))


@command.command(name="backup")
@click.argument("file")
@click.option("--unconfirmed", is_flag=True, help="Do not let it count yet: confirm-backup does, once it is safe.")
@connected
def backup(client: Client, *, file: str, unconfirmed: bool) -> None:
    """Write a backup of every key to FILE, read it back, and let new keys be used.

    The keys in it stay encrypted under the master key. Keep FILE on another disk, and the master key apart from both.
    """
    answer = client.post("keys", "backup", body={})
    write_output(file, base64.b64decode(answer["content"]))
    if hashlib.sha256(read_file(file)).hexdigest() != answer["digest"]:
        raise Failure(f"{file} reads back otherwise than it was written; choose another disk")
    click.echo(clean(f"{count_keys(answer['keys'])} of {answer['made_at']} in {file}"))
    if not unconfirmed:
        _confirm(client, str(answer["digest"]), file)


def _confirm(client: Client, digest: str, file: str) -> None:
    body: Mapping[str, Any] = {"digest": digest, "place": str(Path(file).absolute())}
    client.post("keys", "backup", "confirm", body=body)
    click.echo("confirmed: the keys it holds may be used")


@command.command(name="confirm-backup")
@click.argument("file")
@connected
def confirm_backup(client: Client, *, file: str) -> None:
    """Let a backup that was made --unconfirmed count, now that it is where it is safe."""
    _confirm(client, hashlib.sha256(read_file(file)).hexdigest(), file)


@command.command(name="verify-backup")
@click.argument("file")
@master_options
def verify_backup(*, file: str, master_key_from: str, data: Path) -> None:
    """Open every key in a backup with the master key, as a restore would; nothing is changed."""
    contents = open_backup(file, master_key_from, data)
    click.echo(
        clean(f"{count_keys(len(contents.holds))} of hub {contents.hub_id}, {contents.made_at}: every one opens")
    )


@command.command(name="restore")
@click.argument("file")
@master_options
def restore(*, file: str, master_key_from: str, data: Path) -> None:
    """Lay a backup ready in the data directory of a hub that is stopped; its next start takes the keys in.

    Every key is opened with the master key first: put that in its place before. Keys that the hub has stay as they are. A
    new data directory becomes that of the same hub, so be sure that the old one runs nowhere.
    """
    contents = open_backup(file, master_key_from, data)
    path = lay_ready(file, contents.hub_id, data)
    click.echo(
        clean(f"{count_keys(len(contents.holds))} of hub {contents.hub_id}, {contents.made_at}: laid ready in {path}")
    )
    click.echo("Start the hub: it takes them in before it opens or seals anything.")


@command.command(name="rotate-master")
@click.option(
    "--to", default="", metavar="PLACE", help="As the hub's --master-key-from. Default: anew in the same file."
)
@REASON
@connected
def rotate_master(client: Client, *, to: str, reason: str) -> None:
    """Encrypt every key under a new master key, in one transaction.

    Backups made before do not count any more; with another place, give the hub --master-key-from before its next start.
    """
    answer = client.post("keys", "master", body={"to": to, "reason": reason})
    click.echo(clean(f"every key is under master key {answer['master']} now, in {answer['source']}"))
    click.echo("Copy it to where you keep it, then run fleet keys backup: older backups open with the old one only.")
