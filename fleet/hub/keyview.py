"""What the hub shows of sealing keys and lets people do with them. Names here are the API's names; they are stable."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fleet.hub.view import Actor, Row
from fleet.secrets.foreign import ForeignKey
from fleet.secrets.key import Algorithm


class SealKeyRow(Row, frozen=True, kw_only=True):
    """One sealing key, its public half only. Timestamps are RFC 3339 or empty."""

    kid: str
    cluster: str
    environment: str
    """Empty when the cluster left the inventory."""
    uid: str
    algorithm: str
    """`x25519`, `rsa4096`, or `age` (imported)."""
    state: str
    """`pending`, `active`, `retiring`, `retired`, `destroyed` or `compromised`."""
    origin: str
    """`made` or `imported`."""
    recipient: str
    """`age1...`, for SOPS and age; empty for RSA."""
    created_at: str
    renew_at: str
    changed_at: str
    """When it got its state."""
    backed_up_at: str
    """When a backup that holds it was confirmed; empty = it is in none that counts."""
    reason: str
    replaced_by: str
    uses: int
    """Values in Git that it opens."""


class UsageRow(Row, frozen=True, kw_only=True):
    """One value in Git that a key opens."""

    cluster: str
    kid: str
    """Empty for a value that does not name its key and was not opened yet."""
    repository: str
    app: str
    revision: str
    path: str
    namespace: str
    name: str
    item: str


class Compromise(Row, frozen=True, kw_only=True):
    """A key that is trusted no more, and every value that somebody else may know now."""

    keys: tuple[SealKeyRow, ...]
    values: tuple[UsageRow, ...]
    """Change each at its source: sealing the same value again protects nothing."""


class KeyBackup(Row, frozen=True, kw_only=True):
    """A backup of all sealing keys, still encrypted under the master key."""

    digest: str
    """sha256 of `content`; confirm it once the file was read back from where it is kept."""
    keys: int
    made_at: str
    content: bytes = b""
    """A SQLite file, in base64."""


class KeyExport(Row, frozen=True, kw_only=True):
    """Private keys that left the hub."""

    content: bytes
    """In base64; an age file unless the keys were asked for in the clear."""


class MasterChange(Row, frozen=True, kw_only=True):
    """The master key that everything is encrypted under now."""

    master: str
    source: str


class Resealed(Row, frozen=True, kw_only=True):
    """A sealed document for the keys that are offered today."""

    document: Mapping[str, Any]
    """A `SealedSecret` of `fleet/v1`, still sealed."""
    clusters: tuple[str, ...]
    """Who can open it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResealRequest:
    """A sealed document, and what is to be done with it."""

    verb: str
    """`rewrap`: other recipients, the values stay. `reseal`: every value is encrypted anew."""
    document: Mapping[str, Any]
    allow: Callable[[Collection[str]], None]
    """Raises unless whoever asks may act in every one of these environments."""


class SealKeys(Protocol):
    """The sealing keys, as the server asks for them. Acts are written to the audit log first."""

    async def list(self) -> Sequence[SealKeyRow]:
        """Every key, oldest first."""
        ...

    def troubles(self) -> Sequence[str]:
        """What stands in the way of sealing or opening, each with what to do."""
        ...

    async def usage(self, *, kid: str = "", cluster: str = "") -> Sequence[UsageRow]:
        """What in Git needs a key, or any key of a cluster."""
        ...

    async def rotate(self, cluster: str, algorithm: Algorithm, *, reason: str, actor: Actor) -> SealKeyRow:
        """Make a new key. Raises: SealError."""
        ...

    async def retire(
        self, kid: str, *, cluster: str, how: str, force: bool, reason: str, actor: Actor
    ) -> Sequence[SealKeyRow]:
        """Retire a key, let it open again (`how` is `undo`) or `destroy` its private half. Raises: SealError."""
        ...

    async def compromise(self, kid: str, *, cluster: str, reason: str, actor: Actor) -> Compromise:
        """Trust a key no more. Raises: SealError."""
        ...

    async def take_in(self, cluster: str, keys: Sequence[ForeignKey], *, actor: Actor) -> Sequence[SealKeyRow]:
        """Import keys. Raises: SealError."""
        ...

    async def export(
        self, *, cluster: str, kid: str, form: str, recipients: Sequence[str], reason: str, actor: Actor
    ) -> KeyExport:
        """Let private keys out. Raises: SealError."""
        ...

    async def back_up(self, reason: str, actor: Actor) -> KeyBackup:
        """Make a backup. Raises: SealError."""
        ...

    async def confirm_backup(self, digest: str, place: str, actor: Actor) -> KeyBackup:
        """Let a backup count. Raises: SealError."""
        ...

    async def rotate_master(self, to: str, *, reason: str, actor: Actor) -> MasterChange:
        """Replace the master key. Raises: SealError, SettingsError."""
        ...

    async def reseal(self, request: ResealRequest, *, actor: Actor) -> Resealed:
        """Seal a document again for the keys that are offered today; no value leaves the hub. Raises: SealError."""
        ...

    def bundle(self) -> bytes:
        """The signed list of every key's public half, which `fleet seal` works from. Raises: SealError KeysLocked."""
        ...

    async def certificate(self, cluster: str) -> bytes:
        """The PEM certificate that `kubeseal --cert` takes, made at the first ask. Raises: SealError."""
        ...
