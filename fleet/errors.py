"""Every error that fleet raises on purpose.

    FleetError
    |-- ConfigError
    |   |-- SettingsError              a flag, variable or option
    |   `-- InventoryError             clusters.d as a whole (single files are Problems)
    |-- SourceError
    |   |-- FetchFailed                the remote did not answer, refused us, or broke off
    |   |-- RevisionMissing            the branch, tag or commit is not there
    |   |-- PathMissing                the app's path is not in that revision
    |   |-- HistoryRewritten           the branch no longer contains what was deployed
    |   `-- TreeRefused                symlink escape, LFS pointer, blob too large, ...
    |-- DocumentError                  a file that is not YAML or JSON as kubectl reads it; carries Problems
    |-- RenderError                    files that do not become manifests; carries Problems
    |-- ChildError
    |   |-- ChildCrashed               a worker process died; the hub did not
    |   |-- ChildTimeout               a worker process overran its deadline and was killed
    |   `-- Quarantined                this very input killed a worker before
    |-- KubeError
    |   |-- Unreachable                no connection, no answer in time, broken TLS
    |   |-- Unauthorized               401
    |   |-- Forbidden                  403
    |   |-- NotFound                   404; `what` tells object, namespace or kind
    |   |-- Conflict                   409; causes name the fields and their managers
    |   |-- Gone                       410
    |   |-- Invalid                    422, typed 500, 400: the object is wrong, retrying does not help
    |   |-- Throttled                  429
    |   `-- ServerFailure              5xx
    |-- RequestError                   an HTTP request that is not answered as asked; `status` says how
    |-- SealError                      a sealed document that does not open here; the reason says why
    |-- ApplyError                     one object that fleet itself will not write (not allowed, owned elsewhere, ...)
    |-- TargetError                    a target that cannot run now (dependency, identity, owner)
    |   |-- IdentityChanged            another cluster answers than the one that was pinned
    |   `-- OwnedByAnotherHub          another hub holds the cluster
    `-- StoreError
        |-- DataDirectoryInUse
        |-- LeaseLost                  a write with an old epoch
        `-- ExpectationFailed          a row count was not what the batch required

A library's exceptions are translated in its one adapter, `from` the cause. A message tells a person what to do next
and never holds a secret.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple


@dataclass(frozen=True, slots=True)
class Backoff:
    """Try again by itself, each time later."""


@dataclass(frozen=True, slots=True)
class After:
    """Try again after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class OnChange:
    """Trying again is useless until the input changes."""


Retry = Backoff | After | OnChange


class Problem(NamedTuple):
    """One fault in one file, as shown to the person who wrote it. Line and column count from 1; 0 = unknown."""

    file: str
    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        place = ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


def summarize(problems: Sequence[Problem]) -> str:
    """Return the first problem and how many more there are; empty for none."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{problems[0]}{more}" if problems else ""


class FleetError(Exception):
    """An error with a CamelCase reason for status, a sentence for people, and what retrying would do."""

    default_reason: ClassVar[str] = "Failed"
    default_retry: ClassVar[Retry] = Backoff()

    def __init__(self, message: str, *, reason: str = "", subject: str = "", retry: Retry | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.subject = subject
        self.retry = retry or self.default_retry

    def __str__(self) -> str:
        return f"{self.subject}: {self.message}" if self.subject else self.message


class ConfigError(FleetError):
    """What the operator configured is wrong."""

    default_reason = "ConfigInvalid"
    default_retry = OnChange()


class SettingsError(ConfigError):
    """A flag, an environment variable or an option file."""

    default_reason = "SettingsInvalid"


class InventoryError(ConfigError):
    """The inventory directory as a whole is missing, empty or unreadable."""

    default_reason = "InventoryUnreadable"


class SourceError(FleetError):
    """A repository cannot give what is asked of it."""

    default_reason = "SourceFailed"


class FetchFailed(SourceError):
    """The remote did not answer, refused us, or broke off."""

    default_reason = "FetchFailed"


class RevisionMissing(SourceError):
    """The branch, tag, version range or commit names nothing."""

    default_reason = "RevisionMissing"


class PathMissing(SourceError):
    """The app's path is not in the revision: never read as "nothing desired"."""

    default_reason = "PathMissing"
    default_retry = OnChange()


class HistoryRewritten(SourceError):
    """The branch moved to a commit that does not contain the one deployed."""

    default_reason = "HistoryRewritten"
    default_retry = OnChange()


class TreeRefused(SourceError):
    """A tree entry that fleet does not follow: symlink escape, LFS pointer, submodule, oversized blob."""

    default_reason = "TreeRefused"
    default_retry = OnChange()


