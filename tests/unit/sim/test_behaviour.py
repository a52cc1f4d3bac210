"""What a simulated pod does next, and how its status shows it."""

from typing import Any

import pytest

from fleet.sim.behaviour import Behaviour, Bind, Kind, Remove, Report, Step, Wait, next_step, own_behaviour, shows

NOW = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T00:01:00Z"


def pod(*, node: str = "sim-node", image: str = "shop:1", **extra: Any) -> dict[str, Any]:
    """Write a pod with one container; `extra` goes to the spec, or to metadata and status by those names."""
    metadata = {"name": "shop-1", "namespace": "web", "uid": "u-1", **extra.pop("metadata", {})}
    status = extra.pop("status", {})
    spec = {"containers": [{"name": "main", "image": image}], **({"nodeName": node} if node else {}), **extra}
    return {"metadata": metadata, "spec": spec, "status": status}


def step(subject: dict[str, Any], kind: Kind = Kind.READY, *, age_s: float = 0.0, **detail: Any) -> Step | None:
    """Decide the next step at NOW."""
    return next_step(subject, Behaviour(kind=kind, **detail), age_s=age_s, now=NOW)


def report(subject: dict[str, Any], kind: Kind = Kind.READY, *, age_s: float = 0.0, **detail: Any) -> Any:
    """Decide the next step, which must be a status."""
    decided = step(subject, kind, age_s=age_s, **detail)
    assert isinstance(decided, Report)
    return decided.status


def condition(status: Any, kind: str) -> Any:
    """Pick a condition."""
    return next(each for each in status["conditions"] if each["type"] == kind)


@pytest.mark.parametrize(
    ("metadata", "image", "kind"),
    [
        ({}, "shop:1", Kind.READY),
        ({"annotations": {"sim.fleet/behaviour": "pending"}}, "shop:1", Kind.PENDING),
        ({"labels": {"sim.fleet/behaviour": "image"}}, "shop:1", Kind.IMAGE),
        (
            {"annotations": {"sim.fleet/behaviour": "crash"}, "labels": {"sim.fleet/behaviour": "image"}},
            "a",
            Kind.CRASH,
        ),
        ({"annotations": {"sim.fleet/behaviour": "ready"}}, "shop:crash", Kind.READY),
        ({"annotations": {"sim.fleet/behaviour": "nonsense"}}, "shop:crash", Kind.CRASH),
        ({}, "shop:2-crash", Kind.CRASH),
        ({}, "shop:missing", Kind.IMAGE),
        ({}, "shop:slow", Kind.SLOW),
        ({}, "registry.example:5000/crash-reporter", Kind.READY),
        ({}, "registry.example:5000/crash-reporter:1", Kind.READY),
        ({"annotations": None, "labels": None}, "shop", Kind.READY),
    ],
)
def test_a_pod_says_how_it_behaves(metadata: dict[str, Any], image: str, kind: Kind) -> None:
    """Annotation before label before image tag; only the tag of an image counts, and nonsense does not."""
    assert own_behaviour(pod(image=image, metadata=metadata)).kind is kind


def test_details_come_from_annotations() -> None:
    """Exit code, message, restarts and delay are read; what is no number keeps the default."""
    said = {"exit-code": "42", "message": "no database", "restarts": "seven", "delay": "0.5"}
    metadata = {"annotations": {f"sim.fleet/{key}": value for key, value in said.items()}}
    assert own_behaviour(pod(metadata=metadata)) == Behaviour(exit_code=42, message="no database", delay_s=0.5)


def test_ready_pod_in_three_steps() -> None:
    """Bind, report, and then there is nothing left to do."""
    assert step(pod(node="")) == Bind()
    status = report(pod())
    assert status["phase"] == "Running"
    assert condition(status, "Ready")["status"] == "True"
    assert status["containerStatuses"][0]["state"] == {"running": {"startedAt": NOW}}
    assert step(pod(status=status)) is None


@pytest.mark.parametrize("kind", [Kind.CRASH, Kind.IMAGE, Kind.READY, Kind.PENDING])
@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_every_status_is_settled_once_reported(kind: Kind, policy: str) -> None:
    """No behaviour reports for ever: a later look at what was reported finds nothing to do."""
    status = report(pod(restartPolicy=policy), kind)
    assert next_step(pod(restartPolicy=policy, status=status), Behaviour(kind=kind), age_s=9, now=LATER) is None


def test_pending_pod_gets_no_node() -> None:
    """It stays unscheduled and says why."""
    status = report(pod(node=""), Kind.PENDING, message="0/3 nodes are available")
    assert status["phase"] == "Pending"
    assert condition(status, "PodScheduled") == {
        "type": "PodScheduled",
        "status": "False",
        "lastTransitionTime": NOW,
        "reason": "Unschedulable",
        "message": "0/3 nodes are available",
    }
    assert step(pod(node="", status=status), Kind.PENDING, message="0/3 nodes are available") is None


