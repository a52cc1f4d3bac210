"""age files: opened and made, in constant memory, and refused when anything was changed."""

import io
import tracemalloc
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt

from fleet.errors import SealError
from fleet.secrets import age
from fleet.secrets.bech32 import decode_bech32, encode_bech32
from tests.harness.seal import make_break_glass

IDENTITY, NAME = make_break_glass(1)
RECIPIENT = age.parse_recipient(NAME)
OTHER = make_break_glass(2)[0]
# Made by age 1.3.2 for `IDENTITY`.
FROZEN = b"""-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBTWEZDQWUwZ0hTakxNdFRX
a3F4cVdtSVJrMjBsalM3TG5pUTNKeGVpMW5VCldBc2R2bWUzSlZaY1BPNkREMHg2
dzFXMlJrakZGM2lwUU1vbjB2WEU4NUEKLS0tIHpXVnNNNVRsVXgwUkxJc0VrRVhO
UDFVMUgxV1ljSW1LV01sa0xZaUp1MTQKueuGthi3x6nZttAnwqPDRnbFcrrA5/La
2m55lco/D9s0mvCEO6NC6LA2fzzuEA==
-----END AGE ENCRYPTED FILE-----
"""


def test_a_file_of_age_itself_opens() -> None:
    """What the age command made opens to the byte."""
    assert age.decrypt(FROZEN, [IDENTITY]) == b"hello from age"


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072])
@pytest.mark.parametrize("armored", [True, False])
def test_what_is_encrypted_opens(size: int, *, armored: bool) -> None:
    """Every size around a chunk's end comes back, in both forms, for the second of two recipients."""
    content = bytes(i % 251 for i in range(size))
    made = age.encrypt(content, [age.derive_recipient(OTHER), RECIPIENT])
    made = age.armor(made) if armored else made
    assert age.is_armored(made) == armored
    assert age.decrypt(made, [IDENTITY]) == content


def test_a_stranger_is_no_recipient() -> None:
    """Another identity does not open it, and the reason says so."""
    with pytest.raises(SealError) as caught:
        age.decrypt(age.encrypt(b"x", [RECIPIENT]), [OTHER])
    assert caught.value.reason == "NotARecipient"


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), armored=st.booleans())
def test_a_flipped_bit_is_refused(at: float, bit: int, *, armored: bool) -> None:
    """No byte of a file, nor of its text form, can change without notice."""
    data = bytearray(age.armor(MADE) if armored else MADE)
    data[int(len(data) * at)] ^= 1 << bit
    try:
        assert age.decrypt(bytes(data), [IDENTITY]) == b"hunter2"
    except SealError:
        return
    assert armored, "only line ends of the text form may differ"


@given(cut=st.integers(1, len(age.encrypt(b"hunter2", [RECIPIENT]))))
def test_a_cut_file_is_refused(cut: int) -> None:
    """A file that ends early is refused wherever it ends."""
    with pytest.raises(SealError):
        age.decrypt(MADE[:-cut], [IDENTITY])


def test_a_file_cut_between_chunks_is_refused() -> None:
    """A whole chunk missing at the end is noticed: the last one is marked."""
    made = age.encrypt(bytes(3 * age.CHUNK_BYTES), [RECIPIENT])
    with pytest.raises(SealError, match="end is missing"):
        age.decrypt(made[: -age.CHUNK_BYTES - 16], [IDENTITY])


@given(data=st.binary(max_size=300), intro=st.booleans())
def test_only_seal_errors_come_out(data: bytes, *, intro: bool) -> None:
    """Bytes that are no age file are refused."""
    with pytest.raises(SealError):
        age.decrypt((b"age-encryption.org/v1\n" if intro else b"") + data, [IDENTITY])


def test_base64_in_a_header_has_one_spelling() -> None:
    """Padding, and bits left over, are refused before any key is tried."""
    share = MADE.split(b"\n")[1].split(b" ")[2]
    for changed in (share + b"=", share[:-1] + bytes([share[-1] + 1])):
        with pytest.raises(SealError, match="base64"):
            age.decrypt(MADE.replace(share, changed, 1), [OTHER])


