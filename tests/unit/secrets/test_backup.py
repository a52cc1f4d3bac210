"""A backup of the sealing keys as bytes."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleet.errors import SealError
from fleet.secrets.backup import pack_backup, read_contents, read_rows, verify_backup
from fleet.secrets.master import MasterKey
from fleet.secrets.wrap import VERIFIED, WrappedKey, bind_key, bind_signer, bind_verifier

MASTER = MasterKey(bytes(range(32)))
AT = "2026-01-01T00:00:00Z"


def rows(**changed: object) -> dict[str, list[dict[str, object]]]:
    """The tables of a hub with one key."""
    key = WrappedKey(
        cluster="dev-1",
        uid="u",
        kid="k" * 20,
        algorithm="x25519",
        public=b"p",
        age_public=b"q",
        master=MASTER.id,
        private=None,
    )
    names = ("cluster", "uid", "kid", "algorithm", "public", "age_public", "master")
    fields: dict[str, object] = {name: getattr(key, name) for name in names}
    rest = dict.fromkeys(
        ("state", "origin", "created_at", "renew_at", "changed_at", "backed_up_at", "reason", "replaced_by"), ""
    )
    private = MASTER.encrypt(b"seed", bind_key(key))
    master: dict[str, object] = {
        "id": MASTER.id,
        "source": "file",
        "salt": bytes(16),
        "verifier": MASTER.encrypt(VERIFIED, bind_verifier(MASTER.id)),
        "created_at": AT,
    }
    signer: dict[str, object] = {
        "public": b"s",
        "private": MASTER.encrypt(b"x", bind_signer(b"s", MASTER.id)),
        "master": MASTER.id,
        "created_at": AT,
    }
    return {
        "master_key": [master],
        "seal_key": [{**fields, **rest, "private": private, **changed}],
        "signing_key": [signer],
    }


def test_a_backup_is_what_was_packed() -> None:
    """It says of itself what it holds, opens with its master key, and its rows are those of the database."""
    content = pack_backup(rows(), hub_id="h", at=AT)
    contents = verify_backup(content, MASTER)
    assert (contents.hub_id, contents.made_at, contents.master) == ("h", AT, MASTER.id)
    assert contents.holds == {("dev-1", "k" * 20)}
    assert read_rows(content)["seal_key"][0]["cluster"] == "dev-1"


def test_another_master_key_is_named() -> None:
    """The error says which one is needed."""
    content = pack_backup(rows(), hub_id="h", at=AT)
    with pytest.raises(SealError, match=MASTER.id) as caught:
        verify_backup(content, MasterKey(bytes(32)))
    assert caught.value.reason == "KeysLocked"


@pytest.mark.parametrize("changed", [{"cluster": "prod-1"}, {"uid": "x"}, {"private": b"x" * 44}, {"public": b"z"}])
def test_a_row_that_does_not_open_is_named(changed: dict[str, object]) -> None:
    """A backup with one bad row is no backup."""
    content = pack_backup(rows(**changed), hub_id="h", at=AT)
    with pytest.raises(SealError, match="in the backup does not open"):
        verify_backup(content, MASTER)


def test_a_destroyed_key_needs_no_opening() -> None:
    """Its row is kept, without a private half."""
    verify_backup(pack_backup(rows(private=None), hub_id="h", at=AT), MASTER)


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\0" + bytes(4096)])
def test_what_is_no_backup_is_refused(content: bytes) -> None:
    """Whatever SQLite says of it."""
    with pytest.raises(SealError, match="no backup of sealing keys"):
        read_contents(content)


@given(st.integers(min_value=0, max_value=20_000), st.binary(min_size=1, max_size=64))
@example(at=3930, noise=b"\x00\x80")
def test_a_damaged_backup_is_refused_or_whole(at: int, noise: bytes) -> None:
    """Overwritten anywhere, it is refused, or every key in it still opens."""
    content = bytearray(pack_backup(rows(), hub_id="h", at=AT))
    at %= len(content)
    content[at : at + len(noise)] = noise
    with contextlib.suppress(SealError):
        verify_backup(bytes(content), MASTER)


def test_a_key_without_a_private_half_is_not_counted() -> None:
    """A destroyed key stands in a backup, and is not held by it."""
    table = rows()
    first, *others = table["seal_key"]
    content = pack_backup({**table, "seal_key": [{**first, "private": None}, *others]}, hub_id="h", at=AT)
    assert (first["cluster"], first["kid"]) not in read_contents(content).holds
    assert len(read_contents(content).holds) == len(others)
