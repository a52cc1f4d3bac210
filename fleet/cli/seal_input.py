"""What `fleet seal` reads: Secrets, literals, files, documents sealed before, and the list of public keys."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fleet.cli.client import Client
from fleet.cli.connection import find_connection
from fleet.cli.exit import Failure
from fleet.document import Limits, load_documents
from fleet.secrets.bundle import Bundle, parse_bundle
from fleet.secrets.document import Sealed, is_sealed, parse_sealed
from fleet.secrets.source import Draft, parse_secret

KEYS = Path(".fleet") / "keys.yaml"
"""Where the list of keys is kept in a repository."""
LIMITS = Limits(file_bytes=16 << 20)


def list_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that find the list of public keys in files."""
    keys = click.option("--keys", envvar="FLEET_SEAL_KEYS", default="", metavar="FILE", help=_KEYS)
    signer = click.option("--signer", envvar="FLEET_SEAL_SIGNER", default="", metavar="ed25519:KEY", help=_SIGNER)
    return keys(signer(function))


def server_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that asks a hub for the list."""
    return click.option("--server", default="", metavar="URL", help="Ask this hub for the list of keys instead.")(
        function
    )


_KEYS = "Signed list of public keys. Default: .fleet/keys.yaml of the repository."
_SIGNER = "Who must have signed the list. Default: who signed it when it was first used."


def read_file(path: str) -> bytes:
    """Read a file, or stdin for `-`. Raises: Failure."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror or error}") from error


def read_secrets(path: str) -> list[Draft]:
    """Read every Secret of a file. Raises: Failure, SealError, DocumentError."""
    name = "stdin" if path == "-" else path
    drafts = [parse_secret(each) for each in load_documents(read_file(path), name, limits=LIMITS)]
    if not drafts:
        raise Failure(f"{name} holds no Secret")
    return drafts


def read_document(path: str) -> Any:
    """Read a file of one document. Raises: Failure, DocumentError."""
    documents = load_documents(read_file(path), "stdin" if path == "-" else path, limits=LIMITS)
    if len(documents) != 1:
        raise Failure(f"{path} must hold one document and nothing else; give it a file of its own")
    return documents[0].value


def read_sealed(path: str) -> Sealed:
    """Read a file that holds one sealed document and nothing else. Raises: Failure, SealError, DocumentError."""
    value = read_document(path)
    if not is_sealed(value):
        raise Failure(f"{path} must hold a SealedSecret of fleet/v1")
    return parse_sealed(value)


def read_items(literals: Sequence[str], files: Sequence[str]) -> dict[str, bytes]:
    """Read `KEY=VALUE` and `[KEY=]FILE`. Raises: Failure, which never holds a value."""
    items: dict[str, bytes] = {}
    for text in literals:
        item, equals, value = text.partition("=")
        if not equals or not item:
            raise Failure("--from-literal takes KEY=VALUE")
        items[item] = value.encode(errors="surrogateescape")
    for text in files:
        item, equals, path = text.rpartition("=")
        items[item if equals else Path(path).name] = read_file(path)
    return items


def read_bundle(keys: str, server: str, signer: str) -> Bundle:
    """Read the list of public keys and check who signed it. Raises: Failure, SealError."""
    return check_keys(*read_keys(keys, server), signer)


def read_keys(keys: str, server: str) -> tuple[bytes, str]:
    """Return the list and where it is from: the hub if one is named, else a file, by default the repository's.

    Raises: Failure, Refused, Unreachable.
    """
    if server:
        return _fetch_keys(server), f"{server}/v1/seal/keys"
    path = Path(keys) if keys else find_keys(Path.cwd())
    if path is None:
        raise Failure(
            f"no {KEYS} in this repository: a hub writes it with fleet seal keys --server URL > {KEYS}; or say --keys FILE"
        )
    return read_file(str(path)), str(path)


def check_keys(data: bytes, where: str, signer: str) -> Bundle:
    """Read a list whose signature must be that of `signer`, else of who this user saw first sign for that hub.

    Raises: Failure, SealError.
    """
    bundle = parse_bundle(data, file=where, signer=signer)
    if not signer:
        _pin(bundle, where)
    return bundle


def _fetch_keys(server: str) -> bytes:
    ca = os.environ.get("FLEET_CA", "")
    connection = find_connection(os.environ, server=server, token_file="", ca=ca, data=Path("data"))
    return Client(connection).read("v1", "seal", "keys")


def find_keys(start: Path) -> Path | None:
    """Look for the list from a directory upwards, to the top of the repository."""
    for directory in (start, *start.parents):
        if (directory / KEYS).is_file():
            return directory / KEYS
        if (directory / ".git").exists():
            return None
    return None


def _pin(bundle: Bundle, where: str) -> None:
    """Trust a hub's signer at first sight, and only that one from then on.

    Source: as `ssh` does with host keys.
    """
    path = pins_path(os.environ)
    pins = _read_pins(path)
    known = pins.get(bundle.hub)
    if known is None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(json.dumps({**pins, bundle.hub: bundle.signer}, indent=2) + "\n")
        click.echo(f"trusting {bundle.signer} to list the keys of hub {bundle.hub} from now on ({path})", err=True)
    elif known != bundle.signer:
        raise Failure(
            f"{where} is signed by {bundle.signer}, but hub {bundle.hub} used {known} before: do not seal with it before you"
            f" know why; if the hub's key was replaced, remove the line from {path}"
        )


def pins_path(environ: Mapping[str, str]) -> Path:
    """Name the file that holds whom this user trusts, by hub."""
    base = environ.get("XDG_CONFIG_HOME") or ""
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".config") / "fleet" / "signers.json"


def _read_pins(path: Path) -> dict[str, str]:
    try:
        pins = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failure(f"{path} is not readable; repair it, or say --signer") from error
    return {str(hub): str(signer) for hub, signer in pins.items()} if isinstance(pins, dict) else {}


def iterate_files(paths: Sequence[str]) -> Iterator[Path]:
    """Yield files, and the YAML and JSON files below directories, sorted; hidden directories are passed over."""
    for text in paths:
        path = Path(text)
        if not path.is_dir():
            yield path
            continue
        for directory, names, files in os.walk(path):
            names[:] = sorted(name for name in names if not name.startswith("."))
            yield from (Path(directory) / name for name in sorted(files) if name.endswith((".yaml", ".yml", ".json")))


def put(text: str, path: str) -> None:
    """Write to a file, or to stdout where there is no path. Raises: Failure."""
    if not path:
        click.echo(text, nl=False)
        return
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror or error}") from error
