"""What stays in force when the directory changes: the pure heart of live reload.

Nothing goes out of force by accident. A file with a fault keeps the documents it had; a document that breaks a rule
between documents keeps its last good version; a document that vanished stays until the directory has been quiet, and
for as long as another document names it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fleet.errors import Problem
from fleet.inventory.check import Fault, check_entries, check_targets
from fleet.inventory.schema import Entry
from fleet.inventory.value import File, Inventory, Key, Scan


def merge(previous: Inventory | None, scan: Scan, *, quiet: bool) -> Inventory:
    """Return the inventory that is in force after `scan`; removals count only when the directory is `quiet`."""
    draft = _Draft(previous=dict(previous.entries) if previous else {})
    partial = _find_partial(previous, scan)
    _take_files(draft, scan)
    pending = [] if quiet and not partial else [key for key in draft.previous if key not in draft.entries]
    for key in pending:
        draft.entries[key] = draft.previous[key]
    _settle(draft)
    inventory = Inventory(
        directory=scan.directory,
        entries=dict(sorted(draft.entries.items())),
        digest=scan.digest,
        pending=tuple(sorted(pending)),
        partial=partial,
        complete=not partial and not draft.refused,
        quiet=quiet,
    )
    problems = {*draft.problems, *(p for file in scan.files.values() for p in file.problems), *check_targets(inventory)}
    return inventory.with_problems(sorted(problems))


@dataclass(slots=True)
class _Draft:
    """An inventory in the making."""

    previous: dict[Key, Entry]
    entries: dict[Key, Entry] = field(default_factory=dict)
    refused: dict[Key, Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def _find_partial(previous: Inventory | None, scan: Scan) -> frozenset[str]:
    """Return the bad files of which something is missing: nobody knows which documents they were to hold."""
    bad = {path for path, file in scan.files.items() if file.problems}
    if previous is None:
        return frozenset(bad)
    known = {entry.origin.file for entry in previous.entries.values()}
    return frozenset(path for path in bad if path in previous.partial or path not in known)


def _take_files(draft: _Draft, scan: Scan) -> None:
    """Take the documents of good files; then fill in from the last good version of bad ones."""
    for path, file in scan.files.items():
        for entry in file.entries if not file.problems else ():
            _take(draft, path, entry)
    for path, file in scan.files.items():
        if file.problems:
            for entry in _last_good(draft, path, file):
                draft.entries.setdefault(entry.key, entry)


def _last_good(draft: _Draft, path: str, file: File) -> Iterator[Entry] | tuple[Entry, ...]:
    kept = [entry for entry in draft.previous.values() if entry.origin.file == path]
    return iter(kept) if kept else file.entries


def _take(draft: _Draft, path: str, entry: Entry) -> None:
    """Take a document; of two with one name the one in force stays, else the first."""
    other = draft.entries.get(entry.key)
    if other is None:
        draft.entries[entry.key] = entry
        return
    before = draft.previous.get(entry.key)
    stays, goes = (entry, other) if before is not None and before.origin.file == path else (other, entry)
    draft.entries[entry.key] = stays
    message = f"{entry.kind.lower()} {entry.name} is already defined at {stays.origin}"
    draft.problems.append(goes.problem(("metadata", "name"), message))


def _settle(draft: _Draft) -> None:
    """Put back or leave out documents until no fault between them is left that this could end."""
    seen: set[tuple[str, int, int, str]] = set()
    changed = True
    while changed:
        changed = False
        for fault in check_entries(draft.entries, refused=draft.refused, standing=draft.previous):
            problem = _yield_to(draft, fault)
            if problem is not None:
                changed = True
            place = (problem or fault.problem)[:4]
            if place not in seen:
                seen.add(place)
                draft.problems.append(problem or fault.problem)


def _yield_to(draft: _Draft, fault: Fault) -> Problem | None:
    """Change the draft so that `fault` may end; return the problem to show, None where nothing can be changed."""
    entry, before = draft.entries.get(fault.key), draft.previous.get(fault.key)
    if entry is None:
        return None
    if before is None:
        draft.refused[fault.key] = draft.entries.pop(fault.key)
        return fault.problem
    if before is not entry and before != entry:
        draft.entries[fault.key] = before
        return fault.problem
    missing = draft.previous.get(fault.missing) if fault.missing else None
    if missing is None or missing.key in draft.entries:
        return None
    draft.entries[missing.key] = missing
    return fault.problem._replace(message=f"{fault.problem.message}; the removed one stays in force until then")


def list_changes(before: Mapping[Key, Entry], after: Mapping[Key, Entry]) -> list[Key]:
    """Return kind and name of the documents that differ, sorted."""
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
