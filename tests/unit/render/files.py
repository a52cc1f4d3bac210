"""A tree in memory, and shortcuts that render it."""

from collections.abc import Sequence
from typing import Any

import msgspec

from fleet.errors import PathMissing
from fleet.object import Manifest
from fleet.render import worker
from fleet.render.source import Node

KEY = b"k" * 16


class MemoryFiles:
    """Files by path, with no links."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def kind(self, path: str) -> Node:
        if path in self.files:
            return Node.FILE
        below = f"{path}/" if path else ""
        return Node.DIRECTORY if any(file.startswith(below) for file in self.files) else Node.NOTHING

    def list(self, path: str) -> Sequence[str]:
        below = f"{path}/" if path else ""
        return sorted({file[len(below) :].partition("/")[0] for file in self.files if file.startswith(below)})

    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise PathMissing(f"there is no {path}")
        return self.files[path].encode()


def order(path: str, scratch: str = "", **more: Any) -> worker.Order:
    """Return an order for a path with nothing asked for but `more`."""
    defaults: dict[str, Any] = {
        "repository": "",
        "revision": "",
        "path": path,
        "substitute": False,
        "variables": {},
        "namespace": "",
        "create_namespace": False,
        "digest_key": KEY,
        "kustomize": "",
        "scratch": scratch,
        "timeout_s": 30.0,
    }
    return worker.Order(**{**defaults, **more})


def render(files: dict[str, str], path: str = "app", scratch: str = "", **more: Any) -> list[Manifest]:
    """Render files in memory."""
    return list(worker.render_files(MemoryFiles(files), order(path, scratch, **more)).manifests)


def render_one(text: str, **more: Any) -> dict[str, Any]:
    """Render a text with one object and return its body."""
    (manifest,) = render({"app/x.yaml": text}, **more)
    body: dict[str, Any] = msgspec.json.decode(manifest.body)
    return body
