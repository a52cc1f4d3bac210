"""Sealing and opening values of fleet's own format. Pure.

A random data key encrypts the values with XChaCha20-Poly1305 and is wrapped for each recipient in a libsodium sealed
box (break-glass recipients: in an age file). What a value is bound to is associated data: a value that was moved does
not open. `docs/reference/sealed-secret.md` has the format bit by bit, with test vectors.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_box_seal,
    crypto_box_seal_open,
    sodium_pad,
    sodium_unpad,
)
from nacl.exceptions import CryptoError
from nacl.utils import random

from fleet.errors import SealError
from fleet.secrets import age
from fleet.secrets.document import (
    AGE_PREFIX,
    Audience,
    Binding,
    DataKey,
    Sealed,
    Template,
    Value,
    is_sealed,
    parse_sealed,
)
from fleet.secrets.key import Algorithm, Keyring, PrivateKey, PublicKey
from fleet.secrets.opened import Opened, Scope
from fleet.secrets.plain import Plain

__all__ = ["BreakGlass", "Recipient", "is_sealed", "open_sealed", "parse_sealed", "seal"]

PAD_BYTES: Final = 32
"""Values are padded to a multiple of this, so that their length tells little."""
PLACE_BYTES: Final = 8
_MAGIC: Final = b"fleet-seal-v1"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlass:
    """An age recipient that opens a document when every hub and backup is lost; its identity is kept offline."""

    recipient: str
    """`age1...`"""

    @property
    def kid(self) -> str:
        """Its name among the wraps."""
        return self.recipient

    @property
    def title(self) -> str:
        """What the document calls it."""
        return "break-glass"


Recipient = PublicKey | BreakGlass


@dataclass(frozen=True, slots=True)
class OpenKey:
    """A data key in the clear, for as long as one document is worked on."""

    id: str
    commit: bytes
    secret: bytes = field(repr=False)
    kid: str = ""
    """What unwrapped it."""


def seal(
    items: Mapping[str, bytes],
    recipients: Sequence[Recipient],
    *,
    namespace: str,
    name: str,
    binding: Binding = Binding.STRICT,
    audience: Audience | None = None,
    template: Template | None = None,
) -> Sealed:
    """Seal a whole Secret for its recipients."""
    document = Sealed(
        namespace=namespace,
        name=name,
        binding=binding,
        audience=audience or Audience(),
        sealed_as=f"{namespace}/{name}",
        template=template or Template(),
    )
    return add_items(document, items, recipients)


def add_items(document: Sealed, items: Mapping[str, bytes], recipients: Sequence[Recipient]) -> Sealed:
    """Add or replace items under a new data key: nothing that is there already is opened."""
    check_recipients(recipients, document.audience)
    key = make_key()
    wrapped = DataKey(id=key.id, commit=key.commit, wraps={each.kid: wrap(key, each) for each in recipients})
    titles = {each.kid: each.title if isinstance(each, BreakGlass) else each.cluster for each in recipients}
    values = {item: seal_value(value, key, document, item) for item, value in items.items()}
    return replace(
        document,
        keys={**document.keys, key.id: wrapped},
        recipients={**document.recipients, **titles},
        values={**document.values, **values},
    ).compact()


def check_recipients(recipients: Sequence[Recipient], audience: Audience) -> None:
    """Refuse recipients that could never open: of no kind that seals, or outside the audience.

    Raises: SealError NotARecipient.
    """
    if not any(isinstance(each, PublicKey) for each in recipients):
        raise SealError("there is no cluster to seal for; name one with --for", reason="NotARecipient")
    for each in recipients:
        if isinstance(each, BreakGlass):
            continue
        if each.algorithm is not Algorithm.X25519:
            raise SealError(f"key {each.kid} of {each.cluster} is not for documents of fleet", reason="Unsupported")
        outside = audience.cluster and each.cluster != audience.cluster
        if outside or (audience.environment and each.environment != audience.environment):
            raise SealError(
                f"cluster {each.cluster} is outside {audience}; it could not open it", reason="NotARecipient"
            )


def make_key() -> OpenKey:
    """Make a data key; its id comes from its commitment, so that two people merging get no clash."""
    secret = random(_KEY_BYTES)
    commit = commit_to(secret)
    return OpenKey(id=commit.hex()[:8], commit=commit, secret=secret)


def commit_to(secret: bytes) -> bytes:
    """Return what only this data key has: XChaCha20-Poly1305 alone lets one ciphertext open differently under two keys."""
    return hashlib.blake2b(key=secret, digest_size=32, person=b"fleet-commit-v1").digest()


def wrap(key: OpenKey, recipient: Recipient) -> bytes:
    """Wrap a data key for one recipient."""
    if isinstance(recipient, BreakGlass):
        return age.encrypt(key.secret, [age.parse_recipient(recipient.recipient)])
    return crypto_box_seal(key.secret, recipient.public)


def rewrap(document: Sealed, keys: Iterable[OpenKey], recipients: Sequence[Recipient]) -> Sealed:
    """Wrap every opened data key for recipients that lack it, and for nobody else than `recipients`.

    Values stay as they are to the byte: what they are bound to does not name the recipients.
    """
    check_recipients(recipients, document.audience)
    named = {each.kid: each for each in recipients}
    out = dict(document.keys)
    for key in keys:
        held = out[key.id].wraps
        wraps = {kid: held[kid] if kid in held else wrap(key, each) for kid, each in named.items()}
        out[key.id] = replace(out[key.id], wraps=wraps)
    titles = {each.kid: each.title if isinstance(each, BreakGlass) else each.cluster for each in recipients}
    return replace(document, keys=out, recipients=titles)


def seal_value(value: bytes, key: OpenKey, document: Sealed, item: str) -> Value:
    """Seal one value for the place that its document names."""
    fields = _bind(document, _home(document), item)
    nonce = random(_NONCE_BYTES)
    padded = sodium_pad(value, PAD_BYTES)
    bound = _associate(key.commit, fields)
    ciphertext = crypto_aead_xchacha20poly1305_ietf_encrypt(padded, bound, nonce, key.secret)
    return Value(key_id=key.id, place=_mark_place(key.secret, fields), nonce=nonce, ciphertext=ciphertext)


# --- opening -----------------------------------------------------------------------------------------------------


def open_sealed(sealed: Sealed, scope: Scope, keyring: Keyring) -> Opened:
    """Open every item of a document at one place.

    Raises: SealError NotARecipient, UnknownKey, RetiredKey, CompromisedKey, ScopeMismatch, Corrupt.
    """
    used = dict.fromkeys(value.key_id for value in sealed.values.values())
    keys = {id_: unwrap(sealed, sealed.keys[id_], scope.cluster, keyring) for id_ in used}
    return open_with(sealed, scope, keys)


def open_with(sealed: Sealed, scope: Scope, keys: Mapping[str, OpenKey]) -> Opened:
    """Open every item with data keys that are unwrapped already.

    Raises: SealError ScopeMismatch, Corrupt.
    """
    items = {item: Plain(open_value(sealed, scope, item, keys[value.key_id])) for item, value in sealed.values.items()}
    template = sealed.template
    return Opened(
        type=template.type,
        labels=template.labels,
        annotations=template.annotations,
        immutable=template.immutable,
        items=items,
        kids={item: keys[value.key_id].kid for item, value in sealed.values.items()},
    )


def unwrap(sealed: Sealed, key: DataKey, cluster: str, keyring: Keyring) -> OpenKey:
    """Unwrap a data key with the newest key of a cluster that it is wrapped for.

    Raises: SealError NotARecipient, UnknownKey, RetiredKey, CompromisedKey, Corrupt.
    """
    for private in keyring.usable(cluster, Algorithm.X25519):
        box = key.wraps.get(private.public.kid)
        if box is not None:
            return _accept(key, _open_box(box, private), private.public.kid)
    raise _explain(sealed, key, cluster, keyring)


def unwrap_with_identity(key: DataKey, identities: Sequence[bytes]) -> OpenKey:
    """Unwrap a data key with an age identity: the break-glass way.

    Raises: SealError NotARecipient, Corrupt.
    """
    named = {age.format_recipient(age.derive_recipient(identity)): identity for identity in identities}
    for recipient, identity in named.items():
        if recipient in key.wraps:
            return _accept(key, age.decrypt(key.wraps[recipient], [identity]), recipient)
    raise SealError(
        f"data key {key.id} is not sealed for this identity; its age recipients: "
        + (", ".join(kid for kid in key.wraps if kid.startswith(AGE_PREFIX)) or "none"),
        reason="NotARecipient",
    )


def open_value(sealed: Sealed, scope: Scope, item: str, key: OpenKey) -> bytes:
    """Open one item at one place.

    Raises: SealError ScopeMismatch, Corrupt.
    """
    value = sealed.values[item]
    fields = _bind(sealed, scope, item)
    in_place = hmac.compare_digest(value.place, _mark_place(key.secret, fields))
    try:
        padded = crypto_aead_xchacha20poly1305_ietf_decrypt(
            value.ciphertext, _associate(key.commit, fields), value.nonce, key.secret
        )
        plain = sodium_unpad(padded, PAD_BYTES)
    except (CryptoError, TypeError, ValueError):
        raise _corrupt(item) if in_place else _moved(sealed, scope, item, key) from None
    if not in_place:
        raise _corrupt(item)
    return plain


def _open_box(box: bytes, private: PrivateKey) -> bytes:
    try:
        return crypto_box_seal_open(box, private.public.public, private.box_key)
    except (CryptoError, TypeError, ValueError):  # TypeError: shorter than any box
        raise SealError(f"the wrap for key {private.public.kid} was changed; seal the value again") from None


def _accept(key: DataKey, secret: bytes, kid: str) -> OpenKey:
    if len(secret) != _KEY_BYTES or not hmac.compare_digest(commit_to(secret), key.commit):
        raise SealError(f"data key {key.id} is not the one that the document commits to; do not trust its author")
    return OpenKey(id=key.id, commit=key.commit, secret=secret, kid=kid)


def _explain_way(sealed: Sealed) -> str:
    """Say how a cluster becomes a recipient: only an environment's new clusters can join without the values."""
    if sealed.audience.environment:
        return f"if it is of environment {sealed.audience.environment}, fleet seal rewrap adds it"
    return "to add it, seal the values again with --for all that shall open it"


