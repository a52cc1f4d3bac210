"""Which keys a sealed document needs on one cluster, item by item, as far as it says so without being opened. Pure."""

import base64
import re
from collections.abc import Iterator, Mapping

import msgspec

from fleet.errors import SealError
from fleet.object import Manifest, Seal
from fleet.render.sealed import is_sops_item
from fleet.secrets import age, bitnami, native
from fleet.secrets.document import Sealed
from fleet.secrets.key import Keyring

WHOLE_FILE = "*"
"""Stands for the items of a file encrypted with SOPS, which has one key for all."""
_AGE_RECIPIENT = re.compile(rb"age1[02-9ac-hj-np-z]{58}")


def list_uses(m: Manifest, cluster: str, keyring: Keyring, opened_with: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (item, kid) of a sealed manifest; a kid is empty where nothing tells which key it is.

    `opened_with` says which keys opened items, if it was opened: Bitnami's documents do not name their keys.
    """
    if m.seal is Seal.NATIVE:
        yield from _list_native(m, cluster, keyring)
    elif m.seal is Seal.BITNAMI:
        yield from ((item, opened_with.get(item, "")) for item in _bitnami_items(m))
    elif m.seal is Seal.SOPS_ITEMS:
        for item, data in _encrypted_items(m):
            yield from ((item, kid) for kid in list_age_kids(data, cluster, keyring))
    elif m.seal is not Seal.NONE:
        yield from ((WHOLE_FILE, kid) for kid in list_age_kids(m.body, cluster, keyring))


def _list_native(m: Manifest, cluster: str, keyring: Keyring) -> Iterator[tuple[str, str]]:
    try:
        sealed = native.parse_sealed(m.body)
    except SealError:
        return
    for item, value in sealed.values.items():
        key = sealed.keys.get(value.key_id)
        for kid in key.wraps if key is not None else ():
            if _is_of(kid, cluster, sealed, keyring):
                yield item, kid


def _is_of(kid: str, cluster: str, sealed: Sealed, keyring: Keyring) -> bool:
    """Tell whether a key is a cluster's: the keyring knows, and of keys that it does not know the document says."""
    try:
        keyring.get(cluster, kid)
    except SealError as error:
        return error.reason in ("RetiredKey", "CompromisedKey") or sealed.recipients.get(kid) == cluster
    return True


def _bitnami_items(m: Manifest) -> list[str]:
    try:
        return list(bitnami.parse(m.body).values)
    except SealError:
        return []


def _encrypted_items(m: Manifest) -> Iterator[tuple[str, bytes]]:
    """Yield the entries of a Secret that are files encrypted with SOPS, out of their base64."""
    for item, value in msgspec.json.decode(m.body)["data"].items():
        if is_sops_item(value):
            yield item, base64.b64decode(value)


def list_age_kids(data: bytes, cluster: str, keyring: Keyring) -> list[str]:
    """List a cluster's keys, whatever their state, whose age recipients stand in a file; one empty name if there are none."""
    named = {age.format_recipient(public).encode(): kid for public, kid in keyring.age_kids(cluster).items()}
    return sorted({named[text] for text in _AGE_RECIPIENT.findall(data) if text in named}) or [""]
