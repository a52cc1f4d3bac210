"""Sealed documents changed by the hub. It answers them sealed: no value ever leaves by this way, and no template runs."""

from functools import partial
from typing import Any

from fleet.hub.keyview import Resealed, ResealRequest
from fleet.server.identity import check_environments
from fleet.server.model import Model
from fleet.server.operation import Call, Operation
from fleet.store.token import Role


class SealedBody(Model, frozen=True, kw_only=True):
    """A sealed document."""

    document: dict[str, Any]
    """A `SealedSecret` of `fleet/v1`, as JSON."""


async def rewrap_document(call: Call, body: SealedBody) -> Resealed:
    """Let the keys that are offered today open a document, and no others; its values stay to the byte."""
    return await _change(call, body, "rewrap")


async def reseal_document(call: Call, body: SealedBody) -> Resealed:
    """Encrypt every value of a document anew for the keys that are offered today."""
    return await _change(call, body, "reseal")


async def _change(call: Call, body: SealedBody, verb: str) -> Resealed:
    # scope and recipients come from what was verified and from the hub's own keys, never from the request
    allow = partial(check_environments, call.actor, act=f"this {verb}")
    return await call.hub.keys.reseal(ResealRequest(verb=verb, document=body.document, allow=allow), actor=call.actor)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/seal/rewrap",
        summary="Change who can open a sealed document",
        carry_out=rewrap_document,
        takes=SealedBody,
        answers=Resealed,
        needs=Role.OPERATOR,
        refusals=(409,),
    ),
    Operation(
        method="POST",
        path="/seal/reseal",
        summary="Encrypt the values of a sealed document anew",
        carry_out=reseal_document,
        takes=SealedBody,
        answers=Resealed,
        needs=Role.OPERATOR,
        refusals=(409,),
    ),
)
