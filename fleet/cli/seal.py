"""`fleet seal`: secrets encrypted for Git, from public keys alone."""

from dataclasses import replace
from datetime import timedelta

import click

from fleet.cli.exit import Exit, Failure
from fleet.cli.seal_change import edit, reseal_, rewrap_
from fleet.cli.seal_check import check
from fleet.cli.seal_input import (
    check_keys,
    list_option,
    put,
    read_bundle,
    read_document,
    read_items,
    read_keys,
    read_sealed,
    read_secrets,
    server_option,
)
from fleet.cli.table import Column, field, print_rows, print_value
from fleet.clock import SystemClock
from fleet.secrets import native
from fleet.secrets.bundle import Bundle
from fleet.secrets.document import Audience, Binding, Sealed, Template, write_sealed
from fleet.secrets.inspect import inspect_document
from fleet.secrets.key import PublicKey, count_keys
from fleet.secrets.native import BreakGlass, Recipient
from fleet.secrets.recipient import choose_recipients, list_break_glass, renew_recipients
from fleet.secrets.source import Draft, find_traps

DEFAULT = "secret"
GRACE = timedelta(days=30)
"""How long after the day of its renewal a key may be seen without a warning."""


class _Group(click.Group):
    """A group whose first command needs no name: `fleet seal db.yaml` is `fleet seal secret db.yaml`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command's name first where no command is named."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(name="seal", cls=_Group)
def command() -> None:
    """Encrypt secrets for Git, offline: only the clusters they are for can open them.

    Without the name of a command, `fleet seal secret` is meant. The public keys come from .fleet/keys.yaml in the
    repository, which the hub signs; no cluster and no private key is needed.
    """


@command.command(name=DEFAULT)
@click.argument("file", default="", metavar="[FILE]")
@click.option(
    "--for", "wanted", multiple=True, metavar="environment=NAME|cluster=NAME", help="Who can open it; repeat."
)
@click.option("--from-literal", "literals", multiple=True, metavar="KEY=VALUE", help="An item; shells keep a history.")
@click.option("--from-file", "files", multiple=True, metavar="[KEY=]FILE", help="An item from a file; - is stdin.")
@click.option("--name", default="", metavar="NAME", help="Name of the Secret, where no manifest gives it.")
@click.option("--namespace", default="", metavar="NAME", help="Its namespace.")
@click.option("--type", "type_", default="", metavar="TYPE", help="Its type. Default: Opaque.")
@click.option(
    "--scope",
    type=click.Choice([each.value for each in Binding]),
    default=Binding.STRICT.value,
    help="What values are bound to beside their recipients. Default: strict.",
)
@click.option(
    "--break-glass",
    multiple=True,
    envvar="FLEET_BREAK_GLASS",
    metavar="age1...",
    help="An offline key that opens it too.",
)
@click.option("--merge-into", default="", metavar="FILE", help="Add or replace items of a sealed file, in place.")
@click.option("-w", "--write", default="", metavar="FILE", help="Write to a file. Default: stdout.")
@list_option
@server_option
def secret(
    *,
    file: str,
    wanted: tuple[str, ...],
    literals: tuple[str, ...],
    files: tuple[str, ...],
    name: str,
    namespace: str,
    type_: str,
    scope: str,
    break_glass: tuple[str, ...],
    merge_into: str,
    write: str,
    keys: str,
    server: str,
    signer: str,
) -> None:
    """Seal the Secrets in FILE (- is stdin), or the items of --from-literal and --from-file.

    With --merge-into what is already in that file stays as it is, unopened; who can open it, its scope, name and
    namespace are the file's.
    """
    drafts = _collect(file, read_items(literals, files), Draft(name=name, namespace=namespace, template=_shape(type_)))
    for draft in drafts:
        for trap in find_traps(draft.items):
            click.echo(f"warning: {trap}", err=True)
    bundle = read_bundle(keys, server, signer)
    glass = [BreakGlass(recipient=each) for each in break_glass]
    if merge_into:
        if len(drafts) != 1:
            raise Failure("--merge-into takes the items of one Secret")
        merged = _merge(read_sealed(merge_into), drafts[0], bundle, wanted, glass)
        return put(write_sealed(merged), write or merge_into)
    if not wanted:
        raise Failure("say who can open it: --for environment=NAME or --for cluster=NAME")
    found, audience = choose_recipients(bundle, wanted)
    _warn_of_age(found)
    texts = [write_sealed(_seal(draft, [*found, *glass], Binding(scope), audience)) for draft in drafts]
    return put("---\n".join(texts), write)


def _warn_of_age(keys: list[PublicKey]) -> None:
    """Say that the list is old: somebody may have put an earlier one back, whose keys are not trusted any more."""
    late = [key.cluster for key in keys if key.renew_at + GRACE < SystemClock().now()]
    if late:
        click.echo(
            f"warning: the key of {', '.join(late)} should have been renewed long ago; fetch the list of keys anew with fleet"
            " seal keys --server URL",
            err=True,
        )


def _shape(type_: str) -> Template:
    return Template(type=type_ or "Opaque")


def _collect(file: str, items: dict[str, bytes], given: Draft) -> list[Draft]:
    """Return the Secrets to seal; options overrule what a single manifest says."""
    if not file:
        if not items:
            raise Failure("nothing to seal: give a file with a Secret, - for stdin, --from-literal or --from-file")
        return [replace(given, items=items)]
    drafts = read_secrets(file)
    named = bool(items or given.name)
    if named and len(drafts) > 1:
        raise Failure(f"{file} holds {len(drafts)} Secrets; --name and single items fit one only")
    return [_overrule(draft, items, given) for draft in drafts]


def _overrule(draft: Draft, items: dict[str, bytes], given: Draft) -> Draft:
    if given.namespace and draft.namespace not in ("", given.namespace):
        raise Failure(
            f"Secret {draft.name} is of namespace {draft.namespace}, not {given.namespace}; change one of them"
        )
    return replace(
        draft,
        name=given.name or draft.name,
        namespace=given.namespace or draft.namespace,
        items={**draft.items, **items},
        template=draft.template
        if given.template.type == "Opaque"
        else replace(draft.template, type=given.template.type),
    )


def _seal(draft: Draft, recipients: list[Recipient], binding: Binding, audience: Audience) -> Sealed:
    if not draft.name:
        raise Failure("the Secret has no name; say --name")
    if not draft.namespace and binding is not Binding.ENVIRONMENT:
        raise Failure(f"Secret {draft.name} has no namespace, and its values are bound to it; say --namespace")
    if not draft.items:
        raise Failure(f"Secret {draft.name} has no items to seal")
    return native.seal(
        draft.items,
        recipients,
        namespace=draft.namespace,
        name=draft.name,
        binding=binding,
        audience=audience,
        template=draft.template,
    )


def _merge(document: Sealed, draft: Draft, bundle: Bundle, wanted: tuple[str, ...], glass: list[BreakGlass]) -> Sealed:
    for what, ours, theirs in (("name", document.name, draft.name), ("namespace", document.namespace, draft.namespace)):
        if theirs and theirs != ours:
            raise Failure(f"the file's {what} is {ours}, not {theirs}; items are sealed for the file's")
    if wanted:
        found, audience = choose_recipients(bundle, wanted)
        if audience != document.audience:
            raise Failure(f"the file is for {document.audience}, --for says {audience}; leave --for out")
        kept = [BreakGlass(recipient=kid) for kid in list_break_glass(document)]
        recipients: list[Recipient] = [*found, *kept, *(each for each in glass if each not in kept)]
    else:
        recipients = renew_recipients(bundle, document)
        recipients += [each for each in glass if each not in recipients]
    return native.add_items(document, draft.items, recipients)


@command.command(name="inspect")
@click.argument("file", default="-", metavar="[FILE]")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    help="Output format. Default: table.",
)
@list_option
@server_option
def inspect(*, file: str, output: str, keys: str, server: str, signer: str) -> None:
    """Show who can open a sealed file, with which keys, and who is missing; nothing is opened.

    FILE is a SealedSecret of fleet or Bitnami, or a file of SOPS (YAML or JSON); - is stdin. Exits with 1 if a cluster
    of its audience is missing, or a key is no longer what is sealed with.
    """
    summary, rows = inspect_document(read_document(file), read_bundle(keys, server, signer))
    if output == "table":
        click.echo(f"{summary['kind']} {summary['namespace']}/{summary['name']}, {summary['bound']}")
        click.echo(f"items: {', '.join(summary['items'])}\n")
        print_rows(rows, _COLUMNS, output, lambda row: str(row["recipient"]))
    else:
        print_value({**summary, "recipients": rows}, output)
    if any(row["stale"] for row in rows):
        if output == "table":
            click.echo("\nfleet seal rewrap brings it up to date, or seal it again", err=True)
        raise SystemExit(Exit.DIFFERS)


_COLUMNS = (
    field("RECIPIENT", "recipient"),
    field("KEY", "state", state=True),
    field("OPENS", "items"),
    Column("KEY ID", lambda row: str(row["kid"])[:20]),
)


@command.command(name="keys")
@list_option
@server_option
def keys_(*, keys: str, server: str, signer: str) -> None:
    """Print the signed list of public keys, its signature checked: > .fleet/keys.yaml."""
    data, where = read_keys(keys, server)
    bundle = check_keys(data, where, signer)
    click.echo(data.decode(), nl=False)
    click.echo(f"{count_keys(len(bundle.offered()))} offered, signed by {bundle.signer} of hub {bundle.hub}", err=True)


for each in (check, edit, rewrap_, reseal_):
    command.add_command(each)
