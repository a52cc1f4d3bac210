"""Where a cluster is and how to prove who we are: kubeconfig, inline document, in-cluster files or plain fields.

The only importer of kubernetes_asyncio, which is used to resolve kubeconfigs and nothing else. It never sees keys inline
(it would write them to files that stay), never runs exec plugins (its runner can hang), never refreshes tokens.
"""

import asyncio
import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import yaml

from fleet.errors import ConfigError, Unauthorized
from fleet.log import redact

TOKEN_MAX_AGE_S = 60.0
TOKEN_READ_S = 10.0
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeconfigFile:
    """A kubeconfig on disk; an empty `context` means its current one."""

    path: Path
    context: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeconfigInline:
    """A kubeconfig written into another file; relative paths in it are relative to `directory`."""

    document: Mapping[str, Any] = field(repr=False)
    directory: Path
    origin: str = "kubeconfig"
    """Names the document in errors, such as `clusters.d/prod.yaml`."""
    context: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InCluster:
    """The service account of the pod this process runs in."""

    directory: Path = SERVICE_ACCOUNT


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """A server named field by field. Files are absolute, or relative to `directory`; `ca` is PEM text."""

    server: str
    directory: Path = Path()
    origin: str = "connection"
    ca: str = ""
    ca_file: str = ""
    token_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    tls_server_name: str = ""
    proxy_url: str = ""
    insecure_skip_tls_verify: bool = False


Source = KubeconfigFile | KubeconfigInline | InCluster | Direct


@dataclass(frozen=True, slots=True, kw_only=True)
class Impersonation:
    """Whom to act as. `groups` need a `user`."""

    user: str = ""
    groups: tuple[str, ...] = ()

    @classmethod
    def of_service_account(cls, name: str) -> "Impersonation":
        """Return the identity of a service account written as `namespace:name`. Raises: ConfigError.

        >>> Impersonation.of_service_account("shop:deployer").user
        'system:serviceaccount:shop:deployer'
        """
        namespace, colon, account = name.partition(":")
        if not (namespace and colon and account) or ":" in account:
            raise ConfigError(f"serviceAccount {name!r} is not namespace:name", subject="impersonate.serviceAccount")
        return cls(user=f"system:serviceaccount:{namespace}:{account}")

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The request headers that ask for it."""
        return (("Impersonate-User", self.user), *(("Impersonate-Group", group) for group in self.groups))


class Token(Protocol):
    """Gives the Authorization header's value, which may change over time."""

    async def authorization(self, *, refused: str = "") -> str:
        """Return the value; `refused` is one that the server just answered with 401."""
        ...


@dataclass(frozen=True, slots=True)
class StaticToken:
    """A value that never changes."""

    value: str = field(repr=False)

    async def authorization(self, *, refused: str = "") -> str:
        """Return the value."""
        return self.value


class FileToken:
    """A bearer token in a file that somebody rotates: read again each minute, and at once after a refusal.

    While the file cannot be read, the last token is used until the server refuses it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._value = ""
        self._read_at = 0.0

    async def authorization(self, *, refused: str = "") -> str:
        """Return the header's value. Raises: Unauthorized when there is none, or none but the refused one."""
        now = asyncio.get_running_loop().time()
        if not self._value or now - self._read_at > TOKEN_MAX_AGE_S or refused == self._value:
            try:
                self._value = await self._read()
            except Unauthorized:
                # a file in the middle of its rotation must not cost a working connection
                if not self._value or refused == self._value:
                    raise
            self._read_at = now
        return self._value

    async def _read(self) -> str:
        try:
            async with asyncio.timeout(TOKEN_READ_S):
                token = (await asyncio.to_thread(self._path.read_text)).strip()
        except (OSError, UnicodeDecodeError) as error:  # TimeoutError is an OSError
            raise Unauthorized(
                f"the token file {self._path} cannot be read: {_why(error)}", reason="TokenUnreadable"
            ) from error
        if not token or any(c.isspace() for c in token):
            raise Unauthorized(f"the token file {self._path} holds no token", reason="TokenUnreadable")
        return f"Bearer {token}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Everything needed to open connections to one API server and be known there."""

    server: str
    """Base URL without a trailing slash; may have a path."""
    ca: bytes = field(default=b"", repr=False)
    """PEM; empty trusts the machine's authorities."""
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)
    token: Token | None = field(default=None, repr=False)
    tls_server_name: str = ""
    proxy_url: str = field(default="", repr=False)
    impersonation: Impersonation | None = None
    verify: bool = True
    fingerprint: str = ""
    """Changes when anything in it does that needs new connections; a rotated token file does not."""


