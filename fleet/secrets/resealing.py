"""Documents changed by who can open them: new recipients, new keys, new values. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fleet.secrets import native
from fleet.secrets.document import Sealed
from fleet.secrets.native import OpenKey, Recipient
from fleet.secrets.opened import Opened, Scope

Keys = Mapping[str, OpenKey]
"""Data keys in the clear, by id."""


def unwrap_all(document: Sealed, identities: Sequence[bytes]) -> Keys:
    """Unwrap every data key with a break-glass identity.

    Raises: SealError NotARecipient, Corrupt.
    """
    return {id_: native.unwrap_with_identity(key, identities) for id_, key in document.keys.items()}


def open_at_home(document: Sealed, keys: Keys, cluster: str = "", environment: str = "") -> Opened:
    """Open a document at the place that it names itself.

    Raises: SealError ScopeMismatch where it was moved after it was sealed, Corrupt.
    """
    audience = document.audience
    home = Scope(audience.cluster or cluster, audience.environment or environment, document.namespace, document.name)
    return native.open_with(document, home, keys)


def rewrap(document: Sealed, keys: Keys, recipients: Sequence[Recipient]) -> Sealed:
    """Wrap the data keys for these recipients and nobody else; the values stay to the byte.

    What is bound to another place than the document's own is refused first: nothing is spread that would not open.
    Raises: SealError ScopeMismatch, Corrupt, NotARecipient.
    """
    open_at_home(document, keys)
    return native.rewrap(document, keys.values(), recipients)


def reseal(document: Sealed, keys: Keys, recipients: Sequence[Recipient]) -> Sealed:
    """Encrypt every value again under one new data key; scope, audience and place are those that were verified.

    Raises: SealError ScopeMismatch, Corrupt, NotARecipient.
    """
    opened = open_at_home(document, keys)
    items = {item: plain.reveal() for item, plain in opened.items.items()}
    bare = replace(document, sealed_as=f"{document.namespace}/{document.name}", keys={}, recipients={}, values={})
    return native.add_items(bare, items, recipients)


def change_items(
    document: Sealed, before: Mapping[str, bytes], after: Mapping[str, bytes], recipients: Sequence[Recipient]
) -> Sealed:
    """Seal what differs and drop what is gone; unchanged items stay to the byte."""
    kept = {item: value for item, value in document.values.items() if item in after}
    changed = {item: value for item, value in after.items() if before.get(item) != value}
    smaller = replace(document, values=kept).compact()
    return native.add_items(smaller, changed, recipients) if changed else smaller
