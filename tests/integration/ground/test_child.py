"""Worker processes that crash, hang, overeat and lie, and a hub that does not mind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from fleet import child as child_module
from fleet.aio import spawn
from fleet.child import InlineWorkers, Limits, ProcessWorkers, Workers
from fleet.errors import (
    Backoff,
    ChildCrashed,
    ChildError,
    ChildTimeout,
    DocumentError,
    FleetError,
    OnChange,
    PathMissing,
    Quarantined,
    RenderError,
)
from tests.integration.ground.job import named

LONG_S = 50.0


@pytest.fixture
async def workers() -> AsyncIterator[ProcessWorkers]:
    """One child at a time."""
    workers = ProcessWorkers({"test": Limits()})
    yield workers
    await workers.close()


async def call(workers: Workers, function: str, payload: bytes = b"", deadline_s: float = LONG_S) -> bytes:
    """Run one job."""
    return await workers.call(named(function), payload, deadline_s=deadline_s)


async def until(ready: Callable[[], bool]) -> None:
    """Wait for something that happens outside the loop."""
    async with asyncio.timeout(LONG_S):
        while not ready():
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def test_bytes_pass_unchanged(workers: ProcessWorkers) -> None:
    """Empty, binary and large payloads come back as they were; the child is used again."""
    for payload in (b"", bytes(range(256)), os.urandom(3_000_000)):
        assert await call(workers, "echo", payload) == payload
    assert await call(workers, "get_pid") == await call(workers, "get_pid", b"other")


async def test_an_empty_environment(workers: ProcessWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the hub's environment reaches a child but PATH."""
    monkeypatch.setenv("FLEET_TOKEN", "hunter2")
    environment = msgspec.json.decode(await call(workers, "show_environment"), type=dict[str, str])
    assert set(environment) <= {"PATH", "LANG", "LC_CTYPE"}


async def test_nothing_of_the_hub_is_open(workers: ProcessWorkers, tmp_path: Path) -> None:
    """A child holds its pipes and no file or socket of the hub."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    with secret.open() as file, socket.socket() as listener:
        os.set_inheritable(file.fileno(), True)
        os.set_inheritable(listener.fileno(), True)
        found = msgspec.json.decode(await call(workers, "show_descriptors"), type=list[str])
    assert not [name for name in found if not name.startswith(("pipe:", "/dev/null", "/proc/"))], found


async def test_limits_are_in_force(workers: ProcessWorkers) -> None:
    """Address space, core dumps and CPU are bounded; CPU per job and not per life."""
    space, core, cpu = msgspec.json.decode(await call(workers, "show_limits"), type=list[int])
    assert (space, core) == (Limits().memory_bytes, 0)
    assert 60 <= cpu <= 70


async def test_memory_is_in_no_dump(workers: ProcessWorkers) -> None:
    """A child's memory, where opened values may stand, is in no core dump and open to no debugger of its user."""
    assert await call(workers, "show_dumpable") == b"0"


async def test_no_network(workers: ProcessWorkers) -> None:
    """Where the kernel allows it a child reaches nobody, this machine included; a pool may ask for the network."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1]).encode()
        outcome = await call(workers, "connect", port)
        assert (outcome != b"connected") == can_leave_network()
        connected = ProcessWorkers({"test": Limits(network=True)})
        try:
            assert await call(connected, "connect", port) == b"connected"
        finally:
            await connected.close()


def can_leave_network() -> bool:
    """Try it in a process of its own."""
    attempt = "from fleet.child import leave_network; raise SystemExit(0 if leave_network() else 1)"
    return subprocess.run([sys.executable, "-c", attempt], check=False).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_a_crash_is_an_error_and_not_the_end(workers: ProcessWorkers, number: signal.Signals) -> None:
    """The signal is named, this input is refused from then on, and the next input gets a fresh child."""
    payload = str(int(number)).encode()
    with pytest.raises(ChildCrashed, match=number.name):
        await call(workers, "die", payload)
    with pytest.raises(Quarantined, match=number.name) as refused:
        await call(workers, "die", payload)
    assert refused.value.retry == OnChange()
    assert await call(workers, "echo", payload) == payload


async def test_an_exit_is_a_crash(workers: ProcessWorkers) -> None:
    """A child that leaves by itself is told with its exit code."""
    with pytest.raises(ChildCrashed, match="exit code 3"):
        await call(workers, "leave")


async def test_an_idle_child_that_died_costs_nobody_anything(workers: ProcessWorkers) -> None:
    """A child that something killed between two jobs is replaced, and no input is blamed for it."""
    pid = int(await call(workers, "get_pid"))
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not is_alive(pid))
    assert await call(workers, "echo", b"innocent") == b"innocent"


async def test_a_used_child_that_crashes_is_no_proof(workers: ProcessWorkers, tmp_path: Path) -> None:
    """What killed a child that had worked before is tried once in a fresh one: the fault may be an earlier job's."""
    await call(workers, "echo")
    assert await call(workers, "die_once", os.fsencode(tmp_path / "seen")) == b"alive"


async def test_a_job_that_takes_too_long_is_killed(workers: ProcessWorkers, tmp_path: Path) -> None:
    """At the deadline the child dies with everything it started; the input is refused for a while, not for ever."""
    note = tmp_path / "pid"
    with pytest.raises(ChildTimeout, match=r"longer than 1\.5 s"):
        await call(workers, "hold_grandchild", os.fsencode(note), deadline_s=1.5)
    await until(lambda: not is_alive(int(note.read_text())))
    with pytest.raises(Quarantined) as refused:
        await call(workers, "hold_grandchild", os.fsencode(note), deadline_s=1.5)
    assert refused.value.retry == Backoff()
    assert await call(workers, "echo", b"x") == b"x"


