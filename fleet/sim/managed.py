"""managedFields: who owns which fields, as objects carry it, and as conflicts name it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.sim.fields import FieldSet
from fleet.sim.schema import Object
from fleet.sim.typed import equal


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """One writer of an object; appliers are the same manager in every apiVersion (`api_version` is empty)."""

    name: str
    operation: str
    api_version: str = ""
    subresource: str = ""

    @property
    def identity(self) -> str:
        """The text by which the server sorts managers in messages."""
        parts = {"manager": self.name, "operation": self.operation}
        parts |= {"apiVersion": self.api_version} if self.api_version else {}
        parts |= {"subresource": self.subresource} if self.subresource else {}
        return json.dumps(parts, separators=(",", ":"))

    @property
    def shown(self) -> str:
        """The manager as conflict messages name it."""
        text = json.dumps(self.name, ensure_ascii=False)
        if self.subresource:
            text = f'{text} with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """The fields of one manager, read in one apiVersion; `at` is None for entries without a time."""

    fields: FieldSet
    api_version: str
    at: str | None = None


Managed = dict[Manager, Owned]


def decode(entries: Any) -> Managed:
    """Read managedFields.

    Raises:
        ValueError: an entry lacks what it must have.
    """
    managed: Managed = {}
    for number, entry in enumerate(entries or ()):
        operation, api_version = entry.get("operation"), entry.get("apiVersion")
        if operation not in ("Apply", "Update"):
            raise ValueError("operation must be `Apply` or `Update`")
        if not api_version:
            raise ValueError("apiVersion must not be empty")
        if entry.get("fieldsType") != "FieldsV1":
            raise ValueError(f"missing fieldsType in managed fields entry {number}")
        manager = Manager(
            name=entry.get("manager", ""),
            operation=operation,
            api_version=api_version if operation == "Update" else "",
            subresource=entry.get("subresource", ""),
        )
        fields = FieldSet.parse(entry.get("fieldsV1") or {})
        managed[manager] = Owned(fields=fields, api_version=api_version, at=entry.get("time"))
    return managed


def encode(managed: Managed) -> list[dict[str, Any]]:
    """Return managedFields in the server's order."""
    ordered = sorted(
        managed.items(),
        key=lambda item: (
            item[0].operation,
            item[1].at or "",
            item[0].name,
            item[1].api_version,
            item[0].subresource,
        ),
    )
    return [_entry(manager, owned) for manager, owned in ordered]


def _entry(manager: Manager, owned: Owned) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": owned.api_version,
    }
    if owned.at:
        entry["time"] = owned.at
    entry |= {"fieldsType": "FieldsV1", "fieldsV1": owned.fields.serialise()}
    if manager.subresource:
        entry["subresource"] = manager.subresource
    return entry


def entries_of(obj: Object) -> Any:
    """Return managedFields as they are, None for none."""
    return obj["metadata"].get("managedFields")


def without_managed(obj: Object) -> Object:
    """Return the object without managedFields."""
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": metadata}


def with_managed(obj: Object, managed: Managed) -> Object:
    """Return the object with these managedFields."""
    bare = without_managed(obj)
    if managed:
        bare["metadata"]["managedFields"] = encode(managed)
    return bare


def unstamped(live: Object, new: Object) -> Object:
    """Return the new object with its old times if nothing but the times of managedFields changed."""
    old_entries, new_entries = entries_of(live) or [], entries_of(new) or []
    if len(old_entries) != len(new_entries):
        return new
    if not equal([_timeless(e) for e in old_entries], [_timeless(e) for e in new_entries]):
        return new
    if not equal(without_managed(live), without_managed(new)):
        return new
    return {**new, "metadata": {**new["metadata"], "managedFields": old_entries}} if new_entries else new


def _timeless(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "time"}
