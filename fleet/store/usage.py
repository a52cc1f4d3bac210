"""Which file and item in Git needs which sealing key, as of the revision that was rendered last."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from fleet.store.database import Database, Statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One value in Git that a key opens. `kid` is empty for values that do not name their key (Bitnami, age)."""

    repository: str
    app: str
    revision: str
    cluster: str
    kid: str
    path: str
    namespace: str
    name: str
    item: str


_COLUMNS = "repository, app, revision, cluster, kid, path, namespace, name, item"


class UsageStore:
    """The usage index over a Database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def replace(
        self,
        repository: str,
        app: str,
        revision: str,
        rows: Iterable[Usage],
        *,
        clusters: Collection[str] | None = None,
    ) -> None:
        """Replace what is known of an app, or of the app on some clusters, by what a revision holds. Idempotent.

        Every row of `rows` must be of this repository, app and revision, and of one of `clusters` where they are given.
        """
        await self._database.write(
            [
                *self._forget(repository, app, clusters),
                *(
                    Statement(
                        f"INSERT INTO seal_usage ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                        (repository, app, revision, r.cluster, r.kid, r.path, r.namespace, r.name, r.item),
                    )
                    for r in rows
                ),
            ]
        )

    @staticmethod
    def _forget(repository: str, app: str, clusters: Collection[str] | None) -> list[Statement]:
        scope = "repository = ? AND app = ?"
        if clusters is None:
            return [Statement(f"DELETE FROM seal_usage WHERE {scope}", (repository, app))]
        return [
            Statement(f"DELETE FROM seal_usage WHERE {scope} AND cluster = ?", (repository, app, cluster))
            for cluster in sorted(clusters)
        ]

    async def keep(self, apps: Collection[tuple[str, str]]) -> None:
        """Forget every app but these (repository, app): what left the inventory needs no key."""
        known = await self._database.read("SELECT DISTINCT repository, app FROM seal_usage")
        gone = sorted({(str(r), str(a)) for r, a in known} - set(apps))
        if gone:
            await self._database.write([s for repository, app in gone for s in self._forget(repository, app, None)])

    async def load(self, *, kid: str = "", cluster: str = "") -> Sequence[Usage]:
        """Read what needs a key, or all keys of a cluster; in order of repository, path and item."""
        rows = await self._database.read(
            f"SELECT {_COLUMNS} FROM seal_usage WHERE (? = '' OR kid = ?) AND (? = '' OR cluster = ?)"
            " ORDER BY repository, path, namespace, name, item, cluster, kid",
            (kid, kid, cluster, cluster),
        )
        return [Usage(**dict(zip(_COLUMNS.split(", "), row, strict=True))) for row in rows]

    async def count(self) -> dict[tuple[str, str], int]:
        """Count values by (cluster, kid)."""
        rows = await self._database.read("SELECT cluster, kid, count(*) FROM seal_usage GROUP BY cluster, kid")
        return {(str(cluster), str(kid)): int(number) for cluster, kid, number in rows}

    async def unknown(self) -> dict[str, list[str]]:
        """Name the kids that Git holds values for and no key is known of, by cluster."""
        rows = await self._database.read(
            "SELECT DISTINCT u.cluster, u.kid FROM seal_usage u LEFT JOIN seal_key k ON k.cluster = u.cluster"
            " AND k.kid = u.kid WHERE u.kid <> '' AND k.kid IS NULL ORDER BY u.cluster, u.kid"
        )
        found: dict[str, list[str]] = {}
        for cluster, kid in rows:
            found.setdefault(str(cluster), []).append(str(kid))
        return found
