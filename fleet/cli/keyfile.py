"""Files that hold sealing keys: backups, exports, and what other tools wrote. On this machine, without the hub."""

import base64
import fcntl
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from fleet.cli.exit import Failure
from fleet.secrets.age import decrypt, is_armored, parse_identities
from fleet.secrets.backup import Contents, read_contents, verify_backup
from fleet.secrets.foreign import ForeignKey, parse_keys
from fleet.secrets.master import MasterKey, parse_source
from fleet.secrets.shelf import write_private

RESTORE_FILE = "keys.restore"
HUB_ID_FILE = "hub.id"
_HUB_ID = re.compile("[0-9a-f]{16}")
_AGE = b"age-encryption.org/"


def master_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that find the master key of a hub on this machine."""
    command = click.option(
        "--data",
        envvar="FLEET_DATA",
        default="data",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Data directory of the hub. [env: FLEET_DATA]",
    )(command)
    return click.option(
        "--master-key-from",
        envvar="FLEET_MASTER_KEY_FROM",
        default="",
        metavar="PLACE",
        help="As the hub's setting. Default: DATA/master.key. [env: FLEET_MASTER_KEY_FROM]",
    )(command)


def read_file(name: str) -> bytes:
    """Read a file; - is standard input."""
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Failure(f"{name}: {error.strerror}") from error


def write_output(name: str, content: bytes) -> None:
    """Write a file with mode 0600, or to standard output for -."""
    if name == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        write_private(Path(name), content)
    except OSError as error:
        raise Failure(f"{name}: {error.strerror}; nothing was written") from error


def read_foreign(name: str, identity: str) -> Sequence[ForeignKey]:
    """Read the private keys of a file, opened with an age identity file where it is encrypted.

    Raises: SealError, which shows nothing of what was read.
    """
    content = read_file(name)
    if is_armored(content) or content.startswith(_AGE):
        if not identity:
            raise Failure(f"{name} is encrypted; name the identity file that opens it with --identity")
        content = decrypt(content, parse_identities(read_file(identity).decode(errors="replace")))
    return parse_keys(content, name)


def import_body(cluster: str, key: ForeignKey) -> dict[str, Any]:
    """Write one key as the API takes it; one a request keeps each below the most that a body may have."""
    return {
        "cluster": cluster,
        "keys": [
            {
                "algorithm": key.algorithm.value,
                "secret": base64.b64encode(key.secret).decode(),
                "certificate": base64.b64encode(key.certificate).decode(),
                "name": key.name[:300],
                "compromised": key.compromised,
            }
        ],
    }


def open_backup(name: str, master_key_from: str, data: Path) -> Contents:
    """Open every row of a backup with the master key.

    Raises: SealError, SettingsError; Failure where there is no master key.
    """
    content = read_file(name)
    contents = read_contents(content)
    source = parse_source(master_key_from, data, os.environ)
    secret = source.load(contents.salt)
    if secret is None:
        raise Failure(
            f"there is no master key in {source.name}: put key {contents.master} there (the hub had it from"
            f" {contents.source}), or name its place with --master-key-from"
        )
    return verify_backup(content, MasterKey(secret))


def lay_ready(name: str, hub_id: str, data: Path) -> Path:
    """Put a backup where the hub looks for one when it starts; a new directory gets the identity of the hub it is from.

    With it the clusters know the hub again, and nobody has to take them over. Raises: Failure while a hub runs there.
    """
    path = data / RESTORE_FILE
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_running(data)
        if not (data / HUB_ID_FILE).exists() and _HUB_ID.fullmatch(hub_id):
            write_private(data / HUB_ID_FILE, hub_id.encode())
        write_private(path, read_file(name))
    except OSError as error:
        raise Failure(f"{data}: {error.strerror}") from error
    return path


def _refuse_running(data: Path) -> None:
    """Refuse a directory that a hub holds: it would not look for a backup before its next start."""
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failure(f"a hub runs on {data}; stop it, then restore") from None
    finally:
        os.close(lock)