def preload() -> None:
    """Import kubernetes_asyncio, which takes 0.4 s: called before the event loop starts."""
    import kubernetes_asyncio.config.kube_config  # noqa: F401


async def load_credential(
    source: Source, *, impersonate: Impersonation | None = None, allow_insecure: bool = False
) -> Credential:
    """Read a credential and the files it names.

    `allow_insecure` accepts `insecure-skip-tls-verify`.

    Raises: ConfigError naming the file and the field.
    """
    return await asyncio.to_thread(_load, source, impersonate, allow_insecure)


def _load(source: Source, impersonate: Impersonation | None, allow_insecure: bool) -> Credential:
    match source:
        case KubeconfigFile():
            origin = str(source.path)
            loaded = _load_kubeconfig(_read_document(source.path), source.path.parent, source.context, origin)
        case KubeconfigInline():
            origin = source.origin
            loaded = _load_kubeconfig(source.document, source.directory, source.context, origin)
        case InCluster():
            origin = str(source.directory)
            loaded = _load_in_cluster(source.directory)
        case Direct():
            origin = source.origin
            loaded = _load_direct(source)
    _check(loaded, origin, allow_insecure)
    return _finish(loaded, impersonate)


@dataclass(slots=True, kw_only=True)
class _Loaded:
    """A credential while it is put together."""

    server: str
    ca: bytes = b""
    certificate: bytes = b""
    key: bytes = b""
    token: Token | None = None
    tls_server_name: str = ""
    proxy_url: str = ""
    verify: bool = True
    impersonation: Impersonation | None = None


def _check(loaded: _Loaded, origin: str, allow_insecure: bool) -> None:
    server = _parse_url(loaded.server)
    if server is not None and (server.username or server.password):
        raise _fault(origin, "server", "credentials do not belong into the URL; use a token or a certificate")
    if server is None or server.scheme not in ("https", "http"):
        raise _fault(origin, "server", f"{redact(loaded.server)!r} is not an http(s) URL")
    if loaded.proxy_url and not loaded.proxy_url.startswith(("http://", "https://")):
        raise _fault(origin, "proxy-url", "only http:// and https:// proxies are supported")
    if loaded.proxy_url and _parse_url(loaded.proxy_url) is None:
        raise _fault(origin, "proxy-url", "it is not a URL")
    if not loaded.verify and loaded.server.startswith("https://") and not allow_insecure:
        raise _fault(
            origin,
            "insecure-skip-tls-verify",
            "refused: anybody on the way could take the cluster over; give certificate-authority-data instead",
        )
    if bool(loaded.certificate) != bool(loaded.key):
        raise _fault(origin, "client-certificate", "a client certificate and its key are needed together")


def _parse_url(text: str) -> SplitResult | None:
    """Split a URL that names a host and, if any, a valid port; None for everything else."""
    try:
        url = urlsplit(text)
        return url if url.hostname and url.port != 0 else None
    except ValueError:
        return None


def _finish(loaded: _Loaded, impersonate: Impersonation | None) -> Credential:
    chosen = impersonate or loaded.impersonation
    token = loaded.token.value if isinstance(loaded.token, StaticToken) else ""
    parts = (
        loaded.server,
        loaded.ca,
        loaded.certificate,
        loaded.key,
        token,
        loaded.tls_server_name,
        loaded.proxy_url,
        loaded.verify,
        chosen,
    )
    return Credential(
        server=loaded.server.rstrip("/"),
        ca=loaded.ca,
        certificate=loaded.certificate,
        key=loaded.key,
        token=loaded.token,
        tls_server_name=loaded.tls_server_name,
        proxy_url=loaded.proxy_url,
        impersonation=chosen,
        verify=loaded.verify,
        fingerprint=hashlib.sha256(repr(parts).encode()).hexdigest()[:32],
    )


