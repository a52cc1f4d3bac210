"""One inventory file's bytes -> its documents and every fault in it, with places. Pure."""

import difflib
import json
import typing
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fleet.document import Document, Path, format_path, parse_documents
from fleet.errors import Problem
from fleet.inventory.schema import API_VERSION, KINDS, NOT_YET, Entry


def parse_file(data: bytes, file: str, directory: PurePath | None = None) -> tuple[list[Entry], list[Problem]]:
    """Return the documents of a file that are right, and every fault of the others. No message holds a value.

    Relative paths in the file start at `directory`, by default the one that `file` names.
    """
    start = directory or PurePath(file).parent
    documents, problems = parse_documents(data, file)
    entries: list[Entry] = []
    for document in documents:
        entry, faults = _parse_document(document, start)
        problems += faults
        if entry is not None:
            entries.append(entry)
    return entries, sorted(problems)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint at the nearest of `known`, as the end of a sentence; empty where nothing is near.

    >>> nearest("stagin", ["dev", "staging"])
    '; did you mean staging?'
    """
    close = difflib.get_close_matches(word, sorted(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _parse_document(document: Document, directory: PurePath) -> tuple[Entry | None, list[Problem]]:
    value = document.value
    if not isinstance(value, dict):
        return None, [_problem(document, (), "must be a document with apiVersion, kind, metadata and spec")]
    if value.get("apiVersion") != API_VERSION:
        return None, [_problem(document, ("apiVersion",), f"must be {API_VERSION}: other documents do not belong here")]
    kind = value.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        hint = nearest(kind, KINDS) if isinstance(kind, str) else ""
        return None, [_problem(document, ("kind",), f"must be one of {', '.join(KINDS)}{hint}")]
    try:
        # As JSON, so that lists may fill tuples although types are strict.
        entry = model.model_validate_json(json.dumps(value), context={"directory": directory})
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=True)
        return None, [_translate(document, model, detail) for detail in details if not _follows(detail, details)]
    return entry.place(document), []


def _problem(document: Document, path: Path, message: str, *, key: bool = False) -> Problem:
    return Problem(document.file, *document.position(path, key=key), format_path(path), message)


def _translate(document: Document, model: type[Entry], detail: ErrorDetails) -> Problem:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    if detail["type"] == "extra_forbidden":
        return _problem(document, path, _explain_extra(model, path), key=True)
    if detail["type"] == "missing":
        return _problem(document, path, "is required")
    return _problem(document, path, _explain(detail), key="[key]" in detail["loc"])


def _follows(detail: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """Tell whether a list is called too short only because its items are wrong."""
    loc = detail["loc"]
    return detail["type"] == "too_short" and any(
        len(d["loc"]) > len(loc) and d["loc"][: len(loc)] == loc for d in details
    )


def _explain_extra(model: type[Entry], path: Path) -> str:
    refused = NOT_YET.get((model.__name__, format_path(path)))
    if refused is not None:
        return refused
    names = _field_names(model, path[:-1])
    hint = nearest(str(path[-1]), names)
    return f"no such field{hint}" if hint or not names else f"no such field; there are {', '.join(names)}"


def _field_names(model: type[BaseModel], path: Path) -> list[str]:
    """Return the names of the fields that may stand at `path`, as files spell them."""
    found: type[BaseModel] | None = model
    named = False
    for part in path:
        if named:  # a key of a mapping, not a field
            named = False
            continue
        if isinstance(part, str) and found is not None:
            fields = {field.alias or name: field for name, field in found.model_fields.items()}
            annotation = fields[part].annotation if part in fields else None
            found = model_inside(annotation)
            named = found is not None and typing.get_origin(annotation) is dict
    return [field.alias or name for name, field in found.model_fields.items()] if found is not None else []


def model_inside(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field's type holds, alone, in a list or optionally."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_inside, typing.get_args(annotation))), None)


_WANTED: Mapping[str, str] = MappingProxyType({
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "tuple_type": "must be a list",
    "path_type": "must be a file path",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
})  # fmt: skip


def _explain(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind in ("literal_error", "enum"):
        return _explain_choice(str(context["expected"]), value)
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "must be text: put it in quotes"
    if kind.startswith(("datetime", "timezone")):
        return "must be a time with its zone, such as 2030-01-02T03:04:05Z"
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']:g}{'s' if isinstance(context['ge'], float) else ''}"
    if kind in _WANTED:
        return "is empty; " + _WANTED[kind] if value is None else _WANTED[kind]
    return detail["msg"][0].lower() + detail["msg"][1:]


def _explain_choice(expected: str, value: object) -> str:
    choices = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    hint = nearest(value, choices) if isinstance(value, str) else ""
    return f"must be {expected.replace(chr(39), '')}{hint}"
