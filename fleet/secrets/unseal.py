"""Opens sealed manifests on their way to one cluster: the one place where formats, keys and manifests meet.

Opened values live from here to the end of the API request they are for; nothing is kept but a keyed digest.
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, assert_never

import msgspec
import structlog

from fleet.child import describe_bug
from fleet.errors import SealError
from fleet.metric import counter
from fleet.object import Manifest, Seal, encode_canonical
from fleet.render.normalize import digest_body
from fleet.secrets import bitnami, native
from fleet.secrets.key import Keyring
from fleet.secrets.opened import Scope
from fleet.secrets.secret import compose_secret
from fleet.secrets.sops_object import open_items, open_object, open_source

OPENED = counter("fleet_secrets_opened_total", "Sealed documents opened, by result.", "cluster", "seal", "result")

MOST_KIDS = 50_000
AT_ONCE_BYTES = 32 * 1024
"""A document of fleet's own up to this size is opened faster than the way to a thread takes."""

log = structlog.get_logger()


class KeyringUnsealer:
    """Opens with the keys of a keyring. `environment_of` tells a cluster's environment now, empty if it has none.

    RSA, whole files and large documents go to `executor`.
    """

    def __init__(
        self, keyring: Keyring, *, environment_of: Callable[[str], str], digest_key: bytes, executor: Executor
    ) -> None:
        self._keyring = keyring
        self._environment_of = environment_of
        self._digest_key = digest_key
        self._executor = executor
        self._rsa: dict[str, tuple[Hashable, Sequence[bitnami.BitnamiKey]]] = {}
        self.kids: dict[tuple[str, bytes], Mapping[str, str]] = {}
        """Cluster and digest of a Bitnami document -> item -> the key that opened it, which only opening tells."""
        self.on_kids: Callable[[str], None] = lambda _cluster: None
        """Told of a cluster for which that was learnt."""

    def version(self, cluster: str) -> Hashable:
        """Return a value that is another one once anything has changed for what opens on a cluster."""
        return (self._keyring.version(cluster), self._environment_of(cluster))

    async def weigh(self, m: Manifest, cluster: str) -> bytes:
        """Return the keyed digest of what a sealed manifest opens to; the values are dropped at once.

        Raises: SealError, naming the file.
        """
        digest = digest_body(await self._open(m, cluster), self._digest_key)
        if m.seal is Seal.BITNAMI:
            self.on_kids(cluster)
        return digest

    async def open(self, m: Manifest, cluster: str) -> Manifest:
        """Return the manifest with its values opened. Raises: SealError, naming the file."""
        if m.seal is Seal.NONE:
            return m
        return replace(m, body=await self._open(m, cluster), seal=Seal.NONE, sensitive=True)

    async def open_file(self, cluster: str, file: str, data: bytes) -> bytes:
        """Open a file encrypted with SOPS before a build. Raises: SealError, naming the file."""
        return await self._told(Seal.SOPS, file, cluster, open_source, file, data, self._keyring, cluster)

    async def _open(self, m: Manifest, cluster: str) -> bytes:
        scope = Scope(cluster, self._environment_of(cluster), m.key.namespace, m.key.name)
        at_once = m.seal is Seal.NATIVE and len(m.body) < AT_ONCE_BYTES
        return await self._told(m.seal, str(m.origin), cluster, self._open_body, m, scope, at_once=at_once)

    def _open_body(self, m: Manifest, scope: Scope) -> bytes:
        """Open a sealed manifest: canonical JSON of the object it stands for."""
        body: dict[str, Any] = msgspec.json.decode(m.body)
        match m.seal:
            case Seal.NONE:
                return m.body
            case Seal.NATIVE:
                opened = native.open_sealed(native.parse_sealed(body), scope, self._keyring)
                return encode_canonical(compose_secret(body, opened))
            case Seal.BITNAMI:
                opened = bitnami.open_with(bitnami.parse(body), scope, self._rsa_keys(scope.cluster))
                self._note_kids((scope.cluster, m.digest), opened.kids)
                return encode_canonical(compose_secret(body, opened))
            case Seal.SOPS:
                return encode_canonical(open_object(body, m.origin.file, self._keyring, scope.cluster))
            case Seal.SOPS_ITEMS:
                return encode_canonical(open_items(body, self._keyring, scope.cluster))
            case _:
                assert_never(m.seal)

    def _note_kids(self, at: tuple[str, bytes], kids: Mapping[str, str]) -> None:
        self.kids[at] = kids
        while len(self.kids) > MOST_KIDS:
            del self.kids[next(iter(self.kids))]

    def _rsa_keys(self, cluster: str) -> Sequence[bitnami.BitnamiKey]:
        """Return a cluster's RSA keys, read once as long as no key changes."""
        known, version = self._rsa.get(cluster), self._keyring.version(cluster)
        if known is None or known[0] != version:
            known = self._rsa[cluster] = (version, bitnami.load_keys(self._keyring, cluster))
        return known[1]

    async def _told(
        self,
        seal: Seal,
        where: str,
        cluster: str,
        work: Callable[..., bytes],
        *arguments: object,
        at_once: bool = False,
    ) -> bytes:
        """Do the work where it belongs, count it, and say which file is meant when it fails."""
        try:
            if at_once:
                opened = work(*arguments)
                await asyncio.sleep(0)  # others take turns with a target that has thousands of these
            else:
                opened = await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)
        except SealError as error:
            # without the cause: a library's exception may hold on to what it was given
            failure = SealError(f"{where}: {error.message}{_hint(error)}", reason=error.reason)
        except Exception as error:  # noqa: BLE001 - a bug: its text may hold values, its place does not
            log.error("opening failed", file=where, cluster=cluster, error=describe_bug(error))
            failure = SealError(f"{where}: it cannot be opened, for a fault of fleet's; the log has the place")
        else:
            OPENED.labels(cluster, seal.value, "Opened").inc()
            return opened
        OPENED.labels(cluster, seal.value, failure.reason).inc()
        raise failure


def _hint(error: SealError) -> str:
    if error.reason != "ScopeMismatch":
        return ""
    return " (namespace and name are those after rendering, with what Kustomize adds)"
