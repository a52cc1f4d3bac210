"""env files of SOPS: `KEY=value` lines, with SOPS's block flattened into keys. Pure."""

import re
from collections.abc import Sequence
from typing import Any, Final

from fleet.errors import SealError
from fleet.secrets.sops_leaf import Leaf, Opened, is_encrypted
from fleet.secrets.sops_text import SopsFile

_PREFIX: Final = "sops_"
_PART: Final = re.compile(r"__(list|map)_")
LIST_LENGTH: Final = 1000


def parse(data: bytes) -> SopsFile:
    """Read an env file.

    Raises: SealError Corrupt naming the line.
    """
    lines: list[str] = []
    leaves: list[Leaf] = []
    places: list[int] = []
    flat: dict[str, str] = {}
    for number, line in enumerate(data.decode(errors="surrogateescape").split("\n"), 1):
        key, equals, value = line.partition("=")
        if not line or line.startswith("#"):
            lines.append("" if is_encrypted(line[1:]) else line)
        elif not equals:
            raise SealError(f"line {number} is not of the form KEY=value")
        elif key.startswith(_PREFIX):
            flat[key.removeprefix(_PREFIX)] = value.replace("\\n", "\n")
        else:
            places.append(len(lines))
            lines.append(line)
            leaves.append(_make_leaf(key, value))

    def write(opened: Sequence[Opened | None]) -> bytes:
        out = list(lines)
        for place, leaf, shown in zip(places, leaves, opened, strict=True):
            if shown is not None and shown.kind == "comment":
                raise SealError("the file has a comment where a value must be")
            if shown is not None:
                out[place] = f"{leaf.path[0]}={shown.text.replace(chr(10), chr(92) + 'n')}"
        return "\n".join(out).encode(errors="surrogateescape")

    return SopsFile(leaves=leaves, metadata=unflatten(flat), write=write)


def _make_leaf(key: str, value: str) -> Leaf:
    if is_encrypted(value):
        return Leaf(path=(key,), text=value, encrypted=True)
    return Leaf(path=(key,), text=value, hashed=value.replace("\\n", "\n").encode(errors="surrogateescape"))


def unflatten(flat: dict[str, str]) -> dict[str, Any]:
    """Return SOPS's block as it was before it was made flat keys.

    Raises: SealError Corrupt for keys that do not fit together.

    >>> unflatten({"mac": "x", "age__list_0__map_recipient": "age1", "age__list_0__map_enc": "-"})
    {'mac': 'x', 'age': [{'recipient': 'age1', 'enc': '-'}]}
    """
    root: dict[str, Any] = {}
    for key, value in flat.items():
        name, *rest = _PART.split(key)
        holder: Any = root
        step: str | int = name
        for kind, part in zip(rest[::2], rest[1::2], strict=True):
            holder = _descend(holder, step, [] if kind == "list" else {})
            step = _index(part) if kind == "list" else part
        _put(holder, step, value)
    return root


def _descend(holder: Any, step: str | int, empty: Any) -> Any:
    if isinstance(holder, list) and isinstance(step, int):
        holder.extend(type(empty)() for _ in range(step + 1 - len(holder)))
        found = holder[step]
    elif isinstance(holder, dict) and isinstance(step, str):
        found = holder.setdefault(step, empty)
    else:
        raise _unfit()
    if type(found) is not type(empty):
        raise _unfit()
    return found


def _put(holder: Any, step: str | int, value: str) -> None:
    if not isinstance(holder, dict) or not isinstance(step, str):
        return  # a list of plain words: nothing that opening a file needs
    holder[step] = value


def _index(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:9]) >= LIST_LENGTH:
        raise _unfit()
    return int(text)


def _unfit() -> SealError:
    return SealError("the keys of SOPS's block do not fit together")
