"""Files encrypted with SOPS for age, made without the `sops` program: what tests commit to repositories."""

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fleet.secrets import age

MODIFIED = "2026-01-01T00:00:00Z"
Path = tuple[str, ...]


def encrypt_yaml(
    value: dict[str, Any], recipients: Sequence[bytes], only: Sequence[str] = ("data", "stringData")
) -> str:
    """Encrypt the texts below the fields `only`, for raw age public keys, as `--encrypted-regex` does."""
    return yaml.safe_dump(_encrypt(value, recipients, only), sort_keys=False, width=10_000)


def encrypt_binary(content: bytes, recipients: Sequence[bytes]) -> str:
    """Encrypt any file."""
    return json.dumps(_encrypt({"data": content.decode()}, recipients, ("data",)), indent=2)


def encrypt_env(values: dict[str, str], recipients: Sequence[bytes]) -> str:
    """Encrypt an env file."""
    made = _encrypt(dict(values), recipients, tuple(values))
    sops = made.pop("sops")
    lines = [f"{name}={text}" for name, text in made.items()]
    for index, one in enumerate(sops.pop("age")):
        lines += [f"sops_age__list_{index}__map_{name}={_one_line(text)}" for name, text in one.items()]
    return "\n".join([*lines, *(f"sops_{name}={_one_line(text)}" for name, text in sops.items())]) + "\n"


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


def _encrypt(value: dict[str, Any], recipients: Sequence[bytes], only: Sequence[str]) -> dict[str, Any]:
    key = os.urandom(32)
    leaves = list(_leaves(value, ()))
    digest = hashlib.sha512(b"".join(text.encode() for _, text in leaves)).hexdigest().upper()
    wrapped = [
        {"recipient": age.format_recipient(r), "enc": age.armor(age.encrypt(key, [r])).decode()} for r in recipients
    ]
    block = {
        "age": wrapped,
        "lastmodified": MODIFIED,
        "mac": _seal(key, digest, MODIFIED),
        "encrypted_regex": f"^({'|'.join(only)})$",
        "version": "3.9.0",
    }
    return {**_walk(key, value, (), only), "sops": block}


def _leaves(value: Any, at: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _leaves(below, (*at, name))
    else:
        yield at, str(value)


def _walk(key: bytes, value: Any, at: Path, only: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {name: _walk(key, below, (*at, name), only) for name, below in value.items()}
    return _seal(key, value, ":".join([*at, ""])) if at[0] in only else value


def _seal(key: bytes, text: str, bound_to: str) -> str:
    nonce = os.urandom(32)
    sealed = AESGCM(key).encrypt(nonce, text.encode(), bound_to.encode())
    parts = {"data": sealed[:-16], "iv": nonce, "tag": sealed[-16:]}
    shown = ",".join(f"{name}:{base64.b64encode(part).decode()}" for name, part in parts.items())
    return f"ENC[AES256_GCM,{shown},type:str]"
