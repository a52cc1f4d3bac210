"""RSA keys: checked when they come in, and not again at every use, which would hold the event loop."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleet.errors import SealError
from fleet.secrets.bitnami import load_private_key
from fleet.secrets.certificate import read_rsa, write_pem
from tests.harness.seal import AT


def make_wrong_key() -> rsa.RSAPrivateKey:
    """Make a key whose numbers do not fit each other, which only a check of the whole key sees."""
    numbers = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        p=numbers.p, q=numbers.q, d=numbers.d + 2, dmp1=numbers.dmp1, dmq1=numbers.dmq1, iqmp=numbers.iqmp,
        public_numbers=numbers.public_numbers,
    )  # fmt: skip
    return wrong.private_key(unsafe_skip_rsa_key_validation=True)


def test_a_key_is_checked_when_it_comes_in() -> None:
    """A wrong one is refused by name, and nothing of it is shown."""
    pem = make_wrong_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(SealError, match="no private key in PEM"):
        read_rsa(pem, "dev-1", AT)


def test_a_stored_key_is_not_checked_again() -> None:
    """It was, and is sealed under the master key since: checking takes 0.2 s, in which no other thread runs."""
    der = make_wrong_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert load_private_key(der).key_size == 2048
    assert write_pem(der).startswith(b"-----BEGIN RSA PRIVATE KEY-----")
