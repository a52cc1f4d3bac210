"""Jobs that misbehave on purpose."""

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from fleet.child import Job
from fleet.errors import DocumentError, PathMissing, Problem, RenderError


def named(function: str) -> Job:
    """Return the job for a function of this module."""
    return Job(__name__, function, "test")


def echo(payload: bytes) -> bytes:
    return payload


def get_pid(_payload: bytes) -> bytes:
    return str(os.getpid()).encode()


def show_environment(_payload: bytes) -> bytes:
    return msgspec.json.encode(dict(os.environ))


def show_limits(_payload: bytes) -> bytes:
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_CORE, resource.RLIMIT_CPU)
    return msgspec.json.encode([resource.getrlimit(kind)[0] for kind in kinds])


def show_dumpable(_payload: bytes) -> bytes:
    return str(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)).encode()  # PR_GET_DUMPABLE


def show_descriptors(_payload: bytes) -> bytes:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return msgspec.json.encode(found)


def connect(payload: bytes) -> bytes:
    """Try to reach a port of this machine; tell what happened."""
    try:
        socket.create_connection(("127.0.0.1", int(payload)), 5).close()
    except OSError as error:
        return type(error).__name__.encode()
    return b"connected"


def die(payload: bytes) -> bytes:
    os.kill(os.getpid(), int(payload))
    time.sleep(60)
    return b""


def die_once(payload: bytes) -> bytes:
    """Die where the file is not there yet."""
    path = Path(os.fsdecode(payload))
    if path.exists():
        return b"alive"
    path.touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def leave(_payload: bytes) -> bytes:
    sys.stdout.flush()
    os._exit(3)


def sleep(payload: bytes) -> bytes:
    """Write our process id to a file, then sleep."""
    Path(os.fsdecode(payload)).write_text(str(os.getpid()))
    time.sleep(60)
    return b""


def hold_grandchild(payload: bytes) -> bytes:
    """Leave a process of our own behind, then sleep."""
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    Path(os.fsdecode(payload)).write_text(str(pid))
    time.sleep(60)
    return b""


def spin(_payload: bytes) -> bytes:
    while True:
        pass


def eat_memory(_payload: bytes) -> bytes:
    held = []
    while True:
        held.append(bytes(10_000_000))


def recurse(payload: bytes) -> bytes:
    return recurse(payload + b"x")


def fail(_payload: bytes) -> bytes:
    raise PathMissing("apps/shop is not there", subject="shop")


def fail_render(_payload: bytes) -> bytes:
    raise RenderError([Problem("a.yaml", 1, 2, "spec", "wrong"), Problem("b.yaml", 3, 0, "", "too")], reason="Bad")


def fail_document(_payload: bytes) -> bytes:
    raise DocumentError([Problem("a.yaml", 1, 0, "", "twice")])


def fail_unexpectedly(payload: bytes) -> bytes:
    raise KeyError(payload)


def shout(_payload: bytes) -> bytes:
    """Write where the frames go, as a library might."""
    sys.stdout.write("noise\n")
    sys.stdout.flush()
    os.write(1, b"more noise\n")
    return b"said"


def lie(_payload: bytes) -> bytes:
    """Claim an answer of four gigabytes, as a captured worker might."""
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b"\x00\xff\xff\xff\xff")
        except OSError:
            continue
    time.sleep(60)
    return b""


def babble(_payload: bytes) -> bytes:
    """Answer with an error that is none."""
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b"\x01\x00\x00\x00\x03???")
        except OSError:
            continue
    time.sleep(60)
    return b""
