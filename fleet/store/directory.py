"""The data directory: made once with mode 0700, held by one hub at a time."""

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from fleet.errors import DataDirectoryInUse, StoreError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDirectory:
    """Paths below the data directory, and what was made with it."""

    path: Path
    hub_id: str
    """Random, made with the directory: names this hub in every cluster."""
    digest_key: bytes
    """Keys the digests of manifests, so that a stolen database is no oracle for secret values."""

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / "fleet.db"

    @property
    def git(self) -> Path:
        """Bare clones."""
        return self.path / "git"

    @property
    def admin_token(self) -> Path:
        """The token file that the local CLI reads (0600)."""
        return self.path / "admin.token"


@contextlib.contextmanager
def hold_directory(path: Path) -> Iterator[DataDirectory]:
    """Make the directory if needed and hold it.

    Raises: DataDirectoryInUse, naming the process that holds it; StoreError when it cannot be made.
    """
    with _translate(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _close(path)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with _translate(path):
            _lock(lock, path)
            (path / "git").mkdir(mode=0o700, exist_ok=True)
            hub_id = _read_or_make(path / "hub.id", secrets.token_hex(8).encode()).decode(errors="replace")
            key = _read_or_make(path / "digest.key", secrets.token_bytes(32))
        yield DataDirectory(path=path, hub_id=hub_id, digest_key=key)
    finally:
        os.close(lock)


def _close(path: Path) -> None:
    """Take a directory that existed before away from everybody else, or warn where it is not ours alone to close.

    A volume may belong to root and reach us by its group; a directory with other content may be shared with others.
    """
    found = path.stat()
    if not found.st_mode & 0o077:
        return
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    if found.st_uid == os.getuid() and ((path / "hub.id").exists() or not any(path.iterdir())):
        path.chmod(0o700)
        log.warning("data directory was open to other users; its mode is 0700 now", path=str(path), mode=mode)
    else:
        log.warning("data directory is open to other users; give the hub one of its own", path=str(path), mode=mode)


@contextlib.contextmanager
def _translate(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"data directory {error.filename or path}: {error.strerror}; choose another with --data"
        ) from error


def _lock(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        raise DataDirectoryInUse(
            f"data directory {path} is held by the hub with process id {holder}; stop it, or give this hub another --data"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _read_or_make(path: Path, fresh: bytes) -> bytes:
    """Return what the file holds; made with `fresh`, whose length it always has."""
    with contextlib.suppress(FileNotFoundError):
        content = path.read_bytes()
        if len(content) != len(fresh):
            raise StoreError(f"{path} is damaged; put it back from a backup of the data directory")
        return content
    draft = path.with_suffix(path.suffix + ".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(fresh)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    return fresh
