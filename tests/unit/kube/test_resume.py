"""The transitions of a list+watch."""

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet.kube import resume
from fleet.kube.resume import Phase, State, Step, Tell

WATCHING = State(phase=Phase.WATCHING, rv="100", heard=True)


def test_streaming_list_then_watch() -> None:
    """A streaming list restarts the view, completes at its bookmark, and goes on in the same connection."""
    first = resume.connected(State())
    assert first.tell == (Tell.RESTARTED,)
    seen = resume.changed(first.state, "5")
    assert seen.tell == ()
    assert seen.state.rv == ""
    plain = resume.bookmarked(seen.state, "6", initial_end=False)
    assert plain.state.phase is Phase.LISTING
    done = resume.bookmarked(plain.state, "7", initial_end=True)
    assert (done.state.phase, done.state.rv, done.tell, done.close) == (Phase.WATCHING, "7", (Tell.SYNCED,), False)


def test_events_and_bookmarks_move_the_position() -> None:
    """The position follows events and bookmarks alike."""
    assert resume.changed(WATCHING, "101").state.rv == "101"
    assert resume.bookmarked(WATCHING, "150", initial_end=False).state.rv == "150"


def test_backwards_position_means_a_rewound_history() -> None:
    """An event from before our position cannot be: the server was restored from a backup."""
    step = resume.changed(WATCHING, "99")
    assert (step.state.phase, step.state.rv, step.close) == (Phase.LISTING, "", True)


def test_positions_that_are_no_numbers_are_not_compared() -> None:
    """An aggregated API may use opaque positions; equality is all they offer."""
    step = resume.changed(replace(WATCHING, rv="zz"), "aa")
    assert (step.state.rv, step.close) == ("aa", False)


def test_clean_end_resumes_without_a_pause() -> None:
    """A server ends watches all the time; that is no failure."""
    step = resume.ended(WATCHING)
    assert step.state == WATCHING
    assert step.tell == ()


def test_three_silent_ends_list_again() -> None:
    """Some servers close a watch at a stale position instead of answering 410."""
    state = replace(WATCHING, heard=False)
    for _ in range(2):
        state = resume.ended(state).state
        assert state.phase is Phase.WATCHING
        state = resume.connected(state).state
    assert resume.ended(state).state.phase is Phase.LISTING


def test_broken_connection_probes_before_resuming() -> None:
    """After an outage the server may be another one; its history must reach our position."""
    step = resume.failed(WATCHING)
    assert (step.state.phase, step.tell) == (Phase.PROBING, (Tell.STALLED,))
    reached = resume.probed(step.state, reached=True)
    assert reached.state.phase is Phase.WATCHING
    assert resume.connected(reached.state).tell == (Tell.RESUMED,)
    state = step.state
    for _ in range(2):
        state = resume.probed(state, reached=False).state
        assert state.phase is Phase.PROBING
    assert resume.probed(state, reached=False).state.phase is Phase.LISTING


def test_no_probe_without_a_number() -> None:
    """An opaque position cannot be probed."""
    assert resume.failed(replace(WATCHING, rv="zz")).state.phase is Phase.WATCHING


def test_refused_streaming_pages() -> None:
    """A server without streaming lists is paged, also at the next relist."""
    state = resume.unsupported(State()).state
    assert state.phase is Phase.PAGING
    state = resume.listed(resume.connected(state).state, "9").state
    assert resume.expired(state).state.phase is Phase.PAGING


def test_relist_after_expiry_is_told() -> None:
    """The view is restarted when the new list connects, not before: until then the old one stands."""
    expired = resume.expired(WATCHING)
    assert expired.tell == ()
    assert resume.connected(expired.state).tell == (Tell.RESTARTED,)


@given(st.integers(0, 10_000))
def test_pauses_grow_and_are_bounded(failures: int) -> None:
    """A pause never shrinks with more failures and never exceeds half a minute."""
    assert resume.pause_s(failures) <= resume.pause_s(failures + 1) <= 30.0


class Life(RuleBasedStateMachine):
    """Any order of happenings: what the sink is told makes sense, and no state is a dead end."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.open = False
        self.told: list[Tell] = []
        self.rv = 100

    def take(self, step: Step) -> None:
        self.state = step.state
        self.told += step.tell
        if step.close:
            self.open = False

    @precondition(lambda self: not self.open and self.state.phase is not Phase.PROBING)
    @rule()
    def connect(self) -> None:
        self.open = True
        self.take(resume.connected(self.state))

    @precondition(lambda self: self.open)
    @rule(back=st.sampled_from([0, 0, 0, 50]))
    def change(self, back: int) -> None:
        self.rv += 1
        self.take(resume.changed(self.state, str(self.rv - back)))

    @precondition(lambda self: self.open)
    @rule(end=st.booleans())
    def bookmark(self, end: bool) -> None:
        self.rv += 1
        self.take(resume.bookmarked(self.state, str(self.rv), initial_end=end))

    @precondition(lambda self: self.open and self.state.phase is Phase.PAGING)
    @rule()
    def page_done(self) -> None:
        self.take(resume.listed(self.state, str(self.rv)))
        self.open = False

    @precondition(lambda self: self.open)
    @rule()
    def end(self) -> None:
        self.open = False
        self.take(resume.ended(self.state))

    @rule()
    def fail(self) -> None:
        self.open = False
        self.take(resume.failed(self.state))

    @rule()
    def expire(self) -> None:
        self.open = False
        self.take(resume.expired(self.state))

    @precondition(lambda self: self.state.phase is Phase.LISTING)
    @rule()
    def refuse_streaming(self) -> None:
        self.open = False
        self.take(resume.unsupported(self.state))

    @precondition(lambda self: self.state.phase is Phase.PROBING)
    @rule(reached=st.booleans())
    def probe(self, reached: bool) -> None:
        self.open = False
        self.take(resume.probed(self.state, reached=reached))

    @invariant()
    def synced_only_after_restarted(self) -> None:
        views = [t for t in self.told if t in (Tell.RESTARTED, Tell.SYNCED)]
        assert not views or views[0] is Tell.RESTARTED
        assert all(pair != (Tell.SYNCED, Tell.SYNCED) for pair in itertools.pairwise(views))

    @invariant()
    def stalled_is_told_before_resumed(self) -> None:
        states = [t for t in self.told if t in (Tell.STALLED, Tell.RESUMED)]
        assert not states or states[0] is Tell.STALLED
        assert all(pair != (Tell.RESUMED, Tell.RESUMED) for pair in itertools.pairwise(states))
        assert self.state.stalled == bool(states and states[-1] is Tell.STALLED)

    @invariant()
    def watching_has_a_position(self) -> None:
        assert (self.state.phase in (Phase.WATCHING, Phase.PROBING)) == bool(self.state.rv)


TestLife = Life.TestCase
