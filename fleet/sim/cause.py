"""What is wrong with a field, in the words of the API server: the entries of details.causes."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

Cause = dict[str, str]
Causes = Iterator[Cause]
"""Causes in the order the server finds them."""


def cause(reason: str, field: str, message: str) -> Cause:
    """Return one entry of details.causes."""
    return {"reason": reason, "message": message, "field": field}


def required(field: str, why: str = "") -> Cause:
    """A value is missing."""
    return cause("FieldValueRequired", field, f"Required value: {why}" if why else "Required value")


def invalid(field: str, value: Any, why: str) -> Cause:
    """A value breaks a rule."""
    return cause("FieldValueInvalid", field, f"Invalid value: {shown(value)}: {why}")


def unsupported(field: str, value: Any, supported: Sequence[str]) -> Cause:
    """A value is none of a list."""
    listed = ", ".join(f'"{name}"' for name in supported)
    return cause("FieldValueNotSupported", field, f"Unsupported value: {shown(value)}: supported values: {listed}")


def duplicate(field: str, value: Any) -> Cause:
    """A value is there twice."""
    return cause("FieldValueDuplicate", field, f"Duplicate value: {shown(value)}")


def not_found(field: str, value: Any) -> Cause:
    """A value names something that is not there."""
    return cause("FieldValueNotFound", field, f"Not found: {shown(value)}")


def forbidden(field: str, why: str) -> Cause:
    """A value may not be there, or not change."""
    return cause("FieldValueForbidden", field, f"Forbidden: {why}")


def too_long(field: str, limit_bytes: int) -> Cause:
    """A value is too long."""
    return cause("FieldValueTooLong", field, f"Too long: may not be more than {limit_bytes} bytes")


def shown(value: Any) -> str:
    """Return a value as messages show it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def at_least(field: str, value: int | None, low: int) -> Causes:
    """Check a number that may be absent."""
    if value is not None and value < low:
        yield invalid(field, value, f"must be greater than or equal to {low}")


def one_of(field: str, value: Any, supported: Sequence[str]) -> Causes:
    """Check a value against the sorted list of what it may be."""
    if value not in supported:
        yield unsupported(field, value, supported)
