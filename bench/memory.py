"""Resident memory of this process, in which the hub runs, and of its children."""

import ctypes
import gc
import os
import resource
from pathlib import Path

PAGE_BYTES = resource.getpagesize()


def resident_bytes() -> int:
    """Return what this process holds now, after a collection; what malloc only keeps for later is given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def worker_bytes() -> int:
    """Return what our worker processes hold: children that run Python."""
    return sum(_resident(int(pid)) for pid in _children(os.getpid()) if _is_worker(pid))


def _children(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text().split()]


def _is_worker(pid: str) -> bool:
    try:
        return b"python" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0
