"""What stays in force when the directory changes: the pure heart of live reload.

Nothing goes out of force by accident. A file with a fault keeps the documents it had; a document that breaks a rule
between documents keeps its last good version; a document that vanished stays until the directory has been quiet, and
for as long as another document names it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fleet.errors import Problem
from fleet.inventory.check import Fault, check_entries, check_targets
from fleet.inventory.question import check_questions
from fleet.inventory.schema import Entry
from fleet.inventory.targeting import plan_targets
from fleet.inventory.value import Inventory, Key, Scan


def merge(previous: Inventory | None, scan: Scan, *, quiet: bool) -> Inventory:
    """Return the inventory that is in force after `scan`; removals count only when the directory is `quiet`."""
    draft = _Draft(previous=dict(previous.entries) if previous else {})
    bad = {path for path, file in scan.files.items() if file.problems}
    unknown = bad - (previous.known_files if previous else frozenset())
    _take_files(draft, scan, unknown)
    # A bad file that nobody has seen right may hold, under a new name, what seems to have vanished.
    pending = [] if quiet and not unknown else [key for key in draft.previous if key not in draft.entries]
    for key in pending:
        draft.entries[key] = draft.previous[key]
    _settle(draft)
    inventory = Inventory(
        directory=scan.directory,
        entries=dict(sorted(draft.entries.items())),
        digest=scan.digest,
        pending=tuple(sorted(pending)),
        known_files=frozenset(scan.files) - unknown,
        complete=not unknown and not draft.refused,
        quiet=quiet,
    )
    targets = plan_targets(inventory)
    in_files = [problem for file in scan.files.values() for problem in file.problems]
    problems = sorted(
        {*in_files, *draft.problems, *check_targets(targets.values()), *check_questions(targets.values())}
    )
    return replace(inventory, targets=targets, problems=tuple(problems))


@dataclass(slots=True)
class _Draft:
    """An inventory in the making."""

    previous: dict[Key, Entry]
    entries: dict[Key, Entry] = field(default_factory=dict)
    refused: dict[Key, Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def _take_files(draft: _Draft, scan: Scan, unknown: set[str]) -> None:
    """Take the documents of good files; then fill in from the last good version of bad ones.

    Of a bad file that was never right, what can be read is taken.
    """
    for path, file in scan.files.items():
        for entry in file.entries if not file.problems else ():
            _take(draft, path, entry)
    for path, file in scan.files.items():
        if file.problems:
            kept = [entry for entry in draft.previous.values() if entry.origin.file == path]
            for entry in file.entries if path in unknown else kept:
                draft.entries.setdefault(entry.key, entry)


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
            changed |= _yield_to(draft, fault)
            stays = fault.missing in draft.entries
            message = f"{fault.problem.message}; the removed one stays in force until then"
            problem = fault.problem._replace(message=message) if stays else fault.problem
            if problem[:4] not in seen:
                seen.add(problem[:4])
                draft.problems.append(problem)


def _yield_to(draft: _Draft, fault: Fault) -> bool:
    """Change the draft so that `fault` may end; return False where nothing can be changed."""
    entry, before = draft.entries.get(fault.key), draft.previous.get(fault.key)
    if entry is None:
        return False
    if before is None:
        draft.refused[fault.key] = draft.entries.pop(fault.key)
        return True
    if before is not entry and before != entry:
        draft.entries[fault.key] = before
        return True
    missing = draft.previous.get(fault.missing) if fault.missing else None
    if missing is None or missing.key in draft.entries:
        return False
    draft.entries[missing.key] = missing
    return True


def list_changes(before: Mapping[Key, Entry], after: Mapping[Key, Entry]) -> list[Key]:
    """Return kind and name of the documents that differ, sorted."""
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
