"""What the sealed manifests of a target open to: enough to plan by, never the values.

A sealed manifest is planned by the keyed digest of the object that it opens to, so that sealing the same values again, for
another cluster or with a newer key, writes nothing. One that does not open here is an object's own failure: what is in
the cluster stays, and it is tried again when a key or the document changes.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace

from fleet.errors import SealError
from fleet.object import Manifest, ObjectKey, Seal, TargetId
from fleet.reconcile.port import Unsealer
from fleet.reconcile.restart import mark_restart, secrets_of
from fleet.store.ledger import Entry

Opened = bytes | SealError
"""The digest of what a manifest opens to, or why it does not open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Manifests ready to be planned, and those of them that do not open here."""

    manifests: Mapping[ObjectKey, Manifest] = field(default_factory=dict)
    errors: Mapping[ObjectKey, SealError] = field(default_factory=dict)


class Openings:
    """Remembers, per target, what was found of each sealed manifest while neither it nor a key changed."""

    def __init__(self, target: TargetId, unsealer: Unsealer, digest_key: bytes) -> None:
        self._target = target
        self._unsealer = unsealer
        self._digest_key = digest_key
        self._known: dict[ObjectKey, tuple[bytes, Hashable, Opened]] = {}
        self._marked: dict[ObjectKey, tuple[bytes, bytes, Manifest]] = {}

    async def settle(self, desired: Mapping[ObjectKey, Manifest], ledger: Mapping[ObjectKey, Entry]) -> Settled:
        """Give sealed manifests the digest of what they open to, and workloads that ask for it that of their Secrets."""
        if not any(m.seal or m.flags.restart for m in desired.values()):
            return Settled(manifests=desired)
        known = {key: await self._find(m) for key, m in desired.items() if m.seal is not Seal.NONE}
        self._known = {key: self._known[key] for key in known}
        errors = {key: found for key, found in known.items() if isinstance(found, SealError)}
        opened = {
            key: replace(m, digest=found) if isinstance(found := known.get(key), bytes) else m
            for key, m in desired.items()
        }
        digests = {key: _last_digest(ledger, key) if key in errors else m.digest for key, m in opened.items()}
        marked = {key: self._mark(m, digests) if m.flags.restart else m for key, m in opened.items()}
        return Settled(manifests=marked, errors=errors)

    async def _find(self, m: Manifest) -> Opened:
        version = self._unsealer.version(self._target.cluster)
        known = self._known.get(m.key)
        if known is not None and known[:2] == (m.digest, version):
            return known[2]
        try:
            found: Opened = await self._unsealer.weigh(m, self._target.cluster)
        except SealError as error:
            found = error.with_traceback(None)
        self._known[m.key] = (m.digest, version, found)
        return found

    def _mark(self, m: Manifest, digests: Mapping[ObjectKey, bytes]) -> Manifest:
        used = {key: digests[key] for key in secrets_of(m) if key in digests}
        inputs = b"".join(f"{key}\0".encode() + digest for key, digest in sorted(used.items()))
        known = self._marked.get(m.key)
        if known is None or known[:2] != (m.digest, inputs):
            marked = mark_restart(m, used, cluster=self._target.cluster, digest_key=self._digest_key) if used else m
            known = self._marked[m.key] = (m.digest, inputs, marked)
        return known[2]


def _last_digest(ledger: Mapping[ObjectKey, Entry], key: ObjectKey) -> bytes:
    """Return what a Secret was when it was applied: pods are not replaced because it does not open any more."""
    entry = ledger.get(key)
    return entry.desired if entry is not None else b""