def _explain(sealed: Sealed, key: DataKey, cluster: str, keyring: Keyring) -> SealError:
    """Say why no key of a cluster unwraps: the first of its own keys that the document names decides."""
    ours = [kid for kid in key.wraps if sealed.recipients.get(kid) == cluster]
    unknown: SealError | None = None
    for kid in [*ours, *(kid for kid in key.wraps if kid not in ours and not kid.startswith(AGE_PREFIX))]:
        try:
            keyring.get(cluster, kid)
        except SealError as error:
            if error.reason != "UnknownKey":
                return error
            unknown = unknown or (error if kid in ours else None)
    named = ", ".join(sealed.clusters) or "nobody it names"
    return unknown or SealError(
        f"it is sealed for {named}, not for cluster {cluster}; {_explain_way(sealed)}", reason="NotARecipient"
    )


def _corrupt(item: str) -> SealError:
    return SealError(f"item {item} was changed or cut after it was sealed; seal it again")


def _moved(sealed: Sealed, scope: Scope, item: str, key: OpenKey) -> SealError:
    """Say for which place a value was sealed, where the document's hints prove right."""
    mark = sealed.values[item].place
    namespace, _, name = sealed.sealed_as.partition("/")
    homes = (scope, scope._replace(namespace=namespace, name=name), _home(sealed))
    for home in homes:
        for other in (item, *(each for each in sealed.values if each != item)):
            if hmac.compare_digest(mark, _mark_place(key.secret, _bind(sealed, home, other))):
                return _mismatch(f"item {other} of Secret {home.namespace}/{home.name}", item, scope)
    return _mismatch("another place", item, scope)


