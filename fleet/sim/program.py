"""Child processes that cannot outlive us: servers started for tests, benches and the demo.

`subprocess.Popen` rather than asyncio's children, so that no handle belongs to an event loop: a server started by one
test's loop is stopped by another's.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

POLL_S: Final = 0.03
TAIL_BYTES: Final = 3000
_PORTS: Final = range(20_000, 32_000)  # below Linux's ephemeral range: no outgoing connection takes a stopped server's

# Run between fork and the real program. The kernel sends SIGKILL when the thread that started us dies, however it dies;
# the second look at the parent closes the gap before that request was made.
_LAUNCH: Final = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class ProgramError(Exception):
    """A program did not do what it was started for; the message ends with what it said last."""


class Program:
    """One program with its log file, started and stopped any number of times.

    It dies with the *thread* that called `start`, so call it from one that lives as long as the program should.
    """

    def __init__(self, name: str, argv: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.argv = tuple(argv)
        self._log = log
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; also the id of its process group."""
        if self._process is None:
            raise ProgramError(f"{self.name} was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and did not end."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program in a process group of its own; its output is appended to the log."""
        if self.running:
            raise ProgramError(f"{self.name} runs already")
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *self.argv]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                launcher,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._log.parent,
                start_new_session=True,
            )

    async def stop(self, *, grace_s: float = 10.0) -> None:
        """End it with SIGTERM, after `grace_s` with SIGKILL. Idempotent.

        Cancelled: it is killed at once and waited for.
        """
        if not self.running:
            return
        try:
            self.resume()
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self.ended()
        finally:
            self.kill()

    async def ended(self) -> None:
        """Wait until it does not run."""
        while self.running:  # noqa: ASYNC110 - any loop may wait, so there is no loop's event to set
            await asyncio.sleep(POLL_S)

    def kill(self) -> None:
        """End it with SIGKILL, whatever it is doing, and reap it. Idempotent."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen program go on; harmless otherwise."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole process group, unless the program has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def tail(self) -> str:
        """Return the end of the log."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, self._log.stat().st_size - TAIL_BYTES))
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


def free_port() -> int:
    """Find a loopback port that nothing listens on now. Another process may still take it first: be ready to retry."""
    for _ in range(200):
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free to a server
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ProgramError(f"no free port in {_PORTS}")
