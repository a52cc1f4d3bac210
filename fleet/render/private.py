"""Private directories for one build each: 0700, and gone when the build is. Child side, and the hub's sweep.

Opened values may only be written where nothing reaches a disk by itself: on tmpfs.
"""

import contextlib
import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

TMPFS_MAGIC, RAMFS_MAGIC = 0x01021994, 0x858458F6
_OPENED = "fleet-"
"""What names of directories with opened values begin with: the place is shared with other programs."""


@contextlib.contextmanager
def private_directory(above: Path) -> Iterator[Path]:
    """Make a directory of our own below `above`, and remove those that a killed worker left behind."""
    above.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _made(above, "") as made:
        yield made


@contextlib.contextmanager
def opened_directory(above: Path) -> Iterator[Path]:
    """Make a directory for opened values below `above`, which `is_memory` has passed."""
    with _made(above, _OPENED) as made:
        yield made


@contextlib.contextmanager
def _made(above: Path, prefix: str) -> Iterator[Path]:
    _sweep(above, prefix)
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-", dir=above, ignore_cleanup_errors=True) as made:
        yield Path(made).resolve()


def sweep_opened(above: Path) -> None:
    """Remove directories with opened values whose workers are gone."""
    with contextlib.suppress(OSError):
        _sweep(above, _OPENED)


def _sweep(above: Path, prefix: str) -> None:
    for left in above.iterdir():
        owner = left.name.removeprefix(prefix).partition("-")[0] if left.name.startswith(prefix) else ""
        if owner.isdecimal() and int(owner) != os.getpid() and not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)


def is_memory(path: Path) -> bool:
    """Tell whether a directory is there and on a file system in memory.

    Source: statfs(2); `f_type` is the first field of its answer.
    """
    answer = ctypes.create_string_buffer(512)
    libc = ctypes.CDLL(None, use_errno=True)
    if not path.is_dir() or libc.statfs(os.fsencode(path), answer) != 0:
        return False
    kind = ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF
    return kind in (TMPFS_MAGIC, RAMFS_MAGIC)
