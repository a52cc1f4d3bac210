"""Sealed documents changed by the hub: for whom they are, never what they say or where they open."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from typing import Any

import pytest

from fleet.errors import RequestError, SealError
from fleet.hub.keyview import ResealRequest
from fleet.hub.view import Hub
from fleet.secrets import native
from fleet.secrets.bundle import parse_bundle
from fleet.secrets.document import Audience, Binding, Sealed, encode_sealed, parse_sealed
from fleet.secrets.key import Algorithm, PublicKey
from fleet.secrets.native import BreakGlass, Recipient
from fleet.server.identity import check_environments
from tests.harness.fleet import ADA
from tests.harness.seal import make_break_glass
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import config

CANARY = b"canary-5150"


@dataclass
class Desk:
    """A running hub that has keys of two clusters."""

    hub: Hub
    stage: Stage

    def offered(self) -> list[PublicKey]:
        """Return what is sealed with today."""
        return parse_bundle(self.hub.keys.bundle()).offered(Algorithm.X25519)

    async def change(self, verb: str, document: Sealed | dict[str, Any], allow: Any = lambda _: None) -> Sealed:
        """Ask for a change."""
        body = encode_sealed(document) if isinstance(document, Sealed) else document
        request = ResealRequest(verb=verb, document=body, allow=allow)
        return parse_sealed((await self.hub.keys.reseal(request, actor=ADA)).document)


@pytest.fixture
async def desk(stage: Stage) -> AsyncIterator[Desk]:
    """Two clusters that were met, whose keys are in a backup."""
    (backups := stage.root / "backups").mkdir()
    stage.keys_backup = str(backups)
    await stage.add_cluster("one")
    await stage.add_cluster("two")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"), ("two", "shop"))
        made = Desk(hub, stage)

        async def ready() -> bool:
            return len([r for r in await hub.keys.list() if (r.state, r.algorithm) == ("active", "x25519")]) == 2

        await stage.until(ready)
        yield made


def sealed_for_one(desk: Desk, **kwargs: Any) -> Sealed:
    """Seal for the first cluster alone, and for a break-glass key."""
    one = next(key for key in desk.offered() if key.cluster == "one")
    recipients: list[Recipient] = [one, BreakGlass(recipient=make_break_glass()[1])]
    audience = Audience(environment=one.environment)
    return native.seal({"password": CANARY}, recipients, namespace="default", name="db", audience=audience, **kwargs)


async def test_rewrap_lets_the_other_cluster_in(desk: Desk) -> None:
    """A cluster that joined opens it; values and the break-glass key stay; the act is in the log, the value is not."""
    before = sealed_for_one(desk)
    after = await desk.change("rewrap", before)
    assert after.values == before.values
    assert after.clusters == ["break-glass", "one", "two"]
    rows = await desk.hub.audit(limit=100)
    assert any(
        row.action == "SecretRewrapped" and row.actor == ADA.name and "default/db" in row.subject for row in rows
    )
    assert CANARY.decode() not in repr(rows)


async def test_reseal_encrypts_everything_anew(desk: Desk) -> None:
    """Values get a new data key, and the same scope, audience and place."""
    before = sealed_for_one(desk)
    after = await desk.change("reseal", before)
    assert after.values["password"] != before.values["password"]
    assert (after.binding, after.audience, after.namespace, after.name) == (
        before.binding, before.audience, before.namespace, before.name,
    )  # fmt: skip
    identity, _ = make_break_glass()
    keys = {id_: native.unwrap_with_identity(key, [identity]) for id_, key in after.keys.items()}
    assert native.open_with(after, native._home(after), keys).items["password"].reveal() == CANARY


@pytest.mark.parametrize("verb", ["rewrap", "reseal"])
async def test_a_widened_scope_is_refused(desk: Desk, verb: str) -> None:
    """The hub seals nothing again in a scope that the document was given afterwards."""
    document = sealed_for_one(desk)
    for edited in (
        replace(document, binding=Binding.ENVIRONMENT),
        replace(document, audience=Audience()),
        replace(document, name="other"),
        replace(document, namespace="other"),
    ):
        with pytest.raises(SealError) as caught:
            await desk.change(verb, edited)
        assert caught.value.reason == "ScopeMismatch"


async def test_a_token_of_another_environment_is_refused_first(desk: Desk) -> None:
    """Who may act in one environment only changes no document that opens in another."""
    asked: list[Collection[str]] = []

    def allow(environments: Collection[str]) -> None:
        asked.append(environments)
        check_environments(replace(ADA, environments=("elsewhere",)), environments, "this rewrap")

    document = sealed_for_one(desk)
    with pytest.raises(RequestError) as caught:
        await desk.change("rewrap", document, allow)
    assert caught.value.status == 403
    assert asked == [{key.environment for key in desk.offered()}]


@pytest.mark.parametrize("verb", ["rewrap", "reseal"])
async def test_what_a_compromised_key_opened_is_not_spread(desk: Desk, verb: str) -> None:
    """Sealing the same value again would make the file look well, and protect nothing."""
    document = await desk.change("rewrap", sealed_for_one(desk))
    (two,) = (key.kid for key in desk.offered() if key.cluster == "two")
    await desk.hub.keys.compromise(two, cluster="", reason="laptop lost", actor=ADA)
    with pytest.raises(SealError, match="change them at their source") as caught:
        await desk.change(verb, document)
    assert caught.value.reason == "CompromisedKey"


async def test_a_document_of_another_hub_is_refused(desk: Desk) -> None:
    """What no key here opens is UnknownKey, and says what else there is."""
    document = sealed_for_one(desk)
    (key,) = document.keys.values()
    glass = {kid: wrap for kid, wrap in key.wraps.items() if kid.startswith("age1")}
    with pytest.raises(SealError, match="break-glass identity") as caught:
        await desk.change("rewrap", replace(document, keys={key.id: replace(key, wraps=glass)}))
    assert caught.value.reason == "UnknownKey"


@pytest.mark.parametrize("body", [{}, {"apiVersion": "fleet/v1", "kind": "SealedSecret"}, {"metadata": 1}])
async def test_what_is_no_document_is_refused(desk: Desk, body: dict[str, Any]) -> None:
    """Whatever is sent, the answer is a SealError."""
    with pytest.raises(SealError):
        await desk.change("rewrap", body)
