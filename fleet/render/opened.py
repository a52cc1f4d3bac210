"""Kustomize builds with sources encrypted with SOPS: which they are, and what must not be said about them. Pure.

They are opened by the hub, before the build, so that their MAC is checked over the very file and generated names follow
the values and not their ciphertext. Child side.
"""

from collections.abc import Iterable

from fleet.document import parse_documents
from fleet.errors import Problem, RenderError
from fleet.render.kustomize import Closure
from fleet.render.sealed import is_opted_out, is_sops_file
from fleet.render.source import SUFFIXES

HIDDEN = "is not valid; what exactly is not shown, since the build had opened values in it"
PASSING = frozenset({"KustomizeMissing", "RenderTimeout", "NotOnTmpfs", "EmptyRender", "TooLarge"})
"""Reasons of failures whose message is our own, without a word of the files."""


def find_sealed(closure: Closure) -> dict[str, bytes]:
    """Return the files that must be opened before the build, unless their objects ask to stay sealed."""
    return {path: data for path, data in closure.files.items() if is_sops_file(data) and not _is_opted_out(path, data)}


def _is_opted_out(path: str, data: bytes) -> bool:
    if b"/decrypt" not in data or not path.endswith(SUFFIXES):
        return False
    return any(is_opted_out(document.value) for document in parse_documents(data, path)[0])


def may_spread(closure: Closure, sealed: Iterable[str]) -> bool:
    """Tell whether opened values may end up in other objects than Secrets.

    They do not when they come from the sources of a secretGenerator or are Secrets themselves, and nothing copies them.
    """
    return closure.copies or any(not _stays_secret(closure, path) for path in sealed)


def _stays_secret(closure: Closure, path: str) -> bool:
    uses = closure.uses.get(path, set())
    if uses == {"secretGenerator"}:
        return True
    documents = parse_documents(closure.files[path], path)[0] if uses == {"resources"} else []
    return bool(documents) and all(_is_secret(document.value) for document in documents)


def _is_secret(value: object) -> bool:
    return isinstance(value, dict) and value.get("kind") == "Secret" and value.get("apiVersion") == "v1"


def hide_values(error: RenderError, root: str) -> RenderError:
    """Return the error without words that may quote an opened value: places stay."""
    if error.reason in PASSING:
        return error
    problems = [Problem(p.file, p.line, p.column, p.field, HIDDEN) for p in error.problems]
    hint = "open the files with `sops decrypt` and run `kustomize build` by hand to see more"
    return RenderError([*problems, Problem(root, 0, 0, "", hint)], reason=error.reason)
