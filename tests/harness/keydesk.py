"""Sealing keys of plain values: what the server needs of them."""

from collections.abc import Sequence

import msgspec

from fleet.errors import SealError
from fleet.hub.keyview import (
    Compromise,
    KeyBackup,
    KeyExport,
    MasterChange,
    Resealed,
    ResealRequest,
    SealKeyRow,
    UsageRow,
)
from fleet.hub.view import Actor
from fleet.secrets.foreign import ForeignKey
from fleet.secrets.key import Algorithm

KID = "0123456789abcdef0123"


def seal_key(kid: str = KID, cluster: str = "eu-1", environment: str = "dev", state: str = "active") -> SealKeyRow:
    """Make a key's row."""
    return SealKeyRow(
        kid=kid,
        cluster=cluster,
        environment=environment,
        uid=f"uid-{cluster}",
        algorithm="x25519",
        state=state,
        origin="made",
        recipient="age1abc",
        created_at="2030-01-01T00:00:00Z",
        renew_at="2030-04-01T00:00:00Z",
        changed_at="2030-01-01T00:00:00Z",
        backed_up_at="2030-01-01T00:00:00Z",
        reason="",
        replaced_by="",
        uses=2,
    )


USAGE = UsageRow(
    cluster="eu-1",
    kid=KID,
    repository="config",
    app="shop",
    revision="2" * 40,
    path="apps/shop/secret.yaml",
    namespace="shop",
    name="db",
    item="password",
)


class FakeKeys:
    """`fleet.hub.keyview.SealKeys`; notes what it is asked to do in `acts`."""

    def __init__(self) -> None:
        self.rows = [
            seal_key(),
            seal_key("f" * 20, "us-1", "production"),
            seal_key("e" * 20, "eu-1", "dev", "retiring"),
        ]
        self.acts: list[tuple[str, object, str]] = []
        self.certificates = {"eu-1": b"-----BEGIN CERTIFICATE-----\n"}

    async def list(self) -> Sequence[SealKeyRow]:
        """Every key."""
        return self.rows

    def troubles(self) -> Sequence[str]:
        """None."""
        return ()

    async def usage(self, *, kid: str = "", cluster: str = "") -> Sequence[UsageRow]:
        """One value."""
        return [USAGE] if kid in ("", USAGE.kid) and cluster in ("", USAGE.cluster) else []

    async def rotate(self, cluster: str, algorithm: Algorithm, *, reason: str, actor: Actor) -> SealKeyRow:
        """Note it."""
        self.acts.append(("rotate", (cluster, algorithm.value, reason), actor.name))
        return seal_key("d" * 20, cluster, state="pending")

    async def retire(
        self, kid: str, *, cluster: str, how: str, force: bool, reason: str, actor: Actor
    ) -> Sequence[SealKeyRow]:
        """Note it; the key in use is refused."""
        if kid == KID:
            raise SealError(f"key {kid} is what eu-1 seals with; run fleet keys rotate eu-1 first", reason="KeyActive")
        self.acts.append(("retire", (kid, cluster, how, force, reason), actor.name))
        return [msgspec.structs.replace(row, state="retired") for row in self.rows if row.kid == kid]

    async def compromise(self, kid: str, *, cluster: str, reason: str, actor: Actor) -> Compromise:
        """Note it."""
        self.acts.append(("compromise", (kid, cluster, reason), actor.name))
        return Compromise(keys=(seal_key(state="compromised"),), values=(USAGE,))

    async def take_in(self, cluster: str, keys: Sequence[ForeignKey], *, actor: Actor) -> Sequence[SealKeyRow]:
        """Note the names and lengths of what came."""
        given = [(key.name, key.algorithm.value, len(key.secret)) for key in keys]
        self.acts.append(("take_in", (cluster, given), actor.name))
        return [seal_key("c" * 20, cluster, state="retiring")]

    async def export(
        self, *, cluster: str, kid: str, form: str, recipients: Sequence[str], reason: str, actor: Actor
    ) -> KeyExport:
        """Note it."""
        self.acts.append(("export", (cluster, kid, form, tuple(recipients), reason), actor.name))
        return KeyExport(content=b"age-encryption.org/v1")

    async def back_up(self, reason: str, actor: Actor) -> KeyBackup:
        """Note it."""
        self.acts.append(("back_up", (), actor.name))
        return KeyBackup(digest="d" * 64, keys=3, made_at="2030-01-31T12:00:00Z", content=b"SQLite format 3\0")

    async def confirm_backup(self, digest: str, place: str, actor: Actor) -> KeyBackup:
        """Note it."""
        self.acts.append(("confirm", (digest, place), actor.name))
        return KeyBackup(digest=digest, keys=3, made_at="2030-01-31T12:00:00Z")

    async def rotate_master(self, to: str, *, reason: str, actor: Actor) -> MasterChange:
        """Note it."""
        self.acts.append(("rotate_master", (to, reason), actor.name))
        return MasterChange(master="m" * 20, source="file /data/master.key")

    async def reseal(self, request: ResealRequest, *, actor: Actor) -> Resealed:
        """Note it, once it is allowed for dev and production."""
        request.allow({"dev", "production"})
        self.acts.append((request.verb, request.document["metadata"]["name"], actor.name))
        return Resealed(document=request.document, clusters=("eu-1", "us-1"))

    def bundle(self) -> bytes:
        """A list that nobody reads here."""
        return b"kind: SealKeys\n"

    async def certificate(self, cluster: str) -> bytes:
        """One cluster has one; the others wait for a backup."""
        if cluster not in self.certificates:
            raise SealError("the RSA key is not used before a backup holds it", reason="KeyPending")
        return self.certificates[cluster]
