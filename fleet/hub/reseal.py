"""Sealed documents changed by the hub, which opens them with its own keys; no value leaves it."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from fleet.errors import SealError
from fleet.hub.keyview import Resealed, ResealRequest
from fleet.secrets import native
from fleet.secrets.bundle import Bundle
from fleet.secrets.document import DataKey, Sealed, encode_sealed, parse_sealed
from fleet.secrets.key import Algorithm, PublicKey
from fleet.secrets.keyring import LoadedKeyring
from fleet.secrets.native import OpenKey
from fleet.secrets.recipient import refuse_compromised, renew_recipients
from fleet.secrets.resealing import Keys, reseal, rewrap

_CHANGES: Mapping[str, Callable[..., Sealed]] = {"rewrap": rewrap, "reseal": reseal}


def change_document(request: ResealRequest, keyring: LoadedKeyring) -> Resealed:
    """Return the document for the keys that are offered today. Scope, audience and place stay those that were verified.

    `request.allow` is asked with every environment that is touched before anything is opened.
    Raises: SealError, and whatever `allow` raises.
    """
    document = parse_sealed(request.document)
    bundle = Bundle(hub="", signer="", issued_at=datetime.min.replace(tzinfo=UTC), keys=keyring.publics())
    recipients = renew_recipients(bundle, document)
    kids = {kid for key in document.keys.values() for kid in key.wraps}
    touched = [key for key in bundle.keys if key.kid in kids and key.algorithm is Algorithm.X25519]
    new = [each for each in recipients if isinstance(each, PublicKey)]
    request.allow({key.environment for key in (*touched, *new)})
    refuse_compromised(bundle, document)
    keys: Keys = {id_: _unwrap(document, key, touched, keyring) for id_, key in document.keys.items()}
    made = _CHANGES[request.verb](document, keys, recipients)
    return Resealed(document=encode_sealed(made), clusters=tuple(sorted({key.cluster for key in new})))


def _unwrap(document: Sealed, key: DataKey, held: list[PublicKey], keyring: LoadedKeyring) -> OpenKey:
    """Unwrap with the first cluster's key that may; the last refusal stands for all."""
    refusal = SealError(
        f"no key of this hub opens data key {key.id}; a break-glass identity may: see fleet seal rewrap --identity",
        reason="UnknownKey",
    )
    for each in held:
        if each.kid in key.wraps:
            try:
                return native.unwrap(document, key, each.cluster, keyring)
            except SealError as error:
                refusal = error
    raise refusal
