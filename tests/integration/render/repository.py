"""Bare repositories on disk, one commit per mapping of files."""

from pathlib import Path

import pygit2
from pygit2.enums import FileMode

_AUTHOR = pygit2.Signature("test", "test@example.com", 1, 0)


class Link(str):
    """A file that is a symbolic link to this target."""

    __slots__ = ()


class Submodule(str):
    """An entry that is a submodule at this commit."""

    __slots__ = ()


_MODES: dict[type, FileMode] = {Link: FileMode.LINK, Submodule: FileMode.COMMIT}


class Bare:
    """A bare repository that only grows."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._repository = pygit2.init_repository(self.path, bare=True)

    def commit_bytes(self, files: dict[str, bytes]) -> str:
        """Commit exactly these files, whatever their bytes, and return the revision."""
        index = pygit2.Index()
        for path, data in files.items():
            index.add(pygit2.IndexEntry(path, self._repository.create_blob(data), FileMode.BLOB))
        return self._write(index)

    def commit(self, files: dict[str, str]) -> str:
        """Commit exactly these files and return the revision."""
        index = pygit2.Index()
        for path, text in files.items():
            found = (
                pygit2.Oid(hex=str(text))
                if isinstance(text, Submodule)
                else self._repository.create_blob(text.encode())
            )
            mode = _MODES.get(type(text), FileMode.BLOB)
            index.add(pygit2.IndexEntry(path, found, mode))
        return self._write(index)

    def _write(self, index: pygit2.Index) -> str:
        tree = index.write_tree(self._repository)
        return str(self._repository.create_commit(None, _AUTHOR, _AUTHOR, "test", tree, []))