class DocumentError(FleetError):
    """A file that is not YAML or JSON as kubectl reads it. `problems` lists every fault found, in file order."""

    default_reason = "DocumentInvalid"
    default_retry = OnChange()

    def __init__(self, problems: Sequence[Problem], *, reason: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__(summarize(self.problems), reason=reason)


class RenderError(FleetError):
    """Files that do not become manifests. `problems` lists every fault found, in file order."""

    default_reason = "RenderFailed"
    default_retry = OnChange()

    def __init__(self, problems: Sequence[Problem], *, reason: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__(summarize(self.problems) or "nothing was rendered", reason=reason)


class ChildError(FleetError):
    """A worker process failed as a process."""

    default_reason = "ChildFailed"


class ChildCrashed(ChildError):
    """A worker process died by a signal, a memory limit or a closed pipe."""

    default_reason = "ChildCrashed"


class ChildTimeout(ChildError):
    """A worker process overran its deadline and was killed."""

    default_reason = "ChildTimeout"


class Quarantined(ChildError):
    """This very input killed a worker before; it is not tried again until it changes."""

    default_reason = "Quarantined"
    default_retry = OnChange()


class Cause(NamedTuple):
    """One entry of a Kubernetes `Status.details.causes`."""

    reason: str
    field: str
    message: str


class KubeError(FleetError):
    """An API server's answer, or the lack of one. `status` is the HTTP status, 0 when there was none."""

    default_reason = "KubeFailed"

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        causes: Sequence[Cause] = (),
        reason: str = "",
        subject: str = "",
        retry: Retry | None = None,
    ) -> None:
        super().__init__(message, reason=reason, subject=subject, retry=retry)
        self.status = status
        self.causes = tuple(causes)


class Unreachable(KubeError):
    """No connection, no answer in time, or a TLS handshake that failed."""

    default_reason = "Unreachable"


class Unauthorized(KubeError):
    """The API server does not accept our credentials (401)."""

    default_reason = "Unauthorized"


class Forbidden(KubeError):
    """The API server knows us and refuses (403)."""

    default_reason = "Forbidden"


class NotFound(KubeError):
    """404. `what` is `object`, `namespace` or `kind`."""

    default_reason = "NotFound"

    def __init__(self, message: str, *, what: str = "object", causes: Sequence[Cause] = (), subject: str = "") -> None:
        super().__init__(message, status=404, causes=causes, subject=subject)
        self.what = what


class Conflict(KubeError):
    """409: field managers in the causes, or a failed uid or resourceVersion precondition without causes."""

    default_reason = "Conflict"


class Gone(KubeError):
    """410: the resourceVersion or continue token is too old."""

    default_reason = "Gone"


class Invalid(KubeError):
    """The object is wrong: 422, 400, 413 or a schema error that the API server sends as 500."""

    default_reason = "Invalid"
    default_retry = OnChange()


class Throttled(KubeError):
    """429; `retry` says how long the server asked us to wait."""

    default_reason = "Throttled"


class ServerFailure(KubeError):
    """5xx that is not about the object. A 504 on a write leaves the outcome unknown."""

    default_reason = "ServerFailure"


class RequestError(FleetError):
    """An HTTP request that fleet's server does not answer as asked. `status` is the HTTP status."""

    default_reason = "BadRequest"
    default_retry = OnChange()

    def __init__(self, message: str, *, status: int = 400, reason: str = "") -> None:
        super().__init__(message, reason=reason)
        self.status = status


class SealError(FleetError):
    """A sealed document that does not open here, or a key that cannot be used.

    Reasons: NotARecipient, UnknownKey, RetiredKey, CompromisedKey, ScopeMismatch, Corrupt; Unsupported (SOPS with PGP or
    a KMS), PlainSecret (a Secret in the clear), KeysLocked (no master key, or another one).
    """

    default_reason = "Corrupt"
    default_retry = OnChange()


class ApplyError(FleetError):
    """One object that fleet itself will not write: not allowed, owned elsewhere, a hook, an immutable field."""

    default_reason = "ApplyRefused"
    default_retry = OnChange()


class TargetError(FleetError):
    """A whole target that cannot run now."""

    default_reason = "TargetBlocked"


class IdentityChanged(TargetError):
    """Another cluster answers than the one that was pinned; `uid` is that of the one that answers."""

    default_reason = "IdentityChanged"
    default_retry = OnChange()

    def __init__(self, message: str, *, uid: str) -> None:
        super().__init__(message)
        self.uid = uid


class OwnedByAnotherHub(TargetError):
    """Another hub, `holder`, holds the cluster; nothing is written."""

    default_reason = "OwnedByAnotherHub"
    default_retry = OnChange()

    def __init__(self, holder: str, sign: str, cluster: str) -> None:
        super().__init__(
            f"hub {holder} holds this cluster ({sign}); nothing is written. Take it out of that hub's inventory, then run"
            f" fleet cluster takeover {cluster} --reason TEXT"
        )
        self.holder = holder


class StoreError(FleetError):
    """The database or the data directory."""

    default_reason = "StoreFailed"


class DataDirectoryInUse(StoreError):
    """Another hub holds this data directory."""

    default_reason = "DataDirectoryInUse"
    default_retry = OnChange()


class LeaseLost(StoreError):
    """A write carried an epoch that is no longer the cluster's."""

    default_reason = "LeaseLost"


class ExpectationFailed(StoreError):
    """A statement touched another number of rows than the batch required; the batch was rolled back."""

    default_reason = "ExpectationFailed"
