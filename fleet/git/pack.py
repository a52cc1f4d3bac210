"""Merging packs: every fetch leaves one, and nothing else ever repacks. Imported in worker processes only."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pygit2

from fleet.git.library import reading

MOST_PACKS = 50
_INDEX_MARK = b"\xfftOc\x00\x00\x00\x02"
_FANOUT = struct.Struct(">256I")
_OID_BYTES = 20


def merge_small(repository: pygit2.Repository, directory: Path, *, most: int = MOST_PACKS) -> None:
    """Merge all packs but the largest into one when there are more than `most`.

    Whoever has an old pack open keeps reading it; whoever looks for an object afterwards finds the new one.

    Raises: SourceError (`CloneDamaged`).
    """
    packs = sorted(directory.glob("*.pack"), key=lambda path: path.stat().st_size)
    if len(packs) <= most:
        return
    small = packs[:-1]
    with reading(str(directory)):
        builder = pygit2.PackBuilder(repository)
        for oid in {oid for path in small for oid in _read_ids(path.with_suffix(".idx"))}:
            builder.add(pygit2.Oid(raw=oid))
        before = set(directory.glob("*.pack"))
        builder.write(str(directory))
        merged = set(directory.glob("*.pack")) - before
        for path in small if merged else ():
            # the index first: a pack without one is invisible, an index without its pack is an error
            path.with_suffix(".idx").unlink()
            path.unlink()


def _read_ids(index: Path) -> Iterator[bytes]:
    """Read the object ids of a pack index. Source: gitformat-pack(5), version 2."""
    data = index.read_bytes()
    if not data.startswith(_INDEX_MARK):
        raise ValueError(f"{index.name} is not a version 2 pack index")
    start = len(_INDEX_MARK) + _FANOUT.size
    (*_, count) = _FANOUT.unpack_from(data, len(_INDEX_MARK))
    for at in range(start, start + count * _OID_BYTES, _OID_BYTES):
        yield data[at : at + _OID_BYTES]
