"""Sealing keys as values, and what opening a document needs of them. Pure.

One seed of 32 bytes per cluster and generation gives two X25519 keys, one for fleet's own documents and one for age, so
that there is one thing to back up and no key serves two protocols.
"""

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from nacl.bindings import crypto_scalarmult_base

SEED_BYTES = 32
KID_BYTES = 10


class KeyState(StrEnum):
    """Where a key is in its life: each state but `compromised` follows the one before it."""

    PENDING = "pending"
    """Made, but no confirmed backup holds it: not offered yet."""
    ACTIVE = "active"
    """What new values are sealed with; one per cluster and algorithm."""
    RETIRING = "retiring"
    """Still opens, no longer offered: what it sealed is to be sealed again."""
    RETIRED = "retired"
    """Opens nothing any more; kept, so that it can come back."""
    DESTROYED = "destroyed"
    """Its private half is gone."""
    COMPROMISED = "compromised"
    """Somebody else may hold it: opens nothing, seals nothing; every value must change at its source."""


class Algorithm(StrEnum):
    """What a key is for."""

    X25519 = "x25519"
    """fleet's own documents and, by another derivation, age (SOPS)."""
    RSA = "rsa4096"
    """Bitnami SealedSecrets. An imported key may have another length."""
    AGE = "age"
    """An age identity made elsewhere and imported; it only opens and is never offered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """What may be shown of a key."""

    kid: str
    """20 hex digits; see `compute_kid`."""
    cluster: str
    environment: str
    """The cluster's environment now; empty when the inventory does not know the cluster."""
    uid: str
    """uid of the cluster's namespace kube-system: the key serves this very cluster, not only its name."""
    algorithm: Algorithm
    public: bytes
    """32 raw bytes (X25519, AGE), or a PEM certificate (RSA)."""
    age_public: bytes = b""
    """The 32 raw bytes behind the cluster's `age1...` recipient (X25519, AGE); empty for RSA."""
    state: KeyState
    created_at: datetime
    renew_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKey:
    """A key that opens. Never shown, never pickled, never logged."""

    public: PublicKey
    secret: bytes = field(repr=False)
    """The seed (X25519), a raw X25519 private key (AGE), PKCS#8 DER (RSA)."""

    def __reduce__(self) -> str | tuple[object, ...]:
        """Refuse to be copied out of the process."""
        raise TypeError("a private key is never serialised")

    @property
    def box_key(self) -> bytes:
        """The raw X25519 private key of SealedBoxes. Only of an X25519 key."""
        return derive_box_key(self.secret)

    @property
    def age_key(self) -> bytes:
        """The raw X25519 private key of the age identity. Of an X25519 or AGE key."""
        return self.secret if self.public.algorithm is Algorithm.AGE else derive_age_key(self.secret)


class Keyring(Protocol):
    """What was loaded of the sealing keys; reads do not wait."""

    generation: int
    """Grows on every change of any key."""

    def version(self, cluster: str) -> Hashable:
        """Return a value that is another one once anything has changed for what opens on a cluster."""
        ...

    def get(self, cluster: str, kid: str) -> PrivateKey:
        """Return the key of a cluster that opens what was sealed for `kid`.

        Raises: SealError UnknownKey (no such key, or another cluster's), RetiredKey (also destroyed), CompromisedKey.
        """
        ...

    def usable(self, cluster: str, algorithm: Algorithm) -> Sequence[PrivateKey]:
        """Return the keys of a cluster that may open (pending, active, retiring), newest first."""
        ...

    def offered(self, cluster: str, algorithm: Algorithm) -> PublicKey | None:
        """Return the key that new values are sealed with; None while there is none."""
        ...

    def age_kids(self, cluster: str) -> Mapping[bytes, str]:
        """Map the raw age public half of each key of a cluster, whatever its state, to the key's kid."""
        ...

    def on_change(self, notify: Callable[[], None]) -> None:
        """Call `notify` after every change of `generation`, on the event loop."""
        ...


def derive_box_key(seed: bytes) -> bytes:
    """Derive the raw X25519 private key of SealedBoxes from a seed: 32 bytes of BLAKE2b."""
    return hashlib.blake2b(key=seed, digest_size=32, person=b"fleet-box-v1").digest()


def derive_age_key(seed: bytes) -> bytes:
    """Derive the raw X25519 private key of the age identity from a seed: 32 bytes of BLAKE2b."""
    return hashlib.blake2b(key=seed, digest_size=32, person=b"fleet-age-v1").digest()


def derive_public(private: bytes) -> bytes:
    """Return the raw X25519 public key of a raw private key."""
    return crypto_scalarmult_base(private)


def compute_kid(public: bytes) -> str:
    """Name a key: 20 hex digits of BLAKE2b over its public half (32 raw bytes, or an RSA key's SubjectPublicKeyInfo DER).

    >>> compute_kid(bytes(32))
    'b305317bef363cea0067'
    """
    return hashlib.blake2b(public, digest_size=KID_BYTES, person=b"fleet-kid-v1").hexdigest()


def collect_age_keys(keyring: Keyring, cluster: str) -> Sequence[bytes]:
    """Return the raw X25519 private keys that may open an age file for a cluster, newest first, imported ones last."""
    own = keyring.usable(cluster, Algorithm.X25519)
    return [key.age_key for key in (*own, *keyring.usable(cluster, Algorithm.AGE))]


def count_keys(number: int) -> str:
    """Say how many keys.

    >>> count_keys(1), count_keys(2)
    ('1 key', '2 keys')
    """
    return f"{number} key{'' if number == 1 else 's'}"
