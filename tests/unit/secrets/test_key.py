"""Sealing keys as values."""

import pickle
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.secrets.key import (
    Algorithm,
    KeyState,
    PrivateKey,
    PublicKey,
    compute_kid,
    derive_age_key,
    derive_box_key,
    derive_public,
)

SEED = bytes(range(32))


def key(algorithm: Algorithm) -> PrivateKey:
    """Return a key whose secret is SEED."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    public = PublicKey(
        kid="k",
        cluster="dev-1",
        environment="dev",
        uid="u",
        algorithm=algorithm,
        public=bytes(32),
        state=KeyState.ACTIVE,
        created_at=at,
        renew_at=at,
    )
    return PrivateKey(public=public, secret=SEED)


def test_one_seed_gives_two_keys() -> None:
    """The key of fleet's documents and the age key differ, and neither is the seed."""
    made = key(Algorithm.X25519)
    assert len({made.box_key, made.age_key, SEED}) == 3


def test_derivations_are_frozen() -> None:
    """Keys derived today are those that opened yesterday's values: these numbers never change."""
    assert derive_box_key(SEED).hex() == "8081b24c8b608877ab44e200eac130d197a0f461973713cfcce567de1819d654"
    assert derive_age_key(SEED).hex() == "4102b4947eac7124035aecf84e6d3a1c852505b586d10c2bbe5f5a36e717d4c3"
    assert compute_kid(derive_public(derive_box_key(SEED))) == "0c53a21fd4109ae3d44b"


def test_imported_age_key_is_used_as_it_is() -> None:
    """An age identity made elsewhere is not derived again."""
    assert key(Algorithm.AGE).age_key == SEED


def test_private_key_is_never_shown() -> None:
    """Neither repr nor str nor a format shows the secret."""
    made = key(Algorithm.X25519)
    for text in (repr(made), str(made), f"{made}"):
        assert repr(SEED) not in text
        assert SEED.hex() not in text


def test_private_key_is_never_serialised() -> None:
    """A private key cannot be pickled into a child process."""
    with pytest.raises(TypeError, match="never serialised"):
        pickle.dumps(key(Algorithm.X25519))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_kid_tells_keys_apart(one: bytes, other: bytes) -> None:
    """Different public keys have different names."""
    assert (compute_kid(one) == compute_kid(other)) == (one == other)
