"""Who asks, and whether they may: bearer tokens, roles, environments."""

from collections.abc import Iterable

from aiohttp import web

from fleet.errors import FleetError, RequestError
from fleet.hub.view import Actor, Hub
from fleet.store.token import Role

ANYONE = Actor(name="anonymous", role=Role.VIEWER)
"""Whoever reads on loopback without a token."""

_TOKEN_REASONS = frozenset({"TokenUnknown", "TokenExpired", "TokenRevoked"})
_HOW = "send Authorization: Bearer TOKEN; fleet token create makes one, and the hub keeps one in DATA/admin.token"


class Gate:
    """Lets requests in. Without a token one may read, and only where `reading_is_free` (loopback)."""

    def __init__(self, hub: Hub, *, reading_is_free: bool) -> None:
        self._hub = hub
        self.reading_is_free = reading_is_free

    async def admit(self, request: web.BaseRequest, needs: Role) -> Actor:
        """Return who asks. A token that is sent must be good, also where none is needed.

        Raises: RequestError with status 401 (no good token) or 403 (its role does not suffice).
        """
        secret = bearer_of(request.headers.get("Authorization"))
        if secret is None:
            if needs is Role.VIEWER and self.reading_is_free:
                return ANYONE
            raise RequestError(f"this needs a token with role {needs.value}: {_HOW}", status=401, reason="TokenMissing")
        actor = await self._authenticate(secret)
        if not actor.role.includes(needs):
            raise RequestError(
                f"token {actor.name} has role {actor.role.value}; this needs {needs.value}",
                status=403,
                reason="RoleInsufficient",
            )
        return actor

    async def _authenticate(self, secret: str) -> Actor:
        try:
            return await self._hub.authenticate(secret)
        except FleetError as error:
            if error.reason in _TOKEN_REASONS:
                raise RequestError(error.message, status=401, reason=error.reason) from error
            raise


def bearer_of(header: str | None) -> str | None:
    """Return the token of an Authorization header; None without the header.

    Raises: RequestError with status 401 when it is not a bearer token.
    """
    if header is None:
        return None
    scheme, _, secret = header.strip().partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret or " " in secret:
        raise RequestError(f"the Authorization header is not a bearer token: {_HOW}", status=401, reason="TokenInvalid")
    return secret


def check_environments(actor: Actor, touched: Iterable[str], act: str) -> None:
    """Hold a token that is limited to environments to them. An empty name stands for any environment.

    Raises: RequestError with status 403 naming what is out of bounds.
    """
    if not actor.environments:
        return
    outside = sorted({name or "every environment" for name in touched if name not in actor.environments})
    if outside:
        raise RequestError(
            f"token {actor.name} may act in {', '.join(actor.environments)} only; {act} would touch"
            f" {', '.join(outside)}: narrow it down, or use another token",
            status=403,
            reason="EnvironmentForbidden",
        )
