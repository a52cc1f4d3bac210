"""The kinds of value that inventory fields hold: names, durations, variables, paths."""

import json
import os.path
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo, WithJsonSchema

from fleet.inventory.version import parse_range

_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_LABEL_PREFIX = r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?"
_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_DURATION_PART = r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)"
_LONGEST_S = 10 * 366 * 86_400.0
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: object) -> float:
    """Return the seconds of a duration such as `1h30m`.

    >>> parse_duration("1h30m"), parse_duration("500ms")
    (5400.0, 0.5)

    Raises: ValueError.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise ValueError(f"a duration needs a unit: write {text}s, {text}m or {text}h")
    if not isinstance(text, str) or not re.fullmatch(f"({_DURATION_PART})+", text):
        raise ValueError("must be a duration such as 30s, 10m or 1h30m")
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(_DURATION_PART, text))
    if seconds > _LONGEST_S:
        raise ValueError("is too long: at most ten years")
    return seconds


def _matching(pattern: str, message: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(message)
        return text

    return AfterValidator(check)


def _check_branch(text: str) -> str:
    if (
        not text
        or text.startswith("-")
        or ".." in text
        or text.endswith((".lock", "/"))
        or re.search(r"[\s~^:?*\[\\\x7f]", text)
    ):
        raise ValueError("is not a name that Git accepts for a branch or tag")
    return text


def check_tree_path(text: str) -> str:
    """Return a path inside a repository unchanged.

    Raises: ValueError when it could lead out of the tree.
    """
    if text.startswith("/") or "\\" in text or "\0" in text or ".." in text.split("/"):
        raise ValueError("must be a path inside the repository: relative, with / and without ..")
    if not text:
        raise ValueError("is empty; write . for the root of the repository")
    return text


def _resolve_path(path: Path, info: ValidationInfo) -> Path:
    """Read a relative path from the directory of the file that names it."""
    return Path(_join(info, str(path)))


def _join(info: ValidationInfo, path: str) -> str:
    # By name, not by inode: the folders of a mounted ConfigMap are links that lead elsewhere.
    return os.path.normpath(info.context["directory"] / path) if info.context else path


_NOT_A_GIT_URL = "must be an https, http or file URL, or a local path"


def _split_url(url: str, complaint: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed only when asked for
    except ValueError:
        # The library's own message shows the URL.
        raise ValueError(complaint) from None
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError(complaint)
    return parts


def _resolve_url(url: str, info: ValidationInfo) -> str:
    if re.match(r"ssh://|[\w.-]+@[\w.-]+:", url):
        raise ValueError("ssh is not supported yet; use an https URL or a local path")
    if "://" not in url:
        if not url.strip() or "\0" in url or url.startswith("-"):
            raise ValueError(_NOT_A_GIT_URL)
        return _join(info, url)
    parts = _split_url(url, _NOT_A_GIT_URL)
    if parts.scheme not in ("http", "https", "file") or (parts.scheme != "file" and not parts.hostname):
        raise ValueError(_NOT_A_GIT_URL)
    if "@" in parts.netloc:
        raise ValueError("credentials do not belong in a URL; name a file that holds them in auth")
    return url


def _check_range(text: str) -> str:
    parse_range(text)
    return text


def check_http_url(url: str) -> str:
    """Return an https or http URL unchanged.

    Raises: ValueError, for people; shows nothing of the URL.
    """
    parts = _split_url(url, "must be an https or http URL")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an https or http URL")
    if "@" in parts.netloc:
        raise ValueError("credentials do not belong in a URL")
    return url


def is_plain_beyond_loopback(url: str) -> bool:
    """Tell whether what is sent to a URL can be read on the way.

    >>> is_plain_beyond_loopback("http://10.0.0.1:8080"), is_plain_beyond_loopback("http://127.0.0.1:8001")
    (True, False)
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname == "localhost":
        return False
    try:
        return not ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return True


def _inline_text(value: Any) -> Any:
    """Accept a kubeconfig written as a mapping as well as one written as text."""
    return json.dumps(value) if isinstance(value, dict) else value


_SECONDS = {"type": "string", "pattern": f"^({_DURATION_PART})+$", "examples": ["30s", "10m", "1h30m"]}

Name = Annotated[
    str,
    _matching(_NAME, "must be a DNS label: a-z, 0-9 and -, at most 63 characters"),
    WithJsonSchema({"type": "string", "pattern": f"^{_NAME}$"}),
]
LabelKey = Annotated[str, _matching(_LABEL_PREFIX + _LABEL_NAME, "is not a valid label key")]
LabelValue = Annotated[str, _matching(f"({_LABEL_NAME})?", "is not a valid label value")]
VariableName = Annotated[
    str, _matching(_VARIABLE, "is not a variable name: letters, digits and _, not starting with a digit")
]
Variables = dict[VariableName, str]
Seconds = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(_SECONDS)]
FilePath = Annotated[Path, AfterValidator(_resolve_path)]
"""A file on the hub's machine; absolute once read. Whether it exists is found out when it is used."""
GitUrl = Annotated[str, AfterValidator(_resolve_url)]
"""A URL, or the absolute path of a local repository."""
HttpUrl = Annotated[str, AfterValidator(check_http_url)]
GitName = Annotated[str, AfterValidator(_check_branch)]
CommitSha = Annotated[str, _matching(r"[0-9a-f]{40}", "must be a full commit sha: 40 lower-case hex digits")]
VersionRange = Annotated[str, AfterValidator(_check_range)]
TreePath = Annotated[str, AfterValidator(check_tree_path)]
JsonPointer = Annotated[str, _matching(r"(/([^~/]|~[01])*)+", "must be a JSON pointer such as /spec/replicas")]
ServiceAccount = Annotated[str, _matching(f"{_NAME}:[a-z0-9]([-a-z0-9.]*[a-z0-9])?", "must be NAMESPACE:NAME")]
InlineText = Annotated[
    SecretStr, BeforeValidator(_inline_text), WithJsonSchema({"type": ["string", "object"], "writeOnly": True})
]
