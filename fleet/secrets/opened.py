"""What every format opens to, and where: values shared by the native and the Bitnami documents. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fleet.secrets.plain import Plain


class Scope(NamedTuple):
    """Where a document is to be opened: a value sealed for another place does not open there."""

    cluster: str
    environment: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"Secret {self.namespace}/{self.name} on cluster {self.cluster} ({self.environment or 'no environment'})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A Secret as its document describes it, in the clear."""

    type: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    immutable: bool | None
    """None where the document does not say."""
    items: Mapping[str, Plain]
    kids: Mapping[str, str]
    """Item -> name of the key that opened it; empty where a value was not sealed."""
