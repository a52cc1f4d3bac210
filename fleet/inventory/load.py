"""Reading the inventory directory."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fleet.document import DEFAULT_LIMITS
from fleet.errors import InventoryError, Problem
from fleet.inventory.merge import merge
from fleet.inventory.parse import parse_file
from fleet.inventory.value import File, Inventory, Scan

SUFFIXES = (".yaml", ".yml", ".json")
MOST_FILE_BYTES = DEFAULT_LIMITS.file_bytes


def load_inventory(directory: Path, previous: Inventory | None = None) -> Inventory:
    """Return the inventory in `directory` as it is now, taking removals at once. Blocks.

    Raises: InventoryError when the directory is missing, unreadable or holds no document.
    """
    return merge(previous, scan_directory(directory), quiet=True)


def scan_directory(directory: Path, previous: Scan | None = None) -> Scan:
    """Read every inventory file below `directory`; files with bytes as in `previous` are not parsed again. Blocks.

    Raises: InventoryError when the directory is missing, unreadable or holds no document.
    """
    try:
        paths = sorted(_list_files(directory, frozenset()))
    except OSError as error:
        raise InventoryError(
            f"the inventory directory cannot be read ({error.strerror})",
            subject=str(directory),
        ) from error
    known = previous.files if previous is not None else {}
    files = {str(path): _read_file(path, known.get(str(path))) for path in paths}
    if not any(file.entries or file.problems for file in files.values()):
        raise InventoryError("the inventory directory holds no document", subject=str(directory))
    total = hashlib.blake2b(digest_size=16)
    for path, file in files.items():
        total.update(f"{path}\0".encode() + file.digest)
    return Scan(directory=directory, files=files, digest=total.hexdigest())


def _list_files(directory: Path, above: frozenset[str]) -> Iterator[Path]:
    """Yield inventory files; links are followed, since a mounted ConfigMap is made of links into hidden directories."""
    real = os.path.realpath(directory)
    if real in above:
        return
    with os.scandir(directory) as found:
        entries = list(found)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = directory / entry.name
        if entry.is_dir():
            yield from _list_files(path, above | {real})
        elif entry.name.endswith(SUFFIXES):
            yield path


def _read_file(path: Path, known: File | None) -> File:
    try:
        data = _read_bytes(path)
    except OSError as error:
        problem = Problem(str(path), 0, 0, "", f"cannot be read: {error.strerror}")
        return File(digest=str(error.errno).encode(), entries=(), problems=(problem,))
    except ValueError as error:
        problem = Problem(str(path), 0, 0, "", str(error))
        return File(digest=str(error).encode(), entries=(), problems=(problem,))
    digest = hashlib.blake2b(data, digest_size=16).digest()
    if known is not None and known.digest == digest:
        return known
    entries, problems = parse_file(data, str(path), path.parent.absolute())
    return File(digest=digest, entries=tuple(entries), problems=tuple(problems))


def _read_bytes(path: Path) -> bytes:
    """Read a file that may be anything; a pipe would block, and a disk image fill the memory.

    Raises: OSError; ValueError saying what is wrong with it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("is not a regular file")
        data = file.read(MOST_FILE_BYTES + 1)
    if len(data) > MOST_FILE_BYTES:
        raise ValueError(f"is larger than {MOST_FILE_BYTES >> 20} MiB")
    return data
