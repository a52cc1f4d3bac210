"""The reference tables of inventory fields, written from the models."""

import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fleet.inventory.parse import model_inside
from fleet.inventory.rollout import Unreachable
from fleet.inventory.schema import KINDS, Metadata


def write_reference(kind: str | None = None) -> str:
    """Return Markdown: one table per kind, one row per field, in the order of the models."""
    sections = [_write_kind("metadata", Metadata, "Every document has the same `metadata`.")] if kind is None else []
    for name, model in KINDS.items():
        if kind in (None, name):
            sections.append(_write_kind(name, model.model_fields["spec"].annotation, (model.__doc__ or "").strip()))
    return "\n\n".join(sections)


def _write_kind(name: str, model: Any, text: str) -> str:
    prefix = "metadata" if model is Metadata else "spec"
    title = f"## `{name}`"
    head = "| field | type | default | meaning |\n|---|---|---|---|"
    return "\n".join([title, "", text, "", head, *_write_rows(model, prefix)])


def _write_rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{prefix}.{field.alias or name}"
        inner = model_inside(field.annotation)
        outer = typing.get_origin(_without_none(field.annotation))
        yield f"| `{path}` | {_describe_type(field, inner)} | {_describe_default(field, inner)} | {field.description or ''} |"
        if inner is not None and outer is not dict and inner is not Unreachable:
            yield from _write_rows(inner, f"{path}[]" if outer is tuple else path)


_TYPES = {str: "text", bool: "true or false", int: "number", float: "duration", dict: "mapping"}


def _describe_type(field: FieldInfo, inner: type[BaseModel] | None) -> str:
    annotation = _without_none(field.annotation)
    options = [option for option in typing.get_args(annotation) if option is not type(None)]
    if inner is Unreachable:
        return "text or mapping"
    if inner is not None:
        return "list" if typing.get_origin(annotation) is tuple else "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{option}`" for option in options)
    if origin is dict:
        return "mapping of text"
    if origin is tuple or (options and typing.get_origin(options[0]) is tuple):
        return "list of text"
    base = annotation if isinstance(annotation, type) else _unwrap(options[0] if options else annotation)
    return _TYPES.get(base, _NAMES.get(getattr(base, "__name__", ""), "text"))


_NAMES = {"Path": "file path", "datetime": "time", "SecretStr": "text or mapping"}


def _without_none(annotation: Any) -> Any:
    """Return what an optional field holds when it is given."""
    options = [option for option in typing.get_args(annotation) if option is not type(None)]
    optional = len(options) == 1 and type(None) in typing.get_args(annotation)
    return _unwrap(options[0]) if optional else annotation


def _unwrap(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def _describe_default(field: FieldInfo, inner: type[BaseModel] | None) -> str:
    if field.is_required():
        return "required"
    default = field.default
    if default is None or default in ((), {}) or inner is not None:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, float):
        return f"`{default:g}s`"
    if isinstance(default, tuple):
        return f"`{list(default)}`".replace("'", '"')
    return f"`{default.value if isinstance(default, Enum) else default}`"
