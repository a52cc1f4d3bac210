"""The sealing keys in memory: what opening and sealing ask, answered without waiting."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from fleet.errors import SealError
from fleet.secrets.key import Algorithm, KeyState, PrivateKey, PublicKey
from fleet.secrets.master import MasterKey
from fleet.secrets.wrap import bind_key
from fleet.store.key import KeyRow

OPENING = (KeyState.PENDING, KeyState.ACTIVE, KeyState.RETIRING)
_NO_MASTER = SealError("the sealing keys have not been read yet", reason="KeysLocked")


class LoadedKeyring:
    """`fleet.secrets.key.Keyring` over rows of the store. Locked until a master key has opened them."""

    def __init__(self) -> None:
        self.generation = 0
        self.locked: SealError | None = _NO_MASTER
        self.broken: Mapping[tuple[str, str], SealError] = {}
        """Rows that do not open, by cluster and kid: somebody changed them, or the disk did."""
        self._notify: list[Callable[[], None]] = []
        self._rows: dict[tuple[str, str], KeyRow] = {}
        self._keys: dict[tuple[str, str], PrivateKey] = {}
        self._by_cluster: dict[str, list[PrivateKey]] = {}
        self._opened: dict[bytes, bytes] = {}
        self._identities: Mapping[str, str] = {}
        self._environments: Mapping[str, str] = {}
        self._versions: tuple[int, Mapping[str, Hashable]] = (-1, {})

    def on_change(self, notify: Callable[[], None]) -> None:
        """Call `notify` after every change of `generation`, on the event loop."""
        self._notify.append(notify)

    def lock(self, error: SealError) -> None:
        """Forget every private half: nothing opens until `load`."""
        self._keys, self._by_cluster, self._opened = {}, {}, {}
        self.locked = error
        self._changed()

    def load(
        self,
        rows: Iterable[KeyRow],
        master: MasterKey,
        *,
        identities: Mapping[str, str],
        environments: Mapping[str, str],
    ) -> None:
        """Take the rows of the store, and whose clusters are which. Equal rows again change nothing.

        A row that does not open is `broken`, and no other row's matter.
        """
        found = {(row.cluster, row.kid): row for row in rows}
        opened, broken = self._open_all(found.values(), master)
        same = found == self._rows and self.locked is None
        if same and identities == self._identities and environments == self._environments:
            return
        self.broken = broken
        self._opened, self._identities, self._environments = opened, dict(identities), dict(environments)
        self._rows, self.locked = found, None
        self._keys = {
            at: PrivateKey(public=self._public(row), secret=opened[row.private])
            for at, row in found.items()
            if row.private is not None and at not in broken
        }
        self._by_cluster = {}
        for key in sorted(self._keys.values(), key=lambda key: key.public.created_at, reverse=True):
            self._by_cluster.setdefault(key.public.cluster, []).append(key)
        self._changed()

    def _open_all(
        self, rows: Iterable[KeyRow], master: MasterKey
    ) -> tuple[dict[bytes, bytes], dict[tuple[str, str], SealError]]:
        opened: dict[bytes, bytes] = {}
        broken: dict[tuple[str, str], SealError] = {}
        for row in rows:
            if row.private is not None:
                try:
                    opened[row.private] = self._open(row, master)
                except SealError as error:
                    broken[row.cluster, row.kid] = error
        return opened, broken

    def _open(self, row: KeyRow, master: MasterKey) -> bytes:
        assert row.private is not None
        known = self._rows.get((row.cluster, row.kid))
        if known is not None and row.private in self._opened and bind_key(known) == bind_key(row):
            return self._opened[row.private]
        try:
            return master.decrypt(row.private, bind_key(row))
        except SealError as error:
            raise SealError(f"key {row.kid} of cluster {row.cluster}: {error.message}") from error

    def _public(self, row: KeyRow) -> PublicKey:
        return PublicKey(
            kid=row.kid,
            cluster=row.cluster,
            environment=self._environments.get(row.cluster, ""),
            uid=row.uid,
            algorithm=Algorithm(row.algorithm),
            public=row.public,
            age_public=row.age_public,
            state=KeyState(row.state),
            created_at=row.created_at,
            renew_at=row.renew_at,
        )

    def _changed(self) -> None:
        self.generation += 1
        for notify in self._notify:
            notify()

    def version(self, cluster: str) -> Hashable:
        """Return what decides what opens on a cluster. See `Keyring.version`."""
        if self._versions[0] != self.generation:
            by_cluster: dict[str, list[Hashable]] = {}
            for (of, kid), row in sorted(self._rows.items()):
                by_cluster.setdefault(of, []).append((kid, row.state, row.uid))
            self._versions = (self.generation, {of: tuple(found) for of, found in by_cluster.items()})
        locked = self.locked.message if self.locked is not None else ""
        whose = (self._identities.get(cluster), self._environments.get(cluster))
        return (locked, whose, self._versions[1].get(cluster))

    def get(self, cluster: str, kid: str) -> PrivateKey:
        """Return the key of a cluster that opens what was sealed for `kid`. See `Keyring.get`."""
        row = self._rows.get((cluster, kid))
        if self.locked is not None:
            raise self.locked
        if row is None:
            raise SealError(self._explain_unknown(cluster, kid), reason="UnknownKey")
        state = KeyState(row.state)
        if state is KeyState.COMPROMISED:
            raise SealError(
                f"key {kid} of cluster {cluster} is compromised ({row.reason or 'no reason given'}): change the value at its"
                " source, and seal the new one with fleet seal",
                reason="CompromisedKey",
            )
        if state not in OPENING:
            way = f"fleet keys retire {kid} --undo lets it open again" if row.private else "its private half is gone"
            raise SealError(
                f"key {kid} of cluster {cluster} is {state}; seal the value again with fleet seal, or {way}",
                reason="RetiredKey",
            )
        if not self._is_theirs(row):
            raise SealError(
                f"key {kid} serves the cluster with uid {row.uid or 'unknown'}, and {cluster} is another now",
                reason="UnknownKey",
            )
        if (cluster, kid) in self.broken:
            raise self.broken[cluster, kid]
        return self._keys[cluster, kid]

    def _explain_unknown(self, cluster: str, kid: str) -> str:
        others = sorted(at[0] for at in self._rows if at[1] == kid)
        if others:
            return f"key {kid} is of {', '.join(others)}, not of cluster {cluster}; seal the value for {cluster}"
        return (
            f"no key {kid} of cluster {cluster} is known here; if this hub was set up anew, bring its keys back with"
            " fleet keys restore, else seal the value again"
        )

    def _is_theirs(self, row: KeyRow) -> bool:
        return row.uid == self._identities.get(row.cluster, row.uid)

    def usable(self, cluster: str, algorithm: Algorithm) -> Sequence[PrivateKey]:
        """Return the keys of a cluster that may open, newest first. See `Keyring.usable`."""
        if self.locked is not None:
            raise self.locked
        return [
            key
            for key in self._by_cluster.get(cluster, ())
            if key.public.algorithm is algorithm
            and key.public.state in OPENING
            and self._is_theirs(self._rows[cluster, key.public.kid])
        ]

    def offered(self, cluster: str, algorithm: Algorithm) -> PublicKey | None:
        """Return the key that new values are sealed with; None while there is none."""
        for key in self._by_cluster.get(cluster, ()):
            public = key.public
            if public.algorithm is algorithm and public.state is KeyState.ACTIVE:
                return public
        return None

    def age_kids(self, cluster: str) -> Mapping[bytes, str]:
        """Map age public halves of a cluster's keys to kids; also while locked. See `Keyring.age_kids`."""
        return {row.age_public: kid for (of, kid), row in self._rows.items() if of == cluster and row.age_public}

    def publics(self) -> Sequence[PublicKey]:
        """Return every key's public half, whatever its state, oldest first; also while locked."""
        return [self._public(row) for row in self._rows.values()]

    def rows(self) -> Sequence[KeyRow]:
        """Return every row, oldest first."""
        return list(self._rows.values())

    def show(self, rows: Iterable[KeyRow]) -> None:
        """Take rows that cannot be opened, so that they can at least be listed."""
        self._rows = {(row.cluster, row.kid): row for row in rows}

    def every(self, cluster: str = "", kid: str = "") -> Sequence[PrivateKey]:
        """Return private keys whatever their state, for export: of one cluster, of one kid, or all.

        Raises: SealError KeysLocked.
        """
        if self.locked is not None:
            raise self.locked
        return [
            key for key in self._keys.values() if cluster in ("", key.public.cluster) and kid in ("", key.public.kid)
        ]