def _mismatch(sealed_for: str, item: str, scope: Scope) -> SealError:
    return SealError(
        f"sealed for {sealed_for}, used as item {item} of {scope}; seal it for where it is used", reason="ScopeMismatch"
    )


# --- what a value is bound to ------------------------------------------------------------------------------------


def _home(document: Sealed) -> Scope:
    return Scope(document.audience.cluster, document.audience.environment, document.namespace, document.name)


def _bind(sealed: Sealed, scope: Scope, item: str) -> Sequence[str]:
    """Return the fields a value is bound to; those outside its scope are empty, and the scope itself is the first."""
    audience = sealed.audience
    cluster = scope.cluster if audience.cluster else ""
    environment = "" if audience.cluster else scope.environment if audience.environment else "*"
    match sealed.binding:
        case Binding.STRICT:
            return ("strict", environment, cluster, scope.namespace, scope.name, item)
        case Binding.SECRET:
            return ("secret", "", "", scope.namespace, scope.name, "")
        case Binding.NAMESPACE:
            return ("namespace", "", "", scope.namespace, "", "")
        case Binding.ENVIRONMENT:
            return ("environment", environment, cluster, "", "", "")


def _associate(commit: bytes, fields: Sequence[str]) -> bytes:
    return _join([_MAGIC, commit, *(each.encode() for each in fields)])


def _mark_place(secret: bytes, fields: Sequence[str]) -> bytes:
    joined = _join([each.encode() for each in fields])
    return hashlib.blake2b(joined, key=secret, digest_size=PLACE_BYTES, person=b"fleet-place-v1").digest()


def _join(parts: Iterable[bytes]) -> bytes:
    """Put each part's length, 4 bytes big-endian, before it: no two lists give the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
