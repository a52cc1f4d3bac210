"""`fleet seal check`: what must not be committed. Also behind `fleet validate --secrets` and the pre-commit hook."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from fleet.cli.exit import Exit
from fleet.cli.seal_input import LIMITS, check_keys, find_keys, iterate_files, list_option, read_keys
from fleet.document import parse_documents
from fleet.errors import Problem
from fleet.secrets.bundle import Bundle
from fleet.secrets.check import find_faults
from fleet.secrets.sops import is_sops

_MARKS = (b"Secret", b"secretGenerator")
"""A file without any of these needs no parsing: most have none."""


@click.command(name="check")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@list_option
def check(*, paths: tuple[str, ...], keys: str, signer: str) -> None:
    """Find Secrets in the clear and sealed files with stale recipients, in files and in all files below directories.

    PATH is the working directory unless given. Without a list of keys only Secrets in the clear are found. What is not
    readable as YAML, such as templates of Helm, is named and passed over. Exits with 1 if anything was found.
    """
    faults = list_faults(paths or (".",), keys, signer)
    for fault in faults:
        click.echo(str(fault))
    sys.exit(Exit.DIFFERS if faults else Exit.OK)


def list_faults(paths: Sequence[str], keys: str = "", signer: str = "") -> list[Problem]:
    """Return every fault, in the order of the files. Raises: Failure, SealError for a list of keys that is not right."""
    bundle = _find_bundle(keys, signer, paths[0])
    return [fault for path in iterate_files(paths) for fault in _check_file(path, bundle)]


def _find_bundle(keys: str, signer: str, start: str) -> Bundle | None:
    at = Path(start).resolve()
    found = keys or str(find_keys(at if at.is_dir() else at.parent) or "")
    return check_keys(*read_keys(found, ""), signer) if found else None


def _check_file(path: Path, bundle: Bundle | None) -> Iterator[Problem]:
    try:
        data = path.read_bytes()
    except OSError as error:
        click.echo(f"{path} was not checked: {error.strerror or error}", err=True)
        return
    if not any(mark in data for mark in _MARKS):
        return
    documents, problems = parse_documents(data, os.path.normpath(path), limits=LIMITS)
    if problems:
        click.echo(f"{path} was not checked to its end: {problems[0]}", err=True)

    def is_encrypted(name: str) -> bool:
        try:
            return is_sops((path.parent / name).read_bytes())
        except OSError:
            return True  # not there: no value is, either

    for document in documents:
        yield from find_faults(document, bundle, is_encrypted)
