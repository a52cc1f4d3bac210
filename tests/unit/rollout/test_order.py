"""The order of a stage's clusters, and what an approval of the stage is for."""

from dataclasses import replace
from datetime import UTC, datetime

from msgspec.structs import replace as changed

from fleet.rollout.order import approval_digest, order_clusters
from fleet.rollout.policy import Policy, StagePolicy
from fleet.rollout.state import ClusterRun, ClusterState, Run

RULES = StagePolicy(environment="prod", staged=True, first=("c",), order_label="ring")
ORDER = ("c", "a", "b")
RUN = Run(
    id=1,
    app="shop",
    release=42,
    revision="f" * 40,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    clusters={name: ClusterRun(cluster=name, environment="prod", before=41) for name in "abc"},
)


def test_canaries_come_first_then_the_label_then_the_name() -> None:
    """Numbers are numbers, words come behind them, and a cluster without the label comes last."""
    rings = {"a": "10", "b": "9", "c": "99", "d": "late", "f": "9"}
    members = {name: ("prod", {"ring": ring}) for name, ring in rings.items()} | {"e": ("prod", {})}
    assert order_clusters(Policy(stages=(RULES,)), members)["prod"] == ["c", "b", "f", "a", "d", "e"]


def test_an_approval_is_for_release_clusters_order_and_rules() -> None:
    """Another of these is another plan."""
    known = approval_digest(RUN, RULES, ORDER)
    others = {
        approval_digest(changed(RUN, release=43), RULES, ORDER),
        approval_digest(changed(RUN, app="db"), RULES, ORDER),
        approval_digest(RUN, RULES, ("a", "b", "c")),
        approval_digest(RUN, replace(RULES, soak_s=60.0), ORDER),
        approval_digest(changed(RUN, clusters={"c": RUN.clusters["c"]}), RULES, ORDER),
    }
    assert len(others) == 5
    assert known not in others


def test_an_approval_lasts_while_clusters_move() -> None:
    """What has been done already, and clusters that take no part, are not in it."""
    moved = changed(RUN.clusters["c"], state=ClusterState.DONE, touched=True)
    later = changed(RUN, clusters={**RUN.clusters, "c": moved})
    assert approval_digest(later, RULES, (*ORDER, "d")) == approval_digest(RUN, RULES, ORDER)
