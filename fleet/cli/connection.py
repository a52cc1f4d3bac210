"""Where the hub is and which token opens it, from flags and `FLEET_*` variables."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from fleet.cli.exit import Failure

DEFAULT_SERVER = "http://127.0.0.1:8420"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach a hub. `server` has no trailing slash; it may carry the path that a proxy adds."""

    server: str
    token: str = field(default="", repr=False)
    token_from: str = ""
    """Where the token came from, for messages; empty without one."""
    found: bool = False
    """The token was not given but found in the data directory, and may be another hub's."""
    ca: str = ""
    """PEM file of certificate authorities; empty trusts the system's."""
    data: Path = Path("data")
    """Data directory of a hub on this machine."""


def find_connection(environ: Mapping[str, str], *, server: str, token_file: str, ca: str, data: Path) -> Connection:
    """Decide the connection: first --token-file, then FLEET_TOKEN, then FLEET_TOKEN_FILE.

    Without any, a hub on this machine is opened by the admin token that it left in its data directory.

    Raises: Failure when the address is no URL or the token file cannot be read.
    """
    _check_server(server)
    named = token_file or ("" if environ.get("FLEET_TOKEN") else environ.get("FLEET_TOKEN_FILE", ""))
    if named:
        token, origin = _read_token(Path(named)), named
    elif environ.get("FLEET_TOKEN"):
        token, origin = environ["FLEET_TOKEN"], "FLEET_TOKEN"
    else:
        token, origin = _find_admin_token(server, data / "admin.token")
    token = _check_token(token, origin)
    found = bool(token) and not named and not environ.get("FLEET_TOKEN")
    return Connection(
        server=server.rstrip("/"),
        token=token,
        token_from=origin if token else "",
        found=found,
        ca=ca,
        data=data,
    )


def _check_server(server: str) -> None:
    try:
        parts = urlsplit(server)
        port = parts.port
    except ValueError:
        raise Failure(f"--server {server!r} is not an address; write for example {DEFAULT_SERVER}") from None
    if parts.username is not None:
        raise Failure("--server takes no user and password; give a token with --token-file or FLEET_TOKEN")
    right = parts.scheme in ("http", "https") and parts.hostname and port != 0
    if not right or parts.query or parts.fragment or not re.fullmatch(r"[\x21-\x7e]+", server):
        raise Failure(f"--server {server!r} is not the address of a hub; write for example {DEFAULT_SERVER}")


def _read_token(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise Failure(f"the token file {path} cannot be read: {reason}") from error


def _find_admin_token(server: str, path: Path) -> tuple[str, str]:
    if not is_loopback(server):
        return "", ""
    try:
        return path.read_text(), str(path)
    except (OSError, UnicodeDecodeError):
        return "", ""


def _check_token(token: str, origin: str) -> str:
    stripped = token.strip()
    if not re.fullmatch(r"[\x21-\x7e]*", stripped):
        raise Failure(f"{origin} does not hold a token: it must be one word, like flt_...")
    return stripped


def is_loopback(server: str) -> bool:
    """Tell whether a URL points to this machine.

    >>> is_loopback("http://127.0.0.1:8420"), is_loopback("http://[::1]"), is_loopback("https://fleet.example.com")
    (True, True, False)
    """
    host = urlsplit(server).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
