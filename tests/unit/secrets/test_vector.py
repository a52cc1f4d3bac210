"""The test vectors on the page about the format: recomputed here by that page alone, and opened by fleet."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import nacl.bindings as sodium
import pytest

from fleet.document import load_documents
from fleet.secrets import age, native
from fleet.secrets.document import parse_sealed, write_sealed
from fleet.secrets.key import Algorithm, KeyState, PrivateKey, PublicKey
from fleet.secrets.opened import Scope
from tests.harness.seal import AT, Ring

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "sealed-secret.md").read_text()
(NUMBERS,) = (json.loads(each) for each in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
(TEXT,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
BODY: dict[str, Any] = load_documents(TEXT.encode(), "page")[0].value


def number(name: str) -> bytes:
    """Return a number of the page."""
    return bytes.fromhex(NUMBERS[name])


def blake(person: str, *, key: str = "", data: bytes = b"", size: int = 32) -> bytes:
    """BLAKE2b as the page has it."""
    secret = number(key) if key else b""
    return hashlib.blake2b(data, key=secret, digest_size=size, person=person.encode()).digest()


def join(*fields: bytes) -> bytes:
    """Each field with its length before it."""
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


FIELDS = (b"strict", b"production", b"", b"shop", b"db", b"password")


def test_keys_come_from_the_seed() -> None:
    """Both private keys, the public key, its name and the age recipient."""
    assert blake("fleet-box-v1", key="seed") == number("box_private")
    assert blake("fleet-age-v1", key="seed") == number("age_private")
    assert sodium.crypto_scalarmult_base(number("box_private")) == number("box_public")
    assert blake("fleet-kid-v1", data=number("box_public"), size=10) == number("kid")
    assert age.format_recipient(sodium.crypto_scalarmult_base(number("age_private"))) == NUMBERS["age_recipient"]


def test_a_value_is_sealed_by_the_page() -> None:
    """Commitment, padding, associated data, place and ciphertext, made with libsodium and hashlib alone."""
    commit = blake("fleet-commit-v1", key="data_key")
    bound = join(b"fleet-seal-v1", commit, *FIELDS)
    assert (commit, bound) == (number("commit"), number("bound"))
    padded = sodium.sodium_pad(NUMBERS["value"].encode(), 32)
    assert padded == number("padded")
    sealed = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(padded, bound, number("nonce"), number("data_key"))
    place = blake("fleet-place-v1", key="data_key", data=join(*FIELDS), size=8)
    assert (sealed, place) == (number("ciphertext"), number("place"))
    parts = [base64.b64encode(each).decode() for each in (place, number("nonce"), sealed)]
    assert BODY["spec"]["values"]["password"] == ":".join(["fs1", commit.hex()[:8], *parts])


def test_the_document_opens() -> None:
    """fleet opens the document of the page, by the cluster's key and by the break-glass identity."""
    document = parse_sealed(BODY)
    public = PublicKey(
        kid=NUMBERS["kid"],
        cluster="prod-eu-1",
        environment="production",
        uid="u",
        algorithm=Algorithm.X25519,
        public=number("box_public"),
        state=KeyState.ACTIVE,
        created_at=AT,
        renew_at=AT,
    )
    ring = Ring(PrivateKey(public=public, secret=number("seed")))
    scope = Scope("prod-eu-1", "production", "shop", "db")
    opened = native.open_sealed(document, scope, ring)
    assert {item: plain.reveal() for item, plain in opened.items.items()} == {"password": b"hunter2", "empty": b""}
    (key,) = document.keys.values()
    identity = age.parse_identity(NUMBERS["break_glass_identity"])
    assert native.unwrap_with_identity(key, [identity]).secret == number("data_key")


def test_the_document_is_written_as_on_the_page() -> None:
    """What fleet writes is the text of the page, to the byte."""
    assert write_sealed(parse_sealed(BODY)) == TEXT


@pytest.mark.parametrize("field", ["scope", "audience", "sealedAs", "recipients", "template", "dataKeys", "values"])
def test_the_page_names_every_field(field: str) -> None:
    """The table of the page and the document have the same fields."""
    assert f"| `{field}` |" in PAGE
    assert set(BODY["spec"]) == {"scope", "audience", "sealedAs", "recipients", "template", "dataKeys", "values"}
