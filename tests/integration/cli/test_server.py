"""The commands against the server itself: both sides mean the same API."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from fleet.server.app import running
from fleet.settings import Settings
from fleet.store.token import Role
from tests.harness.hub import NEW, FakeHub, event, target
from tests.harness.rollout import rollout_detail, rollout_row


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Fleet:
    """The `fleet` command as a process, against one server."""

    url: str

    async def start(self, *arguments: str, token: str = "flt_admin-secret") -> Process:
        """Start a command."""
        environ = {"FLEET_SERVER": self.url, "FLEET_TOKEN": token, "FLEET_DATA": "/nonexistent"}
        command = [sys.executable, "-m", "fleet.cli", *arguments]
        # a test run in the background may ignore SIGINT, and children inherit that
        return await asyncio.create_subprocess_exec(
            *command, env=environ, stdout=PIPE, stderr=PIPE, preexec_fn=_heed_interrupts
        )

    async def __call__(self, *arguments: str, token: str = "flt_admin-secret") -> Ran:
        """Run a command to its end."""
        process = await self.start(*arguments, token=token)
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def hub() -> FakeHub:
    """The hub behind the server."""
    return FakeHub()


@pytest.fixture
async def fleet(hub: FakeHub) -> AsyncIterator[Fleet]:
    """Run commands against a server of that hub, with an admin's token unless told."""
    async with running(hub, Settings(listen="127.0.0.1:0")) as bound:
        yield Fleet(bound.url)


async def test_looking(fleet: Fleet) -> None:
    """Status, one target, diff, render, where, events: without any token."""
    status = await fleet("status", token="")
    assert status.code == 0
    assert status.stdout.startswith("hub hub-1 1.2.3, up ")
    assert "eu-2     shop  Drifted" in status.stdout
    assert "spec.replicas changed by kubectl-edit" in (await fleet("status", "eu-2/shop", token="")).stdout
    diff = await fleet("diff", "shop", "--environment", "dev", token="")
    assert (diff.code, diff.stdout.splitlines()[-1]) == (1, "    .spec.replicas: live 5, Git 2  by kubectl-edit")
    render = await fleet("render", "db", "--revision", "abcdef", "--explain", token="")
    assert (render.code, "kind: ConfigMap" in render.stdout, "# replicas = " in render.stdout) == (0, True, True)
    where = await fleet("where", NEW[:7], "--environment", "dev", token="")
    assert (where.code, where.stdout.splitlines()[0]) == (1, "dev 1/2")
    events = await fleet("events", "--kind", "drift", "-o", "json", token="")
    assert [row["seq"] for row in json.loads(events.stdout)["items"]] == [2]


async def test_labels_select_clusters(fleet: Fleet) -> None:
    """As kubectl does."""
    assert (await fleet("status", "--label", "region=us", "-o", "name")).stdout == "us-1/shop\n"


async def test_acting(fleet: Fleet, hub: FakeHub) -> None:
    """Sync, pause, resume, restart: the hub is told what was typed, and by whom."""
    assert (await fleet("sync", "shop", "--cluster", "eu-1")).stderr == "syncing 1 target\n"
    assert (await fleet("pause", "--app", "shop", "--reason", "x", "--for", "2h")).code == 0
    assert (await fleet("resume", "--app", "shop")).stdout == "resumed\n"
    assert (await fleet("resume", "--app", "shop")).code == 1
    assert (await fleet("restart", "eu-1/shop", "Deployment/web")).stdout == "restarted 1 workload of eu-1/shop\n"
    assert [(verb, actor) for verb, _, actor in hub.acts] == [
        ("sync", "ada"),
        ("pause", "ada"),
        ("resume", "ada"),
        ("resume", "ada"),
        ("restart", "ada"),
    ]


async def test_a_pause_in_a_file_is_not_ended(fleet: Fleet) -> None:
    """The hub's words reach the person."""
    refused = await fleet("resume", "--app", "db")
    assert (refused.code, refused.stderr) == (2, "fleet: app db is paused by its document; remove spec.paused\n")


async def test_tokens(fleet: Fleet, hub: FakeHub) -> None:
    """Made, listed, revoked; a length of time is counted by the hub."""
    made = await fleet("token", "create", "ci", "--role", "operator", "--environment", "dev", "--expires", "30d")
    assert (made.code, made.stdout) == (0, "flt_new-secret-of-ci\n")
    assert (hub.token_rows["ci"].role, hub.token_rows["ci"].environments) == (Role.OPERATOR, ("dev",))
    assert hub.token_rows["ci"].expires_at is not None
    assert "ci" in (await fleet("token", "list", "-o", "name")).stdout.splitlines()
    assert (await fleet("token", "revoke", "ci")).stdout == "revoked ci\n"
    assert (await fleet("token", "revoke", "ci")).code == 2


