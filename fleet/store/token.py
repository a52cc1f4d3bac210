"""Bearer tokens: `flt_` and 256 random bits; only their sha256 is stored."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fleet.clock import Clock
from fleet.errors import StoreError
from fleet.store.database import Database, Row, Statement
from fleet.store.record import read_at, read_some_at, write_at

PREFIX = "flt_"
HUB_ADMIN = "admin"
"""Name of the token that the hub makes for itself at start, and makes anew when it was revoked."""


class Role(StrEnum):
    """What a token may do; each role includes those before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Tell whether this role may do what `other` may.

        >>> Role.ADMIN.includes(Role.OPERATOR), Role.VIEWER.includes(Role.OPERATOR)
        (True, False)
        """
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as listed; the secret itself is shown once, when it is made."""

    name: str
    role: Role
    environments: tuple[str, ...]
    """Empty: all."""
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    used_at: datetime | None
    revoked_at: datetime | None


_COLUMNS = "name, role, environments, created_at, created_by, expires_at, used_at, revoked_at"


def _read(row: Row) -> Token:
    return Token(
        name=row[0],
        role=Role(row[1]),
        environments=tuple(filter(None, row[2].split(","))),
        created_at=read_some_at(row[3]),
        created_by=row[4],
        expires_at=read_at(row[5]),
        used_at=read_at(row[6]),
        revoked_at=read_at(row[7]),
    )


def hash_token(secret: str) -> bytes:
    """Hash a token for storage. 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


class TokenStore:
    """Tokens over a Database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self,
        name: str,
        role: Role,
        *,
        environments: Sequence[str] = (),
        expires_at: datetime | None = None,
        created_by: str = "",
        replace: bool = False,
    ) -> str:
        """Make a token and return its secret, which is shown nowhere else. Raises: StoreError when the name is taken."""
        secret = PREFIX + secrets.token_urlsafe(32)
        insert = Statement(
            f"INSERT INTO token ({_COLUMNS}, hash) VALUES (?, ?, ?, ?, ?, ?, '', '', ?)",
            (
                name,
                role.value,
                ",".join(environments),
                write_at(self._clock.now()),
                created_by,
                write_at(expires_at),
                hash_token(secret),
            ),
        )
        clear = [Statement("DELETE FROM token WHERE name = ?", (name,))] if replace else []
        if not replace and any(token.name == name for token in await self.list()):
            raise StoreError(
                f"a token named {name} exists; choose another name, or revoke it first", reason="TokenExists"
            )
        await self._database.write([*clear, insert])
        return secret

    async def find(self, secret: str) -> Token | None:
        """Return the token with this secret, expired and revoked ones too; None when there is none."""
        rows = await self._database.read(
            f"SELECT {_COLUMNS} FROM token WHERE hash = ?",
            (hash_token(secret),),
        )
        return _read(rows[0]) if rows else None

    async def note_use(self, name: str) -> None:
        """Remember that a token was used now."""
        await self._database.write(
            [Statement("UPDATE token SET used_at = ? WHERE name = ?", (write_at(self._clock.now()), name))]
        )

    async def list(self) -> Sequence[Token]:
        """List every token, by name."""
        return [_read(r) for r in await self._database.read(f"SELECT {_COLUMNS} FROM token ORDER BY name")]

    async def revoke(self, name: str) -> bool:
        """Revoke a token from now on; False when there is none of this name. Idempotent."""
        rows = await self._database.write(
            [
                Statement(
                    "UPDATE token SET revoked_at = CASE WHEN revoked_at = '' THEN ? ELSE revoked_at END"
                    " WHERE name = ? RETURNING name",
                    (write_at(self._clock.now()), name),
                )
            ]
        )
        return bool(rows[0])
