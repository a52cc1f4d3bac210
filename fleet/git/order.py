"""What the hub asks of the workers that handle clones, and what they answer. Imported on both sides; no libgit2 here."""

from typing import TypeVar

import msgspec

from fleet.child import Job, Limits

READ_POOL, FETCH_POOL = "git", "fetch"
POOLS = {
    READ_POOL: Limits(size=2, memory_bytes=2 << 30, cpu_s=120),
    FETCH_POOL: Limits(size=2, memory_bytes=2 << 30, cpu_s=600, network=True),
}
"""Fetches have workers of their own: a slow first clone does not hold up everybody's questions about history. The
network they have is meant for the relay on loopback."""

LIST = Job("fleet.git.worker", "list_refs", READ_POOL)
OPEN = Job("fleet.git.worker", "open_store", READ_POOL)
FETCH = Job("fleet.git.worker", "fetch", FETCH_POOL)
ACCEPT = Job("fleet.git.worker", "accept", READ_POOL)
CONTAINS = Job("fleet.git.worker", "contains", READ_POOL)
FIND = Job("fleet.git.worker", "find", READ_POOL)
DESCRIBE = Job("fleet.git.worker", "describe", READ_POOL)

DAMAGED = "CloneDamaged"
"""Reason of a clone that cannot be read; the next fetch replaces it."""

CURRENT = "current"
"""Name of the link in a store's directory that leads to the clone in force."""

MOST_FETCHED_BYTES = 2 << 30

T = TypeVar("T")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What every order carries."""

    attempt: int = 0
    """Differs on every call: bytes that once killed a worker would be refused for ever (`fleet.child`)."""


class ListOrder(Order, frozen=True, kw_only=True):
    """Name the refs of a repository on this machine."""

    path: str
    prefixes: list[str]


class Good(msgspec.Struct, frozen=True):
    """The commit that a Repository document has in force, and the remote's ref that it came from."""

    ref: str
    """Full name, such as `refs/heads/main`; empty for a commit that was asked for by its sha."""
    revision: str


class Holdings(msgspec.Struct, frozen=True):
    """What a store holds."""

    exists: bool
    good: dict[str, Good] = {}
    """By name of the Repository document."""
    tips: dict[str, str] = {}
    """Commit of each of the remote's refs as last fetched, good or held."""
    commits: list[str] = []
    """Which of the asked commits, and of the good ones, are here."""
    damaged: bool = False
    """The clone cannot be read, or lacks a good commit; the rest is what could be found out nevertheless."""


class OpenOrder(Order, frozen=True, kw_only=True):
    """Look into a store without changing it."""

    store: str
    commits: list[str] = []


class FetchOrder(Order, frozen=True, kw_only=True):
    """Bring refs and single commits of the remote at `url` into the store."""

    store: str
    url: str
    refs: list[str]
    """Full names; fetched to a place where nobody reads."""
    commits: list[str] = []
    """Commits that must be there; when the remote does not hand one out by its sha, `search` is fetched to find it."""
    search: list[str] = []
    fresh: bool = False
    """Into a new clone, which takes the old one's place when it is complete."""
    most_bytes: int = MOST_FETCHED_BYTES


class Fetched(msgspec.Struct, frozen=True):
    """What came."""

    holdings: Holdings
    received_bytes: int
    objects: int


class AcceptOrder(Order, frozen=True, kw_only=True):
    """Replace what is good by document, and what else is kept reachable. Idempotent."""

    store: str
    good: dict[str, Good]
    keep: list[str]


class PairOrder(Order, frozen=True, kw_only=True):
    """A question about two commits."""

    store: str
    older: str
    newer: str


class FindOrder(Order, frozen=True, kw_only=True):
    """Which commit begins with these hex digits?"""

    store: str
    prefix: str


class CommitsOrder(Order, frozen=True, kw_only=True):
    """A question about single commits."""

    store: str
    commits: list[str]


class CommitInfo(msgspec.Struct, frozen=True):
    """Who wrote a commit, when and why. Text from a repository: show it, never trust it."""

    revision: str
    author: str
    at_s: int
    """Author time, seconds since the epoch."""
    subject: str
    """First line of the message, at most 200 characters."""


def encode(value: object) -> bytes:
    """Encode an order or an answer."""
    return msgspec.msgpack.encode(value)


def decode(data: bytes, kind: type[T]) -> T:
    """Decode what `encode` made."""
    return msgspec.msgpack.decode(data, type=kind)
