"""RSA keys for Bitnami SealedSecrets, and the certificates that `kubeseal --cert` takes."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from fleet.errors import SealError
from fleet.secrets.key import compute_kid

BITS = 4096
LEAST_BITS = 2048
VALID_FOR = timedelta(days=3650)
"""kubeseal refuses a certificate that has ended; when a key is renewed is decided by its state, not by this."""
_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaKey:
    """An RSA key pair with its certificate."""

    kid: str
    secret: bytes = field(repr=False)
    """PKCS#8 DER."""
    certificate: bytes
    """PEM."""


def make_rsa(cluster: str, now: datetime) -> RsaKey:
    """Make a key pair of 4096 bits: 0.2 s of a core or more, not for the event loop."""
    return _certify(rsa.generate_private_key(public_exponent=65537, key_size=BITS), cluster, now)


def read_rsa(pem: bytes, cluster: str, now: datetime, certificate: bytes = b"") -> RsaKey:
    """Read an RSA private key in PEM, PKCS#1 or PKCS#8; a certificate is made where none is given.

    Raises: SealError Unsupported, which never holds the key.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise SealError(
            f"this is no private key in PEM, or it has a passphrase ({type(error).__name__})", reason="Unsupported"
        ) from None
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < LEAST_BITS:
        raise SealError(f"only RSA keys of {LEAST_BITS} bits or more can be imported", reason="Unsupported")
    made = _certify(key, cluster, now)
    return RsaKey(kid=made.kid, secret=made.secret, certificate=_fitting(certificate, key) or made.certificate)


def write_pem(secret: bytes) -> bytes:
    """Write PKCS#8 DER of the store, unchecked, as the PKCS#1 PEM that Sealed Secrets keeps in `tls.key`."""
    key = load_der_private_key(secret, password=None, unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _fitting(certificate: bytes, key: rsa.RSAPrivateKey) -> bytes:
    """Return the first of the certificates in PEM if it is of this key, else nothing.

    Only its public key is looked at: the key usage that Sealed Secrets writes makes cryptography refuse its extensions.
    """
    try:
        found = x509.load_pem_x509_certificates(certificate)[0] if certificate.strip() else None
    except (ValueError, IndexError):
        return b""
    if found is None or _public_der(found.public_key()) != _public_der(key.public_key()):
        return b""
    return found.public_bytes(Encoding.PEM)


def _certify(key: rsa.RSAPrivateKey, cluster: str, now: datetime) -> RsaKey:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fleet {cluster}"[:64])])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + VALID_FOR)
        .add_extension(usage, critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return RsaKey(
        kid=compute_kid(_public_der(key.public_key())),
        secret=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        certificate=certificate.public_bytes(Encoding.PEM),
    )


def _public_der(key: object) -> bytes:
    if not isinstance(key, rsa.RSAPublicKey):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
