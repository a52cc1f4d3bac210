"""The master key: 32 bytes that encrypt the private half of every sealing key, and the places it may come from.

A file is made at the first start; nothing else is, and nothing is ever made in place of a key that was lost.
"""

import base64
import contextlib
import hashlib
import os
import secrets
import shlex
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import Aead

from fleet.errors import SealError, SettingsError

MASTER_BYTES = 32
SALT_BYTES = argon2id.SALTBYTES
FILE = "master.key"
CREDENTIAL = "fleet-master-key"
COMMAND_S = 30.0
"""Deadline of a command that fetches the key, from a key management service for one."""
LEAST_PASSPHRASE = 12

_FORMS = "file:PATH, credential:NAME, env:VARIABLE, command:PROGRAM ARGUMENTS, or passphrase: before one of these"


@dataclass(frozen=True, slots=True)
class MasterKey:
    """Encrypts with XChaCha20-Poly1305; what it encrypts opens only together with the same associated data."""

    secret: bytes = field(repr=False)

    def __reduce__(self) -> str | tuple[object, ...]:
        """Refuse to be copied out of the process."""
        raise TypeError("a master key is never serialised")

    @property
    def id(self) -> str:
        """Name the key: 20 hex digits, which tell nothing of it."""
        return hashlib.blake2b(self.secret, digest_size=10, person=b"fleet-master-1").hexdigest()

    def encrypt(self, plaintext: bytes, bound_to: bytes) -> bytes:
        """Return nonce and ciphertext: 40 bytes longer than the plaintext."""
        return bytes(Aead(self.secret).encrypt(plaintext, bound_to))

    def decrypt(self, box: bytes, bound_to: bytes) -> bytes:
        """Undo `encrypt`.

        Raises: SealError Corrupt when the box is another's, was changed, or belongs to another master key.
        """
        try:
            return Aead(self.secret).decrypt(box, bound_to)
        except (CryptoError, ValueError, TypeError) as error:
            raise SealError(
                "a stored key does not open with the master key: the row was changed, moved or damaged; restore the"
                " keys from a backup, into an empty data directory, with fleet keys restore"
            ) from error


class MasterSource(Protocol):
    """Where a master key comes from; a key management service joins here, or as `command:`."""

    @property
    def name(self) -> str:
        """Say where, for people; never holds the key."""
        ...

    def load(self, salt: bytes) -> bytes | None:
        """Return 32 bytes, or None when there is no key yet. Slow: not on the event loop.

        Raises: SealError KeysLocked saying what to do.
        """
        ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file with 32 bytes, raw, in hex or in base64, which only its owner may read."""

    path: Path

    @property
    def name(self) -> str:
        """Name the file."""
        return f"file {self.path}"

    @property
    def draft(self) -> Path:
        """Where the next key waits while keys are encrypted anew."""
        return self.path.with_name(self.path.name + ".new")

    def load(self, salt: bytes) -> bytes | None:
        """Read the file; None when it is not there."""
        return _read_key(self.path)

    def load_draft(self) -> bytes | None:
        """Read the next key, which a rotation that was cut off left behind."""
        return _read_key(self.draft)

    def make(self) -> bytes:
        """Make a key and its file. Raises: SealError KeysLocked."""
        key = secrets.token_bytes(MASTER_BYTES)
        _write_private(self.path, key)
        return key

    def make_draft(self) -> bytes:
        """Make the next key beside the present one."""
        key = secrets.token_bytes(MASTER_BYTES)
        _write_private(self.draft, key)
        return key

    def adopt_draft(self) -> None:
        """Let the next key take the place of the present one, whose bytes are overwritten first. Idempotent."""
        if not self.draft.exists():
            return
        if self.path.exists():
            _overwrite(self.path)
        self.draft.rename(self.path)
        _sync_directory(self.path.parent)

    def drop_draft(self) -> None:
        """Forget a next key that nothing was encrypted with. Idempotent."""
        if self.draft.exists():
            _overwrite(self.draft)
            self.draft.unlink()


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """A systemd credential (`LoadCredentialEncrypted=fleet-master-key:...`)."""

    directory: str
    credential: str

    @property
    def name(self) -> str:
        """Name the credential."""
        return f"systemd credential {self.credential}"

    def load(self, salt: bytes) -> bytes | None:
        """Read the credential; None when systemd passed none."""
        return parse_key(content, self.name) if (content := self.read()) is not None else None

    def read(self) -> bytes | None:
        """Return the credential's bytes."""
        return _read(Path(self.directory, self.credential)) if self.directory else None


@dataclass(frozen=True, slots=True)
class EnvironmentSource:
    """An environment variable: the weakest place, since other processes of the same user can read it."""

    environ: Mapping[str, str] = field(repr=False)
    variable: str

    @property
    def name(self) -> str:
        """Name the variable."""
        return f"environment variable {self.variable}"

    def load(self, salt: bytes) -> bytes | None:
        """Read the variable; None when it is not set."""
        return parse_key(content, self.name) if (content := self.read()) is not None else None

    def read(self) -> bytes | None:
        """Return the variable's bytes."""
        return self.environ[self.variable].encode() if self.environ.get(self.variable) else None


