"""Inventory values for tests, built from text as from files."""

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from fleet.inventory.merge import merge
from fleet.inventory.parse import parse_file
from fleet.inventory.value import File, Inventory, Scan

KUBECONFIG = "connection: {kubeconfig: {file: keys/%s.kubeconfig}}"


def repository(name: str = "repo", spec: str = "url: https://git.example.com/x.git") -> str:
    """Return a Repository document."""
    return _document("Repository", name, spec)


def environment(name: str, spec: str = "") -> str:
    """Return an Environment document."""
    return _document("Environment", name, spec)


def cluster(name: str, environment: str = "dev", labels: str = "", spec: str = "") -> str:
    """Return a Cluster document."""
    own = f"environment: {environment}, {KUBECONFIG % name}" + (f", {spec}" if spec else "")
    return _document("Cluster", name, own, labels)


def app(name: str = "shop", spec: str = "", *, targets: str = "clusterSelector: {}", path: str = "apps") -> str:
    """Return an App document that goes to every cluster unless told otherwise."""
    own = f"repository: repo, path: '{path}', targets: {{{targets}}}" + (f", {spec}" if spec else "")
    return _document("App", name, own)


def _document(kind: str, name: str, spec: str, labels: str = "") -> str:
    return (
        f"apiVersion: fleet/v1\nkind: {kind}\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {{{spec}}}\n---\n"
    )


def scan(files: Mapping[str, str]) -> Scan:
    """Return what reading a directory with these files would give."""
    read = {}
    for path, text in sorted(files.items()):
        entries, problems = parse_file(text.encode(), path)
        read[path] = File(digest=text.encode(), entries=tuple(entries), problems=tuple(problems))
    return Scan(directory=Path(), files=read, digest=blake2b(repr(sorted(files.items())).encode()).hexdigest())


def inventory(*documents: str) -> Inventory:
    """Return the inventory of one file with these documents."""
    return merge(None, scan({"a.yaml": "".join(documents)}), quiet=True)


def faults(inventory: Inventory) -> list[str]:
    """Return the problems of an inventory as people see them."""
    return [str(problem) for problem in inventory.problems]
