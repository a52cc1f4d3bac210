"""Real Git repositories on disk, written with the `git` command and untouched by the machine's configuration."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

EPOCH_S = 1_700_000_000


class GitRepository:
    """A repository with a work tree, one branch `main`, and commits whose ids depend on their content alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._commits = 0
        path.mkdir(parents=True, exist_ok=True)
        if not (path / ".git").exists():
            self.git("init", "-q", "-b", "main")

    def git(self, *args: str, stdin: bytes | None = None) -> str:
        """Run git in the work tree and return what it printed, stripped."""
        at = f"{EPOCH_S + self._commits} +0000"
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": "/nonexistent",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.com",
            "GIT_AUTHOR_DATE": at,
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.com",
            "GIT_COMMITTER_DATE": at,
        }
        done = subprocess.run(
            ["git", "-c", "gc.auto=0", *args], cwd=self.path, env=environ, input=stdin, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"git {' '.join(args)}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode().strip()

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Write files into the work tree."""
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def link(self, name: str, target: str) -> None:
        """Write a symbolic link, which may point anywhere."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    def commit(self, message: str = "change", files: Mapping[str, str | bytes] | None = None) -> str:
        """Commit the whole work tree (after writing `files`) and return the commit's sha."""
        self.write(files or {})
        self._commits += 1
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.head()

    def remove(self, name: str) -> None:
        """Remove a file from the work tree."""
        (self.path / name).unlink()

    def head(self, ref: str = "HEAD") -> str:
        """Return the commit that a ref names."""
        return self.git("rev-parse", f"{ref}^{{commit}}")

    def tag(self, name: str, *, message: str = "") -> None:
        """Tag HEAD; with a message the tag is annotated."""
        self.git("tag", *(["-a", "-m", message] if message else []), name)

    def put_tree(self, entries: Mapping[str, tuple[str, str]]) -> str:
        """Commit a flat tree of (mode, oid) as is, without the checks of `git add`; return the commit."""
        text = "".join(
            f"{mode} {'commit' if mode == '160000' else 'tree' if mode == '040000' else 'blob'} {oid}\t{name}\0"
            for name, (mode, oid) in entries.items()
        )
        tree = self.git("mktree", "-z", "--missing", stdin=text.encode())
        return self.git("commit-tree", "-m", "raw", tree)

    def blob(self, content: bytes) -> str:
        """Store a blob and return its id."""
        return self.git("hash-object", "-w", "--stdin", stdin=content)
