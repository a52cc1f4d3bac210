"""A directory that keeps backups of the sealing keys, on another disk if it is worth anything. Blocking: for a thread."""

import contextlib
import os
from datetime import datetime
from pathlib import Path

from fleet.errors import SealError

KEPT = 10
"""So many backups stay; older ones are removed."""
_PATTERN = "fleet-keys-*.db"


def put_backup(directory: Path, content: bytes, at: datetime, digest: str) -> Path:
    """Write a backup, see that the disk has it, and remove the oldest ones. Names sort by time. Returns its path.

    Raises: SealError BackupFailed.
    """
    path = directory / f"fleet-keys-{at:%Y%m%dT%H%M%S%f}Z-{digest[:8]}.db"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, content)
        if path.read_bytes() != content:
            raise OSError(0, "it reads back otherwise than it was written")
        for old in sorted(directory.glob(_PATTERN))[:-KEPT]:
            if old != path:
                old.unlink()
    except OSError as error:
        raise SealError(
            f"no backup of the sealing keys could be put into {directory}: {error.strerror}; new keys are not used until one"
            " is there: see --keys-backup",
            reason="BackupFailed",
        ) from error
    return path


def write_private(path: Path, content: bytes) -> None:
    """Write a file with mode 0600, whole or not at all. Raises: OSError."""
    draft = path.with_name(path.name + ".part")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
