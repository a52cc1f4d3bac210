"""`fleet seal edit`, `rewrap`, `reseal`: for who holds the break-glass identity, or may ask the hub."""

import base64
import binascii
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from fleet.cli.client import Client
from fleet.cli.exit import Failure
from fleet.cli.option import connected
from fleet.cli.seal_input import list_option, put, read_bundle, read_file, read_sealed
from fleet.cli.table import format_yaml
from fleet.document import load_documents
from fleet.errors import FleetError
from fleet.secrets import age
from fleet.secrets.document import Sealed, encode_sealed, parse_sealed, write_sealed
from fleet.secrets.recipient import refuse_compromised, renew_recipients
from fleet.secrets.resealing import Keys, change_items, open_at_home, reseal, rewrap, unwrap_all

_IDENTITY = "Break-glass identity file of age-keygen."
_MEMORY = ("/dev/shm", "/run/user")  # noqa: S108  # tmpfs: what is edited never reaches a disk


@click.command(name="rewrap")
@click.argument("file")
@click.option(
    "--identity", default="", envvar="FLEET_IDENTITY", metavar="FILE", help=f"{_IDENTITY} Default: ask the hub."
)
@click.option("-w", "--write", default="", metavar="FILE", help="Write to another file. Default: FILE itself.")
@list_option
@connected
def rewrap_(client: Client, *, file: str, identity: str, write: str, keys: str, signer: str) -> None:
    """Let the clusters of today's list open a sealed file, and no others; its values stay as they are.

    For a cluster that joined or left, or has a new key. A cluster that left has seen the values: change them at their
    source. The hub does it for an operator; with --identity it is done here, offline, by the list of public keys.
    """
    _change(client, "rewrap", file=file, identity=identity, write=write, keys=keys, signer=signer)


@click.command(name="reseal")
@click.argument("file")
@click.option(
    "--identity", default="", envvar="FLEET_IDENTITY", metavar="FILE", help=f"{_IDENTITY} Default: ask the hub."
)
@click.option("-w", "--write", default="", metavar="FILE", help="Write to another file. Default: FILE itself.")
@list_option
@connected
def reseal_(client: Client, *, file: str, identity: str, write: str, keys: str, signer: str) -> None:
    """Encrypt every value of a sealed file again, under one new data key, for the clusters of today's list.

    Scope, audience and place stay what they were. The hub does it for an operator; with --identity it is done here.
    """
    _change(client, "reseal", file=file, identity=identity, write=write, keys=keys, signer=signer)


def _change(client: Client, verb: str, *, file: str, identity: str, write: str, keys: str, signer: str) -> None:
    document = read_sealed(file)
    if identity:
        change = rewrap if verb == "rewrap" else reseal
        bundle = read_bundle(keys, "", signer)
        refuse_compromised(bundle, document)
        recipients = renew_recipients(bundle, document)
        text = write_sealed(change(document, _unwrap(document, identity), recipients))
    else:
        answer = client.post("seal", verb, body={"document": encode_sealed(document)})
        text = write_sealed(parse_sealed(answer["document"]))
    put(text, write or file)


def _unwrap(document: Sealed, identity: str) -> Keys:
    return unwrap_all(document, age.parse_identities(read_file(identity).decode(errors="replace")))


@click.command(name="edit")
@click.argument("file")
@click.option("--identity", required=True, envvar="FLEET_IDENTITY", metavar="FILE", help=_IDENTITY)
@list_option
def edit(*, file: str, identity: str, keys: str, signer: str) -> None:
    """Open a sealed file in $EDITOR with the break-glass identity, and seal again what was changed.

    The text is kept in memory (tmpfs), never on a disk. Unchanged items stay as they are to the byte.
    """
    document = read_sealed(file)
    bundle = read_bundle(keys, "", signer)
    opened = open_at_home(document, _unwrap(document, identity))
    before = {item: plain.reveal() for item, plain in opened.items.items()}
    after = _edit(before)
    if after == before:
        click.echo("nothing was changed", err=True)
        return
    put(write_sealed(change_items(document, before, after, renew_recipients(bundle, document))), file)


def _edit(before: Mapping[str, bytes]) -> dict[str, bytes]:
    with _private_directory() as directory:
        path = directory / "secret.yaml"
        path.touch(mode=0o600)
        path.write_text(_show(before))
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        try:
            code = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
        except OSError as error:
            raise Failure(f"$EDITOR ({editor}) cannot be run: {error.strerror or error}") from error
        if code:
            raise Failure(f"{editor} ended with {code}; nothing was changed")
        return _read_back(path.read_bytes())


@contextmanager
def _private_directory() -> Iterator[Path]:
    """Make a 0700 directory in memory, and remove it however the edit ends."""
    base = os.environ.get("XDG_RUNTIME_DIR") or next((each for each in _MEMORY if os.access(each, os.W_OK)), "")
    if not base:
        raise Failure(
            "no directory in memory is writable (/dev/shm, XDG_RUNTIME_DIR), and secrets are not put on a disk"
        )
    directory = tempfile.mkdtemp(prefix="fleet-seal-", dir=base)
    try:
        yield Path(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _show(items: Mapping[str, bytes]) -> str:
    texts, encoded = {}, {}
    for item, value in items.items():
        try:
            texts[item] = value.decode()
        except UnicodeDecodeError:
            encoded[item] = base64.b64encode(value).decode()
    return format_yaml({"stringData": texts, **({"data": encoded} if encoded else {})})


def _read_back(text: bytes) -> dict[str, bytes]:
    """Read what the editor left. Raises: Failure, which never holds a value."""
    try:
        (document,) = load_documents(text, "the edited text")
        texts, encoded = (document.value.get(name) or {} for name in ("stringData", "data"))
        items = {str(item): base64.b64decode(value, validate=True) for item, value in encoded.items()}
        return items | {str(item): _encode(item, value) for item, value in texts.items()}
    except (ValueError, AttributeError, TypeError, binascii.Error):
        raise Failure("the edited text must have stringData (text) and data (base64); nothing was changed") from None
    except FleetError as error:
        raise Failure(f"{error}; nothing was changed") from None


def _encode(item: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise Failure(f"item {item} is not text; put it in quotes. Nothing was changed")
    return value.encode()
