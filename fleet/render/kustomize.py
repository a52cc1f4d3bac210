"""Kustomize: which files a build reads. Pure; `build` runs it.

The closure is computed from the kustomization files alone, so a build cannot read what the cache does not know of, and
what could run code or leave the repository (remote bases, plugins, functions, Helm) is refused by name before any tool
starts.

Source: sigs.k8s.io/kustomize/api/types `Kustomization`; `kustomize build` searches resources as file, then directory.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.document import Document, Path, parse_documents
from fleet.errors import Problem, RenderError
from fleet.render.source import KUSTOMIZATION_NAMES, SUFFIXES, Budget, Files, Node, join

_FILES_OR_DIRECTORIES = ("resources", "components", "bases")
_FILES = ("crds", "configurations")
_FILES_OR_INLINE = ("patchesStrategicMerge",)
_PLUGINS = ("generators", "transformers", "validators")
_WITH_PATH = ("patches", "patchesJson6902", "replacements")
_GENERATORS = ("configMapGenerator", "secretGenerator")
_COPIES = ("replacements", "vars")
_HELM = ("helmCharts", "helmChartInflationGenerator", "helmGlobals")
_FUNCTION = ("config.kubernetes.io/function", "config.k8s.io/function")
_REMOTE = re.compile(
    r"\w+://|git@|git::|gh:|[\w.-]+@[\w.-]+:|[^/]*\.(?:com|org|net|io|dev)[/:]|.*[?&](?:ref|version|timeout|submodules)=|.*\.git(?:[/?]|$)"
)
_NOT_HERE = "is not in this revision"


@dataclass(slots=True)
class Closure:
    """What a build reads: `files` by path from the repository's root, `root` the kustomization that is built."""

    root: str
    directory: str
    files: dict[str, bytes] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    uses: Mapping[str, set[str]] = field(default_factory=dict)
    """In which fields of kustomization files each file is named."""
    copies: bool = False
    """Values may be copied between objects (`replacements`, `vars`)."""


@dataclass(frozen=True, slots=True)
class _Reference:
    """A path written in a kustomization file."""

    field: Path
    text: Any
    allows: str
    """`file`, `any` (file or directory), `inline` (file or YAML in place), `plugin` (any or inline)."""


def find_closure(files: Files, directory: str) -> Closure:
    """Return every file that `kustomize build` of a directory reads.

    Raises: RenderError listing all that is missing or refused; TreeRefused.
    """
    search = _Search(files)
    root = search.directory(directory, ())
    search.check_aliases()
    if search.problems:
        raise RenderError(search.problems)
    assert root is not None
    return Closure(root=root, directory=directory, files=search.found, uses=search.uses, copies=search.copies)


