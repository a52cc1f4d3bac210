"""What comes in: query strings and bodies, read into structs, with the nearest valid name for a wrong one."""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from fleet.errors import RequestError
from fleet.server.model import DIGEST, LABEL
from fleet.server.nearest import suggest

BODY_TIMEOUT_S = 15.0
MOST_BODY_BYTES = 64 * 1024

T = TypeVar("T", bound=msgspec.Struct)


def read_query(request: web.Request, into: type[T]) -> T:
    """Read the query string; a name given twice is a list, written with commas.

    Raises: RequestError naming the parameter.
    """
    given: dict[str, str] = {}
    for name, value in request.query.items():
        given[name] = f"{given[name]},{value}" if name in given else value
    return _convert(given, into, "query parameter", strict=False)


async def read_body(request: web.Request, into: type[T]) -> T:
    """Read a JSON body; an empty one is an empty object.

    Raises: RequestError naming the field.
    """
    _check_content_type(request)
    async with asyncio.timeout(BODY_TIMEOUT_S):
        raw = await request.read()
    try:
        given = msgspec.json.decode(raw or b"{}")
    except msgspec.DecodeError as error:
        raise RequestError(f"the body is not JSON: {error}", reason="BodyInvalid") from error
    if not isinstance(given, dict):
        raise RequestError("the body is not a JSON object", reason="BodyInvalid")
    return _convert(given, into, "field", strict=True)


def _check_content_type(request: web.Request) -> None:
    """Refuse what a form on a foreign page could send without asking."""
    if request.content_type != "application/json":
        raise RequestError(
            "a request that changes something carries Content-Type: application/json",
            status=415,
            reason="ContentTypeInvalid",
        )


def _convert(given: Mapping[str, Any], into: type[T], what: str, *, strict: bool) -> T:
    known = {field.encode_name for field in msgspec.structs.fields(into)}
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        hint = suggest(unknown, known) if known else "; none is known here"
        raise RequestError(f"there is no {what} {unknown!r}{hint}", reason="Unknown" + what.title().replace(" ", ""))
    try:
        return msgspec.convert(given, into, strict=strict)
    except msgspec.ValidationError as error:
        raise RequestError(f"{what}: {_explain(error)}", reason="Invalid" + what.title().replace(" ", "")) from error


def _explain(error: msgspec.ValidationError) -> str:
    """Say in words what a field may hold; a pattern tells a person nothing."""
    text = str(error)
    place = text.rpartition("`$.")[2].rstrip("`")
    if "`str` of length >= 1 " in text:
        return f"{place} must not be empty"
    if DIGEST in text:
        return f"{place} is no digest of what you looked at: 16 hex digits, as fleet shows them with it"
    if LABEL not in text:
        return text
    return f"{place} is no name: write small letters, digits, dots and dashes, 63 at most, with a letter or digit at both ends"
