"""JSON and binary files of SOPS. Pure."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

from fleet.errors import SealError
from fleet.secrets.sops_leaf import Leaf, Opened, format_float, is_encrypted
from fleet.secrets.sops_text import SopsFile

DEPTH: Final = 100
_INT64: Final = range(-(2**63), 2**63)


def parse(data: bytes) -> SopsFile:
    """Read a JSON file.

    Raises: SealError Corrupt.
    """
    root = _load(data)
    metadata = root.pop("sops", None)
    if not isinstance(metadata, dict):
        raise SealError("the file has no block of SOPS")
    leaves = list(_walk(root, (), DEPTH))

    def write(opened: Sequence[Opened | None]) -> bytes:
        replaced = _replace(root, iter(opened))
        return json.dumps(replaced, indent=2).encode() + b"\n"

    return SopsFile(leaves=leaves, metadata=metadata, write=write)


def parse_binary(data: bytes) -> SopsFile:
    """Read what SOPS makes of a file of no format it knows: JSON with all of it in `data`.

    Raises: SealError Corrupt.
    """
    parsed = parse(data)
    if [leaf.path for leaf in parsed.leaves] != [("data",)]:
        raise SealError("a binary file of SOPS holds data and nothing else")
    content = parsed.leaves[0]

    def write(opened: Sequence[Opened | None]) -> bytes:
        shown = opened[0]
        return encode_bytes(content.text if shown is None else shown.text)

    return SopsFile(leaves=parsed.leaves, metadata=parsed.metadata, write=write)


def encode_bytes(text: str) -> bytes:
    """Return the bytes that a text was made of.

    Raises: SealError Corrupt for a text that no bytes make.
    """
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise SealError("the file holds text that is not Unicode") from None


def _load(data: bytes) -> dict[str, Any]:
    try:
        root = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise SealError("the file is not readable as JSON, or has a key twice") from None
    if not isinstance(root, dict):
        raise SealError("the file must be a JSON object")
    return root


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("duplicate key")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _walk(value: Any, path: tuple[str, ...], depth: int) -> Iterator[Leaf]:
    if depth < 0:
        raise SealError(f"the file is nested deeper than {DEPTH} levels")
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _walk(below, (*path, key), depth - 1)
    elif isinstance(value, list):
        for below in value:
            yield from _walk(below, path, depth - 1)
    elif value is not None:
        yield _make_leaf(value, path)


def _make_leaf(value: Any, path: tuple[str, ...]) -> Leaf:
    if isinstance(value, str):
        if is_encrypted(value):
            return Leaf(path=path, text=value, encrypted=True)
        return Leaf(path=path, text=value, hashed=value.encode(errors="surrogatepass"))
    # beyond int64 a whole number is a float to SOPS
    whole = isinstance(value, bool) or (isinstance(value, int) and value in _INT64)
    text = str(value) if whole else format_float(_to_float(value))
    return Leaf(path=path, text=text, hashed=text.encode())


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise SealError("a number in the file is too large") from None


def _replace(value: Any, opened: Iterator[Opened | None]) -> Any:
    if isinstance(value, dict):
        return {key: _replace(below, opened) for key, below in value.items()}
    if isinstance(value, list):
        return [_replace(below, opened) for below in value]
    if value is None:
        return None
    shown = next(opened)
    return value if shown is None else _typed(shown)


def _typed(opened: Opened) -> Any:
    try:
        match opened.kind:
            case "int":
                return int(opened.text)
            case "float":
                number = float(opened.text)
                return int(number) if number.is_integer() and abs(number) < 2**63 else number
            case "bool":
                return opened.text in ("True", "true", "TRUE", "t", "T", "1")
            case "comment":
                raise SealError("the file has a comment where JSON has none")
            case _:
                return opened.text
    except (ValueError, OverflowError):
        raise SealError("an encrypted number is none") from None
