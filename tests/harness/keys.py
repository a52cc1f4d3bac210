"""Sealing keys for tests: a keyring in memory over real key pairs, and documents sealed with them."""

import base64
import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fleet.errors import SealError
from fleet.secrets import bitnami, native
from fleet.secrets.document import encode_sealed, write_sealed
from fleet.secrets.key import (
    Algorithm,
    KeyState,
    PrivateKey,
    PublicKey,
    compute_kid,
    derive_age_key,
    derive_box_key,
    derive_public,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
CLOSED = {KeyState.RETIRED: "RetiredKey", KeyState.DESTROYED: "RetiredKey", KeyState.COMPROMISED: "CompromisedKey"}


def box_key(cluster: str, number: int = 1, environment: str = "dev") -> PrivateKey:
    """Make the n-th X25519 key of a cluster, always the same one."""
    seed = hashlib.blake2b(f"{cluster}/{number}".encode(), digest_size=32).digest()
    public = derive_public(derive_box_key(seed))
    return PrivateKey(
        public=PublicKey(
            kid=compute_kid(public),
            cluster=cluster,
            environment=environment,
            uid="",
            algorithm=Algorithm.X25519,
            public=public,
            age_public=derive_public(derive_age_key(seed)),
            state=KeyState.ACTIVE,
            created_at=AT.replace(day=number),
            renew_at=AT,
        ),
        secret=seed,
    )


@cache
def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def rsa_key(cluster: str) -> PrivateKey:
    """Make an RSA key of a cluster; all clusters of a test run share one pair."""
    der = _rsa().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    public = _rsa().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    made = box_key(cluster)
    kid = compute_kid(public)
    return PrivateKey(public=replace(made.public, kid=kid, algorithm=Algorithm.RSA, public=public), secret=der)


class MemoryKeyring:
    """`fleet.secrets.key.Keyring` over keys that tests put in."""

    def __init__(self, *keys: PrivateKey) -> None:
        self.generation = 0
        self._keys = {(key.public.cluster, key.public.kid): key for key in keys}
        self._notify: list[Callable[[], None]] = []

    def add(self, key: PrivateKey) -> None:
        """Have one key more."""
        self._keys[key.public.cluster, key.public.kid] = key
        self._changed()

    def set_state(self, key: PrivateKey, state: KeyState) -> None:
        """Move a key in its life."""
        self.add(replace(key, public=replace(key.public, state=state)))

    def drop(self, key: PrivateKey) -> None:
        """Lose a key."""
        del self._keys[key.public.cluster, key.public.kid]
        self._changed()

    def _changed(self) -> None:
        self.generation += 1
        for notify in self._notify:
            notify()

    def version(self, cluster: str) -> Hashable:
        """Return the cluster's keys and their states."""
        return tuple(sorted((kid, k.public.state) for (of, kid), k in self._keys.items() if of == cluster))

    def get(self, cluster: str, kid: str) -> PrivateKey:
        """Return a key. Raises: SealError."""
        key = self._keys.get((cluster, kid))
        if key is None:
            raise SealError(f"no key {kid} of cluster {cluster} is known here", reason="UnknownKey")
        if key.public.state in CLOSED:
            raise SealError(f"key {kid} is {key.public.state}", reason=CLOSED[key.public.state])
        return key

    def usable(self, cluster: str, algorithm: Algorithm) -> Sequence[PrivateKey]:
        """Return keys that may open, newest first."""
        keys = [k for (of, _), k in self._keys.items() if of == cluster and k.public.algorithm is algorithm]
        return sorted(
            (k for k in keys if k.public.state not in CLOSED), key=lambda k: k.public.created_at, reverse=True
        )

    def offered(self, cluster: str, algorithm: Algorithm) -> PublicKey | None:
        """Return the newest key."""
        return next((key.public for key in self.usable(cluster, algorithm)), None)

    def age_kids(self, cluster: str) -> Mapping[bytes, str]:
        """Name keys by their age public halves."""
        of_cluster = [(kid, k.public) for (of, kid), k in self._keys.items() if of == cluster]
        return {public.age_public: kid for kid, public in of_cluster if public.algorithm is not Algorithm.RSA}

    def on_change(self, notify: Callable[[], None]) -> None:
        """Call `notify` after every change."""
        self._notify.append(notify)


def native_document(
    items: Mapping[str, str], *keys: PrivateKey, namespace: str = "default", name: str = "db", **more: Any
) -> str:
    """Seal a Secret as `fleet seal` does."""
    values = {item: text.encode() for item, text in items.items()}
    recipients = [key.public for key in keys]
    return write_sealed(native.seal(values, recipients, namespace=namespace, name=name, **more))


def native_body(items: Mapping[str, str], *keys: PrivateKey, **more: Any) -> dict[str, Any]:
    """Seal a Secret, decoded."""
    values = {item: text.encode() for item, text in items.items()}
    place = {"namespace": "default", "name": "db", **more}
    return encode_sealed(native.seal(values, [key.public for key in keys], **place))


def bitnami_body(
    items: Mapping[str, str],
    *,
    namespace: str = "default",
    name: str = "db",
    scope: str = "strict",
    template: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Seal a Secret as kubeseal does, for every key of `rsa_key`."""
    label = bitnami.make_label(scope, namespace, name)
    public = _rsa().public_key()
    annotations = {} if scope == "strict" else {f"sealedsecrets.bitnami.com/{scope}": "true"}
    return {
        "apiVersion": "bitnami.com/v1alpha1",
        "kind": "SealedSecret",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {
            "encryptedData": {item: bitnami.seal_value(text.encode(), public, label) for item, text in items.items()},
            "template": dict(template or {}),
        },
    }


def encode(text: str) -> str:
    """Write a value as a Secret's `data` has it."""
    return base64.b64encode(text.encode()).decode()
