"""Rules for every kind, and the conditions that custom resources share."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from fleet.reconcile.health.verdict import CURRENT, Health, Verdict, failed, progressing

STATUS_GRACE = timedelta(seconds=5)
"""How long a custom resource without any status is given: its controller may not have looked yet."""


def conditions(body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the status conditions by type."""
    listed = (body.get("status") or {}).get("conditions") or []
    return {str(c.get("type", "")): c for c in listed if isinstance(c, dict)}


def text(condition: Mapping[str, Any], fallback: str = "") -> str:
    """Return what a condition says for people."""
    return str(condition.get("message") or condition.get("reason") or fallback)[:512]


def is_outdated(body: Mapping[str, Any], condition: Mapping[str, Any] | None = None) -> bool:
    """Tell whether status (or one condition) speaks of an older generation."""
    generation = (body.get("metadata") or {}).get("generation")
    observed = (condition or {}).get("observedGeneration", (body.get("status") or {}).get("observedGeneration"))
    return generation is not None and observed is not None and observed < generation


def assess_generic(body: Mapping[str, Any]) -> Verdict | None:
    """Judge what holds for any kind; None leaves it to the kind's rule."""
    metadata = body.get("metadata") or {}
    if metadata.get("deletionTimestamp"):
        finalizers = ", ".join(metadata.get("finalizers") or [])
        return Verdict(
            Health.TERMINATING, "Terminating", f"being deleted{f', waiting on {finalizers}' if finalizers else ''}"
        )
    if is_outdated(body):
        return progressing("its controller has not seen the newest version yet", "NotObserved")
    for name, condition in conditions(body).items():
        if name == "Reconciling" and condition.get("status") == "True":
            return progressing(text(condition, "reconciling"))
        if name == "Stalled" and condition.get("status") == "True":
            return failed(text(condition, "stalled"), "Stalled")
    return None


def assess_conditions(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a kind without a rule of its own, by its Ready condition if it has one."""
    ready = conditions(body).get("Ready")
    if ready is not None:
        if is_outdated(body, ready):
            return progressing("Ready speaks of an older version", "NotObserved")
        if ready.get("status") == "True":
            return CURRENT
        return progressing(text(ready, "not ready"), str(ready.get("reason") or "NotReady"))
    created = (body.get("metadata") or {}).get("creationTimestamp")
    custom = "." in str(body.get("apiVersion", "")).rpartition("/")[0]
    if custom and not body.get("status") and created:
        until = datetime.fromisoformat(str(created)) + STATUS_GRACE
        if now < until:
            return Verdict(Health.IN_PROGRESS, "NoStatus", "no controller has written a status yet", until)
    return CURRENT
