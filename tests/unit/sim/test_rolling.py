"""The arithmetic of rolling updates."""

from typing import Any

import pytest

from fleet.sim.rolling import Bounds, Sized, bounds, next_sizes, sized


def rolled(replicas: int, surge: int | str = "25%", missing: int | str = "25%") -> dict[str, Any]:
    rolling = {"maxSurge": surge, "maxUnavailable": missing}
    return {"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}


def ready(count: int) -> Sized:
    """A set whose pods are all available."""
    return Sized(wanted=count, replicas=count, available=count)


def starting(count: int) -> Sized:
    """A set none of whose pods is available."""
    return Sized(wanted=count, replicas=count, available=0)


NONE = ready(0)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (rolled(4), Bounds(most=5, least=3)),
        (rolled(1), Bounds(most=2, least=1)),
        (rolled(3, 0, 0), Bounds(most=3, least=2)),
        (rolled(10, "30%", 9), Bounds(most=13, least=1)),
        (rolled(0), Bounds(most=0, least=0)),
    ],
)
def test_bounds(spec: dict[str, Any], expected: Bounds) -> None:
    """Surge rounds up, unavailability down, and one of them is always possible."""
    assert bounds(spec) == expected


def test_first_set_gets_all() -> None:
    """Without a predecessor the new set has its full size at once."""
    assert next_sizes(rolled(4), NONE, []) == (4, [])


def test_new_set_grows_into_the_surge() -> None:
    """The new set gets what the surge leaves room for, and old pods stay until new ones are available."""
    assert next_sizes(rolled(2), NONE, [ready(2)]) == (1, [2])
    assert next_sizes(rolled(2), starting(1), [ready(2)]) == (1, [2])
    assert next_sizes(rolled(2), ready(1), [ready(2)]) == (1, [1])
    assert next_sizes(rolled(2), ready(1), [ready(1)]) == (2, [1])
    assert next_sizes(rolled(2), ready(2), [ready(1)]) == (2, [0])


def test_broken_template_harms_nothing() -> None:
    """Pods that never become available hold the update, and the old ones go on."""
    assert next_sizes(rolled(4), starting(2), [ready(3)]) == (2, [3])


def test_sick_old_pods_go_first() -> None:
    """A set that never became available makes room for the next."""
    assert next_sizes(rolled(2), NONE, [starting(1), ready(2)]) == (0, [0, 2])
    assert next_sizes(rolled(2), NONE, [NONE, ready(2)]) == (1, [0, 2])


def test_recreate() -> None:
    """Everything old goes before anything new comes."""
    spec = {"replicas": 2, "strategy": {"type": "Recreate"}}
    assert next_sizes(spec, NONE, [ready(2)]) == (0, [0])
    assert next_sizes(spec, NONE, [NONE]) == (2, [0])


def test_sizes_are_read_from_replica_sets() -> None:
    """What a replica set does not say counts as nothing."""
    assert sized({"spec": {"replicas": 3}}) == Sized(wanted=3, replicas=0, available=0)
    assert sized(None) == NONE
