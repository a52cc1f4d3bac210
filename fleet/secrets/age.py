"""age files with X25519 recipients: what SOPS wraps its keys in, and what a break-glass key opens. Pure.

Source: C2SP age v1 (age-encryption.org/v1). Other kinds of recipients are passed over; passphrases are not read.
"""

import base64
import binascii
import hashlib
import hmac
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
)
from nacl.exceptions import CryptoError
from nacl.utils import random

from fleet.errors import SealError
from fleet.secrets.bech32 import decode_bech32, encode_bech32

CHUNK_BYTES: Final = 64 * 1024
HEADER_BYTES: Final = 1 << 20
"""A header with 10,000 recipients is as long; what claims to be longer is refused."""

_INTRO: Final = b"age-encryption.org/v1\n"
_BEGIN: Final = b"-----BEGIN AGE ENCRYPTED FILE-----"
_END: Final = b"-----END AGE ENCRYPTED FILE-----"
_X25519: Final = b"age-encryption.org/v1/X25519"
_FILE_KEY_BYTES: Final = 16
_TAG_BYTES: Final = 16
_ARGUMENT: Final = re.compile(rb"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stanza:
    arguments: tuple[bytes, ...]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    stanzas: tuple[_Stanza, ...]
    covered: bytes
    """What the MAC is over: all up to `---`."""
    mac: bytes


def format_recipient(public: bytes) -> str:
    """Write a raw X25519 public key as `age1...`."""
    return encode_bech32("age", public)


def parse_recipient(text: str) -> bytes:
    """Read `age1...` as 32 raw bytes.

    Raises: SealError Unsupported for other kinds of recipients, Corrupt for a mistyped one.
    """
    if text.startswith(("age1pq1", "age1tag1", "age1tagpq1", "age1yubikey1", "age1se1", "ssh-")):
        raise SealError(
            f"{text[:20]}... is no X25519 recipient; fleet seals for age1... of age-keygen", reason="Unsupported"
        )
    return _decode_key(text, "age", "recipient")


def format_identity(private: bytes) -> str:
    """Write a raw X25519 private key as `AGE-SECRET-KEY-1...`."""
    return encode_bech32("age-secret-key-", private).upper()


def parse_identity(text: str) -> bytes:
    """Read `AGE-SECRET-KEY-1...` as 32 raw bytes.

    Raises: SealError that does not hold the text.
    """
    return _decode_key(text, "age-secret-key-", "identity")


def parse_identities(text: str) -> list[bytes]:
    """Read an identity file of age-keygen: one identity a line, comments and empty lines between.

    Raises: SealError Corrupt naming the line.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        try:
            keys.append(parse_identity(word))
        except SealError as error:
            raise SealError(f"line {number}: {error.message}", reason=error.reason) from None
    return keys


def _decode_key(text: str, prefix: str, what: str) -> bytes:
    try:
        found, key = decode_bech32(text)
    except ValueError as error:
        raise SealError(f"the age {what} {error}") from None
    if found != prefix or len(key) != 32:
        raise SealError(f"this is no age {what} for X25519 keys; age-keygen makes one", reason="Unsupported")
    return key


def derive_recipient(identity: bytes) -> bytes:
    """Return the raw public key of a raw private key."""
    return crypto_scalarmult_base(identity)


def encrypt(plain: bytes, recipients: Sequence[bytes]) -> bytes:
    """Encrypt for raw X25519 public keys, each of which can open it alone; the binary form.

    Raises: SealError Corrupt for a public key that no private key has.
    """
    file_key = random(_FILE_KEY_BYTES)
    header = _INTRO + b"".join(_wrap(file_key, each) for each in recipients) + b"---"
    nonce = random(16)
    key = _derive(file_key, nonce, b"payload")
    payload = b"".join(_seal_chunks(key, plain))
    return header + b" " + _encode(_header_mac(file_key, header)) + b"\n" + nonce + payload


def decrypt(data: bytes, identities: Sequence[bytes]) -> bytes:
    """Open an age file, armored or binary, with raw X25519 private keys.

    Raises: SealError NotARecipient when none of them fits, Corrupt.
    """
    return b"".join(decrypt_stream(io.BytesIO(data), identities))


def decrypt_stream(source: BinaryIO, identities: Sequence[bytes]) -> Iterator[bytes]:
    """Yield what an age file holds, 64 KiB at a time and each only when verified, in constant memory if it is binary.

    Whoever uses a part before the last must be ready to throw it away: a cut file shows only at its end.
    Raises: SealError NotARecipient, Corrupt.
    """
    start = source.read(len(_INTRO))
    if not start.startswith(_INTRO[:4]):
        start, source = b"", io.BytesIO(unarmor(start + source.read()))
    header = _parse_header(_Lines(source, start))
    file_key = _unwrap(header, identities)
    if not hmac.compare_digest(_header_mac(file_key, header.covered), header.mac):
        raise SealError("the header of the age file was changed")
    nonce = _read_exactly(source, 16)
    return _open_chunks(_derive(file_key, nonce, b"payload"), source)


def is_armored(data: bytes) -> bool:
    """Tell whether it begins as the text form of an age file does."""
    return data.lstrip().startswith(_BEGIN)


def armor(data: bytes) -> bytes:
    """Return the text form: base64 in 64 columns between two marks."""
    text = base64.b64encode(data)
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return b"\n".join([_BEGIN, *lines, _END, b""])


def unarmor(data: bytes) -> bytes:
    """Return the binary form.

    Raises: SealError Corrupt.
    """
    lines = data.strip().replace(b"\r\n", b"\n").split(b"\n")
    body = lines[1:-1]
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise SealError("the text form of the age file is not whole: a mark is missing at its begin or end")
    if any(len(line) != 64 for line in body[:-1]) or not 0 < len(body[-1]) <= 64:
        raise SealError("the text form of the age file has a line of a wrong length")
    return _decode(b"".join(body), padded=True)


# --- the header --------------------------------------------------------------------------------------------------


class _Lines:
    """Reads lines up to the end of the header, and not one byte more."""

    def __init__(self, source: BinaryIO, start: bytes) -> None:
        self._source = source
        self._held = start
        self._left = HEADER_BYTES

    def next(self) -> bytes:
        """Return a line with its end."""
        line, newline, self._held = self._held.partition(b"\n")
        line += newline or self._source.readline(self._left)
        self._left -= len(line)
        if self._left <= 0:
            raise SealError(f"the header of the age file is longer than {HEADER_BYTES} bytes")
        if not line.endswith(b"\n"):
            raise SealError("the age file ends, or is no text, in its header")
        return line


def _parse_header(lines: _Lines) -> _Header:
    covered = [lines.next()]
    if covered[0] != _INTRO:
        raise SealError("this is no age file of version 1")
    stanzas: list[_Stanza] = []
    while not (line := lines.next()).startswith(b"---"):
        covered.append(line)
        stanzas.append(_parse_stanza(line, lines, covered))
    if not line.startswith(b"--- ") or not stanzas:
        raise SealError("the header of the age file is not as it must be")
    mac = _decode(line[4:-1])
    if len(mac) != 32:
        raise SealError("the header of the age file has a MAC of a wrong length")
    return _Header(stanzas=tuple(stanzas), covered=b"".join(covered) + b"---", mac=mac)


def _parse_stanza(first: bytes, lines: _Lines, covered: list[bytes]) -> _Stanza:
    arrow, *arguments = first[:-1].split(b" ")
    if arrow != b"->" or not arguments or not all(_ARGUMENT.fullmatch(each) for each in arguments):
        raise SealError("a recipient line of the age file is not as it must be")
    body = []
    while True:
        line = lines.next()
        covered.append(line)
        body.append(line[:-1])
        if len(body[-1]) > 64:
            raise SealError("a recipient line of the age file is too long")
        if len(body[-1]) < 64:
            return _Stanza(arguments=tuple(arguments), body=_decode(b"".join(body)))


def _wrap(file_key: bytes, recipient: bytes) -> bytes:
    ephemeral = random(32)
    share = crypto_scalarmult_base(ephemeral)
    key = _derive(_multiply(ephemeral, recipient), share + recipient, _X25519)
    body = crypto_aead_chacha20poly1305_ietf_encrypt(file_key, None, bytes(12), key)
    return b"-> X25519 " + _encode(share) + b"\n" + _encode(body) + b"\n"


def _unwrap(header: _Header, identities: Sequence[bytes]) -> bytes:
    kinds = {stanza.arguments[0] for stanza in header.stanzas}
    if b"scrypt" in kinds:
        raise SealError(
            "the age file is locked with a passphrase; fleet opens those for X25519 keys", reason="Unsupported"
        )
    wraps = [_read_wrap(stanza) for stanza in header.stanzas if stanza.arguments[0] == b"X25519"]
    for identity in identities:
        recipient = crypto_scalarmult_base(identity)
        for share, body in wraps:
            key = _derive(_multiply(identity, share), share + recipient, _X25519)
            try:
                return crypto_aead_chacha20poly1305_ietf_decrypt(body, None, bytes(12), key)
            except CryptoError:
                continue
    if not wraps:
        names = ", ".join(sorted(kind.decode("ascii") for kind in kinds))
        raise SealError(f"the age file is for recipients of kind {names}; fleet opens X25519", reason="Unsupported")
    raise SealError("the age file is for other recipients; encrypt it for this key too", reason="NotARecipient")


def _read_wrap(stanza: _Stanza) -> tuple[bytes, bytes]:
    if len(stanza.arguments) != 2 or len(stanza.body) != _FILE_KEY_BYTES + _TAG_BYTES:
        raise SealError("an X25519 recipient of the age file is not as it must be")
    share = _decode(stanza.arguments[1])
    if len(share) != 32:
        raise SealError("an X25519 recipient of the age file is not as it must be")
    return share, stanza.body


def _multiply(private: bytes, public: bytes) -> bytes:
    try:
        return crypto_scalarmult(private, public)
    except (CryptoError, RuntimeError):
        raise SealError("an age key is a point that no private key has") from None


# --- the payload -------------------------------------------------------------------------------------------------


def _seal_chunks(key: bytes, plain: bytes) -> Iterator[bytes]:
    last = max(0, (len(plain) - 1) // CHUNK_BYTES)
    for number in range(last + 1):
        chunk = plain[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        yield crypto_aead_chacha20poly1305_ietf_encrypt(chunk, None, _chunk_nonce(number, last=number == last), key)


def _open_chunks(key: bytes, source: BinaryIO) -> Iterator[bytes]:
    size = CHUNK_BYTES + _TAG_BYTES
    number, chunk = 0, source.read(size)
    while True:
        after = source.read(size) if len(chunk) == size else b""
        nonce = _chunk_nonce(number, last=not after)
        try:
            plain = crypto_aead_chacha20poly1305_ietf_decrypt(chunk, None, nonce, key)
        except (CryptoError, TypeError, ValueError):
            raise SealError("the age file was changed, or its end is missing") from None
        if number and not plain:
            raise SealError("the age file has an empty part at its end")
        yield plain
        if not after:
            return
        number, chunk = number + 1, after


def _chunk_nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _read_exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise SealError("the age file ends before its payload")
    return data


# --- encodings ---------------------------------------------------------------------------------------------------


def _derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA-256 for 32 bytes."""
    extracted = hmac.digest(salt or bytes(32), secret, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


def _header_mac(file_key: bytes, covered: bytes) -> bytes:
    return hmac.digest(_derive(file_key, b"", b"header"), covered, hashlib.sha256)


def _encode(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _decode(text: bytes, *, padded: bool = False) -> bytes:
    """Decode base64 in its one right spelling: no bits left over, padding only where it must be."""
    try:
        data = base64.b64decode(text if padded else text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise SealError("the age file holds something that is not base64") from None
    right = base64.b64encode(data)
    if text != (right if padded else right.rstrip(b"=")):
        raise SealError("the age file holds base64 in a spelling of its own")
    return data