def test_crash_shows_the_last_end() -> None:
    """The container waits in back-off; how it ended is its last state."""
    status = report(pod(), Kind.CRASH, exit_code=42, message="no database", restarts=7)
    container = status["containerStatuses"][0]
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["exitCode"] == 42
    assert container["lastState"]["terminated"]["message"] == "no database"
    assert container["restartCount"] == 7
    assert condition(status, "Ready")["status"] == "False"


@pytest.mark.parametrize(("kind", "phase", "code"), [(Kind.READY, "Succeeded", 0), (Kind.CRASH, "Failed", 1)])
def test_pod_of_a_job_ends(kind: Kind, phase: str, code: int) -> None:
    """A pod that never restarts succeeds or fails for good."""
    status = report(pod(restartPolicy="Never"), kind)
    assert status["phase"] == phase
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code


@pytest.mark.parametrize(("policy", "ready"), [("Always", "False"), ("Never", "True")])
def test_slow_pod_waits(policy: str, ready: str) -> None:
    """It runs at once, asks to be looked at when its delay is over, and then is like any other."""
    status = report(pod(restartPolicy=policy), Kind.SLOW, age_s=1, delay_s=5)
    assert (status["phase"], condition(status, "Ready")["status"]) == ("Running", ready)
    running = pod(restartPolicy=policy, status=status)
    assert step(running, Kind.SLOW, age_s=2, delay_s=5) == Wait(for_s=3)
    assert report(running, Kind.SLOW, age_s=5, delay_s=5)["phase"] == ("Running" if policy == "Always" else "Succeeded")


@pytest.mark.parametrize(
    ("kind", "reason", "word"),
    [
        (Kind.CRASH, "BackOff", "Back-off restarting failed container main in pod shop-1_web(u-1)"),
        (Kind.IMAGE, "Failed", 'Failed to pull image "shop:1"'),
        (Kind.PENDING, "FailedScheduling", "0/1 nodes are available"),
    ],
)
def test_trouble_comes_with_an_event(kind: Kind, reason: str, word: str) -> None:
    """What goes wrong is also said in a Warning event, as kubelet and scheduler do."""
    decided = step(pod(node="" if kind is Kind.PENDING else "sim-node"), kind)
    assert isinstance(decided, Report)
    assert decided.warning is not None
    assert decided.warning.reason == reason
    assert word in decided.warning.message


def test_behaviour_may_change() -> None:
    """A running pod turns bad and good again; a condition keeps its time until its status changes."""
    ready = report(pod())
    crashed = next_step(pod(status=ready), Behaviour(kind=Kind.CRASH), age_s=60, now=LATER)
    assert isinstance(crashed, Report)
    assert condition(crashed.status, "Ready")["lastTransitionTime"] == LATER
    assert condition(crashed.status, "Initialized")["lastTransitionTime"] == NOW
    assert report(pod(status=crashed.status))["phase"] == "Running"


def test_new_image_is_reported() -> None:
    """An image changed in place shows in the status."""
    status = report(pod())
    assert report(pod(image="shop:2", status=status))["containerStatuses"][0]["image"] == "shop:2"


def test_conditions_of_others_stay() -> None:
    """A condition we do not write survives, and is no reason to report again."""
    foreign = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": NOW}
    status = report(pod(status={"conditions": [foreign]}))
    assert foreign in status["conditions"]
    assert step(pod(status=status)) is None
    assert shows(status | {"conditions": status["conditions"][:-1]}, report(pod()))


def test_init_containers_are_done_and_sidecars_run() -> None:
    """Init containers have completed; one that restarts always is a sidecar."""
    inits = [{"name": "migrate", "image": "m"}, {"name": "proxy", "image": "p", "restartPolicy": "Always"}]
    migrate, proxy = report(pod(initContainers=inits))["initContainerStatuses"]
    assert migrate["state"]["terminated"]["exitCode"] == 0
    assert "running" in proxy["state"]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"deletionTimestamp": NOW, "deletionGracePeriodSeconds": 30}, Remove()),
        ({"deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0, "finalizers": ["x"]}, None),
    ],
)
def test_deleted_pod_goes_once(metadata: dict[str, Any], expected: Step | None) -> None:
    """A pod being deleted is let go; one that only a finalizer holds is left alone."""
    assert step(pod(metadata=metadata)) == expected


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_ended_pod_is_left_alone(phase: str) -> None:
    """What has ended never runs again, whatever the behaviour."""
    assert step(pod(status={"phase": phase}), Kind.CRASH) is None


def test_gated_pod_is_not_scheduled() -> None:
    """A pod with scheduling gates waits for whoever opens them."""
    assert step(pod(node="", schedulingGates=[{"name": "x"}])) is None
