"""Which commit a Repository document asks for, among the refs of its remote. Pure."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from fleet.errors import RevisionMissing
from fleet.inventory.schema import Ref
from fleet.inventory.version import parse_range, parse_version
from fleet.object import short

HEADS, TAGS = "refs/heads/", "refs/tags/"
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A commit, and the full name of the ref that led to it; empty when the document names the commit itself."""

    ref: str
    revision: str


def list_prefixes(ref: Ref) -> tuple[str, ...]:
    """Return beginnings of ref names, to ask the remote for no more than `choose` needs."""
    if ref.branch is not None:
        return (HEADS + ref.branch,)
    if ref.tag is not None:
        return (TAGS + ref.tag,)
    return (TAGS,) if ref.semver is not None else ("HEAD",)


def choose(ref: Ref, refs: Mapping[str, str]) -> Choice:
    """Return what a document asks for. `refs` maps full names to commits.

    Raises: RevisionMissing.
    """
    if ref.commit is not None:
        return Choice(ref="", revision=ref.commit)
    if ref.semver is not None:
        return _choose_version(ref.semver, refs)
    name = HEADS + ref.branch if ref.branch is not None else TAGS + (ref.tag or "")
    if name not in refs:
        raise RevisionMissing(f"there is no {describe(ref)} in the remote")
    return Choice(ref=name, revision=refs[name])


def _choose_version(text: str, refs: Mapping[str, str]) -> Choice:
    wanted = parse_range(text)
    found = []
    for name in refs:
        version = parse_version(name.removeprefix(TAGS)) if name.startswith(TAGS) else None
        if version is not None and version in wanted:
            found.append((version, name))
    if not found:
        raise RevisionMissing(f"no tag of the remote is a version in {text!r}")
    highest = max(version for version, _ in found)
    # v1.2.3 and 1.2.3 are one version; the choice between them must at least be always the same
    name = max(name for version, name in found if version == highest)
    return Choice(ref=name, revision=refs[name])


def explain_missing(ref: Ref, refs: Mapping[str, str]) -> str:
    """Return what to add to the message of a missing ref, given all branches and tags of the remote."""
    if not refs:
        return "; the remote is empty: push a commit"
    if ref.branch is None and ref.tag is None:
        return ""
    prefix, wanted = (HEADS, ref.branch) if ref.branch is not None else (TAGS, ref.tag)
    names = sorted(name.removeprefix(prefix) for name in refs if name.startswith(prefix))
    close = difflib.get_close_matches(wanted or "", names, 1)
    if close:
        return f"; did you mean {close[0]}?"
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"; it has {', '.join(names[:_MOST_NAMED])}{more}" if names else "; it has none"


def describe(ref: Ref) -> str:
    """Return how people say it.

    >>> describe(Ref(branch="main"))
    'branch main'
    """
    if ref.branch is not None:
        return f"branch {ref.branch}"
    if ref.tag is not None:
        return f"tag {ref.tag}"
    return f"version {ref.semver}" if ref.semver is not None else f"commit {short(ref.commit or '')}"


def describe_name(ref: str) -> str:
    """Return a full ref name as people say it."""
    if ref.startswith(HEADS):
        return f"branch {ref.removeprefix(HEADS)}"
    return f"tag {ref.removeprefix(TAGS)}" if ref.startswith(TAGS) else ref
