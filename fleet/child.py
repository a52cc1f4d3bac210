"""Worker processes for untrusted bytes: Git packs and YAML never meet the hub's memory or credentials.

Parent and child speak length-prefixed frames over stdin and stdout. A child starts with an empty environment and
resource limits, serves one job at a time, is killed at the job's deadline, and is replaced after `JOBS_PER_CHILD` jobs.
An input that killed a fresh child is quarantined: the same bytes are refused until the hub restarts or they change; one that
took too long is refused for ten minutes, since the machine may have been busy.

`ProcessPoolExecutor` is not used: one killed worker fails every job of the pool, and children inherit the environment.
"""

import asyncio
import contextlib
import ctypes
import hashlib
import importlib
import os
import resource
import signal
import struct
import sys
import traceback
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import msgspec

from fleet import errors
from fleet.errors import (
    Backoff,
    ChildCrashed,
    ChildError,
    ChildTimeout,
    DocumentError,
    FleetError,
    Problem,
    Quarantined,
    RenderError,
)

JOBS_PER_CHILD = 500
MOST_QUARANTINED = 1000
TIMEOUT_QUARANTINE_S = 600.0
MOST_FRAME_BYTES = 256 * 1024 * 1024
_HEADER = struct.Struct(">BI")
_OK, _ERROR = 0, 1
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


@dataclass(frozen=True, slots=True)
class Job:
    """A function `bytes -> bytes` named by module, so that only its name crosses to the child."""

    module: str
    function: str
    pool: str

    def load(self) -> Callable[[bytes], bytes]:
        """Import the function; called inside the child (or inline)."""
        return cast("Callable[[bytes], bytes]", getattr(importlib.import_module(self.module), self.function))


class Workers(Protocol):
    """Runs jobs away from the hub's own work."""

    async def call(self, job: Job, payload: bytes, *, deadline_s: float) -> bytes:
        """Run the job; raise the FleetError it raised, or a ChildError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a pool's processes may use."""

    size: int = 1
    """Processes at most. Default 1; more only where cores are idle."""
    memory_bytes: int = 1 << 30
    """Address space of one process."""
    cpu_s: int = 60
    """CPU seconds of one job."""
    network: bool = False
    """False asks the kernel for an empty network namespace; `fleet doctor` says whether it gave one."""


class _Failure(msgspec.Struct):
    kind: str
    reason: str
    message: str
    subject: str
    problems: list[Problem] = []


class InlineWorkers:
    """Runs jobs in this process: for simulated runs, where everything must be deterministic."""

    async def call(self, job: Job, payload: bytes, *, deadline_s: float) -> bytes:
        """Run the job at once; `deadline_s` is not enforced."""
        return job.load()(payload)


class ProcessWorkers:
    """Runs jobs in limited child processes, one pool per `Job.pool`."""

    def __init__(self, pools: Mapping[str, Limits]) -> None:
        self._pools = {name: _Pool(name, limits) for name, limits in pools.items()}
        self._quarantine: OrderedDict[bytes, _Verdict] = OrderedDict()

    async def call(self, job: Job, payload: bytes, *, deadline_s: float) -> bytes:
        """Run the job in a child of its pool.

        Raises: the FleetError the job raised; ChildTimeout, ChildCrashed, Quarantined.
        Cancelled: the child at work is killed; nothing else is affected.
        """
        digest = hashlib.sha256(f"{job.module}:{job.function}:".encode() + payload).digest()
        self._refuse_quarantined(digest, job)
        try:
            try:
                return await self._call_once(job, payload, deadline_s, fresh=False)
            except _UsedChildCrashed:
                return await self._call_once(job, payload, deadline_s, fresh=True)
        except ChildCrashed as error:
            self._condemn(digest, _Verdict(error.message))
            raise
        except ChildTimeout as error:
            self._condemn(digest, _Verdict(error.message, asyncio.get_running_loop().time() + TIMEOUT_QUARANTINE_S))
            raise

    async def _call_once(self, job: Job, payload: bytes, deadline_s: float, *, fresh: bool) -> bytes:
        async with self._pools[job.pool].lend(fresh=fresh) as child:
            return await child.call(job, payload, deadline_s)

    def _refuse_quarantined(self, digest: bytes, job: Job) -> None:
        verdict = self._quarantine.get(digest)
        if verdict is None:
            return
        if asyncio.get_running_loop().time() >= verdict.until:
            del self._quarantine[digest]
            return
        passing = verdict.until < float("inf")
        raise Quarantined(
            f"this input killed a {job.pool} worker before ({verdict.why}); "
            + ("it is tried again in some minutes" if passing else "change it"),
            retry=Backoff() if passing else None,
        )

    def _condemn(self, digest: bytes, verdict: "_Verdict") -> None:
        self._quarantine[digest] = verdict
        if len(self._quarantine) > MOST_QUARANTINED:
            self._quarantine.popitem(last=False)

    async def close(self) -> None:
        """Kill every child and wait for it."""
        for pool in self._pools.values():
            await pool.close()


