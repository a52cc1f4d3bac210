"""Releases, pauses, events and tokens."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fleet.errors import StoreError
from fleet.object import TargetId
from fleet.store import event as event_module
from fleet.store.approval import ApprovalStore
from fleet.store.database import Database
from fleet.store.event import Event, EventStore
from fleet.store.pause import PauseStore, find_pause
from fleet.store.release import ReleaseStore, TargetRow
from fleet.store.token import PREFIX, Role, TokenStore
from tests.integration.store.conftest import START, HandClock

SHOP = TargetId("one", "shop")


async def test_releases_are_numbered_per_app(database: Database, clock: HandClock) -> None:
    """Numbers start at 1 for each app and grow by one; what was stored is read back, newest first."""
    store = ReleaseStore(database, clock)
    made = [
        await store.create(app, repository="r", revision=f"{n:040}", input_digest="d", inputs="{}", reason="commit")
        for n, app in enumerate(["shop", "blog", "shop", "shop"])
    ]
    assert [(r.app, r.number) for r in made] == [("shop", 1), ("blog", 1), ("shop", 2), ("shop", 3)]
    assert await store.list("shop") == [made[3], made[2], made[0]]
    assert await store.list("shop", limit=1) == [made[3]]
    assert await store.get("shop", 2) == made[2]
    assert await store.get("shop", 9) is None


async def test_desired_and_applied_do_not_overwrite_each_other(database: Database, clock: HandClock) -> None:
    """Setting what a target should have keeps what it has, and the other way round."""
    store = ReleaseStore(database, clock)
    await store.save_desired([TargetRow(target=SHOP, release=1, render_digest="a")])
    await store.save_applied(SHOP, release=1, revision="r1", digest="a")
    clock.move(hours=1)
    await store.save_desired([TargetRow(target=SHOP, release=2, render_digest="b", inputs="{1}", policy="{2}")])
    assert await store.load_targets() == {
        SHOP: TargetRow(
            target=SHOP,
            release=2,
            render_digest="b",
            inputs="{1}",
            policy="{2}",
            applied_release=1,
            applied_revision="r1",
            applied_digest="a",
            applied_at=START,
        )
    }
    await store.forget(SHOP)
    await store.save_applied(SHOP, release=2, revision="r2", digest="b")
    assert await store.load_targets() == {}


@pytest.mark.parametrize(
    ("scope", "covered"),
    [
        (("", "", ""), True),
        (("one", "", ""), True),
        (("two", "", ""), False),
        (("", "shop", ""), True),
        (("", "blog", ""), False),
        (("", "", "dev"), True),
        (("", "", "prod"), False),
        (("one", "shop", "dev"), True),
        (("one", "blog", "dev"), False),
        (("one", "shop", "prod"), False),
    ],
)
async def test_what_a_pause_covers(
    database: Database, clock: HandClock, scope: tuple[str, str, str], covered: bool
) -> None:
    """A pause stops what all its names match, and a pause without names stops everything."""
    store = PauseStore(database, clock)
    cluster, app, environment = scope
    made = await store.add(cluster=cluster, app=app, environment=environment, reason="r", actor="me", until=None)
    assert await store.load() == [made]
    assert (find_pause([made], SHOP, "dev", clock.now()) is made) == covered
    assert (made.scope == "the whole fleet") == (not any(scope))


async def test_a_pause_ends_by_itself_or_by_hand(database: Database, clock: HandClock) -> None:
    """A pause with an end covers nothing from that moment; removing needs exactly its scope."""
    store = PauseStore(database, clock)
    until = START + timedelta(hours=1)
    pause = await store.add(cluster="one", app="", environment="", reason="r", actor="me", until=until)
    assert pause.until == until
    assert pause.covers(SHOP, "dev", until - timedelta(seconds=1))
    assert not pause.covers(SHOP, "dev", until)
    assert await store.remove(cluster="", app="", environment="") == 0
    assert await store.remove(cluster="one", app="", environment="") == 1
    assert await store.remove(cluster="one", app="", environment="") == 0
    assert await store.load() == []


async def test_pausing_again_replaces(database: Database, clock: HandClock) -> None:
    """One pause per scope: the last reason, actor and end count; the oldest scope is named first."""
    store = PauseStore(database, clock)
    for reason in ("first", "second"):
        await store.add(cluster="one", app="", environment="", reason=reason, actor=reason, until=None)
    await store.add(cluster="", app="shop", environment="", reason="third", actor="me", until=None)
    loaded = await store.load()
    assert [p.reason for p in loaded] == ["second", "third"]
    assert find_pause(loaded, SHOP, "dev", clock.now()) is loaded[0]


def event(n: int, **more: str) -> Event:
    """An event."""
    return Event(at=START, kind=more.pop("kind", "apply"), reason="Applied", message=str(n), **more)  # type: ignore[arg-type]


async def test_events_are_numbered_and_filtered(database: Database) -> None:
    """Events come back in order from a number on, filtered by what is asked for."""
    store = EventStore(database)
    events = [
        event(n, cluster="one" if n % 2 else "two", app="shop", kind="git" if n < 3 else "apply") for n in range(6)
    ]
    numbers = await store.append(events)
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert await store.append([]) == []
    assert [e.message for e in await store.since(2)] == ["2", "3", "4", "5"]
    assert [e.seq for e in await store.since(0, limit=2)] == [1, 2]
    assert [e.message for e in await store.since(0, cluster="one", kind="git")] == ["1"]
    assert [e.message for e in await store.newest(2, app="shop", cluster="two")] == ["2", "4"]
    assert [e.message for e in await store.newest(2)] == ["4", "5"]
    assert (await store.newest(1))[0].at == START


async def test_old_events_are_dropped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log keeps to its bound, give or take one trim."""
    monkeypatch.setattr(event_module, "MOST_EVENTS", 20)
    monkeypatch.setattr(event_module, "TRIM_EVERY", 10)
    store = EventStore(database)
    for start in range(0, 100, 7):
        await store.append([event(n) for n in range(start, start + 7)])
    kept = [e.seq for e in await store.since(0)]
    assert 20 <= len(kept) < 30
    assert kept == list(range(kept[0], 106))


