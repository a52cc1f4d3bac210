"""Runs `kustomize build` on a closure, in a private directory that holds nothing else. Child side only.

The tool gets no environment, no home, no network where the kernel allows, a deadline, and limits on memory, CPU and
what it may write. Its flags are fixed: plugins, functions and Helm stay off.
"""

import ctypes
import json
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.document import Document, Limits, parse_documents
from fleet.document import Path as FieldPath
from fleet.errors import Problem, RenderError
from fleet.object import Origin
from fleet.render.assembly import Place
from fleet.render.kustomize import Closure
from fleet.render.private import is_memory, opened_directory, private_directory
from fleet.render.source import MOST_APP_BYTES, SUFFIXES, join, too_large

ORIGIN = "config.kubernetes.io/origin"
_MEMORY_BYTES = 3 << 30
"""Address space, most of which a Go program reserves and never touches."""
_OUTPUT_BYTES = 64 << 20
_PR_SET_PDEATHSIG = 1
_MISSING = (
    "kustomize was not found; install it (or kubectl) on the hub's PATH, or name it with --kustomize / FLEET_KUSTOMIZE"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A binary that builds, and what tells this very file from another: path, size and time of change."""

    path: str
    identity: str

    @property
    def command(self) -> list[str]:
        """Return the words before the directory."""
        verb = "kustomize" if Path(self.path).name.startswith("kubectl") else "build"
        return [self.path, verb, "--load-restrictor", "LoadRestrictionsNone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build printed; `marked` tells whether each object carries the origin annotation that we asked for."""

    output: bytes
    warnings: tuple[Problem, ...]
    marked: bool


def find_tool(configured: str) -> Tool | None:
    """Return the configured binary, else `kustomize`, else `kubectl` on PATH."""
    for name in [configured] if configured else ["kustomize", "kubectl"]:
        path = shutil.which(name)
        if path is not None:
            state = Path(path).stat()
            return Tool(path=path, identity=f"{path}:{state.st_size}:{state.st_mtime_ns}")
    return None


def run_build(closure: Closure, tool: Tool | None, *, scratch: str, timeout_s: float, memory: str = "") -> Built:
    """Build a closure, on disk below `scratch`; below `memory` if that is given, since it holds opened values.

    Raises: RenderError (`KustomizeMissing`, `RenderTimeout`, `TooLarge`, `NotOnTmpfs`, or the tool's complaint).
    """
    if tool is None:
        raise RenderError([Problem(closure.root, 0, 0, "", _MISSING)], reason="KustomizeMissing")
    if memory and not is_memory(Path(memory)):
        message = f"it has sealed sources, and {memory} is not on tmpfs; name a directory that is with --tmpfs"
        raise RenderError([Problem(closure.root, 0, 0, "", message)], reason="NotOnTmpfs")
    with opened_directory(Path(memory)) if memory else private_directory(Path(scratch)) as private:
        marked = _write_files(closure, private / "tree")
        output, errors, code = _run(tool, closure, private, timeout_s)
    complaints = _clean(errors, str(private / "tree"))
    if code != 0:
        raise RenderError(_explain(closure, complaints, code))
    if len(output) > MOST_APP_BYTES:
        raise too_large(closure.root, f"the build has {len(output)} bytes; at most {MOST_APP_BYTES} are taken")
    warnings = tuple(Problem(closure.root, 0, 0, "", line) for line in complaints.splitlines() if line.strip())
    return Built(output=output, warnings=warnings, marked=marked)


def _write_files(closure: Closure, tree: Path) -> bool:
    """Write the files; return whether the built kustomization was asked to name each object's origin."""
    asked = _ask_for_origins(closure.files[closure.root])
    for file, data in {**closure.files, closure.root: asked}.items():
        place = tree / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return asked != closure.files[closure.root]


def _ask_for_origins(data: bytes) -> bytes:
    """Add `buildMetadata` to a block-style kustomization that has none; others are left as they are."""
    plain = re.search(rb"^(?:resources|kind|components|bases)[ \t]*:", data, re.MULTILINE)
    if (
        plain is None
        or b"buildMetadata" in data
        or re.search(rb"^(?:---|\.\.\.)[ \t]*$", data[plain.end() :], re.MULTILINE)
    ):
        return data
    return data.rstrip(b"\n ") + b"\nbuildMetadata: [originAnnotations]\n"


def _run(tool: Tool, closure: Closure, private: Path, timeout_s: float) -> tuple[bytes, str, int]:
    home = private / "home"
    home.mkdir()
    out, err = private / "out", private / "err"
    environment = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "TMPDIR": str(home), "PATH": "/nonexistent"}
    with out.open("wb") as stdout, err.open("wb") as stderr:
        try:
            done = subprocess.run(
                [*tool.command, f"./{closure.directory}"],
                cwd=private / "tree",
                env={**environment, "GOMEMLIMIT": "800MiB", "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                timeout=timeout_s,
                check=False,
                preexec_fn=_confine,  # safe: a worker has one thread
            )
        except subprocess.TimeoutExpired:
            problem = Problem(closure.root, 0, 0, "", f"the build took longer than {timeout_s:g} s and was ended")
            raise RenderError([problem], reason="RenderTimeout") from None
        except OSError as error:
            problem = Problem(closure.root, 0, 0, "", f"{tool.path} does not start: {error.strerror}")
            raise RenderError([problem], reason="KustomizeMissing") from error
    return out.read_bytes(), err.read_bytes()[:65536].decode(errors="replace"), done.returncode


def _confine() -> None:
    """Limit the tool, between fork and exec; it ends with the worker that started it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_OUTPUT_BYTES, _OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


_KLOG = re.compile(
    r'^[EWIF]\d{4} [^\]]*\] "command failed" err=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|<\n(?P<block>.*?)\n >)', re.DOTALL
)


def _clean(text: str, tree: str) -> str:
    """Return the tool's words with paths as the repository has them."""
    match = _KLOG.match(text)
    if match:
        quoted = match["quoted"]
        text = match["block"] if quoted is None else _unquote(quoted)
    text = text.strip().removeprefix("Error: ").replace(f"{tree}/", "").replace(tree, ".")
    return re.sub(r"^# Warning: ", "", text, flags=re.MULTILINE)


def _unquote(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:  # Go escapes more than JSON does
        return text


def _explain(closure: Closure, complaint: str, code: int) -> list[Problem]:
    """Return the faults of the files read, with their places; without any, what the tool said."""
    problems = [
        problem
        for file, data in closure.files.items()
        if file.endswith(SUFFIXES) and file.rpartition("/")[2] in complaint
        for problem in parse_documents(data, file)[1]
    ]
    message = complaint or (f"the build was ended by signal {-code}" if code < 0 else f"the build failed with {code}")
    return problems or [Problem(closure.root, 0, 0, "", message)]


class _Sources:
    """The documents that went into a build, read when something must be found in them."""

    def __init__(self, closure: Closure, *, marked: bool) -> None:
        self._closure = closure
        self._marked = marked
        self._documents: dict[str, list[Document]] = {}

    def take_file(self, value: object) -> str:
        """Return the file an object came from, removing the mark that said so; the built file when unknown."""
        metadata = value.get("metadata") if isinstance(value, dict) else None
        annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
        if not self._marked or not isinstance(metadata, dict) or not isinstance(annotations, dict):
            return self._closure.root
        mark = str(annotations.pop(ORIGIN, ""))
        if not annotations:
            del metadata["annotations"]
        match = _ORIGIN_PATH.search(mark)
        file = join(self._closure.directory, match[1]) if match else ""
        return file if file in self._closure.files else self._closure.root

    def find(self, file: str, value: object) -> Document | None:
        """Return the document of `file` that an object was made from; None when that is not certain."""
        if file not in self._documents:
            self._documents[file] = parse_documents(self._closure.files[file], file)[0]
        found = [document for document in self._documents[file] if _became(document.value, value)]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Generated:
    """The place of an object that Kustomize printed: the file it was made from, and its line where that is certain."""

    document: Document
    """As printed."""
    file: str
    sources: _Sources

    @property
    def origin(self) -> Origin:
        """The file; looking up the line would mean reading every source."""
        return Origin(self.file, 0)

    def find(self, path: FieldPath) -> tuple[str, int, int]:
        """Return file, line and column of a field as it was written before the build."""
        source = self.sources.find(self.file, self.document.value)
        return (self.file, *source.position(path)) if source is not None else (self.file, 0, 0)

    def is_plain(self, path: FieldPath) -> bool:
        """Tell whether the scalar was printed without quotes: the build forgets those that were written."""
        return self.document.is_plain(path)


def read_built(closure: Closure, built: Built, problems: list[Problem]) -> Iterator[tuple[Any, Place]]:
    """Yield the objects that a build printed."""
    limits = Limits(file_bytes=MOST_APP_BYTES)
    documents, found = parse_documents(built.output, f"(build of {closure.root})", limits=limits)
    problems += found
    sources = _Sources(closure, marked=built.marked)
    for document in documents:
        file = sources.take_file(document.value)
        yield document.value, Generated(document, file, sources)


_ORIGIN_PATH = re.compile(r"^(?:path|configuredIn): (.+)$", re.MULTILINE)


def _became(source: object, built: object) -> bool:
    """Tell whether a document can have become an object: the kind stays, the name may gain a prefix and a suffix."""
    if not isinstance(source, dict) or not isinstance(built, dict) or source.get("kind") != built.get("kind"):
        return False
    names = [value["metadata"].get("name") for value in (source, built) if isinstance(value.get("metadata"), dict)]
    return len(names) == 2 and str(names[0]) in str(names[1])
