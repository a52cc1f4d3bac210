"""Which commit a document asks for among a remote's refs."""

import pytest

from fleet.errors import RevisionMissing
from fleet.git.ref import choose, describe, describe_name, explain_missing, list_prefixes
from fleet.inventory.schema import Ref

A, B, C, D = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)
REFS = {
    "HEAD": A,
    "refs/heads/main": A,
    "refs/heads/main-2": B,
    "refs/tags/main": C,
    "refs/tags/v1.2.3": B,
    "refs/tags/1.10.0": C,
    "refs/tags/v2.0.0-rc.1": D,
    "refs/tags/nightly": D,
    "refs/heads/v1.99.0": D,
}


@pytest.mark.parametrize(
    ("ref", "name", "revision"),
    [
        (Ref(branch="main"), "refs/heads/main", A),
        (Ref(tag="main"), "refs/tags/main", C),
        (Ref(tag="nightly"), "refs/tags/nightly", D),
        (Ref(commit=D), "", D),
        (Ref(semver="1.x"), "refs/tags/1.10.0", C),
        (Ref(semver="~1.2"), "refs/tags/v1.2.3", B),
        (Ref(semver=">=1"), "refs/tags/1.10.0", C),
        (Ref(semver=">=2.0.0-0"), "refs/tags/v2.0.0-rc.1", D),
    ],
)
def test_a_ref_chooses_its_commit(ref: Ref, name: str, revision: str) -> None:
    """Branches and tags are apart, versions compare as numbers, and only tags are versions."""
    choice = choose(ref, REFS)
    assert (choice.ref, choice.revision) == (name, revision)


@pytest.mark.parametrize("ref", [Ref(branch="mai"), Ref(tag="v1"), Ref(semver=">=2"), Ref(semver="^3")])
def test_what_is_not_there_is_an_error(ref: Ref) -> None:
    """A beginning of a name is not the name, and a pre-release is in no plain range."""
    with pytest.raises(RevisionMissing):
        choose(ref, REFS)


def test_two_tags_of_one_version_are_chosen_between_alike() -> None:
    """Whatever order the remote lists them in, the same tag is chosen."""
    refs = {"refs/tags/1.0.0": A, "refs/tags/v1.0.0": B}
    backwards = dict(reversed(refs.items()))
    assert choose(Ref(semver="1.x"), refs) == choose(Ref(semver="1.x"), backwards)


def test_a_missing_ref_is_explained() -> None:
    """The nearest name, else what there is, else that the remote is empty."""
    assert explain_missing(Ref(branch="mian"), REFS) == "; did you mean main?"
    assert explain_missing(Ref(branch="zzz"), {"refs/heads/main": A}) == "; it has main"
    many = {f"refs/heads/b{number}": A for number in range(8)}
    assert explain_missing(Ref(branch="zzz"), many) == "; it has b0, b1, b2, b3, b4 and 3 more"
    assert explain_missing(Ref(tag="v1"), {"refs/heads/main": A}) == "; it has none"
    assert explain_missing(Ref(semver="^9"), REFS) == ""
    assert "empty" in explain_missing(Ref(branch="main"), {})


def test_no_more_is_listed_than_needed() -> None:
    """A branch or tag asks for itself, a range for tags, a commit for next to nothing."""
    asked = [list_prefixes(ref) for ref in (Ref(branch="a"), Ref(tag="b"), Ref(semver="*"), Ref(commit=A))]
    assert asked == [("refs/heads/a",), ("refs/tags/b",), ("refs/tags/",), ("HEAD",)]


def test_refs_are_said_as_people_say_them() -> None:
    """Status and messages name the kind of ref."""
    assert [describe(ref) for ref in (Ref(tag="v1"), Ref(semver="^1"), Ref(commit=A))] == [
        "tag v1",
        "version ^1",
        "commit aaaaaaa",
    ]
    assert [describe_name(name) for name in ("refs/heads/x/y", "refs/tags/v1", "HEAD")] == [
        "branch x/y",
        "tag v1",
        "HEAD",
    ]
