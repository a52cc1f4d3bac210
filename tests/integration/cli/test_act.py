"""`fleet pause`, `resume`, `restart` and `token`."""

import json

import pytest

from tests.integration.cli.hub import FakeHub, pause, target


def test_pause_says_why_and_for_how_long(hub: FakeHub) -> None:
    """The end counts by the hub's clock."""
    hub.on("POST pause", pause(until="2026-01-02T06:00:00Z"))
    result = hub.run("pause", "--app", "shop", "--reason", "incident 12", "--for", "2h")
    assert (result.exit_code, result.stdout) == (0, "paused app shop until 2026-01-02T06:00:00Z\n")
    assert hub.asked[-1].body == {"app": "shop", "reason": "incident 12", "until": "7200s"}


def test_pause_until_a_moment(hub: FakeHub) -> None:
    """Any offset may be written."""
    hub.on("POST pause", pause())
    assert hub.run("pause", "--all", "--reason", "x", "--until", "2026-01-02T08:00:00+02:00").exit_code == 0
    assert hub.asked[-1].body == {"reason": "x", "until": "2026-01-02T06:00:00+00:00"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what is meant"),
        (("--all", "--app", "shop"), "--all goes with no --app"),
        (("--app", "shop", "--until", "tomorrow"), "'tomorrow' is not a time"),
        (("--app", "shop", "--until", "2026-01-02", "--for", "1h"), "not both"),
    ],
)
def test_a_pause_must_be_clear(hub: FakeHub, arguments: tuple[str, ...], message: str) -> None:
    """Nobody pauses everything by leaving out a name."""
    result = hub.run("pause", "--reason", "x", *arguments)
    assert (result.exit_code, hub.asked) == (2, [])
    assert message in result.stderr


def test_resume_ends_the_same_scope(hub: FakeHub) -> None:
    """The names are those of the pause."""
    hub.on("POST resume", {"resumed": 1})
    result = hub.run("resume", "--cluster", "dev-1", "--app", "shop")
    assert (result.exit_code, result.stdout, hub.asked[0].body) == (0, "resumed\n", {"app": "shop", "cluster": "dev-1"})


def test_resume_of_no_pause(hub: FakeHub) -> None:
    """Exit 1, and where to look."""
    hub.on("POST resume", {"resumed": 0})
    result = hub.run("resume", "--all")
    assert result.exit_code == 1
    assert "there is no such pause" in result.stderr


def test_resume_of_a_pause_in_a_file(hub: FakeHub) -> None:
    """The hub says which file to change."""
    hub.refuse("POST resume", 409, "app shop is paused by its document; remove spec.paused", "PausedByFile")
    result = hub.run("resume", "--app", "shop")
    assert (result.exit_code, result.stderr) == (2, "fleet: app shop is paused by its document; remove spec.paused\n")


def test_restart_one_workload(hub: FakeHub) -> None:
    """KIND/NAME as kubectl writes it."""
    hub.on("POST targets/dev-1/shop/restart", {"restarted": 1})
    result = hub.run("restart", "shop", "deployment/web", "--cluster", "dev-1", "-n", "shop")
    assert (result.exit_code, result.stdout) == (0, "restarted 1 workload of dev-1/shop\n")
    assert hub.asked[0].body == {"kind": "deployment", "namespace": "shop", "name": "web"}


def test_restart_all_workloads_of_the_only_cluster(hub: FakeHub) -> None:
    """Without a cluster, the app's only one is meant."""
    hub.on_items("GET targets", target())
    hub.on("POST targets/dev-1/shop/restart", {"restarted": 3})
    result = hub.run("restart", "shop")
    assert (result.stdout, hub.asked[-1].body) == ("restarted 3 workloads of dev-1/shop\n", {})


@pytest.mark.parametrize("workload", ["web", "/web", "deployment/"])
def test_half_a_workload_is_refused(hub: FakeHub, workload: str) -> None:
    """A name without its kind might mean all."""
    result = hub.run("restart", "dev-1/shop", workload)
    assert (result.exit_code, hub.asked) == (2, [])


def test_a_token_is_printed_once(hub: FakeHub) -> None:
    """Stdout holds the token and nothing else, for a pipe."""
    hub.on("POST tokens", {"name": "ci", "token": "flt_abc"})
    result = hub.run("token", "create", "ci", "--role", "operator", "--environment", "dev", "--expires", "1d")
    assert (result.exit_code, result.stdout) == (0, "flt_abc\n")
    assert hub.asked[-1].body == {
        "name": "ci",
        "role": "operator",
        "environments": ["dev"],
        "expires": "86400s",
    }


