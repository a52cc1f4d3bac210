"""How a sealing key comes to be: made for a cluster, or taken over from elsewhere. Encrypted before it is anything."""

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fleet.secrets.certificate import make_rsa, read_rsa
from fleet.secrets.foreign import ForeignKey
from fleet.secrets.key import (
    SEED_BYTES,
    Algorithm,
    KeyState,
    compute_kid,
    derive_age_key,
    derive_box_key,
    derive_public,
)
from fleet.secrets.master import MasterKey
from fleet.secrets.wrap import bind_key
from fleet.store.key import KeyRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """For whom a key is made, when, and when it is to be replaced."""

    cluster: str
    uid: str
    now: datetime
    renew_after: timedelta


def make_key(birth: Birth, algorithm: Algorithm, master: MasterKey) -> KeyRow:
    """Make a key pair; of RSA it takes 0.2 s of a core or more, so for a thread."""
    if algorithm is Algorithm.RSA:
        made = make_rsa(birth.cluster, birth.now)
        row = _row(birth, algorithm, made.kid, made.certificate, b"")
        return _wrap(row, made.secret, master)
    return _wrap_seed(birth, secrets.token_bytes(SEED_BYTES), master)


def adopt_key(birth: Birth, found: ForeignKey, master: MasterKey) -> KeyRow:
    """Take over a key that was made elsewhere: it opens, and is never offered.

    Raises: SealError Unsupported.
    """
    if found.algorithm is Algorithm.RSA:
        read = read_rsa(found.secret, birth.cluster, birth.now, found.certificate)
        row = _wrap(_row(birth, Algorithm.RSA, read.kid, read.certificate, b""), read.secret, master)
    elif found.algorithm is Algorithm.AGE:
        public = derive_public(found.secret)
        row = _wrap(_row(birth, Algorithm.AGE, compute_kid(public), public, public), found.secret, master)
    else:
        row = _wrap_seed(birth, found.secret, master)
    state = KeyState.COMPROMISED if found.compromised else KeyState.RETIRING
    return replace(row, state=state.value, origin="imported", reason=f"imported from {found.name}")


def _wrap_seed(birth: Birth, seed: bytes, master: MasterKey) -> KeyRow:
    public = derive_public(derive_box_key(seed))
    row = _row(birth, Algorithm.X25519, compute_kid(public), public, derive_public(derive_age_key(seed)))
    return _wrap(row, seed, master)


def _row(birth: Birth, algorithm: Algorithm, kid: str, public: bytes, age_public: bytes) -> KeyRow:
    return KeyRow(
        cluster=birth.cluster,
        kid=kid,
        uid=birth.uid,
        algorithm=algorithm.value,
        public=public,
        age_public=age_public,
        private=None,
        master="",
        state=KeyState.PENDING.value,
        origin="made",
        created_at=birth.now,
        renew_at=birth.now + birth.renew_after,
        changed_at=birth.now,
        backed_up_at=None,
        reason="",
        replaced_by="",
    )


def _wrap(row: KeyRow, secret: bytes, master: MasterKey) -> KeyRow:
    bound = replace(row, master=master.id)
    return replace(bound, private=master.encrypt(secret, bind_key(bound)))
