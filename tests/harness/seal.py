"""Sealing keys for tests, made from numbers: the same on every run, and of no use to anybody."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fleet.errors import SealError
from fleet.secrets import age
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

AT = datetime(2126, 1, 1, tzinfo=UTC)
"""Long from now: no key of a test is ever due for renewal."""
_REASONS = {
    KeyState.RETIRED: "RetiredKey",
    KeyState.DESTROYED: "RetiredKey",
    KeyState.COMPROMISED: "CompromisedKey",
}


def make_key(
    cluster: str = "prod-eu-1", environment: str = "production", *, number: int = 1, state: KeyState = KeyState.ACTIVE
) -> PrivateKey:
    """Return an X25519 key whose seed is told by its cluster and number."""
    seed = (f"{cluster} {number} " * 32).encode()[:32]
    public = derive_public(derive_box_key(seed))
    return PrivateKey(
        public=PublicKey(
            kid=compute_kid(public),
            cluster=cluster,
            environment=environment,
            uid=f"uid-{cluster}",
            algorithm=Algorithm.X25519,
            public=public,
            age_public=derive_public(derive_age_key(seed)),
            state=state,
            created_at=AT + timedelta(days=number),
            renew_at=AT + timedelta(days=number + 90),
        ),
        secret=seed,
    )


@cache
def make_rsa(size: int = 2048, number: int = 1) -> RSAPrivateKey:
    """Return an RSA key, made once per run."""
    return generate_private_key(65537, size)


def make_rsa_key(
    private: RSAPrivateKey, cluster: str = "prod-eu-1", environment: str = "production", *, number: int = 1
) -> PrivateKey:
    """Return an RSA key as the keyring holds it; `public` is no certificate here, which opening does not need."""
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PrivateKey(
        public=PublicKey(
            kid=compute_kid(spki),
            cluster=cluster,
            environment=environment,
            uid=f"uid-{cluster}",
            algorithm=Algorithm.RSA,
            public=spki,
            state=KeyState.ACTIVE,
            created_at=AT + timedelta(days=number),
            renew_at=AT + timedelta(days=number + 90),
        ),
        secret=der,
    )


def make_break_glass(number: int = 1) -> tuple[bytes, str]:
    """Return an age identity (raw) and its recipient."""
    identity = (f"break glass {number} " * 32).encode()[:32]
    return identity, age.format_recipient(age.derive_recipient(identity))


class Ring:
    """A `fleet.secrets.key.Keyring` over a list of keys."""

    def __init__(self, *keys: PrivateKey) -> None:
        self.keys = list(keys)
        self.generation = 0

    def version(self, cluster: str) -> int:
        """Count the changes, of whatever cluster."""
        return self.generation

    def get(self, cluster: str, kid: str) -> PrivateKey:
        """Return one key, or say why not."""
        for key in self._of(cluster):
            if key.public.kid == kid:
                reason = _REASONS.get(key.public.state)
                if reason:
                    raise SealError(f"key {kid} is {key.public.state}", reason=reason)
                return key
        raise SealError(f"no key {kid} of {cluster}", reason="UnknownKey")

    def usable(self, cluster: str, algorithm: Algorithm) -> Sequence[PrivateKey]:
        """Return what may open, newest first."""
        found = [key for key in self._of(cluster) if key.public.algorithm is algorithm]
        opening = [key for key in found if key.public.state not in _REASONS]
        return sorted(opening, key=lambda key: key.public.created_at, reverse=True)

    def offered(self, cluster: str, algorithm: Algorithm) -> PublicKey | None:
        """Return the newest active key."""
        active = [key for key in self.usable(cluster, algorithm) if key.public.state is KeyState.ACTIVE]
        return active[0].public if active else None

    def age_kids(self, cluster: str) -> Mapping[bytes, str]:
        """Name keys by their age public halves."""
        return {key.public.age_public: key.public.kid for key in self._of(cluster)}

    def on_change(self, notify: Callable[[], None]) -> None:
        """Keys of tests do not change by themselves."""

    def _of(self, cluster: str) -> Iterable[PrivateKey]:
        return (key for key in self.keys if key.public.cluster == cluster)
