"""The words every room shares: names of things in Git and in clusters, as small immutable values.

No I/O and no Kubernetes client types live here. Keys are tuples, so that sets, dicts and sorting of a hundred
thousand of them stay cheap.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, NewType

import msgspec

Revision = NewType("Revision", str)
"""A commit sha: 40 lower-case hex digits."""


def short(revision: str) -> str:
    """Return the form of a revision that people read.

    >>> short("3f9c2e1d8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d")
    '3f9c2e1'
    """
    return revision[:7]


class GroupKind(NamedTuple):
    """A kind without its version: what identity and watches are made of."""

    group: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind


class Gvk(NamedTuple):
    """Group, version and kind; the core group is the empty string."""

    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        """Return the manifest form.

        >>> Gvk("apps", "v1", "Deployment").api_version, Gvk("", "v1", "Pod").api_version
        ('apps/v1', 'v1')
        """
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_kind(self) -> GroupKind:
        """Drop the version."""
        return GroupKind(self.group, self.kind)

    def __str__(self) -> str:
        return f"{self.api_version} {self.kind}"


def parse_gvk(api_version: str, kind: str) -> Gvk:
    """Split a manifest's `apiVersion`.

    >>> parse_gvk("apps/v1", "Deployment")
    Gvk(group='apps', version='v1', kind='Deployment')
    """
    group, _, version = api_version.rpartition("/")
    return Gvk(group, version, kind)


class ObjectKey(NamedTuple):
    """The identity of an object inside one cluster: never its version (design §7)."""

    group: str
    kind: str
    namespace: str
    """Empty for cluster-scoped objects."""
    name: str

    @property
    def group_kind(self) -> GroupKind:
        """The kind this object is of."""
        return GroupKind(self.group, self.kind)

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.group_kind} {where}"


class TargetId(NamedTuple):
    """One app on one cluster: the unit of reconciliation."""

    cluster: str
    app: str

    def __str__(self) -> str:
        return f"{self.cluster}/{self.app}"


class Origin(NamedTuple):
    """Where in the repository a manifest was written; line 0 = unknown (generated)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Apply(StrEnum):
    """How an object is written (annotation `fleet/ssa`)."""

    OVERRIDE = "override"
    MERGE = "merge"
    """Other managers keep the fields they hold; additions are not undone."""
    IF_NOT_PRESENT = "if-not-present"


class Adopt(StrEnum):
    """What happens to an object that existed before fleet's first apply."""

    NEVER = "never"
    UNOWNED = "unowned"
    ALWAYS = "always"
    EXACT = "exact"


class Seal(StrEnum):
    """How the values of a manifest are sealed, if they are."""

    NONE = ""
    NATIVE = "native"
    """A `SealedSecret` of `fleet/v1`."""
    BITNAMI = "bitnami"
    """A `SealedSecret` of `bitnami.com`."""
    SOPS = "sops"
    """An object in a file encrypted with SOPS; `body` holds the whole file, over which its MAC is."""
    SOPS_ITEMS = "sops-items"
    """A Secret some of whose `data` entries are files encrypted with SOPS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What an object's annotations ask of fleet, under fleet's, Flux's or Argo CD's names."""

    reconcile: bool = True
    prune: bool = True
    substitute: bool = True
    force: bool = False
    apply: Apply = Apply.OVERRIDE
    adopt: Adopt | None = None
    wave: int = 0
    hook: str = ""
    """The annotation that makes the object a hook of another tool; empty for none."""
    restart: bool = False
    """A workload whose pods are to be replaced when a Secret that they use changes."""


DEFAULT_FLAGS = Flags()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A desired object: canonical JSON bytes with its identity beside it.

    `body` has sorted keys and no status, nulls or server-set metadata. `digest` is BLAKE2b-128 of `body`, keyed with
    the data directory's digest key: equal bytes have equal digests on one hub, and a stolen ledger is no oracle
    for guessing secret values.
    """

    key: ObjectKey
    version: str
    body: bytes = field(repr=False)
    digest: bytes
    flags: Flags = DEFAULT_FLAGS
    origin: Origin = Origin("", 0)
    sensitive: bool = False
    """Holds secret values: never shown, never logged."""
    scoped: bool = True
    """False while it is unknown whether the kind is namespaced (a custom resource that names no namespace)."""
    seal: Seal = Seal.NONE
    """`key`, `version` and `flags` are those of the object it opens to; `body` is what stands in Git, still sealed."""

    @property
    def gvk(self) -> Gvk:
        """Group, version and kind the manifest is written in."""
        return Gvk(self.key.group, self.version, self.key.kind)


def encode_canonical(value: object) -> bytes:
    """Encode to canonical JSON: sorted keys, no white space, so that equal values are equal bytes."""
    return bytes(_ENCODER.encode(value))


_ENCODER = msgspec.json.Encoder(order="sorted")
