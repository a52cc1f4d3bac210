"""What the controllers of workloads share: owners and what they own, template hashes, conditions."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from fleet.sim.controller import Engine
from fleet.sim.representation import encode
from fleet.sim.storage import Object

_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"


def condition_of(obj: Object, kind: str) -> dict[str, str]:
    conditions = obj.get("status", {}).get("conditions") or ()
    return next((condition for condition in conditions if condition["type"] == kind), {})


def changed_condition(engine: Engine, before: Mapping[str, str], said: tuple[str, str, str, str]) -> dict[str, str]:
    """Return a condition that says (type, status, reason, message); its times move only when its value does."""
    kind, value, reason, message = said
    now = engine.state.timestamp()
    same = before.get("status") == value and before.get("reason") == reason
    return {
        "type": kind,
        "status": value,
        "lastUpdateTime": before["lastUpdateTime"] if same else now,
        "lastTransitionTime": before["lastTransitionTime"] if before.get("status") == value else now,
        "reason": reason,
        "message": message,
    }


def age_s(engine: Engine, timestamp: str) -> float:
    then = datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return (engine.state.now() - then).total_seconds()


def template_hash(template: Any) -> str:
    """Return the short name of a pod template, as used in names of replica sets and revisions."""
    number = int.from_bytes(hashlib.sha256(encode(_sorted(template))).digest()[:8], "big")
    letters = ""
    while len(letters) < 10:
        number, index = divmod(number, len(_ALPHABET))
        letters += _ALPHABET[index]
    return letters


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def labelled(template: Object, labels: Mapping[str, str]) -> Object:
    metadata = template.get("metadata") or {}
    return {**template, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}}


def owner_reference(owner: Object) -> dict[str, Any]:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owned(engine: Engine, group: str, kind: str, owner: Object) -> list[Object]:
    return engine.dependents(group, kind, owner["metadata"]["uid"])
