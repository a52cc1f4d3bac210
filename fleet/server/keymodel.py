"""The API's own shapes for sealing keys."""

from typing import Annotated, Literal

from msgspec import Meta, field

from fleet.secrets.key import Algorithm
from fleet.server.model import Continue, Limit, Model, Name, Reason, TokenName

Kid = Annotated[str, Meta(pattern=r"^[0-9a-f]{20}$(?!\n)", description="20 hex digits.")]
KidOrNone = Annotated[str, Meta(pattern=r"^([0-9a-f]{20})?$(?!\n)", description="20 hex digits; empty = every key.")]


class KeyFilter(Model, frozen=True, kw_only=True):
    """Parameters of the list of keys."""

    cluster: Name = ""
    environment: Name = ""
    state: Annotated[str, Meta(description="States; several with commas.")] = ""
    limit: Limit = 0
    after: Continue = field(name="continue", default="")


class UsageFilter(Model, frozen=True, kw_only=True):
    """Parameters of the list of what needs keys."""

    kid: KidOrNone = ""
    cluster: Name = ""
    limit: Limit = 0
    after: Continue = field(name="continue", default="")


class RotateBody(Model, frozen=True, kw_only=True):
    """A new key of a cluster, and why."""

    cluster: TokenName
    algorithm: Algorithm = Algorithm.X25519
    reason: Reason


class RetireBody(Model, frozen=True, kw_only=True):
    """What becomes of a key, and why."""

    reason: Reason
    how: Literal["retire", "undo", "destroy"] = "retire"
    """`undo` lets a retired key open again; `destroy` forgets the private half of a retired or compromised one."""
    force: bool = False
    """Also where Git still needs it."""
    cluster: Name = ""
    """Only on this cluster, where several have the key."""


class CompromiseBody(Model, frozen=True, kw_only=True):
    """Why a key is trusted no more."""

    reason: Reason
    cluster: Name = ""


class ImportedKey(Model, frozen=True, kw_only=True):
    """A private key that comes in."""

    algorithm: Algorithm
    secret: Annotated[bytes, Meta(max_length=16_384, description="In base64: a PEM key (rsa4096), else 32 bytes.")]
    certificate: Annotated[bytes, Meta(max_length=16_384)] = b""
    name: Annotated[str, Meta(max_length=300)] = ""
    """Where it was found."""
    compromised: bool = False


class ImportBody(Model, frozen=True, kw_only=True):
    """Keys of a cluster that were made elsewhere."""

    cluster: TokenName
    keys: Annotated[tuple[ImportedKey, ...], Meta(min_length=1)]


class ExportBody(Model, frozen=True, kw_only=True):
    """Which private keys leave the hub, for whom, and why."""

    reason: Reason
    cluster: Name = ""
    kid: KidOrNone = ""
    form: Literal["fleet", "bitnami", "age"] = "fleet"
    recipients: tuple[str, ...] = ()
    """`age1...` of those who may open the answer."""
    plain: bool = False
    """In the clear; `recipients` must be empty then."""


class BackupBody(Model, frozen=True, kw_only=True):
    """What a backup is for."""

    reason: Annotated[str, Meta(max_length=500)] = ""


class ConfirmBody(Model, frozen=True, kw_only=True):
    """A backup that was read back from where it is kept."""

    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    place: Annotated[str, Meta(max_length=300)] = ""


class MasterBody(Model, frozen=True, kw_only=True):
    """Where the next master key is, and why it is replaced."""

    reason: Reason
    to: Annotated[str, Meta(max_length=1000)] = ""
    """As `--master-key-from`; empty makes a new one in the same file."""