async def test_a_timeout_is_forgiven_after_a_while(
    workers: ProcessWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that was busy is no fault of the input."""
    monkeypatch.setattr(child_module, "TIMEOUT_QUARANTINE_S", 0.0)
    payload = os.fsencode(tmp_path / "pid")
    for _ in range(2):
        with pytest.raises(ChildTimeout):
            await call(workers, "sleep", payload, deadline_s=0.5)


async def test_endless_computing_is_ended_by_the_kernel() -> None:
    """A job that only burns CPU dies at its CPU limit, long before a generous deadline."""
    workers = ProcessWorkers({"test": Limits(cpu_s=1)})
    try:
        with pytest.raises(ChildCrashed, match=r"SIGXCPU|SIGKILL"):
            await call(workers, "spin")
    finally:
        await workers.close()


async def test_a_child_that_eats_too_much(workers: ProcessWorkers) -> None:
    """Running out of the memory limit is an error of that job, and the next job runs."""
    with pytest.raises(ChildError) as eaten:
        await call(workers, "eat_memory")
    assert eaten.value.reason in ("ChildMemory", "ChildCrashed")
    assert await call(workers, "echo", b"x") == b"x"


async def test_a_cancelled_call_kills_its_child(workers: ProcessWorkers, tmp_path: Path) -> None:
    """Cancelling ends the work and not only the waiting for it; the pool goes on with another child."""
    note = tmp_path / "pid"
    async with asyncio.TaskGroup() as group:
        task = spawn(group, "job", call(workers, "sleep", os.fsencode(note)))
        await until(lambda: note.exists() and note.read_text() != "")
        task.cancel()
    assert task.cancelled()
    assert not is_alive(int(note.read_text()))
    assert await call(workers, "echo", b"x") == b"x"
    (again,) = [await call(workers, "get_pid")]
    assert again != note.read_bytes()


async def test_errors_of_a_job_arrive_as_they_were(workers: ProcessWorkers) -> None:
    """Kind, reason, subject and problems of an error cross the pipe; an unexpected one is InternalError without values."""
    with pytest.raises(PathMissing) as missing:
        await call(workers, "fail")
    assert (missing.value.subject, missing.value.message) == ("shop", "apps/shop is not there")
    assert missing.value.retry == OnChange()
    with pytest.raises(RenderError) as wrong:
        await call(workers, "fail_render")
    assert wrong.value.reason == "Bad"
    assert [str(p) for p in wrong.value.problems] == ["a.yaml:1:2: spec: wrong", "b.yaml:3: too"]
    with pytest.raises(DocumentError) as document:
        await call(workers, "fail_document")
    assert [str(p) for p in document.value.problems] == ["a.yaml:1: twice"]
    with pytest.raises(FleetError) as bug:
        await call(workers, "fail_unexpectedly", b"hunter2")
    assert bug.value.reason == "InternalError"
    assert "KeyError in job.py:" in bug.value.message
    assert "hunter2" not in bug.value.message
    with pytest.raises(ChildError) as deep:
        await call(workers, "recurse")
    assert deep.value.reason == "ChildRecursion"


@pytest.mark.parametrize("function", ["lie", "babble"])
async def test_a_child_that_lies_is_killed(workers: ProcessWorkers, function: str) -> None:
    """Frames that no honest child sends end that child, at once and without eating the hub's memory."""
    with pytest.raises(ChildCrashed, match="nonsense"):
        await call(workers, function)
    assert await call(workers, "echo", b"x") == b"x"


async def test_printing_does_not_break_the_framing(workers: ProcessWorkers) -> None:
    """What a library writes to standard output goes nowhere."""
    assert await call(workers, "shout") == b"said"


async def test_children_are_replaced_after_so_many_jobs(
    workers: ProcessWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child serves a bounded number of jobs, so that what leaks does not add up."""
    monkeypatch.setattr(child_module, "JOBS_PER_CHILD", 3)
    pids = [await call(workers, "get_pid", str(n).encode()) for n in range(6)]
    assert len(set(pids)) == 2
    assert pids[0] == pids[2] != pids[3]


async def test_a_pool_has_a_size() -> None:
    """No more than `size` children run; further calls wait for their turn, and closing ends all of them."""
    workers = ProcessWorkers({"test": Limits(size=2)})
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [spawn(group, f"job/{n}", call(workers, "get_pid", str(n).encode())) for n in range(8)]
        pids = {int(task.result()) for task in tasks}
        assert len(pids) <= 2
    finally:
        await workers.close()
    assert not any(map(is_alive, pids))


async def test_a_child_that_cannot_be_started_blames_no_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a process there is a ChildError that is tried again, and no quarantine."""
    workers = ProcessWorkers({"test": Limits()})
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    for _ in range(2):
        with pytest.raises(ChildError) as failed:
            await call(workers, "echo")
        assert (failed.value.reason, failed.value.retry) == ("ChildStartFailed", Backoff())
    await workers.close()


async def test_inline_workers_do_the_same() -> None:
    """Simulated runs call the same functions in this process, with the same errors."""
    workers = InlineWorkers()
    assert await call(workers, "echo", b"x") == b"x"
    assert int(await call(workers, "get_pid")) == os.getpid()
    with pytest.raises(PathMissing):
        await call(workers, "fail")