async def test_denied(fleet: Fleet) -> None:
    """No token, a wrong one, a role too low: exit 4, each with its reason."""
    missing = await fleet("sync", token="")
    assert missing.code == 4
    assert "No token was sent: give one with --token-file" in missing.stderr
    assert "this hub does not know the token" in (await fleet("sync", token="flt_wrong")).stderr
    low = await fleet("sync", token="flt_viewer-secret")
    assert (low.code, "has role viewer; this needs operator" in low.stderr) == (4, True)


async def test_wrong_names_are_answered_with_right_ones(fleet: Fleet) -> None:
    """Whoever finds the fault, the hub or the client."""
    assert "did you mean shop?" in (await fleet("status", "shpo")).stderr
    for arguments in [("sync", "shpo"), ("pause", "--app", "shpo", "--reason", "x"), ("status", "eu-1/shpo")]:
        refused = await fleet(*arguments)
        assert (refused.code, "shop" in refused.stderr) == (2, True), arguments


async def test_waiting(fleet: Fleet, hub: FakeHub) -> None:
    """Until the hub says Synced; a commit that nobody has yet is waited for."""
    late = await fleet("wait", "shop", "--timeout", "1ms")
    assert (late.code, "3 not Synced: eu-1/shop Progressing" in late.stderr) == (124, True)
    assert (await fleet("wait", "db", "--revision", "abcdef12", "--timeout", "1ms")).code == 124
    hub.target_rows = [target("shop", "eu-1", "dev")]
    assert (await fleet("wait", "shop", "--revision", NEW[:12])).code == 0
    assert (await fleet("sync", "shop", "--wait")).stderr == "syncing 1 target\n1 target Synced\n"


async def test_following_events(fleet: Fleet, hub: FakeHub) -> None:
    """What happened comes first, then what happens, filtered, until Ctrl-C."""
    process = await fleet.start("events", "--follow", "--app", "shop", "-o", "name", token="")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"2\n"
    hub.happen(event(3, cluster="eu-1", app="db"))
    hub.happen(event(4, cluster="eu-1", app="shop"))
    assert await process.stdout.readline() == b"4\n"
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 130


async def test_watching_a_rollout(fleet: Fleet, hub: FakeHub) -> None:
    """An event of the app makes it look again, as soon as it comes; the end of the rollout ends it."""
    process = await fleet.start("rollout", "watch", "shop", token="")
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).decode() for _ in range(3)]
    assert lines[2].rstrip().endswith("prod waits: eu-2: it must stay healthy for 600 s")
    paused = rollout_row(state="Paused", waits_for="waits for somebody: night")
    hub.rollouts.details = [rollout_detail(paused)]
    hub.happen(event(3, kind="rollout", app="shop"))
    assert (await process.stdout.readline()).decode().rstrip().endswith("waits for somebody: night")
    hub.rollouts.details = [rollout_detail(rollout_row(state="Succeeded", waits_for=""))]
    hub.happen(event(4, kind="rollout", app="shop"))
    assert (await process.stdout.readline()).decode() == "✓ shop#42 at 2222222: Succeeded\n"
    await process.communicate()
    assert process.returncode == 0


async def test_steering_a_rollout(fleet: Fleet, hub: FakeHub) -> None:
    """The hub is told what was typed, and by whom; who may not is told so."""
    assert (await fleet("rollout", "list", "-o", "name", token="")).stdout == "shop#42\n"
    assert (await fleet("rollout", "show", "shop", token="")).stdout.startswith("↻ shop#42 at 2222222: Running")
    told = await fleet("rollout", "skip", "shop", "us-1", "--reason", "broken", token="flt_operator-secret")
    assert told.stdout.startswith("shop#42 is Running: ")
    assert (await fleet("rollout", "approve", "shop", "--reason", "x", token="flt_operator-secret")).code == 4
    assert (await fleet("rollout", "approve", "shop", "--reason", "x", token="flt_approver-secret")).code == 0
    assert [(verb, actor) for verb, _, actor in hub.acts] == [("rollout skip", "otto"), ("rollout approve", "petra")]
