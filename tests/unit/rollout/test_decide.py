"""What a rollout does next, case by case."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fleet.errors import TargetError
from fleet.rollout.policy import (
    Amount,
    Approval,
    Check,
    HttpProbe,
    OnFailure,
    OnNewRelease,
    OnUnreachable,
    Policy,
    StagePolicy,
    Window,
)
from fleet.rollout.state import RunState, StageState
from fleet.rollout.verb import Abort, Approve, Pause, Promote, Resume, Retry, Rollback, Skip
from tests.unit.rollout.world import Node, World

SMOKE = Check(name="smoke", question=HttpProbe(url="http://x/"), interval_s=10, count=2)


def stage(name: str, *after: str, **rules: object) -> StagePolicy:
    """A stage with rules of its own."""
    return replace(StagePolicy(environment=name, after=after, staged=True), **rules)  # type: ignore[arg-type]


def world(*stages: StagePolicy, count: int = 1) -> World:
    """`count` clusters per stage: dev1, dev2 ..."""
    nodes = {f"{s.environment}{i}": Node(environment=s.environment) for s in stages for i in range(1, count + 1)}
    made = World(policy=Policy(stages=stages), nodes=nodes)
    made.settle()
    return made


def test_the_next_stage_waits_for_the_one_before() -> None:
    """A stage begins when every cluster of those before it is Done."""
    w = world(stage("dev"), stage("prod", "dev"), count=2)
    assert w.states() == {"dev1": "Applying", "dev2": "Applying", "prod1": "Pending", "prod2": "Pending"}
    w.work("dev1")
    assert w.states()["prod1"] == "Pending"
    w.work("dev2")
    assert w.states() == {"dev1": "Done", "dev2": "Done", "prod1": "Applying", "prod2": "Applying"}
    w.work()
    assert w.run.state is RunState.SUCCEEDED


def test_stages_are_a_graph() -> None:
    """Two stages after one run side by side, and one after both waits for both."""
    w = world(stage("a"), stage("b", "a"), stage("c", "a"), stage("d", "b", "c"))
    w.work()
    assert (w.states()["b1"], w.states()["c1"], w.states()["d1"]) == ("Applying", "Applying", "Pending")
    w.work("b1")
    assert w.states()["d1"] == "Pending"
    w.work("c1")
    assert w.states()["d1"] == "Applying"


def test_batches_widen() -> None:
    """Of ten clusters one goes first, then one more makes a fifth, then the rest."""
    batches = (Amount(count=1), Amount(percent=20), Amount(percent=100))
    w = world(stage("dev", batches=batches), count=10)
    assert list(w.states().values()).count("Applying") == 1
    w.work()
    assert list(w.states().values()).count("Applying") == 1
    w.work()
    assert list(w.states().values()).count("Applying") == 8


def test_canaries_and_labels_order_clusters() -> None:
    """`first` comes first, whatever it is called."""
    w = world(stage("dev", batches=(Amount(count=1), Amount(percent=100)), first=("dev3",)), count=3)
    assert w.states() == {"dev1": "Pending", "dev2": "Pending", "dev3": "Applying"}


def test_starts_keep_their_pace() -> None:
    """One start, then the interval, then the next."""
    w = world(stage("dev", pace_s=60), count=3)
    assert list(w.states().values()).count("Applying") == 1
    w.sleep(59)
    assert list(w.states().values()).count("Applying") == 1
    w.sleep(2)
    assert list(w.states().values()).count("Applying") == 2


def test_a_soak_begins_anew_after_a_flap() -> None:
    """Health must last for the soak without a break, from the acknowledgement of this release on."""
    w = world(stage("dev", soak_s=100))
    w.sleep(500)
    assert w.states() == {"dev1": "Applying"}
    w.work()
    assert w.states() == {"dev1": "Soaking"}
    w.sleep(90)
    w.change("dev1", healthy=False)
    w.settle()
    assert w.states() == {"dev1": "Verifying"}
    w.change("dev1", healthy=True)
    w.sleep(99)
    assert w.states() == {"dev1": "Soaking"}
    w.sleep(2)
    assert w.run.state is RunState.SUCCEEDED


def test_a_cluster_has_until_its_deadline() -> None:
    """What is not healthy in time has failed, and the message says what was missing."""
    w = world(stage("dev", deadline_s=60))
    w.sleep(59)
    assert w.states() == {"dev1": "Applying"}
    w.sleep(2)
    assert (w.states(), w.run.state) == ({"dev1": "Failed"}, RunState.PAUSED)
    assert (w.run.reason, "dev1: not healthy within 60 s" in w.run.message) == ("DeadlineExceeded", True)


def test_a_stage_has_a_deadline_too() -> None:
    """A stage that takes too long stops the run; resumed, it has its time once more."""
    w = world(stage("dev", deadline_s=1000, stage_deadline_s=60))
    w.sleep(61)
    assert (w.run.state, w.run.reason) == (RunState.PAUSED, "StageDeadlineExceeded")
    w.obey(Resume())
    w.begun["dev"] = w.now_s
    w.sleep(30)
    assert w.run.state is RunState.RUNNING


def test_the_budget_counts_what_this_run_broke() -> None:
    """One of three may break; one that was broken before does not count."""
    w = World(
        policy=Policy(stages=(stage("dev", failure_budget=Amount(count=1)),)),
        nodes={f"dev{i}": Node(environment="dev", healthy=i != 1) for i in (1, 2, 3)},
    )
    w.settle()
    w.change("dev1", failure="still broken")
    w.change("dev2", failure="crash")
    w.settle()
    assert (w.run.state, w.states()["dev1"], w.states()["dev2"]) == (RunState.RUNNING, "Failed", "Failed")
    w.change("dev3", failure="crash")
    w.settle()
    assert w.run.state is RunState.PAUSED


def test_failure_goes_back_once() -> None:
    """Touched clusters get back what they had, without soaks; tried again by hand, the second failure pauses."""
    w = world(stage("dev", on_failure=OnFailure.ROLLBACK, soak_s=100), stage("prod", "dev"), count=2)
    w.change("dev1", failure="crash")
    w.settle()
    assert (w.run.state, w.run.returning) == (RunState.RUNNING, True)
    assert w.states() == {"dev1": "RolledBack", "dev2": "RolledBack", "prod1": "Pending", "prod2": "Pending"}
    assert w.nodes["dev1"].given == 1
    w.work("dev1", "dev2")
    assert (w.run.state, w.run.reason) == (RunState.ROLLED_BACK, "CrashLoopBackOff")
    w.sleep(10_000)
    assert w.run.state is RunState.ROLLED_BACK
    w.obey(Retry())
    w.settle()
    w.change("dev1", failure="crash")
    w.settle()
    assert (w.run.state, w.states()["dev1"]) == (RunState.PAUSED, "Failed")


def test_going_back_may_fail_too() -> None:
    """A cluster that is not healthy with what it had, either, is said so."""
    w = world(stage("dev", on_failure=OnFailure.ROLLBACK, deadline_s=60))
    w.change("dev1", failure="crash")
    w.sleep(61)
    assert (w.run.state, w.run.reason) == (RunState.FAILED, "RollbackIncomplete")


def test_a_first_release_has_nothing_to_go_back_to() -> None:
    """Without an earlier release a cluster keeps what it got, and the run says so."""
    w = World(
        policy=Policy(stages=(stage("dev", on_failure=OnFailure.ROLLBACK),)),
        nodes={"dev1": Node(environment="dev", given=0, acknowledged=False)},
    )
    w.settle()
    w.change("dev1", failure="crash")
    w.settle()
    assert (w.run.state, w.run.reason, w.states()) == (RunState.FAILED, "NothingToReturnTo", {"dev1": "Failed"})


@pytest.mark.parametrize(
    ("rule", "state", "run"),
    [
        (OnUnreachable.DEFER, "Deferred", RunState.RUNNING),
        (OnUnreachable.WAIT, "Held", RunState.RUNNING),
        (OnUnreachable.FAIL, "Failed", RunState.PAUSED),
    ],
)
def test_what_cannot_be_reached(rule: OnUnreachable, state: str, run: RunState) -> None:
    """A cluster out of reach is left for later, waited for, or a failure, as the policy says."""
    w = World(
        policy=Policy(stages=(stage("dev", on_unreachable=rule),)),
        nodes={"dev1": Node(environment="dev", reachable=False), "dev2": Node(environment="dev")},
    )
    w.settle()
    w.work("dev2")
    assert w.states()["dev1"] == state
    assert w.run.state is (RunState.SUCCEEDED if rule is OnUnreachable.DEFER else run)


def test_waiting_for_the_unreachable_has_an_end() -> None:
    """With a longest wait the cluster fails when it is over."""
    w = World(
        policy=Policy(stages=(stage("dev", on_unreachable=OnUnreachable.WAIT, unreachable_wait_s=300),)),
        nodes={"dev1": Node(environment="dev", reachable=False)},
    )
    w.sleep(299)
    assert w.states() == {"dev1": "Held"}
    w.sleep(2)
    assert (w.states(), w.run.state) == ({"dev1": "Failed"}, RunState.PAUSED)


@pytest.mark.parametrize(
    ("rule", "state", "cluster"),
    [(OnFailure.PAUSE, RunState.PAUSED, "Failed"), (OnFailure.ROLLBACK, RunState.RUNNING, "RolledBack")],
)
def test_a_batch_that_broke_as_a_whole_stops_the_run(rule: OnFailure, state: RunState, cluster: str) -> None:
    """A canary that breaks is the end of it, though the budget would bear it: nothing could open the next batch."""
    rules = stage("prod", batches=(Amount(count=1),), failure_budget=Amount(count=2), on_failure=rule)
    w = world(rules, count=4)
    w.change("prod1", failure="crash")
    w.settle()
    assert (w.run.state, w.states()["prod1"], w.states()["prod2"]) == (state, cluster, "Pending")
    assert "prod1: crash (none of prod's clusters so far could be verified)" in w.run.message


def test_who_resumes_after_a_broken_batch_is_told_what_it_waits_for() -> None:
    """A failure that is forgiven stops nothing, and opens nothing either."""
    w = world(stage("prod", batches=(Amount(count=1),), failure_budget=Amount(count=2)), count=2)
    w.change("prod1", failure="crash")
    w.settle()
    w.obey(Resume())
    w.settle()
    assert (w.run.state, w.states()["prod2"], w.run.stages[0].reason) == (
        RunState.RUNNING,
        "Pending",
        "NothingVerified",
    )
    w.obey(Skip(cluster="prod1"))
    w.settle()
    assert w.states() == {"prod1": "Skipped", "prod2": "Applying"}


@pytest.mark.parametrize("rule", list(OnUnreachable))
def test_being_out_of_reach_costs_nothing_before_its_turn(rule: OnUnreachable) -> None:
    """A cluster that is back when its stage begins takes part like any other, however long it was away."""
    late = stage("prod", "dev", on_unreachable=rule, unreachable_wait_s=60)
    w = World(
        policy=Policy(stages=(stage("dev"), late)),
        nodes={"dev1": Node(environment="dev"), "prod1": Node(environment="prod", reachable=False)},
    )
    w.sleep(600)
    assert (w.states()["prod1"], w.run.state) == ("Pending", RunState.RUNNING)
    w.change("prod1", reachable=True)
    w.work("dev1")
    assert w.states() == {"dev1": "Done", "prod1": "Applying"}


def test_a_wait_is_counted_from_the_turn() -> None:
    """What was away before its stage began is waited for as long as what goes away then."""
    late = stage("prod", "dev", on_unreachable=OnUnreachable.WAIT, unreachable_wait_s=60)
    w = World(
        policy=Policy(stages=(stage("dev"), late)),
        nodes={"dev1": Node(environment="dev"), "prod1": Node(environment="prod", reachable=False)},
    )
    w.sleep(600)
    w.work("dev1")
    w.sleep(59)
    assert w.states()["prod1"] == "Held"
    w.sleep(2)
    assert w.run.clusters["prod1"].message == "it could not be reached for 60 s"


def test_a_deferred_cluster_is_caught_up_after_the_run() -> None:
    """What was out of reach gets the release when it is back, with its soak."""
    w = World(
        policy=Policy(stages=(stage("dev", soak_s=10),)),
        nodes={"dev1": Node(environment="dev", reachable=False), "dev2": Node(environment="dev")},
    )
    w.settle()
    w.work("dev2")
    w.sleep(11)
    assert w.run.state is RunState.SUCCEEDED
    w.change("dev1", reachable=True)
    w.settle()
    assert w.states()["dev1"] == "Applying"
    w.work("dev1")
    assert w.states()["dev1"] == "Soaking"
    w.sleep(11)
    assert w.states()["dev1"] == "Done"


def test_a_stage_that_nobody_verified_opens_nothing() -> None:
    """When every cluster of a stage is away the next one waits; skipping them by hand lets it go on."""
    w = World(
        policy=Policy(stages=(stage("dev"), stage("prod", "dev"))),
        nodes={"dev1": Node(environment="dev", reachable=False), "prod1": Node(environment="prod")},
    )
    w.settle()
    assert (w.states(), w.run.stages[0].reason) == ({"dev1": "Deferred", "prod1": "Pending"}, "NothingVerified")
    w.obey(Skip(cluster="dev1"))
    w.settle()
    assert w.states() == {"dev1": "Skipped", "prod1": "Applying"}


def test_nothing_moves_on_unknown_health() -> None:
    """While it is not known whether a cluster answers it is not started, and no preflight is made without it."""
    w = World(policy=Policy(stages=(stage("dev"),)), nodes={"dev1": Node(environment="dev", reachable=None)})
    w.settle()
    assert (w.run.state, w.log) == (RunState.PLANNED, [])
    w.change("dev1", reachable=True)
    w.settle()
    assert w.states() == {"dev1": "Applying"}


def test_a_refused_preflight_moves_nothing() -> None:
    """What one cluster would refuse is known before the first is touched; retry asks again."""
    w = World(policy=Policy(stages=(stage("dev"),)), nodes={"dev1": Node(environment="dev")}, preflight="failed")
    w.settle()
    assert (w.run.state, w.run.reason, w.run.message) == (RunState.FAILED, "PreflightFailed", "p1: quota")
    assert w.states() == {"dev1": "Pending"}
    w.preflight = "passed"
    w.obey(Retry())
    w.settle()
    assert w.states() == {"dev1": "Applying"}


def test_people_approve_a_plan() -> None:
    """Two distinct people are needed; one who says it twice is one, and another plan needs new approvals."""
    w = world(stage("dev", approval=Approval(required=2)))
    assert (w.run.state, w.run.stages[0].state) == (RunState.AWAITING_APPROVAL, StageState.HELD)
    w.obey(Approve(environment="dev", digest="stale"), "eve")
    w.obey(Approve(environment="dev", digest=w.digest("dev")), "ada")
    w.obey(Approve(environment="dev", digest=w.digest("dev")), "ada")
    w.settle()
    assert "1 of 2 approvals (ada)" in w.run.stages[0].message
    w.nodes["dev2"] = Node(environment="dev")
    w.settle()
    assert "0 of 2 approvals" in w.run.stages[0].message
    for person in ("ada", "bob"):
        w.obey(Approve(environment="dev", digest=w.digest("dev")), person)
    w.settle()
    assert w.states() == {"dev1": "Applying", "dev2": "Applying"}


def test_an_approval_that_expires_before_the_window_opens_is_asked_for_at_once() -> None:
    """The run says that it waits for a person again when it does, not when something else happens."""
    office = Window(cron="0 9 * * *", duration_s=3600, timezone="UTC")
    w = world(stage("dev", approval=Approval(required=1, expires_s=60), windows=(office,)))
    w.obey(Approve(environment="dev", digest=w.digest("dev")))
    w.settle()
    assert (w.run.state, w.run.stages[0].reason, w.wake_s) == (RunState.RUNNING, "Window", 60)
    w.sleep(61)
    assert (w.run.state, w.run.stages[0].reason) == (RunState.AWAITING_APPROVAL, "Approval")


def test_an_approval_expires() -> None:
    """What was said too long ago no longer counts."""
    w = world(stage("dev", approval=Approval(required=2, expires_s=60)))
    w.obey(Approve(environment="dev", digest=w.digest("dev")), "ada")
    w.sleep(61)
    w.obey(Approve(environment="dev", digest=w.digest("dev")), "bob")
    w.settle()
    assert w.states() == {"dev1": "Pending"}
    w.obey(Approve(environment="dev", digest=w.digest("dev")), "ada")
    w.settle()
    assert w.states() == {"dev1": "Applying"}


def test_a_window_holds_starts() -> None:
    """Outside the window nothing starts; it opens at its time; promote is the way round it."""
    night = Window(cron="0 22 * * *", duration_s=3600, timezone="UTC")
    w = world(stage("dev", windows=(night,)))
    assert (w.run.stages[0].state, w.run.stages[0].reason) == (StageState.HELD, "Window")
    w.sleep(timedelta(hours=21, minutes=59).total_seconds())
    assert w.states() == {"dev1": "Pending"}
    w.sleep(120)
    assert w.states() == {"dev1": "Applying"}
    assert datetime(2026, 1, 1, 22, tzinfo=UTC) <= w.now
    other = world(stage("dev", windows=(night,)))
    other.obey(Promote(environment="dev"))
    other.settle()
    assert other.states() == {"dev1": "Applying"}


def test_checks_come_between_batches() -> None:
    """A check is asked after each batch; inconclusive waits, failed stops."""
    w = world(stage("dev", checks=(SMOKE,), batches=(Amount(count=1), Amount(percent=100))), count=2)
    w.answers["smoke"] = "inconclusive"
    w.work()
    assert w.run.stages[0].state is StageState.CHECKING
    w.sleep(500)
    assert w.states()["dev2"] == "Pending"
    w.answers["smoke"] = "passed"
    w.sleep(30)
    assert w.states()["dev2"] == "Applying"
    w.answers["smoke"] = "failed"
    w.work()
    assert (w.run.state, w.run.reason) == (RunState.PAUSED, "CheckFailed")
    w.answers["smoke"] = "passed"
    w.obey(Resume())
    w.sleep(30)
    assert w.run.state is RunState.SUCCEEDED


def test_a_check_of_each_cluster_comes_before_done() -> None:
    """A cluster is not Done before its own checks passed."""
    w = world(stage("dev", checks=(replace(SMOKE, per_cluster=True),)))
    w.answers["smoke"] = "failed"
    w.work()
    assert (w.states(), w.run.state) == ({"dev1": "Failed"}, RunState.PAUSED)


def test_a_newer_release_supersedes_or_waits() -> None:
    """By default a newer release ends the run; where the policy says so it waits."""
    w = world(stage("dev"))
    w.newer = True
    w.settle()
    assert w.run.state is RunState.SUPERSEDED
    w = world(stage("dev", on_new_release=OnNewRelease.FINISH))
    w.newer = True
    w.settle()
    assert w.run.state is RunState.RUNNING


def test_clusters_come_and_go() -> None:
    """One that joins takes part in its batch; one that leaves is skipped, and taken in again when it is back."""
    w = world(stage("dev", batches=(Amount(count=1), Amount(percent=100))), count=2)
    w.nodes["dev0"] = Node(environment="dev")
    gone = w.nodes.pop("dev2")
    w.settle()
    assert w.states() == {"dev0": "Pending", "dev1": "Applying", "dev2": "Skipped"}
    w.work("dev1")
    assert w.states()["dev0"] == "Applying"
    w.nodes["dev2"] = gone
    w.settle()
    w.work()
    w.work()
    assert set(w.states().values()) == {"Done"}
    assert w.run.state is RunState.SUCCEEDED


def test_what_is_held_stays_out() -> None:
    """A cluster that somebody holds is skipped for as long as that lasts."""
    w = World(policy=Policy(stages=(stage("dev"),)), nodes={"dev1": Node(environment="dev", held="held by ada")})
    w.settle()
    assert (w.states(), w.run.state) == ({"dev1": "Skipped"}, RunState.SUCCEEDED)
    w.change("dev1", held="")
    w.settle()
    assert w.states() == {"dev1": "Applying"}


def test_a_dependency_holds_one_cluster() -> None:
    """A cluster whose other app is not ready waits; its neighbour goes on."""
    w = World(
        policy=Policy(stages=(stage("dev"),)),
        nodes={"dev1": Node(environment="dev", dependency="waits"), "dev2": Node(environment="dev")},
    )
    w.settle()
    assert w.states() == {"dev1": "Held", "dev2": "Applying"}
    w.change("dev1", dependency="")
    w.settle()
    assert w.states()["dev1"] == "Applying"


def test_an_unstaged_environment_fails_nothing() -> None:
    """Without rules of its own a stage waits for health as long as it takes, and goes on when it is there."""
    w = world(StagePolicy(environment="dev"), StagePolicy(environment="prod", after=("dev",)))
    assert w.states() == {"dev1": "Applying", "prod1": "Pending"}
    w.sleep(100_000)
    assert w.states() == {"dev1": "Applying", "prod1": "Pending"}
    w.work()
    assert w.states() == {"dev1": "Done", "prod1": "Applying"}


def test_an_unstaged_environment_waits_until_a_failure_is_mended() -> None:
    """What breaks there holds up what comes after it, says so, and goes on by itself when it is mended."""
    w = World(
        policy=Policy(stages=(StagePolicy(environment="dev"), StagePolicy(environment="prod", after=("dev",)))),
        nodes={name: Node(environment=name.rstrip("12")) for name in ("dev1", "dev2", "prod1")},
    )
    w.settle()
    w.work("dev1")
    w.change("dev2", given=1, acknowledged=True, healthy=False, failure="container web crashes")
    w.settle()
    assert w.states() == {"dev1": "Done", "dev2": "Verifying", "prod1": "Pending"}
    assert w.run.clusters["dev2"].message == "container web crashes"
    w.work("dev2")
    assert w.states() == {"dev1": "Done", "dev2": "Done", "prod1": "Applying"}


def test_verbs_are_idempotent_and_say_what_else_to_do() -> None:
    """The same verb again changes nothing; one that makes no sense is refused with the way on."""
    w = world(stage("dev", soak_s=100))
    for verb in (Pause(), Resume(), Promote(environment="dev"), Abort()):
        w.obey(verb)
        once = w.run
        w.obey(verb)
        assert w.run is once
    with pytest.raises(TargetError, match="retry"):
        w.obey(Resume())
    with pytest.raises(TargetError, match="dev1"):
        w.obey(Skip(cluster="dev9"))
    with pytest.raises(TargetError, match="it has: dev"):
        w.obey(Promote(environment="prod"))


def test_a_paused_run_watches_and_starts_nothing() -> None:
    """What is under way is watched to its end; the next cluster is not started until resumed."""
    w = world(stage("dev", batches=(Amount(count=1), Amount(percent=100))), count=2)
    w.obey(Pause())
    w.work("dev1")
    assert w.states() == {"dev1": "Done", "dev2": "Pending"}
    w.obey(Resume())
    w.settle()
    assert w.states()["dev2"] == "Applying"


def test_a_person_sends_a_run_back() -> None:
    """Rollback returns what the run touched, also after it succeeded."""
    w = world(stage("dev"), stage("prod", "dev"))
    w.work()
    w.work()
    assert w.run.state is RunState.SUCCEEDED
    w.obey(Rollback())
    w.settle()
    assert w.states() == {"dev1": "RolledBack", "prod1": "RolledBack"}
    w.obey(Rollback())
    w.work("dev1", "prod1")
    assert w.run.state.value == "RolledBack"


def test_a_done_cluster_that_breaks_counts() -> None:
    """While the run goes on, what it finished is still watched."""
    w = world(stage("dev"), stage("prod", "dev", soak_s=100))
    w.work()
    w.change("dev1", failure="crash")
    w.settle()
    assert (w.states()["dev1"], w.run.state) == ("Failed", RunState.PAUSED)


def test_what_is_tried_again_has_a_while() -> None:
    """A container that crashed starts again after a pause: the old failure does not count at once, and later it does."""
    w = world(stage("dev"))
    w.change("dev1", failure="crash")
    w.settle()
    assert w.states() == {"dev1": "Failed"}
    w.obey(Retry())
    w.nodes["dev1"].since = w.now_s
    w.sleep(50)
    assert w.states() == {"dev1": "Applying"}
    w.sleep(20)
    assert (w.states(), w.run.state) == ({"dev1": "Failed"}, RunState.PAUSED)
    w.obey(Retry())
    w.nodes["dev1"].since = w.now_s
    w.sleep(10)
    w.work()
    assert w.states() == {"dev1": "Done"}


def test_nothing_is_tried_again_while_it_goes_back() -> None:
    """A retry that comes too early is refused, and the way back goes on."""
    w = world(stage("dev", on_failure=OnFailure.ROLLBACK))
    w.change("dev1", failure="crash")
    w.settle()
    with pytest.raises(TargetError, match="going back"):
        w.obey(Retry())
    w.settle()
    assert (w.run.state, w.states()) == (RunState.RUNNING, {"dev1": "RolledBack"})
    w.work("dev1")
    assert w.run.state.value == "RolledBack"
    w.obey(Retry())
    w.settle()
    assert w.states() == {"dev1": "Applying"}
