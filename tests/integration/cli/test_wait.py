"""`fleet wait` and `fleet sync --wait`."""

from typing import Any

import pytest

from fleet.hub.view import RepositoryRow
from tests.integration.cli.hub import NEW, OLD, Answer, FakeHub, late, target, where

UNKNOWN = Answer(
    {"status": 404, "detail": "nobody has it", "reason": "RevisionMissing"}, 404, "application/problem+json"
)


def _page(*items: Any) -> dict[str, Any]:
    return {"items": list(items), "continue": ""}


def test_wait_ends_when_all_are_there(hub: FakeHub) -> None:
    """It tells on stderr what it waits for, once per change."""
    hub.on(
        "GET targets", _page(late(), target("dev-2")), _page(late(), target("dev-2")), _page(target(), target("dev-2"))
    )
    result = hub.run("wait", "--interval", "1ms")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "1 not Synced: dev-1/shop Progressing (Applying: 1 of 4 applied)\n"


def test_synced_at_an_old_revision_is_not_there_yet(hub: FakeHub) -> None:
    """A commit that just came in makes Synced a thing of the past."""
    hub.on("GET targets", _page(target(applied_revision=OLD)), _page(target()))
    assert hub.run("wait", "--interval", "1ms").stderr == "1 not Synced: dev-1/shop is still at aaaaaaa\n"


def test_wait_times_out_with_124(hub: FakeHub) -> None:
    """It names who is not there, a few of them."""
    hub.on("GET targets", _page(*(late(f"dev-{n}") for n in range(7))))
    result = hub.run("wait", "--timeout", "10ms", "--interval", "1ms")
    assert result.exit_code == 124
    assert "fleet: timed out after 0.01s: 7 not Synced: dev-0/shop Progressing" in result.stderr
    assert result.stderr.endswith(", and 2 more\n")


def test_wait_for_another_state(hub: FakeHub) -> None:
    """Any state can be waited for, at any revision."""
    hub.on_items("GET targets", target(state="Paused", applied_revision=OLD))
    assert hub.run("wait", "dev-1/shop", "--for", "paused").exit_code == 0
    assert hub.asked[0].query == {"app": "shop", "cluster": "dev-1", "limit": "500"}


def test_wait_for_a_commit(hub: FakeHub) -> None:
    """A commit that the hub has not fetched yet is waited for; a later one that contains it will do."""
    hub.on_items("GET targets", target())
    hub.on("GET where/bbbb", UNKNOWN, _page(where(runs="no")), _page(where(runs="contained")))
    result = hub.run("wait", "shop", "--revision", "bbbb", "--interval", "1ms")
    assert (result.exit_code, hub.calls().count("GET where/bbbb")) == (0, 3)
    assert result.stderr == "1 not Synced at bbbb: dev-1/shop is still at bbbbbbb\n"


def test_wait_survives_a_restart_of_the_hub(hub: FakeHub) -> None:
    """What answers no JSON for a moment, as a proxy does, is asked again."""
    proxy = Answer(b"<html>", 502, "text/html")
    hub.on("GET targets", _page(late()), proxy, _page(target()))
    result = hub.run("wait", "--interval", "1ms")
    assert result.exit_code == 0
    assert "not as a hub does; check --server; asking again" in result.stderr


def test_wait_needs_a_hub_at_first(hub: FakeHub) -> None:
    """A wrong address is not waited for."""
    hub.on("GET targets", Answer(b"<html>", 502, "text/html"))
    assert hub.run("wait").exit_code == 3


@pytest.mark.parametrize(("name", "message"), [("shpo", "did you mean shop?"), ("", "no target matches")])
def test_wait_for_nothing_is_an_error(hub: FakeHub, name: str, message: str) -> None:
    """A pipeline that waits for a wrong name must not pass."""
    hub.on_items("GET targets")
    hub.on_items("GET apps", {"app": "shop"})
    result = hub.run("wait", *([name] if name else []))
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("text", ["5", "5x", "", "m", "-3s"])
def test_a_wrong_duration_is_explained(hub: FakeHub, text: str) -> None:
    """Usage errors exit with 2, before the hub is asked."""
    result = hub.run("wait", "--timeout", text)
    assert (result.exit_code, hub.asked) == (2, [])
    assert "is not a duration; write for example 30s" in result.stderr


def test_sync_names_what_is_meant(hub: FakeHub) -> None:
    """Empty names are left out; the number of targets is told."""
    hub.on_items("POST sync", late(), late("dev-2"))
    result = hub.run("sync", "shop")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "syncing 2 targets\n")
    assert hub.asked[0].body == {"app": "shop"}
    assert hub.asked[0].headers["content-type"] == "application/json"
    assert hub.run("sync", "--repository", "shop", "--cluster", "dev-1").exit_code == 0
    assert hub.asked[1].body == {"cluster": "dev-1", "repository": "shop"}


def test_sync_of_nothing_is_an_error(hub: FakeHub) -> None:
    """A wrong name is not a success."""
    hub.on_items("POST sync")
    assert hub.run("sync", "shpo").exit_code == 2


def _fetched(hub: FakeHub, *failed: RepositoryRow) -> None:
    hub.on_items("GET apps", {"app": "shop", "repository": "config"}, {"app": "db", "repository": "other"})
    hub.on_items("GET repositories", *failed)


def _unfetched(name: str) -> RepositoryRow:
    return RepositoryRow(
        name=name, url="", ref="main", revision=OLD, state="Failed", reason="Unauthorized", message="401", fetched_at=""
    )


def test_sync_of_what_cannot_be_fetched(hub: FakeHub) -> None:
    """Synced at the commit before is no success; the repositories of others do not matter."""
    hub.on_items("POST sync", target())
    hub.on_items("GET targets", target())
    _fetched(hub, _unfetched("config"))
    result = hub.run("sync", "shop", "--wait")
    assert result.exit_code == 1
    assert "fleet: repository config cannot be fetched: Unauthorized: 401\n" in result.stderr
    _fetched(hub, _unfetched("other"))
    assert hub.run("sync", "shop", "--wait").exit_code == 0


def test_sync_ends_when_a_target_cannot_be_rendered(hub: FakeHub) -> None:
    """Only a new commit ends that; one answer alone may still tell of the commit before."""
    lost = target(state="Failed", reason="PathMissing", message="there is no apps/shop")
    hub.on_items("POST sync", late())
    _fetched(hub)
    hub.on("GET targets", _page(lost), _page(lost), _page(target()))
    assert hub.run("sync", "shop", "--wait", "--interval", "1ms").exit_code == 0
    hub.on_items("GET targets", lost)
    result = hub.run("sync", "shop", "--wait", "--interval", "1ms")
    assert result.exit_code == 1
    assert "fleet: 1 not Synced: dev-1/shop Failed (PathMissing: there is no apps/shop)\n" in result.stderr


def test_sync_waits_for_its_targets_only(hub: FakeHub) -> None:
    """Paused targets and those of others are not waited for."""
    hub.on_items("POST sync", late(), target("dev-2", state="Paused"))
    _fetched(hub)
    hub.on_items("GET targets", target(), target("dev-2", state="Paused"), late("dev-3"))
    result = hub.run("sync", "shop", "--wait")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == ["syncing 2 targets", "paused, not waited for: dev-2/shop", "1 target Synced"]


def test_sync_that_takes_too_long(hub: FakeHub) -> None:
    """The exit code is that of wait."""
    hub.on_items("POST sync", late())
    _fetched(hub)
    hub.on_items("GET targets", late(desired_revision=NEW))
    assert hub.run("sync", "--wait", "--timeout", "1ms").exit_code == 124
