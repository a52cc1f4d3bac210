"""The few lines of Git's wire protocol that a poll needs: pkt-lines, the advertisement, and `ls-refs`. Pure.

Source: gitprotocol-common(5), gitprotocol-v2(5), gitprotocol-pack(5).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from fleet.errors import FetchFailed

MOST_LINE_BYTES = 65520
_SHA = re.compile(rb"[0-9a-f]{40}")
_PEELED = "^{}"
_NOTHING = "capabilities^{}"


class Mark(Enum):
    """A pkt-line without content."""

    FLUSH = b"0000"
    DELIMITER = b"0001"
    END = b"0002"


_MARKS = {mark.value: mark for mark in Mark}


@dataclass(frozen=True, slots=True)
class Advertisement:
    """What a server says first: that it speaks version 2, or, in older versions, all its refs."""

    version: int
    refs: dict[str, str]
    """Commits by full ref name, tags peeled; empty in version 2."""


def encode_line(text: str) -> bytes:
    """Return a pkt-line.

    >>> encode_line("peel")
    b'0009peel\\n'
    """
    content = text.encode() + b"\n"
    return f"{len(content) + 4:04x}".encode() + content


def write_ls_refs(prefixes: Iterable[str]) -> bytes:
    """Return a version 2 request for the refs that begin with one of `prefixes`, with annotated tags peeled."""
    arguments = [encode_line("peel"), *(encode_line(f"ref-prefix {prefix}") for prefix in prefixes)]
    return b"".join([encode_line("command=ls-refs"), Mark.DELIMITER.value, *arguments, Mark.FLUSH.value])


def split_lines(data: bytes) -> Iterator[bytes | Mark]:
    """Return the pkt-lines of `data`, without their line ends.

    Raises: FetchFailed when it is cut short or no pkt-line; with the server's words when it reports an error.
    """
    at = 0
    while at < len(data):
        head = data[at : at + 4]
        if head in _MARKS:
            yield _MARKS[head]
            at += 4
            continue
        try:
            size = int(head, 16)
        except ValueError:
            size = 0
        if not 4 <= size <= MOST_LINE_BYTES or at + size > len(data):
            raise _broken("a line is cut short or no pkt-line")
        line = data[at + 4 : at + size].removesuffix(b"\n")
        if line.startswith(b"ERR "):
            raise FetchFailed(f"the server says: {_clean(line[4:])}", reason="RemoteError")
        yield line
        at += size


def parse_ls_refs(data: bytes) -> dict[str, str]:
    """Return commits by full ref name from the answer to `write_ls_refs`.

    Raises: FetchFailed.
    """
    refs: dict[str, str] = {}
    for line in split_lines(data):
        if line is Mark.FLUSH:
            return refs
        if isinstance(line, Mark):
            raise _broken("an unexpected mark")
        oid, name, attributes = _split_ref(line)
        peeled = next((a.removeprefix(b"peeled:") for a in attributes if a.startswith(b"peeled:")), oid)
        refs[name] = _check_sha(peeled)
    raise _broken("the list of refs is cut short")


def parse_advertisement(data: bytes) -> Advertisement:
    """Read the answer to `info/refs?service=git-upload-pack`.

    Raises: FetchFailed.
    """
    lines = [line for line in split_lines(data) if not isinstance(line, Mark)]
    if not lines:
        raise _broken("nothing was advertised")
    if lines[0].startswith(b"# service="):
        lines = lines[1:]
    if lines and lines[0] == b"version 2":
        if b"object-format=sha256" in lines:
            raise _unsupported_format()
        return Advertisement(2, {})
    return Advertisement(0, _parse_refs([line for line in lines if line != b"version 1"]))


def _parse_refs(lines: list[bytes]) -> dict[str, str]:
    refs: dict[str, str] = {}
    if lines and b"object-format=sha256" in lines[0]:
        raise _unsupported_format()
    for line in lines:
        oid, name, _ = _split_ref(line.partition(b"\0")[0])
        if name != _NOTHING:
            # the peeled commit follows the tag that it belongs to
            refs[name.removesuffix(_PEELED)] = _check_sha(oid)
    return refs


def _split_ref(line: bytes) -> tuple[bytes, str, list[bytes]]:
    oid, *rest = line.split(b" ")
    if not rest or not rest[0]:
        raise _broken("a line without a ref")
    return oid, rest[0].decode(errors="replace"), rest[1:]


def _check_sha(oid: bytes) -> str:
    if not _SHA.fullmatch(oid):
        raise _unsupported_format() if len(oid) == 64 else _broken("an id that is no sha")
    return oid.decode()


def _clean(text: bytes) -> str:
    return re.sub(r"[^\x20-\x7e]+", " ", text.decode(errors="replace")).strip()[:200]


def _broken(what: str) -> FetchFailed:
    return FetchFailed(f"the answer is not what a Git server sends ({what}); check the URL", reason="ProtocolError")


def _unsupported_format() -> FetchFailed:
    return FetchFailed("repositories with SHA-256 object names are not supported", reason="ObjectFormat")
