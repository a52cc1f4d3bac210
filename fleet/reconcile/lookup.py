"""Looking up objects that no watch can show: what exists under a new name before fleet writes it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleet.aio import spawn
from fleet.errors import FleetError, Forbidden, Invalid, NotFound
from fleet.kube.gate import Priority
from fleet.kube.wire import Observed
from fleet.object import GroupKind, ObjectKey
from fleet.reconcile.port import ClusterApi

LIST_ABOVE = 5
"""More look-ups than this of one kind and namespace become one LIST."""
_REFUSALS = (Forbidden, Invalid, NotFound)


@dataclass(frozen=True, slots=True)
class Found:
    """What was found; `refused` are objects that we may not see."""

    objects: dict[ObjectKey, Observed | None] = field(default_factory=dict)
    """None: it is not there."""
    refused: dict[ObjectKey, FleetError] = field(default_factory=dict)


async def look_up(api: ClusterApi, keys: Sequence[ObjectKey]) -> Found:
    """Ask for objects by name, or by one LIST per kind and namespace when there are many.

    Raises: KubeError when the cluster fails, not just one of the requests.
    """
    groups: dict[tuple[GroupKind, str], list[ObjectKey]] = {}
    for key in keys:
        groups.setdefault((key.group_kind, key.namespace), []).append(key)
    found = Found()
    try:
        async with asyncio.TaskGroup() as group:
            for (kind, namespace), members in groups.items():
                if len(members) > LIST_ABOVE:
                    spawn(group, f"list/{kind}", _by_list(api, kind, namespace, members, found))
                else:
                    for key in members:
                        spawn(group, f"get/{key}", _by_name(api, key, found))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return found


async def _by_list(
    api: ClusterApi, kind: GroupKind, namespace: str, members: Sequence[ObjectKey], found: Found
) -> None:
    try:
        listed: Mapping[ObjectKey, Observed] = {
            o.key: o for o in await api.list_metadata(kind, namespace, priority=Priority.APPLY)
        }
    except _REFUSALS as error:
        found.refused.update(dict.fromkeys(members, error))
    else:
        found.objects.update({key: listed.get(key) for key in members})


async def _by_name(api: ClusterApi, key: ObjectKey, found: Found) -> None:
    try:
        found.objects[key] = await api.get_metadata(key, priority=Priority.APPLY)
    except _REFUSALS as error:
        found.refused[key] = error
