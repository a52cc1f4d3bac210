"""The signed list of public keys."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fleet.errors import SealError
from fleet.secrets.bundle import parse_bundle, write_bundle
from fleet.secrets.key import Algorithm, KeyState
from tests.harness.seal import AT, make_key

SIGNER = SigningKey(b"the hub's signer".ljust(32, b"."))
KEYS = [
    make_key("prod-eu-1").public,
    make_key("dev-1", "dev").public,
    make_key("prod-eu-1", number=0, state=KeyState.RETIRED).public,
]
TEXT = write_bundle(KEYS, hub="h1", issued_at=AT, signer=SIGNER)


def test_what_is_written_reads_the_same() -> None:
    """All of a key comes back, sorted by environment and cluster, and asking twice gives one text."""
    bundle = parse_bundle(TEXT.encode())
    assert sorted(bundle.keys, key=lambda key: key.kid) == sorted(KEYS, key=lambda key: key.kid)
    assert [key.cluster for key in bundle.keys] == ["dev-1", "prod-eu-1", "prod-eu-1"]
    assert (bundle.hub, bundle.issued_at) == ("h1", AT)
    assert write_bundle(list(reversed(KEYS)), hub="h1", issued_at=AT, signer=SIGNER) == TEXT


def test_only_active_keys_are_offered() -> None:
    """Retired keys are listed, so that documents can be judged, but nothing is sealed with them."""
    bundle = parse_bundle(TEXT.encode())
    assert [key.cluster for key in bundle.offered()] == ["dev-1", "prod-eu-1"]
    assert bundle.offered(Algorithm.RSA) == []
    retired = bundle.find(KEYS[2].kid)
    assert retired is not None
    assert retired.state is KeyState.RETIRED


def test_a_new_key_is_a_block_of_its_own_in_a_diff() -> None:
    """Adding a cluster leaves the lines of the others as they are."""
    more = write_bundle([*KEYS, make_key("prod-us-1").public], hub="h1", issued_at=AT, signer=SIGNER)
    lost = set(TEXT.splitlines()) - set(more.splitlines())
    assert [line.split(":")[0] for line in lost] == ["signature"]


@pytest.mark.parametrize(
    ("old", "new"), [("cluster: dev-1", "cluster: dev-2"), ("state: retired", "state: active"), ("hub: h1", "hub: h2")]
)
def test_a_changed_list_is_refused(old: str, new: str) -> None:
    """Nothing in the list can be changed by somebody who is not the hub."""
    with pytest.raises(SealError, match="changed after the hub signed it") as caught:
        parse_bundle(TEXT.replace(old, new).encode())
    assert caught.value.reason == "WrongSigner"


def test_another_signer_is_refused() -> None:
    """A list that is rightly signed by somebody else is refused where the signer is pinned."""
    pinned = parse_bundle(TEXT.encode()).signer
    parse_bundle(TEXT.encode(), signer=pinned)
    other = write_bundle(KEYS, hub="h1", issued_at=AT, signer=SigningKey(bytes(32)))
    with pytest.raises(SealError, match="do not seal with it") as caught:
        parse_bundle(other.encode(), signer=pinned)
    assert caught.value.reason == "WrongSigner"


def test_a_key_whose_name_is_anothers_is_refused() -> None:
    """A kid must be that of its public key, even in a list that is rightly signed."""
    text = write_bundle([replace(KEYS[0], kid=KEYS[1].kid)], hub="h1", issued_at=AT, signer=SIGNER)
    with pytest.raises(SealError, match="missing or wrong"):
        parse_bundle(text.encode())


@given(at=st.integers(0, len(TEXT) - 1), letter=st.characters(codec="utf-8"))
def test_only_seal_errors_come_out_and_nothing_else_is_read(at: int, letter: str) -> None:
    """A list with one character changed is refused, or says what it said before."""
    changed = TEXT[:at] + letter + TEXT[at + 1 :]
    with contextlib.suppress(SealError):
        assert parse_bundle(changed.encode()) == parse_bundle(TEXT.encode())


@given(text=st.text(max_size=100))
def test_other_files_are_refused(text: str) -> None:
    """What is no list of keys is a SealError."""
    with pytest.raises(SealError):
        parse_bundle(text.encode())
