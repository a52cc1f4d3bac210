"""When a deletion waits for a person."""

import pytest

from fleet.errors import Invalid
from fleet.object import ObjectKey, TargetId
from fleet.reconcile.guard import Stakes, decide_held, digest_of, doomed_of, explain_refusals, takes_whole
from fleet.reconcile.plan import Action
from tests.unit.reconcile.test_summary import a_change, a_live

TARGET = TargetId("one", "shop")
GONE = ObjectKey("", "ConfigMap", "shop", "old-route")


def marks(count: int, prefix: str = "u") -> frozenset[str]:
    """Marks of ConfigMaps."""
    return frozenset(f"{prefix}{n} ConfigMap shop/c{n}" for n in range(count))


@pytest.mark.parametrize(
    ("count", "beside", "total", "of_app", "reason"),
    [
        (0, 9, 10, "all", None),
        (1, 0, 1, "some", None),
        (5, 0, 5, "some", None),
        (6, 0, 24, "some", None),
        (6, 0, 23, "some", "MassChange"),
        (1, 5, 23, "some", "MassChange"),
        (1, 5, 24, "some", None),
        (2, 0, 1000, "all", "MassChange"),
        (1, 0, 1000, "empty", "EmptyRender"),
        (300, 0, 1201, "some", None),
    ],
)
def test_what_is_held(count: int, beside: int, total: int, of_app: str, reason: str | None) -> None:
    """More than five and more than a quarter, all of an app, or an empty render."""
    whole, empty = of_app == "all", of_app == "empty"
    held = decide_held(Stakes(target=TARGET, doomed=marks(count), beside=beside, total=total, whole=whole, empty=empty))
    assert (held.reason if held else None) == reason


def test_an_approval_covers_what_is_left_of_it() -> None:
    """Some of it may be gone already; one object more, or another object of the same name, is another change."""
    total = 10
    approved = marks(8)
    for doomed, free in ((marks(8), True), (marks(6), True), (marks(9), False), (marks(8, "other"), False)):
        held = decide_held(Stakes(target=TARGET, doomed=doomed, total=total, approved=approved))
        assert (held is None) is free


def test_the_message_says_how_much_and_what_to_do() -> None:
    """Counts, the first objects, and the command with the digest."""
    held = decide_held(Stakes(target=TARGET, doomed=marks(7), total=9))
    assert held is not None
    assert "delete 7 of the 9 objects on one (ConfigMap shop/c0, ConfigMap shop/c1, ConfigMap shop/c2 and 4 more)" in (
        held.message
    )
    assert f"fleet approve one/shop --digest {digest_of(marks(7))} --reason" in held.message


def test_only_deletions_of_what_is_there_count() -> None:
    """What is let go, gone already or no prune at all deletes nothing."""
    there = a_live()
    changes = [
        a_change(Action.PRUNE, "NotInGit", live=there, manifest=None),
        a_change(Action.PRUNE, "Orphaned", live=there, orphan=True, manifest=None),
        a_change(Action.PRUNE, "Gone", live=None, manifest=None),
        a_change(Action.UNCHANGED, "InSync", live=there),
    ]
    assert doomed_of(changes) == {f"{there.uid} ConfigMap shop/a"}


OTHER = ObjectKey("", "ConfigMap", "shop", "b")
PRUNE = a_change(Action.PRUNE, "NotInGit", live=a_live(), manifest=None)
SECOND = {
    "none": ([], False),
    "deleted as well": ([a_change(Action.PRUNE, "NotInGit", key=OTHER, live=a_live(), manifest=None)], True),
    "being deleted": ([a_change(Action.SKIP, "Terminating", key=OTHER, manifest=None)], True),
    "let go": ([a_change(Action.PRUNE, "Orphaned", key=OTHER, live=a_live(), orphan=True, manifest=None)], False),
    "handed over": ([a_change(Action.SKIP, "HandedOver", key=OTHER, manifest=None)], False),
    "stays": ([a_change(Action.UNCHANGED, "InSync", key=OTHER)], False),
}


@pytest.mark.parametrize("second", SECOND)
def test_all_of_an_app_is_more_than_one_deletion_with_none_that_stays(second: str) -> None:
    """What becomes of a second object decides whether the deletion of the first takes all of the app."""
    others, whole = SECOND[second]
    assert takes_whole([PRUNE, *others]) is whole


@pytest.mark.parametrize(
    ("message", "hinted"),
    [
        ("host shop.example.com is taken by shop/old-route", True),
        ('conflicts with ConfigMap "old-route".', True),
        ("old-route-2 is not old", False),
        ("a is refused", False),
    ],
)
def test_a_refusal_that_names_what_would_be_pruned(message: str, hinted: bool) -> None:
    """The status then says so, and names the command."""
    failed = a_change(Action.CREATE, "Absent")
    changes = [failed, a_change(Action.PRUNE, "NotInGit", key=GONE, live=a_live(), manifest=None)]
    hints = explain_refusals(TARGET, changes, {failed.key: Invalid(message)})
    assert ("fleet prune one/shop --now" in hints.get(failed.key, "")) is hinted


def test_an_immutable_field_names_the_way_out() -> None:
    """The status says which annotation has the object made anew."""
    failed = a_change(Action.CONFIGURE, "Changed")
    hints = explain_refusals(TARGET, [failed], {failed.key: Invalid("field is immutable", reason="ImmutableField")})
    assert "fleet/force: enabled" in hints[failed.key]