@dataclass(frozen=True, slots=True)
class _Verdict:
    why: str
    until: float = float("inf")
    """Loop time."""


class _UsedChildCrashed(ChildCrashed):
    """A child died that had worked before: an earlier job, or the machine, may be to blame."""


class _Pool:
    def __init__(self, name: str, limits: Limits) -> None:
        self._name = name
        self._limits = limits
        self._free = asyncio.Semaphore(limits.size)
        self._idle: list[_Child] = []

    @contextlib.asynccontextmanager
    async def lend(self, *, fresh: bool) -> AsyncIterator["_Child"]:
        async with self._free:
            child = None if fresh else await self._take_idle()
            if child is None:
                child = await _Child.start(self._name, self._limits)
            try:
                yield child
            finally:
                if child.usable:
                    self._idle.append(child)
                else:
                    await child.kill()

    async def _take_idle(self) -> "_Child | None":
        while self._idle:
            child = self._idle.pop()
            if child.usable:
                return child
            await child.kill()
        return None

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().kill()


class _Child:
    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name
        self._served = 0
        self._busy = False

    @classmethod
    async def start(cls, name: str, limits: Limits) -> "_Child":
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-m",
                "fleet.child",
                msgspec.json.encode([limits.memory_bytes, limits.cpu_s, limits.network]).decode(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
                start_new_session=True,
            )
        except OSError as error:
            raise ChildError(
                f"no {name} worker could be started ({error.strerror}); check memory and process limits",
                reason="ChildStartFailed",
            ) from error
        return cls(process, name)

    @property
    def usable(self) -> bool:
        return not self._busy and self._process.returncode is None and self._served < JOBS_PER_CHILD

    async def call(self, job: Job, payload: bytes, deadline_s: float) -> bytes:
        self._busy = True
        used, self._served = self._served > 0, self._served + 1
        try:
            async with asyncio.timeout(deadline_s):
                state, body = await self._exchange(job, payload)
        except TimeoutError:
            await self.kill()
            raise ChildTimeout(f"the {self._name} worker took longer than {deadline_s:g} s and was killed") from None
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await self.kill()
            kind = _UsedChildCrashed if used else ChildCrashed
            raise kind(f"the {self._name} worker died ({self._describe_exit()})") from error
        if state == _OK:
            self._busy = False
            return body
        try:
            failure = _decode_failure(body)
        except msgspec.MsgspecError:
            raise self._nonsense() from None
        self._busy = False
        raise failure

    async def _exchange(self, job: Job, payload: bytes) -> tuple[int, bytes]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        header = msgspec.json.encode([job.module, job.function])
        self._process.stdin.write(_HEADER.pack(_OK, len(header)) + header + _HEADER.pack(_OK, len(payload)))
        self._process.stdin.write(payload)
        await self._process.stdin.drain()
        state, size = _HEADER.unpack(await self._process.stdout.readexactly(_HEADER.size))
        if size > MOST_FRAME_BYTES or state not in (_OK, _ERROR):
            raise self._nonsense()
        return state, await self._process.stdout.readexactly(size)

    def _nonsense(self) -> ChildCrashed:
        """A child whose memory was taken over may write anything; it stays busy, and so is killed on its return."""
        return ChildCrashed(f"the {self._name} worker answered nonsense and was killed")

    def _describe_exit(self) -> str:
        code = self._process.returncode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"

    async def kill(self) -> None:
        """Kill the child and whatever it started, and reap it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()
        # the transport is closed here and not by the garbage collector, which would warn
        self._process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


def _encode_failure(error: FleetError) -> bytes:
    problems = list(error.problems) if isinstance(error, RenderError | DocumentError) else []
    return msgspec.json.encode(
        _Failure(
            kind=type(error).__name__,
            reason=error.reason,
            message=error.message,
            subject=error.subject,
            problems=problems,
        )
    )


def _decode_failure(body: bytes) -> FleetError:
    failure = msgspec.json.decode(body, type=_Failure)
    for carrier in (RenderError, DocumentError):
        if failure.kind == carrier.__name__:
            return carrier(failure.problems, reason=failure.reason)
    kind = getattr(errors, failure.kind, None)
    if not isinstance(kind, type) or not issubclass(kind, FleetError):
        kind = FleetError
    error = kind(failure.message, subject=failure.subject)
    error.reason = failure.reason
    return error


def main() -> None:
    """Serve jobs from stdin until it closes. Run as `python -m fleet.child LIMITS`."""
    memory_bytes, cpu_s, network = msgspec.json.decode(sys.argv[1])
    confine(memory_bytes, network=network)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stray print must not break the framing
    while (frame := _read_frame(source)) is not None:
        module, function = msgspec.json.decode(frame)
        payload = _read_frame(source)
        if payload is None:
            return
        allow_cpu(cpu_s)
        state, body = _run(Job(module, function, ""), payload)
        sink.write(_HEADER.pack(state, len(body)) + body)
        sink.flush()


def _run(job: Job, payload: bytes) -> tuple[int, bytes]:
    try:
        return _OK, job.load()(payload)
    except FleetError as error:
        return _ERROR, _encode_failure(error)
    except MemoryError:
        return _ERROR, _encode_failure(ChildError("the worker ran out of its memory limit", reason="ChildMemory"))
    except RecursionError:
        return _ERROR, _encode_failure(ChildError("the input is nested too deeply", reason="ChildRecursion"))
    except Exception as error:  # noqa: BLE001 - a bug in a job is told by place; its text may hold what was parsed
        return _ERROR, _encode_failure(ChildError(describe_bug(error), reason="InternalError"))


def describe_bug(error: Exception) -> str:
    """Name an exception and the line it came from, without its text, which may quote what was read."""
    *_, last = traceback.walk_tb(error.__traceback__)
    frame, line = last
    return f"{type(error).__name__} in {Path(frame.f_code.co_filename).name}:{line}"


def _read_frame(source: BinaryIO) -> bytes | None:
    header = source.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    _, size = _HEADER.unpack(header)
    if size > MOST_FRAME_BYTES:
        return None
    return source.read(int(size))


def confine(memory_bytes: int, *, network: bool) -> None:
    """Take from this process what a parser does not need: memory, core dumps, new privileges, the network."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, resource.RLIM_INFINITY))
    if not network:
        leave_network()
    forbid_dumps()


def forbid_dumps() -> None:
    """Keep this process's memory, in which secrets may stand, out of core dumps and from debuggers of the same user.

    Source: prctl(2) PR_SET_DUMPABLE; a program that this process starts is dumpable again, the limit it inherits.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def leave_network() -> bool:
    """Move this process into an empty network namespace; return False where the kernel does not allow it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def allow_cpu(seconds: int) -> None:
    """Grant this job `seconds` of CPU from now; the kernel ends the process beyond them."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    granted = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (granted, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
