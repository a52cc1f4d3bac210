"""Files encrypted with SOPS for age: opened whole, their MAC verified. Pure.

The text of a file stays as it is but for the encrypted values and SOPS's own block, so that what kubectl would read in
it means the same as before, on the same lines.
Source: getsops/sops, `sops.go`, `aes/cipher.go` and `stores/`.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from fleet.errors import SealError
from fleet.secrets import age, sops_env, sops_json, sops_yaml
from fleet.secrets.sops_leaf import Leaf, decrypt_text, is_encrypted, open_leaf
from fleet.secrets.sops_text import SopsFile

FILE_BYTES: Final = 5 << 20
"""Larger files are refused, as in Flux. Binary files: see `BINARY_BYTES`."""
BINARY_BYTES: Final = 16 << 20
"""A binary file is half as large again once encrypted."""

_OTHERS: Final = {
    "pgp": "PGP",
    "kms": "AWS KMS",
    "gcp_kms": "GCP KMS",
    "azure_kv": "Azure Key Vault",
    "hc_vault": "Vault",
    "hckms": "Huawei Cloud KMS",
}
_MAC_ONLY_ENCRYPTED: Final = hashlib.sha256(b"sops").digest()


class Format(StrEnum):
    """What kind of file SOPS encrypted."""

    YAML = "yaml"
    JSON = "json"
    ENV = "env"
    BINARY = "binary"


def detect_format(path: str) -> Format:
    """Tell the format from a file's name, as SOPS and Flux do.

    Raises: SealError Unsupported for INI files.

    >>> [detect_format(name).value for name in ("a/b.yml", "b.json", ".env", "prod.env", "tls.key")]
    ['yaml', 'json', 'env', 'env', 'binary']
    """
    ending = path.rpartition("/")[2].rpartition(".")[2].lower()
    if ending == "ini":
        raise SealError(
            f"{path}: INI files are not opened; fleet opens YAML, JSON, env and binary files of SOPS",
            reason="Unsupported",
        )
    known = {"yaml": Format.YAML, "yml": Format.YAML, "json": Format.JSON, "env": Format.ENV}
    return known.get(ending, Format.BINARY)


def is_sops(content: bytes | Mapping[str, Any]) -> bool:
    """Tell whether a decoded document, or the text of a file of any format, is encrypted with SOPS.

    A text is only looked through for the marks; `decrypt` decides.
    """
    if isinstance(content, Mapping):
        block = content.get("sops")
        return isinstance(block, Mapping) and "mac" in block
    return b"ENC[AES256_GCM," in content and (b"sops:" in content or b'"sops"' in content or b"sops_mac=" in content)


def decrypt(data: bytes, form: Format | str, identities: Sequence[bytes | str], *, name: str = "the file") -> bytes:
    """Open a file with age identities (raw 32 bytes, or `AGE-SECRET-KEY-1...`) and verify its MAC.

    Raises: SealError NotARecipient naming the recipients, Unsupported for files without age recipients, Corrupt.
    """
    try:
        return _decrypt(data, Format(form), identities)
    except SealError as error:
        raise SealError(f"{name}: {error.message}", reason=error.reason) from None


def _decrypt(data: bytes, form: Format, identities: Sequence[bytes | str]) -> bytes:
    file = _parse(data, form)
    key = _unwrap(file.metadata, [age.parse_identity(each) if isinstance(each, str) else each for each in identities])
    opened = [open_leaf(leaf, key) for leaf in file.leaves]
    _verify(file, opened, key)
    return file.write([leaf.shown for leaf in opened])


def _parse(data: bytes, form: Format) -> SopsFile:
    limit = BINARY_BYTES if form is Format.BINARY else FILE_BYTES
    if len(data) > limit:
        raise SealError(f"{len(data)} bytes are too many for a file of SOPS; at most {limit} are read")
    match form:
        case Format.YAML:
            return sops_yaml.parse(data)
        case Format.JSON:
            return sops_json.parse(data)
        case Format.ENV:
            return sops_env.parse(data)
        case Format.BINARY:
            return sops_json.parse_binary(data)


def list_recipients(metadata: Mapping[str, Any]) -> list[str]:
    """Return the age recipients of SOPS's block."""
    return [str(entry.get("recipient", "")) for entry in _list_age(metadata)]


def _unwrap(metadata: Mapping[str, Any], identities: Sequence[bytes]) -> bytes:
    entries = _list_age(metadata)
    if not entries:
        others = [name for field, name in _OTHERS.items() if metadata.get(field)]
        raise SealError(
            f"encrypted with {' and '.join(others) or 'no key that fleet knows'}; fleet opens files of SOPS that have an"
            " age recipient: add one with sops updatekeys",
            reason="Unsupported",
        )
    wanted = {age.format_recipient(age.derive_recipient(each)): each for each in identities}
    for entry in entries:
        identity = wanted.get(str(entry.get("recipient", "")))
        if identity is not None:
            return _check_key(age.decrypt(str(entry.get("enc", "")).encode(errors="replace"), [identity]))
    named = ", ".join(list_recipients(metadata))
    raise SealError(
        f"encrypted for {named}, none of which this cluster has; add its recipient, which fleet keys show prints",
        reason="NotARecipient",
    )


def _list_age(metadata: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = metadata.get("key_groups")
    if groups is None or groups == []:
        groups = [metadata]
    if not isinstance(groups, list) or len(groups) > 1:
        raise SealError("encrypted with several key groups (shamir), which fleet does not open", reason="Unsupported")
    entries = groups[0].get("age") if isinstance(groups[0], Mapping) else None
    entries = [] if entries is None else entries
    if not isinstance(entries, list) or not all(isinstance(each, Mapping) for each in entries):
        raise SealError("sops.age must be a list of recipients")
    return entries


def _check_key(key: bytes) -> bytes:
    if len(key) != 32:
        raise SealError("the data key of SOPS has a wrong length")
    return key


def _verify(file: SopsFile, opened: Sequence[Leaf], key: bytes) -> None:
    """Raises: SealError Corrupt if anything was added, removed, moved or changed since SOPS wrote the file."""
    metadata = file.metadata
    only_encrypted = metadata.get("mac_only_encrypted") in (True, "true", "True")
    total = hashlib.sha512(_MAC_ONLY_ENCRYPTED if only_encrypted else b"")
    for leaf in opened:
        if leaf.encrypted or not only_encrypted:
            total.update(leaf.hashed)
    sealed = metadata.get("mac")
    if not isinstance(sealed, str) or not is_encrypted(sealed):
        raise SealError("SOPS's block has no mac; fleet opens no file that cannot be verified")
    expected = decrypt_text(sealed, key, _read_moment(metadata.get("lastmodified")), "mac").text
    if not hmac.compare_digest(expected.encode(errors="replace"), total.hexdigest().upper().encode()):
        raise SealError("the MAC is wrong: the file was edited without sops; edit it with sops, or encrypt it again")


def _read_moment(text: Any) -> str:
    """Return the moment as SOPS prints it again before using it."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise SealError("sops.lastmodified is no moment in time") from None
    if moment.utcoffset() is None:
        raise SealError("sops.lastmodified has no time zone")
    stamp = moment.isoformat(timespec="seconds")
    return stamp.removesuffix("+00:00") + "Z" if moment.utcoffset() == UTC.utcoffset(None) else stamp