async def test_what_was_let_go_is_kept(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event of an orphan outlives the bound, since no other record of it is left, and is found by its reason."""
    monkeypatch.setattr(event_module, "MOST_EVENTS", 20)
    monkeypatch.setattr(event_module, "TRIM_EVERY", 10)
    store = EventStore(database)
    orphan = replace(event(0), kind="prune", reason="Orphaned", object="Namespace shop")
    await store.append([orphan])
    await store.append([event(n) for n in range(1, 100)])
    assert [e.object for e in await store.newest(10, kind="prune", reason="Orphaned")] == ["Namespace shop"]
    assert [e.object for e in await store.since(0, reason="Orphaned")] == ["Namespace shop"]


async def test_approvals_are_kept_until_they_have_served(database: Database, clock: HandClock) -> None:
    """The same digest again replaces who and why; a cluster's approvals go together."""
    store = ApprovalStore(database, clock)
    two = TargetId("two", "shop")
    for target, actor in ((SHOP, "ada"), (SHOP, "bob"), (two, "ada")):
        await store.add(target, digest="d1", objects=["u2 ConfigMap b", "u1 ConfigMap a"], reason="r", actor=actor)
    assert [(a.target, a.actor) for a in await store.load()] == [(SHOP, "bob"), (two, "ada")]
    assert (await store.load())[0].objects == {"u1 ConfigMap a", "u2 ConfigMap b"}
    await store.clear("one")
    assert [a.target for a in await store.load()] == [two]


async def test_only_a_hash_of_a_token_is_stored(database: Database, clock: HandClock) -> None:
    """The secret opens the door and is nowhere in the database; another one does not."""
    store = TokenStore(database, clock)
    expires = START + timedelta(days=1)
    secret = await store.create(
        "ci", Role.OPERATOR, environments=("dev", "staging"), expires_at=expires, created_by="me"
    )
    assert secret.startswith(PREFIX)
    assert len(secret) > 40
    found = await store.find(secret)
    assert found is not None
    assert (found.name, found.role, found.environments) == ("ci", Role.OPERATOR, ("dev", "staging"))
    assert (found.expires_at, found.used_at, found.revoked_at) == (expires, None, None)
    assert await store.find(secret[:-1]) is None
    assert await store.find("") is None
    stored = await database.read("SELECT * FROM token")
    assert secret not in repr(stored)
    assert secret.removeprefix(PREFIX) not in repr(stored)


async def test_tokens_are_used_revoked_and_replaced(database: Database, clock: HandClock) -> None:
    """Use and revocation are dated, the first revocation counts; a taken name is refused unless it is replaced."""
    store = TokenStore(database, clock)
    secret = await store.create("ci", Role.VIEWER)
    clock.move(hours=1)
    await store.note_use("ci")
    assert await store.revoke("ci")
    clock.move(hours=1)
    assert await store.revoke("ci")
    assert not await store.revoke("absent")
    found = await store.find(secret)
    assert found is not None
    assert found.used_at == found.revoked_at == START + timedelta(hours=1)
    with pytest.raises(StoreError) as taken:
        await store.create("ci", Role.ADMIN)
    assert taken.value.reason == "TokenExists"
    second = await store.create("ci", Role.ADMIN, replace=True)
    assert await store.find(secret) is None
    assert [(t.name, t.role) for t in await store.list()] == [("ci", Role.ADMIN)]
    assert second != secret


def test_roles_include_the_lower_ones() -> None:
    """viewer < operator < approver < admin."""
    order = [Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN]
    for high, role in enumerate(order):
        assert [role.includes(other) for other in order] == [low <= high for low in range(4)]
