"""What an app's path holds, and the files of a plain YAML directory.

| a directory with | is |
|---|---|
| `kustomization.yaml`, `kustomization.yml` or `Kustomization` | Kustomize |
| `Chart.yaml` and none of those | a Helm chart, refused by name |
| anything else, or a single file | plain: every `*.yaml`, `*.yml`, `*.json` below it |
"""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from fleet.errors import PathMissing, Problem, RenderError, TreeRefused

KUSTOMIZATION_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
CHART = "Chart.yaml"
SUFFIXES = (".yaml", ".yml", ".json")

MOST_APP_BYTES = 10 << 20
MOST_FILES = 5000
MOST_OBJECTS = 5000
MOST_DEPTH = 32


class Node(Enum):
    """What stands at a path of a tree, links followed."""

    FILE = "file"
    DIRECTORY = "directory"
    NOTHING = "nothing"


class Files(Protocol):
    """The files of one revision, by path from the repository's root (itself the empty string).

    Links are followed inside the tree; TreeRefused names what is not followed or too large.
    """

    def kind(self, path: str) -> Node:
        """Tell what is at `path`."""
        ...

    def list(self, path: str) -> Sequence[str]:
        """Return the names in a directory, sorted."""
        ...

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        ...


class Kind(Enum):
    """How a path becomes manifests."""

    PLAIN = "plain"
    KUSTOMIZE = "kustomize"


@dataclass(slots=True)
class Budget:
    """Bytes that one app may still read."""

    left_bytes: int = MOST_APP_BYTES
    left_files: int = MOST_FILES

    def read(self, files: Files, path: str) -> bytes:
        """Read a file on this budget.

        Raises: RenderError (`TooLarge`), TreeRefused.
        """
        data = files.read(path)
        self.left_bytes -= len(data)
        self.left_files -= 1
        if self.left_bytes < 0:
            raise too_large(path, f"the app's files together have more than {MOST_APP_BYTES} bytes; split the app")
        if self.left_files < 0:
            raise too_large(path, f"the app has more than {MOST_FILES} files; split the app")
        return data


def too_large(file: str, message: str) -> RenderError:
    """Return the error of an app beyond what one render may take."""
    return RenderError([Problem(file, 0, 0, "", message)], reason="TooLarge")


def detect_kind(files: Files, path: str) -> Kind:
    """Tell how `path` is rendered.

    Raises: PathMissing; RenderError (`HelmUnsupported`).
    """
    node = files.kind(path)
    if node is Node.NOTHING:
        raise PathMissing(f"there is no {path or 'root directory'} in this revision")
    if node is Node.FILE:
        return Kind.PLAIN
    if any(files.kind(join(path, name)) is Node.FILE for name in KUSTOMIZATION_NAMES):
        return Kind.KUSTOMIZE
    if files.kind(join(path, CHART)) is Node.FILE:
        raise _refuse_chart(join(path, CHART))
    return Kind.PLAIN


def _refuse_chart(file: str) -> RenderError:
    message = "this is a Helm chart; render it with `helm template` and commit the output, or point the app elsewhere"
    return RenderError([Problem(file, 0, 0, "", message)], reason="HelmUnsupported")


def read_plain(files: Files, path: str) -> Mapping[str, bytes]:
    """Return the manifest files of a plain directory (or the one file) by path, in path order.

    Names that start with a dot are passed over, directories and files alike.

    Raises: RenderError for a Kustomize directory or a chart inside; TreeRefused.
    """
    budget = Budget()
    if files.kind(path) is Node.FILE:
        return {path: budget.read(files, path)}
    return {file: budget.read(files, file) for file in _walk(files, path, MOST_DEPTH)}


def _walk(files: Files, path: str, depth: int) -> Iterator[str]:
    if depth < 0:
        raise TreeRefused(f"{path} is nested deeper than {MOST_DEPTH} directories, or a link leads back into itself")
    for name in files.list(path):
        if name.startswith("."):
            continue
        below = join(path, name)
        node = files.kind(below)
        if node is Node.DIRECTORY:
            yield from _walk(files, below, depth - 1)
        elif node is Node.FILE and (name in KUSTOMIZATION_NAMES):
            message = (
                "a Kustomize directory inside a plain one; add a kustomization.yaml at the app's path that lists it"
            )
            raise RenderError([Problem(below, 0, 0, "", message)])
        elif node is Node.FILE and name == CHART:
            raise _refuse_chart(below)
        elif node is Node.FILE and name.endswith(SUFFIXES):
            yield below


def join(directory: str, name: str) -> str:
    """Join a path of the tree and a relative one.

    >>> join("", "a"), join("apps/shop", "../base/./x.yaml"), join("apps", "../../etc")
    ('a', 'apps/base/x.yaml', '../etc')
    """
    path = posixpath.normpath(posixpath.join(directory, name))
    return "" if path == "." else path