class _Search:
    def __init__(self, files: Files) -> None:
        self.found: dict[str, bytes] = {}
        self.problems: list[Problem] = []
        self.uses: dict[str, set[str]] = {}
        self.copies = False
        self._files = files
        self._budget = Budget()
        self._done: set[str] = set()

    def directory(self, path: str, chain: tuple[str, ...]) -> str | None:
        """Read a kustomization directory and all it refers to; return its kustomization file."""
        if path in self._done:
            return None
        self._done.add(path)
        names = [name for name in KUSTOMIZATION_NAMES if self._files.kind(join(path, name)) is Node.FILE]
        if len(names) != 1:
            message = f"has both {' and '.join(names)}; keep one" if names else "has no kustomization.yaml"
            self.problems.append(Problem(path or ".", 0, 0, "", f"the directory {message}"))
            return None
        file = join(path, names[0])
        document = self._read_kustomization(file)
        if document is not None:
            self.copies |= any(name in document.value for name in _COPIES)
            for reference in self._list_references(document):
                self._follow(document, reference, path, (*chain, path))
        return file

    def check_aliases(self) -> None:
        """Refuse files whose aliases expand to too much: the tool would spend its whole deadline on them."""
        for file, data in self.found.items():
            if file.endswith(SUFFIXES) and b"&" in data and b"*" in data:
                faults = parse_documents(data, file)[1]
                self.problems += [fault for fault in faults if fault not in self.problems]

    def _read_kustomization(self, file: str) -> Document | None:
        documents, problems = parse_documents(self._read(file), file)
        self.problems += problems
        if problems:
            return None
        if len(documents) != 1 or not isinstance(documents[0].value, dict):
            self.problems.append(Problem(file, 1, 1, "", "a kustomization file holds exactly one mapping"))
            return None
        for name in _HELM:
            if documents[0].value.get(name):
                message = "Helm charts are not inflated here; commit the output of `helm template` instead"
                self._problem(documents[0], (name,), message)
        return documents[0]

    def _read(self, file: str) -> bytes:
        if file not in self.found:
            self.found[file] = self._budget.read(self._files, file)
        return self.found[file]

    def _list_references(self, document: Document) -> Iterator[_Reference]:
        value = document.value
        for names, allows in (
            (_FILES_OR_DIRECTORIES, "any"),
            (_FILES, "file"),
            (_FILES_OR_INLINE, "inline"),
            (_PLUGINS, "plugin"),
        ):
            for name in names:
                for index, text in enumerate(_list(value.get(name))):
                    yield _Reference((name, index), text, allows)
        yield from _list_nested(value, ())

    def _follow(self, document: Document, reference: _Reference, base: str, chain: tuple[str, ...]) -> None:
        text = reference.text
        if not isinstance(text, str) or not text:
            self._problem(document, reference.field, "must be a path")
            return
        inline = reference.allows in ("inline", "plugin")
        if inline and ("\n" in text.strip() or text.lstrip().startswith("{")):
            if reference.allows == "plugin":
                self._check_plugins(text.encode(), document.file, base, chain, holder=(document, reference.field))
            return
        path = self._resolve(document, reference, base)
        if path is None:
            return
        node = self._files.kind(path)
        if node is Node.FILE:
            data = self._read(path)
            self.uses.setdefault(path, set()).add(str(reference.field[0]))
            if reference.allows == "plugin":
                self._check_plugins(data, path, base, chain)
        elif node is Node.DIRECTORY and reference.allows in ("any", "plugin"):
            self._enter(document, reference, path, chain)
        elif node is Node.DIRECTORY:
            self._problem(document, reference.field, f"{text} is a directory where a file is wanted")
        elif _REMOTE.match(text):
            self._refuse_remote(document, reference)
        else:
            self._problem(document, reference.field, f"{path} {_NOT_HERE}")

    def _resolve(self, document: Document, reference: _Reference, base: str) -> str | None:
        """Return the path that a reference names; None after recording why it names none."""
        text = str(reference.text)
        if "://" in text or text.startswith(("git@", "git::")):
            self._refuse_remote(document, reference)
        elif text.startswith("/") or "\\" in text or "\0" in text:
            self._problem(document, reference.field, f"{text!r} is not a relative path with forward slashes")
        elif (path := join(base, text)) == ".." or path.startswith("../"):
            self._problem(document, reference.field, f"{text} leads out of the repository")
        else:
            return path
        return None

    def _enter(self, document: Document, reference: _Reference, path: str, chain: tuple[str, ...]) -> None:
        if path in chain:
            loop = " -> ".join(part or "." for part in (*chain[chain.index(path) :], path))
            self._problem(document, reference.field, f"a cycle of directories: {loop}")
        else:
            self.directory(path, chain)

    def _refuse_remote(self, document: Document, reference: _Reference) -> None:
        message = f"{reference.text} is remote; nothing is fetched during a render: copy it into the repository"
        self._problem(document, reference.field, message)

    def _check_plugins(
        self,
        data: bytes,
        file: str,
        base: str,
        chain: tuple[str, ...],
        holder: tuple[Document, Path] | None = None,
    ) -> None:
        """Read the configuration of built-in generators and transformers; refuse every other plugin."""
        documents, problems = parse_documents(data, file)
        self.problems += (
            problems if holder is None else [Problem(file, 0, 0, str(holder[1][0]), p.message) for p in problems]
        )
        for document in documents:
            at = holder or (document, ())
            refusal = _find_refusal(document.value)
            if refusal:
                self._problem(*at, refusal)
                continue
            for reference in _list_nested({"patches": [document.value], "configMapGenerator": [document.value]}, ()):
                place = at if holder else (document, reference.field[2:])
                self._follow(place[0], _Reference(place[1], reference.text, reference.allows), base, chain)

    def _problem(self, document: Document, at: Path, message: str) -> None:
        problem = Problem(document.file, *document.position(at), ".".join(str(part) for part in at), message)
        if problem not in self.problems:
            self.problems.append(problem)


def _find_refusal(value: Any) -> str:
    """Return why a generator's or transformer's configuration is not run; empty when it is Kustomize's own."""
    if not isinstance(value, dict):
        return "a generator or transformer is a mapping"
    kind = str(value.get("kind"))
    metadata = value.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    if isinstance(annotations, dict) and any(name in annotations for name in _FUNCTION):
        return f"{kind} is a function plugin; plugins are not run"
    if "Helm" in kind:
        return f"{kind} inflates a Helm chart; commit the output of `helm template` instead"
    if value.get("apiVersion") != "builtin":
        return f"{kind} of {value.get('apiVersion')} is not one of Kustomize's own; plugins are not run"
    return ""


def _list_nested(value: Mapping[str, Any], at: Path) -> Iterator[_Reference]:
    """Yield the paths that stand deeper in a kustomization file."""
    for name in _WITH_PATH:
        for index, entry in enumerate(_list(value.get(name))):
            if isinstance(entry, dict):
                yield from _list_patch(entry, (*at, name, index))
    for name in _GENERATORS:
        for index, entry in enumerate(_list(value.get(name))):
            if isinstance(entry, dict):
                yield from _list_sources(entry, (*at, name, index))
    openapi = value.get("openapi")
    if isinstance(openapi, dict) and openapi.get("path"):
        yield _Reference((*at, "openapi", "path"), openapi["path"], "file")


def _list_patch(entry: Mapping[str, Any], at: Path) -> Iterator[_Reference]:
    if entry.get("path"):
        yield _Reference((*at, "path"), entry["path"], "file")
    for index, text in enumerate(_list(entry.get("paths"))):
        yield _Reference((*at, "paths", index), text, "inline")
    for index, below in enumerate(_list(entry.get("replacements"))):
        if isinstance(below, dict) and below.get("path"):
            yield _Reference((*at, "replacements", index, "path"), below["path"], "file")


def _list_sources(entry: Mapping[str, Any], at: Path) -> Iterator[_Reference]:
    for name in ("files", "envs"):
        for index, text in enumerate(_list(entry.get(name))):
            path = text.rpartition("=")[2] if name == "files" and isinstance(text, str) else text
            yield _Reference((*at, name, index), path, "file")
    if entry.get("env"):
        yield _Reference((*at, "env"), entry["env"], "file")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
