"""A person's shell, for tests that follow a page of the documentation word by word."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet.sim.program import free_port
from fleet.sim.real import ControlPlane, find_binaries
from tools.docs import ROOT, Block, read_blocks

DOCS = ROOT / "docs"
LONG_S = 60.0


@dataclass
class Shell:
    """Runs lines of a page as a person would, in one directory."""

    directory: Path
    environment: Mapping[str, str]
    log: str = "background.log"
    """File of what a command in the background prints."""

    async def run(self, script: str) -> str:
        """Run a block; return what it printed. Fails on any line that fails."""
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-euc",
            script,
            cwd=self.directory,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(LONG_S):
            printed, _ = await process.communicate()
        assert process.returncode == 0, f"{script}\n{printed.decode()}"
        return printed.decode()

    @contextlib.asynccontextmanager
    async def background(self, command: str) -> AsyncIterator[None]:
        """Keep a command running for the length of the block; it must end well when asked to."""
        log = (self.directory / self.log).open("wb")
        with log:
            process = await asyncio.create_subprocess_exec(
                *command.split(), cwd=self.directory, env=self.environment, stdout=log, stderr=log
            )
            try:
                yield
            finally:
                if process.returncode is None:
                    process.terminate()
                async with asyncio.timeout(LONG_S):
                    code = await process.wait()
        assert code == 0, (self.directory / self.log).read_text()


async def open_shell(directory: Path, plane: ControlPlane) -> Shell:
    """Open a shell with `fleet`, `git` and `kubectl`, which leads to a real cluster; the hub has a port of its own."""
    await plane.kubectl("delete", "lease,configmap", "--all", "-n", "fleet-system")  # an earlier test's hub
    binaries, port = find_binaries(), free_port()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{binaries}:{os.environ['PATH']}",
        "HOME": str(directory),
        "KUBECONFIG": str(plane.kubeconfig_path),
        "FLEET_LISTEN": f"127.0.0.1:{port}",
        "FLEET_SERVER": f"http://127.0.0.1:{port}",
        **{f"GIT_{who}_{what}": "ada@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    return Shell(directory, environment)


def blocks_after(page: str, heading: str) -> list[Block]:
    """Return the blocks between a heading and the next one."""
    text = (DOCS / page).read_text().partition(f"\n## {heading}\n")[2]
    assert text, f"{page} has no heading {heading}"
    return list(read_blocks(text.partition("\n## ")[0]))


async def eventually(shell: Shell, script: str, wanted: str) -> None:
    """Run a command until it prints what is wanted."""
    printed = ""
    try:
        async with asyncio.timeout(LONG_S):
            while wanted not in (printed := await shell.run(f"{script} || true")):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{script} prints {printed!r}, never {wanted!r}") from None
