"""The demo's directory: a copy of the example inventory, kubeconfigs, and a Git repository that its commits go to."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from fleet.errors import ConfigError

AUTHOR = "Demo"
EXAMPLE = "clusters.d"


class Place:
    """`clusters.d/`, `repository/` and `data/` below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inventory = root / EXAMPLE
        self.repository = root / "repository"
        self.data = root / "data"
        self.key_backups = root / "key-backups"
        """Sealing keys are used once a backup holds them; on a disk of its own outside a demo."""

    def furnish(self) -> None:
        """Copy the example inventory and make the repository's first commit.

        Raises: ConfigError when there is no git, or no example.
        """
        if shutil.which("git") is None:
            raise ConfigError("the demo needs git on PATH", reason="GitMissing")
        shutil.copytree(find_example(), self.inventory)
        (self.inventory / "keys").mkdir(mode=0o700)
        with resources.as_file(resources.files("fleet.cli.demo").joinpath("repository")) as content:
            shutil.copytree(content, self.repository)
        self.git("init", "-q", "-b", "main")
        self.commit("Deliver platform, ingress and shop")

    def cluster_names(self) -> list[str]:
        """Name the clusters of the inventory, in its order."""
        return [d["metadata"]["name"] for _, d in self._documents() if d["kind"] == "Cluster"]

    def keep_clusters(self, names: Sequence[str]) -> None:
        """Leave out all other clusters."""
        for path in sorted(self.inventory.glob("*.yaml")):
            documents = [d for at, d in self._documents() if at == path]
            kept = [d for d in documents if d["kind"] != "Cluster" or d["metadata"]["name"] in names]
            if len(kept) != len(documents):
                path.write_text(yaml.safe_dump_all(kept, sort_keys=False))

    def _documents(self) -> list[tuple[Path, dict[str, Any]]]:
        paths = sorted(self.inventory.glob("*.yaml"))
        return [(path, d) for path in paths for d in yaml.safe_load_all(path.read_text()) if d]

    def write_kubeconfig(self, name: str, document: Mapping[str, Any]) -> None:
        """Put a kubeconfig where the example names it."""
        path = self.inventory / "keys" / f"{name}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(document, indent=2))

    def edit(self, file: str, before: str, after: str) -> None:
        """Replace text in a file of the repository."""
        _replace(self.repository / file, before, after)

    def edit_inventory(self, file: str, before: str, after: str) -> None:
        """Replace text in a file of the inventory."""
        _replace(self.inventory / file, before, after)

    def commit(self, message: str) -> str:
        """Commit everything; return the sha."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def revert(self) -> str:
        """Take the last commit back; return the new commit's sha."""
        self.git("revert", "--no-edit", "HEAD")
        return self.git("rev-parse", "HEAD")

    def git(self, *args: str) -> str:
        """Run git in the repository, without this machine's configuration."""
        return self._run(["git", "-c", "gc.auto=0", *args], f"git {args[0]}").strip()

    def fleet(self, *args: str) -> str:
        """Run a client command in the repository, as a person at a desk of their own; it takes half a second."""
        return self._run([sys.executable, "-m", "fleet.cli", *args], f"fleet {args[0]}")

    def _run(self, command: Sequence[str], name: str) -> str:
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(self.root),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            **{f"GIT_{who}_{what}": AUTHOR if what == "NAME" else "demo@example.com" for who, what in _IDENTITY},
        }
        done = subprocess.run(command, cwd=self.repository, env=environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ConfigError(f"{name}: {done.stderr.strip()}", reason="CommandFailed")
        return done.stdout


def _replace(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    if before not in text:
        raise ConfigError(f"{path} does not hold {before!r}", reason="ExampleChanged")
    path.write_text(text.replace(before, after))


_IDENTITY = [(who, what) for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]


def find_example() -> Path:
    """Return the example inventory: beside the package in a checkout, inside it when installed.

    Raises: ConfigError.
    """
    package = Path(__file__).parent
    for candidate in (package / EXAMPLE, package.parents[2] / EXAMPLE):
        if candidate.is_dir():
            return candidate
    raise ConfigError("the example clusters.d is not part of this installation", reason="ExampleMissing")
