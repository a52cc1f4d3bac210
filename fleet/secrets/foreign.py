"""Keys in the forms that they travel in: key Secrets as kubectl dumps them, PEM, `.agekey`, and fleet's own export.

Reading never shows what it read: an error names the document and its fault only.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from fleet.errors import SealError
from fleet.secrets.age import format_identity, parse_identities
from fleet.secrets.certificate import write_pem
from fleet.secrets.key import Algorithm, PrivateKey

LABEL = "sealedsecrets.bitnami.com/sealed-secrets-key"
KIND = "FleetKeys"
_PRIVATE = re.compile(rb"-----BEGIN (?:RSA )?PRIVATE KEY-----.*?-----END (?:RSA )?PRIVATE KEY-----", re.DOTALL)
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """A private key as it came in."""

    algorithm: Algorithm
    secret: bytes = field(repr=False)
    """A PEM private key (RSA), 32 raw bytes (AGE), a seed (X25519)."""
    certificate: bytes = b""
    name: str = ""
    """Where it was found."""
    cluster: str = ""
    """The cluster that it was exported for; empty where the form does not say."""
    compromised: bool = False
    """Its label says that nothing may be opened with it any more."""


def parse_keys(content: bytes, name: str) -> Sequence[ForeignKey]:
    """Read every private key of a file, in its order.

    Raises: SealError Unsupported when there is none, saying what can be read.
    """
    if b"AGE-SECRET-KEY-1" in content and b"BEGIN" not in content and b"kind" not in content:
        keys = parse_identities(content.decode(errors="replace"))
        return [ForeignKey(algorithm=Algorithm.AGE, secret=key, name=name) for key in keys]
    if content.lstrip().startswith(b"-----BEGIN"):
        found = list(_parse_pem(content, name))
    else:
        found = [key for document in _documents(content, name) for key in _parse_document(document, name)]
    if not found:
        raise SealError(
            f"{name} holds no key that can be imported: a Secret with tls.key, a list of them, an RSA key in PEM, an age"
            " identity file, or what fleet keys export wrote",
            reason="Unsupported",
        )
    return found


def _parse_pem(content: bytes, name: str) -> Iterator[ForeignKey]:
    certificates = b"\n".join(_CERTIFICATE.findall(content))
    for pem in _PRIVATE.findall(content):
        yield ForeignKey(algorithm=Algorithm.RSA, secret=pem, certificate=certificates, name=name)


def _documents(content: bytes, name: str) -> list[Any]:
    try:
        return list(yaml.safe_load_all(content))
    except (yaml.YAMLError, ValueError, RecursionError):
        raise SealError(f"{name} is neither YAML nor JSON", reason="Unsupported") from None


def _parse_document(document: Any, name: str) -> Iterator[ForeignKey]:
    if not isinstance(document, dict):
        return
    kind = document.get("kind")
    if kind == KIND:
        yield from _parse_export(document, name)
    elif kind == "Secret":
        yield from _parse_secret(document, name)
    elif isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _parse_document(item, name)


def _parse_secret(document: dict[str, Any], name: str) -> Iterator[ForeignKey]:
    """Read a key Secret of Sealed Secrets, or a Secret of `.agekey` entries as Flux uses them."""
    metadata = _mapping(document.get("metadata"))
    where = f"{name}: Secret {metadata.get('namespace', '')}/{metadata.get('name', '')}"
    data = {item: _decode(value, where) for item, value in _mapping(document.get("data")).items()}
    data |= {item: str(value).encode() for item, value in _mapping(document.get("stringData")).items()}
    label = _mapping(metadata.get("labels")).get(LABEL)
    if "tls.key" in data:
        yield ForeignKey(
            algorithm=Algorithm.RSA,
            secret=data["tls.key"],
            certificate=data.get("tls.crt", b""),
            name=where,
            compromised=label == "compromised",
        )
    for item, value in data.items():
        if str(item).endswith(".agekey"):
            for key in parse_identities(value.decode(errors="replace")):
                yield ForeignKey(algorithm=Algorithm.AGE, secret=key, name=where)


def _parse_export(document: dict[str, Any], name: str) -> Iterator[ForeignKey]:
    entries = document.get("keys")
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or str(entry.get("algorithm")) not in list(Algorithm):
            raise SealError(f"{name}: an entry of keys is not as fleet keys export writes it", reason="Unsupported")
        yield ForeignKey(
            algorithm=Algorithm(str(entry["algorithm"])),
            secret=_decode(entry.get("secret"), name),
            certificate=str(entry.get("certificate", "")).encode(),
            name=f"{name}: key {entry.get('kid', '')}",
            cluster=str(entry.get("cluster", "")),
        )


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _decode(value: Any, where: str) -> bytes:
    try:
        return base64.b64decode(str(value), validate=True)
    except (ValueError, binascii.Error):
        raise SealError(f"{where}: a value is not base64", reason="Unsupported") from None


def write_export(keys: Iterable[PrivateKey], *, hub_id: str, at: str) -> bytes:
    """Write keys in the clear, as `fleet keys import` reads them; whoever calls encrypts what comes out."""
    document = {"apiVersion": "fleet/v1", "kind": KIND, "hub": hub_id, "exportedAt": at}
    entries = [_write_entry(key) for key in keys]
    return json.dumps({**document, "keys": entries}, indent=1).encode() + b"\n"


def _write_entry(key: PrivateKey) -> dict[str, str]:
    public = key.public
    rsa = public.algorithm is Algorithm.RSA
    secret = write_pem(key.secret) if rsa else key.secret
    entry = {
        "kid": public.kid,
        "cluster": public.cluster,
        "uid": public.uid,
        "algorithm": public.algorithm.value,
        "state": public.state.value,
        "secret": base64.b64encode(secret).decode(),
    }
    return {**entry, "certificate": public.public.decode()} if rsa else entry


def write_bitnami(keys: Iterable[PrivateKey], namespace: str = "kube-system") -> bytes:
    """Write RSA keys in the clear as the key Secrets of a Sealed Secrets controller: a v1.List for `kubectl apply`."""
    items = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {
                "name": f"sealed-secrets-key-{key.public.kid}",
                "namespace": namespace,
                "labels": {LABEL: "active"},
            },
            "data": {
                "tls.crt": base64.b64encode(key.public.public).decode(),
                "tls.key": base64.b64encode(write_pem(key.secret)).decode(),
            },
        }
        for key in keys
        if key.public.algorithm is Algorithm.RSA
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1).encode() + b"\n"


def write_identities(keys: Iterable[PrivateKey]) -> bytes:
    """Write age identities in the clear, one a line, as age, sops and Flux read them."""
    lines = [
        f"# cluster {key.public.cluster}, key {key.public.kid}\n{format_identity(key.age_key)}\n"
        for key in keys
        if key.public.algorithm is not Algorithm.RSA
    ]
    return "".join(lines).encode()
