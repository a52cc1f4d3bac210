"""The inventory and its targets as immutable values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from fleet.errors import Problem
from fleet.inventory.schema import App, Cluster, Entry, Environment, Repository
from fleet.inventory.variable import explain_variables
from fleet.object import TargetId

Key = tuple[str, str]
"""Kind and name of a document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What one file of the directory says."""

    digest: bytes
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The whole directory as read at one moment; `files` is sorted by path."""

    directory: Path
    files: Mapping[str, File]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One app on one cluster, with everything the inventory says about the pair."""

    id: TargetId
    app: App
    cluster: Cluster
    environment: Environment
    path: str
    """Directory in the repository, nothing left to expand."""
    variables: Mapping[str, str]
    depends_on: tuple[TargetId, ...]
    problem: str = ""
    """Why the target cannot run, empty if it can."""

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each variable came from, for people."""
        return explain_variables(self.app, self.environment, self.cluster)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What is in force. `entries` is sorted by kind and name.

    A document can be in force although its file no longer says so: a bad file keeps its last good version, and a
    document that vanished stays until the directory has been quiet (`pending`) or while another still names it.
    """

    directory: Path
    entries: Mapping[Key, Entry]
    problems: tuple[Problem, ...] = ()
    digest: str = ""
    """Of the files' bytes."""
    pending: tuple[Key, ...] = ()
    """Vanished documents that stay until the directory has been quiet."""
    known_files: frozenset[str] = frozenset()
    """Files that were right when last they could be: if they are bad now, what they held is known."""
    complete: bool = True
    """False when a file or a document had to be left out, there being no good version of it."""
    quiet: bool = True
    """Whether the directory had been quiet for the removal time when this was made."""
    targets: Mapping[TargetId, Target] = field(default_factory=dict, repr=False, compare=False)
    """What `plan_targets` makes of the rest; sorted by cluster and app."""
    repositories: Mapping[str, Repository] = field(init=False, repr=False, compare=False)
    environments: Mapping[str, Environment] = field(init=False, repr=False, compare=False)
    apps: Mapping[str, App] = field(init=False, repr=False, compare=False)
    clusters: Mapping[str, Cluster] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        entries = self.entries.values()
        for name, model in _MAPPINGS.items():
            mapping = MappingProxyType({entry.name: entry for entry in entries if isinstance(entry, model)})
            object.__setattr__(self, name, mapping)

    @property
    def authoritative(self) -> bool:
        """Whether what is not in here was taken out on purpose, so that absence may be acted upon."""
        return self.complete and self.quiet


_MAPPINGS: Mapping[str, type[Entry]] = MappingProxyType(
    {"repositories": Repository, "environments": Environment, "apps": App, "clusters": Cluster}
)
