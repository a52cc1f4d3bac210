"""The identity of a set of objects that are applied together. Pure. Source: KEP-3659, as kubectl implements it."""

import base64
import hashlib


def applyset_id(name: str, namespace: str, kind: str, group: str) -> str:
    """Return the id of the ApplySet whose parent object this is; `namespace` and `group` may be empty.

    >>> applyset_id("shop", "fleet-system", "ConfigMap", "")
    'applyset-uJXenIXSCsbqHeWGVpFnI6gOzEiCzxwbpU3fMhHxouA-v1'
    """
    digest = hashlib.sha256(f"{name}.{namespace}.{kind}.{group}".encode()).digest()
    return f"applyset-{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}-v1"
