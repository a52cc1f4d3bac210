"""What the page on compatibility says of other tools' annotations is what the code does."""

import re
from collections.abc import Iterator

import pytest

from fleet import annotation
from fleet.annotation import parse_flags
from fleet.object import Adopt, Apply, Flags
from tools.docs import ROOT

PAGE = (ROOT / "docs/reference/compatibility.md").read_text()
OWN = "fleet/"


def rows(heading: str) -> list[tuple[str, str, str]]:
    """Return annotation, value and the last column of a table's rows."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|(.*)$", section, re.MULTILINE)
    assert found, heading
    return found


def foreign_names() -> Iterator[str]:
    """Name what the code reads and is not of fleet."""
    names = (annotation.RECONCILE, annotation.PRUNE, annotation.SSA, annotation.FORCE, annotation.SUBSTITUTE)
    for each in (*names, annotation.HOOKS, (annotation.WAVE, annotation.SYNC_OPTIONS, annotation.RESOURCE_POLICY)):
        yield from (name for name in each if not name.startswith(OWN))


def meaning(name: str, value: str) -> Flags:
    """Return what an annotation asks for."""
    return parse_flags({name: value})


@pytest.mark.parametrize(("name", "value", "told"), rows("Honoured"))
def test_honoured(name: str, value: str, told: str) -> None:
    """A row's annotation means the same as fleet's own in its last column."""
    own = re.search(r"`(fleet/[a-z]+): ([a-z-]+)`", told)
    if own is not None:
        assert meaning(name, value) == meaning(own[1], own[2]) != Flags()
    elif "nothing" in told:
        assert meaning(name, value) == Flags()
    else:
        assert meaning(name, value) == Flags(wave=int(value))


@pytest.mark.parametrize(("name", "value", "told"), rows("Refused by name"))
def test_refused(name: str, value: str, told: str) -> None:
    """Hooks are recognised with their value."""
    assert meaning(name, value).hook == f"{name}: {value}"


@pytest.mark.parametrize(("name", "value", "told"), rows("Not honoured"))
def test_not_honoured(name: str, value: str, told: str) -> None:
    """The rest asks for nothing."""
    assert meaning(name, value) == Flags()


def test_sealed_documents() -> None:
    """What Flux and Sealed Secrets call staying encrypted, taking over and adding to means what the page says."""
    told = {name: value for name, value, _ in rows("Sealed documents")}
    assert set(told) == {annotation.DECRYPT[1], annotation.MANAGED, annotation.PATCH}
    assert annotation.is_opted_out_of_decryption({annotation.DECRYPT[1]: told[annotation.DECRYPT[1]]})
    assert meaning(annotation.MANAGED, "true") == Flags(adopt=Adopt.ALWAYS)
    assert meaning(annotation.PATCH, "true") == Flags(adopt=Adopt.ALWAYS, apply=Apply.MERGE)


def test_nothing_is_read_in_secret() -> None:
    """Every name and option of another tool that the code reads is on the page."""
    told = {name for heading in ("Honoured", "Refused by name") for name, _, _ in rows(heading)}
    assert set(foreign_names()) == told
    options = {value for name, value, _ in rows("Honoured") if name == annotation.SYNC_OPTIONS}
    assert options == annotation.KEEP_OPTIONS
