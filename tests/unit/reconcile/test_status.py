"""The state of a target: first match wins."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.reconcile.status import Facts, State, Why, decide_state

RANKED = ("stale", "failed", "paused", "drifted", "waiting", "degraded", "progressing")
STATES = {name: State(name.capitalize()) for name in RANKED}


def why(name: str) -> Why:
    """A reason that can be told from others."""
    return Why(reason=name.capitalize(), message=f"because of {name}")


@pytest.mark.parametrize("name", RANKED)
def test_one_fact_decides(name: str) -> None:
    """Each fact by itself makes its state, with its reason and sentence."""
    condition = decide_state(Facts(contacted=True, **{name: why(name)}))
    assert condition.state is STATES[name]
    assert (condition.reason, condition.message) == (name.capitalize(), f"because of {name}")


@pytest.mark.parametrize(("first", "second"), list(pairwise(RANKED)))
def test_the_earlier_wins(first: str, second: str) -> None:
    """Of two facts the one that stands earlier in the design's list decides."""
    assert decide_state(Facts(contacted=True, **{first: why(first), second: why(second)})).state is STATES[first]


@given(st.booleans(), st.sets(st.sampled_from(RANKED)))
def test_first_match_wins(contacted: bool, names: set[str]) -> None:
    """Whatever is known, the first of the list decides; never contacted comes before everything."""
    state = decide_state(Facts(contacted=contacted, **{name: why(name) for name in names})).state
    expected = next((STATES[name] for name in RANKED if name in names), State.SYNCED)
    assert state is (expected if contacted else State.UNKNOWN)


def test_a_cluster_never_contacted_says_why() -> None:
    """Unknown carries the reason of what keeps us from it."""
    assert decide_state(Facts(contacted=False)).reason == "NotContacted"
    assert decide_state(Facts(contacted=False, stale=why("stale"))).message == "because of stale"
