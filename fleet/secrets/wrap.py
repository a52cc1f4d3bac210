"""What the encrypted private half of a key is bound to, so that no row of the database passes for another. Pure."""

from dataclasses import dataclass, field
from typing import Protocol

VERIFIED = b"fleet master key"
"""What the verifier of a master key holds."""


class Bound(Protocol):
    """What the private half of a key is bound to: everything that says whose it is."""

    @property
    def cluster(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def kid(self) -> str: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def public(self) -> bytes: ...
    @property
    def age_public(self) -> bytes: ...
    @property
    def master(self) -> str:
        """Which master key opens it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A sealing key as a backup holds it, with its private half encrypted under a master key."""

    cluster: str
    uid: str
    kid: str
    algorithm: str
    public: bytes
    age_public: bytes
    master: str
    private: bytes | None = field(repr=False)
    """Nonce and ciphertext; None once the key is destroyed."""


def bind_key(key: Bound) -> bytes:
    """Return the associated data of a private half."""
    return _join(
        b"fleet-key-v1",
        key.cluster.encode(),
        key.uid.encode(),
        key.kid.encode(),
        key.algorithm.encode(),
        key.public,
        key.age_public,
        key.master.encode(),
    )


def bind_signer(public: bytes, master: str) -> bytes:
    """Return the associated data of the key that signs the bundle of public keys."""
    return _join(b"fleet-signer-v1", public, master.encode())


def bind_verifier(master: str) -> bytes:
    """Return the associated data of a master key's verifier."""
    return _join(b"fleet-verifier-v1", master.encode())


def _join(*parts: bytes) -> bytes:
    """Join with lengths, so that no two lists of parts give the same bytes.

    >>> _join(b"ab", b"c") == _join(b"a", b"bc")
    False
    """
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
