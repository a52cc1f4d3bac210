"""Servers started for tests are stopped, frozen and never left behind. The servers here are small shell scripts."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet.sim.program import Program, ProgramError, free_port

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
SHELL = shutil.which("sh") or "/bin/sh"

Start = Callable[[str], Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a shell script as a program; it is killed when the test ends."""
    programs: list[Program] = []

    def start_script(script: str) -> Program:
        program = Program("it", [SHELL, "-c", script], log=tmp_path / "log", environment={"PATH": os.environ["PATH"]})
        programs.append(program)
        program.start()
        return program

    yield start_script
    for program in programs:
        program.kill()


async def said(program: Program, word: str) -> None:
    """Wait until a program's log has a word."""
    async with asyncio.timeout(30):
        while word not in program.tail():
            await asyncio.sleep(0.01)


def process_state(pid: int) -> str:
    """Read the state letter of a process, empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


async def test_stops_and_starts_again(start: Start) -> None:
    """A stopped program can be started again, and its log goes on."""
    program = start("echo hello; exec sleep 600")
    await said(program, "hello")
    first = program.pid
    await program.stop()
    await program.stop()
    assert not process_state(first)
    program.start()
    assert program.pid != first
    with pytest.raises(ProgramError, match="runs already"):
        program.start()


async def test_stubborn_program_is_killed(start: Start) -> None:
    """What ignores SIGTERM gets SIGKILL, and its children with it."""
    program = start(STUBBORN)
    await said(program, "ready")
    await program.stop(grace_s=0.05)
    assert not program.running


async def test_frozen_program_is_stopped(start: Start) -> None:
    """A frozen program stays frozen until it is resumed; stopping one needs no help."""
    program = start("echo ready; exec sleep 600")
    await said(program, "ready")
    program.pause()
    async with asyncio.timeout(30):
        while process_state(program.pid) != "T":
            await asyncio.sleep(0.01)
    await program.stop()
    assert not program.running


async def test_cancelled_stop_kills(start: Start) -> None:
    """Whoever gives up waiting for a stop leaves nothing running."""
    program = start(STUBBORN)
    await said(program, "ready")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await program.stop(grace_s=600)
    assert not program.running


async def test_ended_program_tells_its_last_words(start: Start) -> None:
    """The end of the log is there for the error message."""
    program = start("echo no such flag >&2; exit 3")
    async with asyncio.timeout(30):
        await program.ended()
    assert "no such flag" in program.tail()
    program.pause()
    program.kill()


def test_unstarted_program_has_no_process(tmp_path: Path) -> None:
    """Asking for the process of a program that was never started is an error; stopping it is none."""
    program = Program("it", ["/bin/true"], log=tmp_path / "log", environment={})
    program.kill()
    assert (program.running, program.tail()) == (False, "")
    with pytest.raises(ProgramError, match="not started"):
        _ = program.pid


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
async def test_program_dies_with_its_parent(tmp_path: Path) -> None:
    """A parent killed without a chance to clean up leaves no orphan."""
    script = (
        "import pathlib, sys, time; from fleet.sim.program import Program\n"
        "p = Program('it', ['/bin/sleep', '600'], log=pathlib.Path(sys.argv[1]), environment={})\n"
        "p.start(); print(p.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert process_state(pid)
        parent.send_signal(signal.SIGKILL)
    async with asyncio.timeout(30):
        while process_state(pid) not in ("", "Z"):  # whoever adopts it may take its time to reap it
            await asyncio.sleep(0.01)


def test_free_ports_are_outside_the_ephemeral_range() -> None:
    """No outgoing connection of the machine can take a stopped server's port."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1024 < free_port() < lowest for _ in range(20))
