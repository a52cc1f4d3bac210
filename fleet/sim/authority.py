"""Certificates for real API servers: a small CA that signs server and client certificates."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_FOR = dt.timedelta(days=7)
_SLACK = dt.timedelta(hours=1)  # hosts whose clock is a little behind ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate and its private key (PKCS#8), both PEM."""

    cert_pem: bytes
    key_pem: bytes


class Authority:
    """A certificate authority that lives as long as the object."""

    def __init__(self, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._cert = cert
        self._key = key

    @classmethod
    def create(cls, common_name: str) -> Self:
        """Make a new authority with a key of its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(common_name, ())
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            _builder(name, name, key.public_key(), VALID_FOR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @property
    def cert_pem(self) -> bytes:
        """The authority's own certificate: what its clients trust."""
        return self._cert.public_bytes(Encoding.PEM)

    def issue_server(self, names: Sequence[str], *, valid_for: dt.timedelta = VALID_FOR) -> Issued:
        """Sign a server certificate for DNS names and IP addresses; the first is its common name."""
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        return self._issue(_name(names[0], ()), ExtendedKeyUsageOID.SERVER_AUTH, [alternatives], valid_for)

    def issue_client(self, user: str, groups: Sequence[str] = (), *, valid_for: dt.timedelta = VALID_FOR) -> Issued:
        """Sign a client certificate as Kubernetes reads it: common name is the user, organisations are the groups."""
        return self._issue(_name(user, groups), ExtendedKeyUsageOID.CLIENT_AUTH, [], valid_for)

    def _issue(
        self,
        subject: x509.Name,
        usage: x509.ObjectIdentifier,
        extensions: Sequence[x509.ExtensionType],
        valid_for: dt.timedelta,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._cert.subject, key.public_key(), valid_for)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        # Strict verifiers (Python 3.13's default context) want to find the issuer by key identifier.
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer_key, critical=False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        cert = builder.sign(self._key, hashes.SHA256())
        return Issued(cert_pem=cert.public_bytes(Encoding.PEM), key_pem=key_pem(key))


def create_key_pair() -> tuple[bytes, bytes]:
    """Make a bare key pair, private and public PEM, as service account tokens are signed with."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key_pem(key), key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Write a private key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(common_name: str, organisations: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organisations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, valid_for: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + valid_for)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