def test_an_empty_last_part_is_refused() -> None:
    """A file whose whole chunks are followed by an empty one was not made by age."""
    key = b"k" * 32
    chunk = crypto_aead_chacha20poly1305_ietf_encrypt(bytes(age.CHUNK_BYTES), None, bytes(12), key)
    empty = crypto_aead_chacha20poly1305_ietf_encrypt(b"", None, bytes(10) + b"\x01\x01", key)
    with pytest.raises(SealError, match="empty part"):
        list(age._open_chunks(key, io.BytesIO(chunk + empty)))


class Zeros:
    """A file of zeros, longer than it takes memory."""

    def __init__(self, head: bytes, size: int) -> None:
        self._head = io.BytesIO(head)
        self.left = size

    def read(self, size: int = -1) -> bytes:
        """Return the head, then zeros."""
        data = self._head.read(size)
        if data or not self.left:
            return data
        given_ = min(size, self.left)
        self.left -= given_
        return bytes(given_)

    def readline(self, size: int = -1) -> bytes:
        """Return a line of the head."""
        return self._head.readline(size)


def test_a_large_file_takes_constant_memory() -> None:
    """10 MB are opened 64 KiB at a time."""
    made = io.BytesIO(age.encrypt(bytes(10_000_000), [RECIPIENT]))
    tracemalloc.start()
    try:
        total = sum(len(part) for part in age.decrypt_stream(made, [IDENTITY]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 10_000_000
    assert peak < 1_000_000


def test_an_endless_header_is_refused() -> None:
    """A header that goes on and on is given up after 1 MiB."""
    stanza = b"-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n"
    source = cast("BinaryIO", Zeros(b"age-encryption.org/v1\n" + stanza * 20_000, 0))
    with pytest.raises(SealError, match="longer than"):
        age.decrypt_stream(source, [IDENTITY])


@pytest.mark.parametrize(
    ("kind", "said"),
    [(b"scrypt abc 10", "passphrase"), (b"ssh-ed25519 x y", "kind ssh-ed25519"), (b"grease", "kind grease")],
)
def test_other_recipients_are_named(kind: bytes, said: str) -> None:
    """A file for recipients of other kinds says which, and what is opened."""
    header = b"age-encryption.org/v1\n-> " + kind + b"\n\n--- " + b"A" * 43 + b"\n"
    with pytest.raises(SealError, match=said) as caught:
        age.decrypt(header + bytes(40), [IDENTITY])
    assert caught.value.reason == "Unsupported"


def test_identities_are_read_from_a_file_of_age_keygen() -> None:
    """Comments and empty lines are passed over; a wrong line is named without being shown."""
    text = f"# created: today\n\n{age.format_identity(IDENTITY)}\n"
    assert age.parse_identities(text) == [IDENTITY]
    with pytest.raises(SealError, match="line 2: the age identity has a wrong checksum") as caught:
        age.parse_identities("# x\n" + age.format_identity(IDENTITY)[:-1] + "Q")
    assert "AGE-SECRET" not in str(caught.value)


@pytest.mark.parametrize("name", ["age1pq1xyz", "ssh-ed25519 AAAA"])
def test_recipients_of_other_kinds_are_unsupported(name: str) -> None:
    """Post-quantum and SSH recipients are refused as what they are."""
    with pytest.raises(SealError) as caught:
        age.parse_recipient(name)
    assert caught.value.reason == "Unsupported"


@given(data=st.binary(max_size=40), prefix=st.text("abcdefgh-", min_size=1, max_size=12))
def test_bech32_round_trip(data: bytes, prefix: str) -> None:
    """What is encoded decodes, in either case, but not in both at once."""
    text = encode_bech32(prefix, data)
    assert decode_bech32(text) == decode_bech32(text.upper()) == (prefix, data)


@given(at=st.integers(0, 61), letter=st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
def test_a_mistyped_recipient_is_noticed(at: int, letter: str) -> None:
    """One wrong character fails the checksum."""
    changed = NAME[:at] + letter + NAME[at + 1 :]
    if changed != NAME:
        with pytest.raises(SealError):
            age.parse_recipient(changed)


MADE = age.encrypt(b"hunter2", [RECIPIENT])
