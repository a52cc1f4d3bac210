"""What of an object's drift counts for its report."""

from fleet.reconcile.live import Drift, DriftPath

TAKEN = DriftPath(path=".spec.replicas", manager="hpa", at="", added=False, seen_at=20.0)
BY_PERSON = DriftPath(path=".metadata.labels.x", manager="kubectl-label", at="", added=True, seen_at=30.0)
BY_CONTROLLER = DriftPath(path=".metadata.annotations.y", manager="controller", at="", added=True, seen_at=1.0)


def test_what_controllers_add_is_no_drift_and_starts_no_clock() -> None:
    """Additions of others than drift managers are left out, and the time counts from the first path that matters."""
    drift = Drift(seen_at=1.0, paths=(BY_CONTROLLER, TAKEN, BY_PERSON))
    assert drift.within(["kubectl*"]) == Drift(seen_at=20.0, paths=(TAKEN, BY_PERSON))
    assert drift.within([]) == Drift(seen_at=20.0, paths=(TAKEN,))


def test_a_deletion_keeps_its_time() -> None:
    """Drift without paths is as it was."""
    gone = Drift(seen_at=5.0, paths=())
    assert gone.within(["kubectl*"]) == gone