def _fault(origin: str, name: str, message: str) -> ConfigError:
    return ConfigError(f"{name}: {message}", reason="CredentialInvalid", subject=origin)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it takes too long"
    return (error.strerror or "unreadable") if isinstance(error, OSError) else "it is not text"


def _read(path: Path, origin: str, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        what = "" if str(path) == origin else f"{path} "
        raise _fault(origin, name, f"{what}cannot be read: {_why(error)}") from error


def _read_filled(path: Path, origin: str, name: str) -> bytes:
    """Read a file that must hold something: an authority that is read as none would mean the machine's."""
    content = _read(path, origin, name)
    if not content.strip():
        raise _fault(origin, name, f"{path} is empty")
    return content


def _read_document(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(_read(path, str(path), "kubeconfig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise _fault(str(path), "kubeconfig", f"it is not YAML{where}") from error
    if not isinstance(document, dict):
        raise _fault(str(path), "kubeconfig", "it is not a kubeconfig: a mapping with clusters, users and contexts")
    return document


def _load_in_cluster(directory: Path) -> _Loaded:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
    if not (host and port):
        raise _fault(
            "inCluster", "KUBERNETES_SERVICE_HOST", "not set: this process does not run in a pod; use a kubeconfig"
        )
    token_file = directory / "token"
    _read_filled(token_file, "inCluster", "token")
    return _Loaded(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ca=_read_filled(directory / "ca.crt", "inCluster", "ca.crt"),
        token=FileToken(token_file),
    )


def _load_direct(source: Direct) -> _Loaded:
    def content(name: str, path: str) -> bytes:
        return _read_filled(source.directory / path, source.origin, name) if path else b""

    if source.token_file:
        content("tokenFile", source.token_file)
    return _Loaded(
        server=source.server,
        ca=source.ca.encode() or content("caFile", source.ca_file),
        certificate=content("certificateFile", source.certificate_file),
        key=content("keyFile", source.key_file),
        token=FileToken(source.directory / source.token_file) if source.token_file else None,
        tls_server_name=source.tls_server_name,
        proxy_url=source.proxy_url,
        verify=not source.insecure_skip_tls_verify,
    )


def _load_kubeconfig(document: Mapping[str, Any], directory: Path, context: str, origin: str) -> _Loaded:
    chosen = context or str(document.get("current-context") or "")
    if not chosen:
        raise _fault(origin, "current-context", "not set; name a context")
    entry = _named(document, "contexts", chosen, origin).get("context") or {}
    cluster_name, user_name = str(entry.get("cluster") or ""), str(entry.get("user") or "")
    cluster = dict(_named(document, "clusters", cluster_name, origin).get("cluster") or {})
    user = dict(_named(document, "users", user_name, origin).get("user") or {}) if user_name else {}
    cluster_at, user_at = f"clusters[{cluster_name}].cluster", f"users[{user_name}].user"
    _refuse_plugins(user, user_at, origin)

    ca = _pop_pem(cluster, "certificate-authority", cluster_at, directory, origin)
    certificate = _pop_pem(user, "client-certificate", user_at, directory, origin)
    key = _pop_pem(user, "client-key", user_at, directory, origin)
    token = _pop_token(user, user_at, directory, origin)
    impersonation = _pop_impersonation(user, user_at, origin)
    resolved = _resolve(chosen, cluster_name, cluster, user, origin)
    authorization = dict(resolved.api_key).get("BearerToken", "")
    return _Loaded(
        server=str(resolved.host),
        ca=ca,
        certificate=certificate,
        key=key,
        token=token or (StaticToken(authorization) if authorization else None),
        tls_server_name=str(resolved.tls_server_name or ""),
        proxy_url=str(resolved.proxy or ""),
        verify=bool(resolved.verify_ssl),
        impersonation=impersonation,
    )


def _resolve(context: str, cluster_name: str, cluster: Mapping[str, Any], user: Mapping[str, Any], origin: str) -> Any:
    """Let kubernetes_asyncio read what is left: server, proxy, TLS name, verification, basic authentication."""
    from kubernetes_asyncio.client import Configuration
    from kubernetes_asyncio.config.config_exception import ConfigException
    from kubernetes_asyncio.config.kube_config import KubeConfigLoader

    if not cluster.get("server"):
        raise _fault(origin, f"clusters[{cluster_name}].cluster.server", "not set")
    document = {
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": "cluster", "user": "user"}}],
        "clusters": [{"name": "cluster", "cluster": dict(cluster)}],
        "users": [{"name": "user", "user": dict(user)}],
    }
    configuration = Configuration()
    try:
        loader = KubeConfigLoader(document, active_context=context, config_base_path="")
        # the coroutine awaits nothing once exec and auth-provider are refused: one step runs it to its end
        loader.load_and_set(configuration).send(None)
    except StopIteration:
        return configuration
    except (ConfigException, AssertionError, TypeError, ValueError, KeyError) as error:
        raise _fault(origin, f"contexts[{context}]", f"the kubeconfig is malformed ({error})") from error
    raise _fault(origin, f"contexts[{context}]", "its way to authenticate is not supported")


def _named(document: Mapping[str, Any], section: str, name: str, origin: str) -> Mapping[str, Any]:
    entries = [e for e in document.get(section) or [] if isinstance(e, dict)]
    found = [e for e in entries if e.get("name") == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise _fault(origin, section, f"{name!r} occurs {len(found)} times")
    known = ", ".join(sorted(str(e.get("name")) for e in entries)) or "none"
    raise _fault(origin, section, f"{name!r} is not there; it has: {known}")


def _refuse_plugins(user: Mapping[str, Any], at: str, origin: str) -> None:
    if user.get("exec"):
        command = (user["exec"] or {}).get("command", "a command")
        raise _fault(
            origin, f"{at}.exec", f"running {command!r} for credentials is not supported; use a token or a tokenFile"
        )
    if user.get("auth-provider"):
        raise _fault(
            origin, f"{at}.auth-provider", "removed from Kubernetes; use a token, a tokenFile or a certificate"
        )


def _pop_pem(section: dict[str, Any], name: str, at: str, directory: Path, origin: str) -> bytes:
    """Take `NAME-data` or the file `NAME` out of a section; data wins, as in kubectl."""
    data, path = section.pop(f"{name}-data", None), section.pop(name, None)
    if data:
        try:
            # strict: lenient decoding drops what it does not know, and an emptied CA would trust the machine's authorities
            return base64.b64decode("".join(str(data).split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise _fault(origin, f"{at}.{name}-data", "it is not base64") from error
    return _read_filled(directory / str(path), origin, f"{at}.{name}") if path else b""


def _pop_token(user: dict[str, Any], at: str, directory: Path, origin: str) -> Token | None:
    """Take the token out; a tokenFile wins over a token, as in kubectl."""
    token, path = user.pop("token", None), user.pop("tokenFile", None)
    if path:
        _read_filled(directory / str(path), origin, f"{at}.tokenFile")
        return FileToken(directory / str(path))
    return StaticToken(f"Bearer {str(token).strip()}") if token else None


def _pop_impersonation(user: dict[str, Any], at: str, origin: str) -> Impersonation | None:
    name, groups = user.pop("as", None), user.pop("as-groups", None) or []
    user.pop("as-uid", None)
    if user.pop("as-user-extra", None):
        raise _fault(origin, f"{at}.as-user-extra", "not supported")
    if groups and not name:
        raise _fault(origin, f"{at}.as-groups", "needs `as`")
    return Impersonation(user=str(name), groups=tuple(str(g) for g in groups)) if name else None
