"""Large inputs: what they cost grows with them and not faster, and what is too large is refused first."""

import base64
import json
import tracemalloc
from collections.abc import Callable

import pytest

from fleet.errors import SealError
from fleet.secrets import age, bitnami, native, sops
from fleet.secrets.document import encode_sealed, parse_sealed
from fleet.secrets.opened import Scope
from tests.harness.seal import Ring, make_break_glass, make_key, make_rsa, make_rsa_key
from tests.harness.sops import encrypt_binary

SIZE = 10_000_000
HOME = Scope("prod-eu-1", "production", "shop", "db")


def peak(work: Callable[[], object]) -> int:
    """Return the most memory that was held at a time, in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_native_value_of_10_mb() -> None:
    """Text, bytes and plaintext are held a few times over, not more."""
    key = make_key()
    body = encode_sealed(native.seal({"a": bytes(SIZE)}, [key.public], namespace="shop", name="db"))
    text = json.dumps(body).encode()
    ring = Ring(key)
    assert peak(lambda: native.open_sealed(parse_sealed(text), HOME, ring)) < 8 * SIZE


def test_a_bitnami_value_of_10_mb() -> None:
    """As for kubeseal, whose format encrypts a value as a whole."""
    private = make_rsa()
    value = bitnami.seal_value(bytes(SIZE), private.public_key(), b"shop/db")
    body = {
        "apiVersion": bitnami.API_VERSION,
        "kind": bitnami.KIND,
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"encryptedData": {"a": value}},
    }
    ring = Ring(make_rsa_key(private))
    assert peak(lambda: bitnami.open_(bitnami.parse(body), HOME, ring)) < 8 * SIZE


def test_a_binary_file_of_10_mb() -> None:
    """A file that sops encrypted is JSON with all of it in one value."""
    identity, _ = make_break_glass()
    data = encrypt_binary(bytes(SIZE), [age.derive_recipient(identity)]).encode()
    assert peak(lambda: sops.decrypt(data, "binary", [identity])) < 12 * SIZE


@pytest.mark.parametrize("form", list(sops.Format))
def test_more_than_is_read_is_refused_first(form: sops.Format) -> None:
    """A file beyond the limit costs nothing but its own bytes."""
    data = b"a: " + b"x" * sops.BINARY_BYTES

    def attempt() -> None:
        with pytest.raises(SealError):
            sops.decrypt(data, form, [])

    assert peak(attempt) < 100_000


def test_nothing_is_read_twice_over() -> None:
    """Many small values are as cheap as one large one: no list of them is searched for each."""
    key = make_key()
    items = {f"item-{number}": b"x" for number in range(20_000)}
    document = native.seal(items, [key.public], namespace="shop", name="db")
    opened = native.open_sealed(parse_sealed(json.dumps(encode_sealed(document)).encode()), HOME, Ring(key))
    assert len(opened.items) == 20_000
    assert base64.b64encode(opened.items["item-0"].reveal()) == b"eA=="