@dataclass(frozen=True, slots=True)
class CommandSource:
    """A program that prints the key: a client of a key management service or a secret store."""

    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name the program, without its arguments."""
        return f"command {self.arguments[0]}"

    def load(self, salt: bytes) -> bytes | None:
        """Run the program, without a shell."""
        content = self.read()
        return parse_key(content, self.name) if content else None

    def read(self) -> bytes:
        """Return what the program prints. Raises: SealError KeysLocked."""
        try:
            done = subprocess.run(self.arguments, capture_output=True, timeout=COMMAND_S, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            status = getattr(error, "returncode", None)
            why = f"ended with status {status}" if status is not None else type(error).__name__
            raise _locked(f"{self.name} gave no master key ({why}); run it by hand as the hub's user") from None
        return done.stdout


@dataclass(frozen=True, slots=True)
class PathSource:
    """A file that holds a passphrase."""

    path: Path

    @property
    def name(self) -> str:
        """Name the file."""
        return f"file {self.path}"

    def read(self) -> bytes | None:
        """Return the file's bytes; None when it is not there."""
        if self.path.exists():
            _check_private(self.path)
        return _read(self.path)


class _Text(Protocol):
    """Where a passphrase is read from."""

    @property
    def name(self) -> str: ...

    def read(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class PassphraseSource:
    """A passphrase that argon2id turns into the key, in half a second and 256 MiB."""

    text: _Text
    operations: int = argon2id.OPSLIMIT_MODERATE
    memory_bytes: int = argon2id.MEMLIMIT_MODERATE

    @property
    def name(self) -> str:
        """Name where the passphrase is."""
        return f"passphrase in {self.text.name}"

    def load(self, salt: bytes) -> bytes | None:
        """Derive the key; None when there is no passphrase."""
        content = self.text.read()
        if content is None:
            return None
        passphrase = content.rstrip(b"\r\n")
        if len(passphrase) < LEAST_PASSPHRASE:
            raise _locked(f"the {self.name} is too short; use {LEAST_PASSPHRASE} bytes or more, better a file:")
        return argon2id.kdf(MASTER_BYTES, passphrase, salt, opslimit=self.operations, memlimit=self.memory_bytes)


def parse_source(text: str, data: Path, environ: Mapping[str, str]) -> MasterSource:
    """Read `--master-key-from`; empty is the systemd credential where there is one, else DATA/master.key.

    Raises: SettingsError naming the forms.
    """
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    if not text:
        if directory and Path(directory, CREDENTIAL).exists():
            return CredentialSource(directory, CREDENTIAL)
        return FileSource(data / FILE)
    kind, _, rest = text.partition(":")
    if kind == "passphrase":
        return PassphraseSource(_parse_text(rest, environ))
    if kind == "file" and rest:
        return FileSource(Path(rest))
    source = _parse_text(text, environ)
    assert not isinstance(source, PathSource)
    return source


def _parse_text(
    text: str, environ: Mapping[str, str]
) -> PathSource | CredentialSource | EnvironmentSource | CommandSource:
    kind, _, rest = text.partition(":")
    if rest and kind == "file":
        return PathSource(Path(rest))
    if rest and kind == "credential":
        return CredentialSource(environ.get("CREDENTIALS_DIRECTORY", ""), rest)
    if rest and kind == "env":
        return EnvironmentSource(environ, rest)
    if kind == "command" and (arguments := shlex.split(rest)):
        return CommandSource(tuple(arguments))
    raise SettingsError(f"--master-key-from: {kind!r} is no place for a key; write {_FORMS}")


def parse_key(content: bytes, where: str) -> bytes:
    """Read 32 bytes, raw or as text in hex or base64.

    Raises: SealError KeysLocked; the message never holds the content.
    """
    if len(content) == MASTER_BYTES:
        return content
    text = content.strip()
    key = b""
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(text.decode()) if len(text) == 2 * MASTER_BYTES else base64.b64decode(text, validate=True)
    if len(key) != MASTER_BYTES:
        raise _locked(f"{where} holds no master key: it must be {MASTER_BYTES} bytes, raw, in hex or in base64")
    return key


def _read_key(path: Path) -> bytes | None:
    content = _read(path)
    if content is None:
        return None
    _check_private(path)
    return parse_key(content, f"file {path}")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _locked(f"{path} cannot be read: {error.strerror}; let the hub's user read it") from error


def _check_private(path: Path) -> None:
    """Refuse a file that others may read; a volume may belong to root and reach us by its group."""
    found = path.stat()
    others = 0o077 if found.st_uid == os.getuid() else 0o007
    if found.st_mode & others:
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        raise _locked(f"{path} is open to other users (mode {mode}); run chmod 600 {path}")


def _write_private(path: Path, key: bytes) -> None:
    draft = path.with_name(path.name + ".part")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(key.hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise _locked(
            f"the master key cannot be written to {path}: {error.strerror}; make its directory, or choose another place"
            " with --master-key-from"
        ) from error


def _overwrite(path: Path) -> None:
    """Write over the bytes of a key that is given up: the best that can be done below a file system."""
    with path.open("r+b") as file:
        file.write(secrets.token_bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _locked(message: str) -> SealError:
    return SealError(message, reason="KeysLocked")