def test_tokens_are_listed_without_secrets(hub: FakeHub) -> None:
    """Who, which role, since when, last used."""
    row = {
        "name": "ci",
        "role": "operator",
        "environments": ["dev", "qa"],
        "created_at": "2026-01-01T00:00:00Z",
        "created_by": "admin",
        "expires_at": None,
        "used_at": None,
        "revoked_at": None,
    }
    hub.on_items("GET tokens", row)
    head, line = hub.run("token", "list").output.splitlines()
    assert head.split() == ["NAME", "ROLE", "ENVIRONMENTS", "CREATED", "BY", "EXPIRES", "USED", "REVOKED"]
    assert line.split() == ["ci", "operator", "dev,qa", "2026-01-01", "00:00", "admin", "never", "never", "-"]
    assert json.loads(hub.run("token", "list", "-o", "json").output)["items"] == [row]


def test_a_token_is_revoked(hub: FakeHub) -> None:
    """By its name."""
    hub.on("DELETE tokens/ci", {"name": "ci"})
    result = hub.run("token", "revoke", "ci")
    assert (result.exit_code, result.stdout, hub.calls()) == (0, "revoked ci\n", ["DELETE tokens/ci"])
    hub.on("DELETE tokens/ci", {"revoked": "ci", "already": True})
    assert hub.run("token", "revoke", "ci").stdout == "ci was revoked before\n"


def test_the_hubs_own_token_is_not_revoked_by_accident(hub: FakeHub) -> None:
    """What brings it back is said first."""
    hub.on("DELETE tokens/admin", {"revoked": "admin"})
    result = hub.run("token", "revoke", "admin")
    assert (result.exit_code, hub.asked) == (2, [])
    assert "until a restart of the hub makes a new one; say --yes" in result.stderr
    assert hub.run("token", "revoke", "admin", "--yes").stdout == "revoked admin\n"


def test_a_role_is_needed(hub: FakeHub) -> None:
    """There is no default role."""
    assert hub.run("token", "create", "ci").exit_code == 2


def test_rollback_says_how_it_ends(hub: FakeHub) -> None:
    """What is held, at which release, and the command that ends it."""
    row = {"scope": "app shop, cluster dev-1", "environment": "", "cluster": "dev-1", "release": "shop#6"}
    hub.on("POST rollback", row)
    result = hub.run("rollback", "shop", "--cluster", "dev-1", "--to", "6", "--reason", "incident 12")
    assert result.stdout == "app shop, cluster dev-1 is held at shop#6; fleet unhold shop --cluster dev-1 ends it\n"
    assert hub.asked[0].body == {"app": "shop", "cluster": "dev-1", "to": "6", "reason": "incident 12"}


def test_a_rollback_has_one_scope(hub: FakeHub) -> None:
    """A cluster is in one environment."""
    result = hub.run("rollback", "shop", "--cluster", "a", "--environment", "b", "--reason", "x")
    assert (result.exit_code, hub.asked) == (2, [])


def test_unhold(hub: FakeHub) -> None:
    """The same scope ends it; where nothing is held the exit code is 1."""
    hub.on("POST unhold", {"unheld": 1}, {"unheld": 0})
    assert hub.run("unhold", "shop", "--environment", "prod").stdout == "targets follow Git again\n"
    assert hub.asked[0].body == {"app": "shop", "environment": "prod"}
    again = hub.run("unhold", "shop")
    assert (again.exit_code, "shop is not held" in again.stderr) == (1, True)


LEFT = {"cluster": "dev-1", "app": "shop", "group": "apps", "kind": "Deployment", "namespace": "shop", "name": "old"}


def test_recover_lists_first(hub: FakeHub) -> None:
    """Without --confirm nothing is asked of the hub but the list; something on it is exit code 1."""
    hub.on_items("GET recovery", LEFT)
    result = hub.run("recover", "--app", "shop")
    assert (result.exit_code, hub.calls()) == (1, ["GET recovery"])
    assert result.stdout.splitlines()[1].split() == ["dev-1", "shop", "shop", "Deployment/old"]
    assert "--confirm" in result.stderr
    assert hub.run("recover", "--app", "db").exit_code == 0


def test_recover_confirms_with_a_reason(hub: FakeHub) -> None:
    """What was confirmed is printed."""
    hub.on_items("POST recover", LEFT)
    assert hub.run("recover", "--confirm").exit_code == 2
    result = hub.run("recover", "--cluster", "dev-1", "--confirm", "--reason", "disk lost")
    assert hub.asked[-1].body == {"cluster": "dev-1", "reason": "disk lost"}
    assert "Deployment/old" in result.stdout
