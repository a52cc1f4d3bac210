"""From what came in to what may be stored: read by the schema, patched, defaulted, validated."""

from collections.abc import Sequence
from typing import Any

from fleet.sim import status
from fleet.sim.request import Request
from fleet.sim.resource import Resource
from fleet.sim.state import State
from fleet.sim.storage import Object


def read(state: State, request: Request, body: Object) -> tuple[Object, Sequence[str]]:
    return body, ()


def defaulted(state: State, resource: Resource, obj: Object) -> Object:
    return obj


def admit_new(state: State, resource: Resource, obj: Object) -> Object:
    return obj


def admit_update(state: State, request: Request, live: Object, new: Object) -> Object:
    return new


def patched(state: State, request: Request, obj: Object, body: Any) -> Object:
    if isinstance(body, dict):
        return _merged(obj, body)
    raise status.bad_request("error decoding patch")


def _merged(obj: Any, change: Any) -> Any:
    if not isinstance(change, dict):
        return change
    result = dict(obj) if isinstance(obj, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result
