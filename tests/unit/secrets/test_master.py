"""Where a master key comes from, and what it refuses."""

import pickle
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import SealError, SettingsError
from fleet.secrets.master import (
    CredentialSource,
    EnvironmentSource,
    FileSource,
    MasterKey,
    PassphraseSource,
    parse_key,
    parse_source,
)
from fleet.secrets.unlock import open_master
from fleet.secrets.wrap import WrappedKey, bind_key

KEY = bytes(range(32))
SALT = bytes(16)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def wrapped(**fields: str | bytes) -> WrappedKey:
    """A key's row."""
    given = {
        "cluster": "a",
        "uid": "u",
        "kid": "k",
        "algorithm": "x25519",
        "public": b"p",
        "age_public": b"q",
        "master": "m",
        **fields,
    }
    return WrappedKey(private=None, **given)  # type: ignore[arg-type]


def test_what_is_encrypted_opens_only_as_what_it_is() -> None:
    """The same bytes under other associated data, another key or changed by one bit do not open."""
    master = MasterKey(KEY)
    box = master.encrypt(b"seed", b"key a")
    assert master.decrypt(box, b"key a") == b"seed"
    flipped = box[:-1] + bytes([box[-1] ^ 1])
    for other, data, bound in (
        (master, box, b"key b"),
        (MasterKey(bytes(32)), box, b"key a"),
        (master, flipped, b"key a"),
        (master, b"", b"key a"),
        (master, box[:10], b"key a"),
    ):
        with pytest.raises(SealError, match="does not open"):
            other.decrypt(data, bound)


@given(
    st.lists(
        st.tuples(st.sampled_from(["cluster", "uid", "kid", "algorithm", "master"]), st.text(max_size=4)), max_size=5
    ),
    st.lists(
        st.tuples(st.sampled_from(["cluster", "uid", "kid", "algorithm", "master"]), st.text(max_size=4)), max_size=5
    ),
)
def test_binding_tells_every_two_keys_apart(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    """No two rows that differ anywhere have the same associated data."""
    a, b = wrapped(**dict(one)), wrapped(**dict(other))
    assert (bind_key(a) == bind_key(b)) == (a == b)


def test_a_master_key_is_never_shown_or_serialised() -> None:
    """Neither repr, str nor pickle lets it out; its id does not tell it."""
    master = MasterKey(KEY)
    for text in (repr(master), str(master), master.id):
        assert KEY.hex() not in text
        assert repr(KEY) not in text
    with pytest.raises(TypeError, match="never serialised"):
        pickle.dumps(master)


@pytest.mark.parametrize(
    "content", [KEY, KEY.hex().encode(), KEY.hex().encode() + b"\n", b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"]
)
def test_a_key_is_read_raw_in_hex_or_base64(content: bytes) -> None:
    """Whatever made it."""
    assert parse_key(content, "file") == KEY


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"z" * 64, KEY.hex().encode()[:-2], b"\xff" * 64])
def test_what_is_no_key_is_refused_without_showing_it(content: bytes) -> None:
    """A short or mistyped key is never padded to one."""
    with pytest.raises(SealError) as caught:
        parse_key(content, "the file")
    assert caught.value.reason == "KeysLocked"
    assert not content or content.decode(errors="replace") not in str(caught.value)


def test_a_file_is_made_once_with_mode_0600(tmp_path: Path) -> None:
    """The first start makes it; the second reads it."""
    source = parse_source("", tmp_path, {})
    assert isinstance(source, FileSource)
    assert source.load(SALT) is None
    key, row = open_master(None, source, NOW)
    assert stat.S_IMODE(source.path.stat().st_mode) == 0o600
    assert open_master(row, source, NOW)[0].id == key.id == row.id


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    """The message says what to run."""
    source = FileSource(tmp_path / "k")
    source.make()
    source.path.chmod(mode)
    with pytest.raises(SealError, match="chmod 600"):
        source.load(SALT)


def test_a_credential_of_systemd_is_preferred(tmp_path: Path) -> None:
    """Where systemd passes one, the data directory gets none."""
    (tmp_path / "fleet-master-key").write_bytes(KEY)
    source = parse_source("", tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert isinstance(source, CredentialSource)
    assert source.load(SALT) == KEY
    assert parse_source("credential:absent", tmp_path, {}).load(SALT) is None


def test_a_variable_and_a_command(tmp_path: Path) -> None:
    """Both give the key; neither name tells it."""
    variable = parse_source("env:HUB_KEY", tmp_path, {"HUB_KEY": KEY.hex()})
    assert isinstance(variable, EnvironmentSource)
    assert variable.load(SALT) == KEY
    assert KEY.hex() not in repr(variable)
    command = parse_source(f"command:{sys.executable} -c 'print(\"{KEY.hex()}\")'", tmp_path, {})
    assert command.load(SALT) == KEY
    assert KEY.hex() not in command.name
    with pytest.raises(SealError, match="ended with status 3"):
        parse_source(f"command:{sys.executable} -c 'exit(3)'", tmp_path, {}).load(SALT)
    with pytest.raises(SealError, match="FileNotFoundError"):
        parse_source("command:/no/such/program", tmp_path, {}).load(SALT)


def test_a_passphrase_makes_the_same_key_with_the_same_salt(tmp_path: Path) -> None:
    """Another salt or another passphrase makes another; a line end does not matter."""
    file = tmp_path / "phrase"
    file.write_text("correct horse battery\n")
    file.chmod(0o600)
    source = parse_source(f"passphrase:file:{file}", tmp_path, {})
    assert isinstance(source, PassphraseSource)
    quick = PassphraseSource(source.text, operations=1, memory_bytes=8192)
    first = quick.load(SALT)
    assert first is not None
    assert len(first) == 32
    file.write_text("correct horse battery")
    assert quick.load(SALT) == first
    assert quick.load(bytes([1]) * 16) != first
    file.write_text("short")
    with pytest.raises(SealError, match="too short"):
        quick.load(SALT)


@pytest.mark.parametrize("text", ["nonsense", "file:", "env:", "command:", "passphrase:", "passphrase:nonsense:x"])
def test_a_wrong_place_is_answered_with_the_forms(text: str, tmp_path: Path) -> None:
    """It names what can be written."""
    with pytest.raises(SettingsError, match="credential:NAME"):
        parse_source(text, tmp_path, {})


def test_only_a_file_is_made(tmp_path: Path) -> None:
    """A variable or credential that is not there is never replaced by a key of our own."""
    for text in ("env:HUB_KEY", "credential:key"):
        with pytest.raises(SealError, match="put one there"):
            open_master(None, parse_source(text, tmp_path, {}), NOW)
    assert list(tmp_path.iterdir()) == []
