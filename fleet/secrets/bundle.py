"""The signed list of public keys: what `fleet seal` works from, offline. Pure.

It is committed to Git and served at `/v1/seal/keys`. Whoever could put a key of theirs into it would read every secret
sealed from then on, so that it is signed by the hub, and the signer is pinned by who seals.
"""

import binascii
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from fleet.clock import format_at
from fleet.document import load_documents
from fleet.errors import DocumentError, SealError
from fleet.object import encode_canonical
from fleet.secrets import age
from fleet.secrets.key import Algorithm, KeyState, PublicKey, compute_kid
from fleet.secrets.layout import decode_base64, encode_base64, write_yaml

API_VERSION: Final = "fleet/v1"
KIND: Final = "SealingKeys"
_SIGNED: Final = b"fleet-keys-v1\n"
_PREFIX: Final = "ed25519:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A list whose signature was right."""

    hub: str
    """Id of the hub that signed it."""
    signer: str
    """`ed25519:` and the public key in base64; what is pinned."""
    issued_at: datetime
    keys: Sequence[PublicKey]

    def offered(self, algorithm: Algorithm = Algorithm.X25519) -> list[PublicKey]:
        """Return what new values are sealed with, by cluster."""
        active = [key for key in self.keys if key.state is KeyState.ACTIVE and key.algorithm is algorithm]
        return sorted(active, key=lambda key: key.cluster)

    def find(self, kid: str) -> PublicKey | None:
        """Return a key by its name, in whatever state it is."""
        return next((key for key in self.keys if key.kid == kid), None)


def write_bundle(keys: Sequence[PublicKey], *, hub: str, issued_at: datetime, signer: SigningKey) -> str:
    """Write and sign the list: YAML, sorted, one key per block, equal input giving equal text.

    `issued_at` is when a key last changed, so that asking twice gives one text.
    """
    order = sorted(keys, key=lambda key: (key.environment, key.cluster, key.algorithm, key.created_at, key.kid))
    spec: dict[str, Any] = {
        "hub": hub,
        "signer": format_signer(bytes(signer.verify_key)),
        "issuedAt": format_at(issued_at),
        "keys": [_encode_key(key) for key in order],
    }
    signature = signer.sign(_SIGNED + encode_canonical(spec)).signature
    return write_yaml({"apiVersion": API_VERSION, "kind": KIND, "spec": spec, "signature": encode_base64(signature)})


def parse_bundle(data: bytes, *, file: str = "the list of keys", signer: str = "") -> Bundle:
    """Read the list and verify its signature; with `signer`, also that it is the pinned one's.

    Raises: SealError Corrupt, WrongSigner.
    """
    try:
        documents = load_documents(data, file)
    except DocumentError as error:
        raise SealError(f"{file} is not readable: {error}") from None
    root = documents[0].value if len(documents) == 1 else None
    if not isinstance(root, dict) or (root.get("apiVersion"), root.get("kind")) != (API_VERSION, KIND):
        raise SealError(
            f"{file} is no list of sealing keys; fetch it with fleet seal keys --server URL > .fleet/keys.yaml"
        )
    try:
        bundle = _parse_spec(root["spec"])
        signature = decode_base64(root["signature"], "the signature")
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise SealError(f"{file} has a field that is missing or wrong ({type(error).__name__})") from None
    _verify(root["spec"], signature, bundle.signer, file)
    if signer and not hmac.compare_digest(signer.encode(), bundle.signer.encode()):
        raise SealError(
            f"{file} is signed by {bundle.signer}, not by {signer}: do not seal with it before you know why",
            reason="WrongSigner",
        )
    return bundle


def format_signer(public: bytes) -> str:
    """Write an Ed25519 public key as it is pinned."""
    return _PREFIX + encode_base64(public)


def _verify(spec: Any, signature: bytes, signer: str, file: str) -> None:
    try:
        key = VerifyKey(decode_base64(signer.removeprefix(_PREFIX), "the signer"))
        key.verify(_SIGNED + encode_canonical(spec), signature)
    except (BadSignatureError, ValueError, TypeError):
        raise SealError(
            f"the signature of {file} is wrong: it was changed after the hub signed it", reason="WrongSigner"
        ) from None


def _encode_key(key: PublicKey) -> dict[str, Any]:
    rsa = key.algorithm is Algorithm.RSA
    return {
        "cluster": key.cluster,
        "environment": key.environment,
        "algorithm": key.algorithm.value,
        "kid": key.kid,
        "state": key.state.value,
        **({"certificate": key.public.decode("ascii")} if rsa else {"public": encode_base64(key.public)}),
        **({"age": age.format_recipient(key.age_public)} if key.age_public else {}),
        "uid": key.uid,
        "createdAt": format_at(key.created_at),
        "renewAt": format_at(key.renew_at),
    }


def _parse_spec(spec: Mapping[str, Any]) -> Bundle:
    return Bundle(
        hub=_text(spec, "hub"),
        signer=_text(spec, "signer"),
        issued_at=datetime.fromisoformat(_text(spec, "issuedAt")),
        keys=[_parse_key(entry) for entry in spec["keys"]],
    )


def _parse_key(entry: Mapping[str, Any]) -> PublicKey:
    algorithm = Algorithm(entry["algorithm"])
    rsa = algorithm is Algorithm.RSA
    public = (
        _text(entry, "certificate").encode("ascii") if rsa else decode_base64(_text(entry, "public"), "a public key")
    )
    kid = _text(entry, "kid")
    if not rsa and (len(public) != 32 or compute_kid(public) != kid):
        raise ValueError("key id")
    return PublicKey(
        kid=kid,
        cluster=_text(entry, "cluster"),
        environment=_text(entry, "environment"),
        uid=_text(entry, "uid"),
        algorithm=algorithm,
        public=public,
        age_public=age.parse_recipient(entry["age"]) if "age" in entry else b"",
        state=KeyState(entry["state"]),
        created_at=datetime.fromisoformat(_text(entry, "createdAt")),
        renew_at=datetime.fromisoformat(_text(entry, "renewAt")),
    )


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value
