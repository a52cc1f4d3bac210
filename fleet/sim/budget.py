"""The controller of PodDisruptionBudgets: it counts the pods that a budget is for, and never evicts any."""

import math
from collections.abc import Sequence
from typing import Any, Final

from fleet.sim.controller import Engine, Trigger, Work
from fleet.sim.dependent import condition_of
from fleet.sim.rolling import share
from fleet.sim.storage import Collection, Event, Key, Object
from fleet.sim.workloadrule import picks

_COLLECTION: Final = ("policy", "poddisruptionbudgets")
_PODS: Final = ("", "pods")


def triggers() -> list[Trigger]:
    return [_on_budget]


def _on_budget(collection: Collection, event: Event) -> list[tuple[Work, Key]]:
    return [(keep_budgets, (event.key[0], ""))] if collection in (_COLLECTION, _PODS) else []


def keep_budgets(engine: Engine, key: Key) -> None:
    """Tell of each budget of a namespace how many pods may be missing now."""
    for budget in engine.items("policy", "PodDisruptionBudget", key[0]):
        _tell(engine, budget)


def _tell(engine: Engine, budget: Object) -> None:
    spec = budget["spec"]
    selector = spec.get("selector") or {}
    pods = [pod for pod in engine.items("", "Pod", budget["metadata"]["namespace"]) if _counts(pod, selector)]
    healthy = sum(condition_of(pod, "Ready").get("status") == "True" for pod in pods)
    needed = _needed(spec, len(pods))
    counts = {
        "currentHealthy": healthy,
        "desiredHealthy": needed,
        "disruptionsAllowed": max(healthy - needed, 0),
        "expectedPods": len(pods),
        "observedGeneration": budget["metadata"]["generation"],
    }
    engine.write(budget, {"status": counts | {"conditions": _conditions(engine, budget, allowed=healthy > needed)}})


def _counts(pod: Object, selector: Any) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and picks(selector, pod["metadata"].get("labels") or {})


def _needed(spec: Any, total: int) -> int:
    if "minAvailable" in spec:
        return math.ceil(share(spec["minAvailable"], total))
    return max(total - math.ceil(share(spec.get("maxUnavailable", 1), total)), 0)


def _conditions(engine: Engine, budget: Object, *, allowed: bool) -> Sequence[dict[str, Any]]:
    value, reason = ("True", "SufficientPods") if allowed else ("False", "InsufficientPods")
    before = condition_of(budget, "DisruptionAllowed")
    since = before["lastTransitionTime"] if before.get("status") == value else engine.state.timestamp()
    said = {"type": "DisruptionAllowed", "status": value, "reason": reason, "message": ""}
    return [said | {"lastTransitionTime": since, "observedGeneration": budget["metadata"]["generation"]}]
