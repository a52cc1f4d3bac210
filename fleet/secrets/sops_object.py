"""What files encrypted with SOPS are to a cluster: sources of builds, objects, and entries of Secrets.

The MAC is over the very file, so it is checked here, before anything changes what stands in it.
"""

import base64
from collections.abc import Mapping
from typing import Any

from fleet.document import parse_documents
from fleet.errors import SealError
from fleet.render.sealed import SOPS, is_sops_item
from fleet.secrets import sops
from fleet.secrets.key import Keyring, collect_age_keys
from fleet.secrets.secret import in_one_form
from fleet.secrets.usage import list_age_kids

_NAMED = "the file"


def open_source(file: str, data: bytes, keyring: Keyring, cluster: str) -> bytes:
    """Open a file with a cluster's age keys; its format is that of its name, as `sops` has it.

    Raises: SealError.
    """
    identities = collect_age_keys(keyring, cluster)
    try:
        return sops.decrypt(data, sops.detect_format(file), identities, name=_NAMED)
    except SealError as error:  # the caller names the file, with the line of the object
        if error.reason == "NotARecipient":
            _refuse_closed(data, keyring, cluster)
        raise SealError(error.message.removeprefix(f"{_NAMED}: "), reason=error.reason) from None


def _refuse_closed(data: bytes, keyring: Keyring, cluster: str) -> None:
    """Say it when the cluster has a key for a file, and that key opens nothing any more: compromised counts most."""
    found: list[SealError] = []
    for kid in filter(None, list_age_kids(data, cluster, keyring)):
        try:
            keyring.get(cluster, kid)
        except SealError as error:
            found.append(error)
    if found:
        raise next((each for each in found if each.reason == "CompromisedKey"), found[0]) from None


def open_object(body: Mapping[str, Any], file: str, keyring: Keyring, cluster: str) -> dict[str, Any]:
    """Return the object that a manifest's body stands for, with the metadata that rendering gave it. Raises: SealError."""
    sealed = body[SOPS]
    documents, problems = parse_documents(open_source(file, sealed["file"].encode(), keyring, cluster), file)
    number = sealed["document"]
    if problems or number >= len(documents) or not isinstance(documents[number].value, dict):
        raise SealError("what it opens to cannot be read as Kubernetes objects")
    value = {name: below for name, below in documents[number].value.items() if name != SOPS}
    if any(value.get(name) != body[name] for name in ("apiVersion", "kind")):
        raise SealError("it opens to another kind of object than it says")
    return in_one_form({**value, "metadata": body["metadata"]})


def open_items(body: Mapping[str, Any], keyring: Keyring, cluster: str) -> dict[str, Any]:
    """Return a Secret with the entries opened that are files encrypted with SOPS. Raises: SealError naming the entry."""
    data = {name: _open_item(name, value, keyring, cluster) for name, value in body["data"].items()}
    return {**body, "data": data}


def _open_item(name: str, value: str, keyring: Keyring, cluster: str) -> str:
    if not is_sops_item(value):
        return value
    try:
        return base64.b64encode(open_source(name, base64.b64decode(value), keyring, cluster)).decode()
    except SealError as error:
        raise SealError(f"entry {name}: {error.message}", reason=error.reason) from None
