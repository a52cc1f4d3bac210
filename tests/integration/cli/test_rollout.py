"""`fleet rollout`."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from fleet.hub.rolloutview import RolloutDetail, RolloutRow
from tests.harness.rollout import DIGEST, cluster_row, rollout_detail, rollout_row, stage_row
from tests.integration.cli.hub import Answer, FakeHub, status

NEWS = b'id: 7\ndata: {"seq": 7, "kind": "rollout", "app": "shop"}\n\n'


def sent(value: RolloutDetail | RolloutRow) -> Any:
    """Return what the hub sends."""
    return msgspec.json.decode(msgspec.json.encode(value))


def over(state: str) -> RolloutDetail:
    """Make a rollout that ended."""
    return rollout_detail(rollout_row(state=state, reason="Done", message="all is over", waits_for=""))


def going(hub: FakeHub, *details: RolloutDetail, news: bytes = NEWS) -> None:
    """Let the rollout of shop go through these; each look shows the next."""
    first, *rest = details
    hub.on("GET rollouts/shop", sent(first))
    hub.on("GET rollouts/shop/42", *map(sent, [first, *rest]))
    hub.on("GET events", {"items": [{"seq": 6}]}, Answer(news, kind="text/event-stream"))


def lines_of(text: str) -> list[str]:
    """Return lines with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_list_says_what_each_waits_for(hub: FakeHub) -> None:
    """Or what came of it; filters are the hub's."""
    hub.on_items("GET rollouts", sent(rollout_row()), sent(over("Failed").rollout))
    result = hub.run("rollout", "list", "--app", "shop", "--state", "failed", "--limit", "5")
    assert hub.asked[0].query == {"app": "shop", "state": "Failed", "limit": "5"}
    first, second = lines_of(result.stdout)[1:]
    assert first.startswith("shop#42 2222222 Running prod 1 Done, 1 Soaking, 1 Pending")
    assert first.endswith("prod waits: eu-2: it must stay healthy for 600 s")
    assert second.endswith("all is over")
    assert hub.run("rollout", "list", "-o", "name").stdout.split() == ["shop#42", "shop#42"]


def test_one_is_shown_as_a_tree(hub: FakeHub) -> None:
    """Stages, batches with what they round to, gates with what is left by the hub's clock, approvals and the plan."""
    detail = msgspec.structs.replace(rollout_detail(), now="2026-01-02T04:00:00Z")
    soak = msgspec.structs.replace(detail.stages[1].clusters[0].gates[0], at="2026-01-02T04:03:20Z")
    stages = list(detail.stages)
    stages[1] = msgspec.structs.replace(
        stages[1], clusters=(cluster_row("eu-2", "Soaking", gates=(soak,)), cluster_row("us-1", "Pending"))
    )
    hub.on("GET rollouts/shop", sent(msgspec.structs.replace(detail, stages=tuple(stages))))
    shown = hub.run("rollout", "show", "shop").stdout.splitlines()
    assert shown[0].startswith("↻ shop#42 at 2222222: Running")
    assert "  ✓ dev: Done (12m, 1 Done)" in shown
    assert "    check errors: passed 0.002" in shown
    assert "    batch 1 (50%): 1 cluster" in shown
    assert "      … eu-2: Soaking; Soak: it must stay healthy for 600 s (3m20s to go)" in shown
    assert "    Approval: 1 of 2 approvals (petra)" in shown
    assert "    approved by petra at 2030-01-31T11:48:00Z: looks good" in shown
    assert f"    plan {DIGEST}" in shown
    history = hub.run("rollout", "show", "shop", "--history").stdout.splitlines()
    assert history[-1].endswith("Paused -> Running by ada  Resumed: ok")


def test_a_large_stage_names_whom_something_is_about(hub: FakeHub) -> None:
    """While watched; `show` and JSON name all."""
    from fleet.cli.duration import parse_at
    from fleet.cli.pipeline import draw

    many = [cluster_row(f"c{i}") for i in range(40)]
    detail = sent(
        rollout_detail(None, stage_row("prod", "Running", *many, cluster_row("odd", "Failed", message="why")))
    )
    few = [str(line) for line in draw(detail, parse_at(detail["now"]))]
    assert few[-1].strip() == "✕ odd: Failed; why"
    assert not any("c7" in line for line in few)
    away = stage_row("dev", "Done", cluster_row("here"), cluster_row("gone", "Deferred", reason="Unreachable"))
    over_ = sent(rollout_detail(None, away))
    assert [str(line).strip() for line in draw(over_, parse_at(over_["now"]))][-2:] == [
        "✓ dev: Done (12m, 1 Done, 1 Deferred)",
        "◌ gone: Deferred; Unreachable",
    ]
    hub.on("GET rollouts/shop/41", detail)
    assert "c7: Done" in hub.run("rollout", "show", "shop", "--release", "41").stdout
    assert json.loads(hub.run("rollout", "show", "shop", "--release", "41", "-o", "json").stdout) == detail


def test_the_time_of_a_stage_ends_with_its_rollout() -> None:
    """A stage that an abort cut short does not go on counting for days."""
    from fleet.cli.duration import parse_at
    from fleet.cli.pipeline import draw

    cut = stage_row("dev", "Held", cluster_row("eu-1"), reason="Stopped")
    detail = sent(rollout_detail(rollout_row(state="Aborted"), cut))
    line = next(line.text for line in draw(detail, parse_at("2030-02-20T00:00:00Z")) if line.text.startswith("dev"))
    assert line == "dev: Held (12m, 1 Done)"


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (["pause", "shop"], {}),
        (["resume", "shop"], {}),
        (["abort", "shop"], {}),
        (["retry", "shop"], {}),
        (["rollback", "shop"], {}),
        (["skip", "shop", "us-1"], {"cluster": "us-1"}),
        (["promote", "shop", "--stage", "prod"], {"stage": "prod"}),
        (["approve", "shop", "--stage", "last", "--plan", DIGEST], {"stage": "last", "plan": DIGEST}),
        (["approve", "shop", "--stage", "last"], {"stage": "last"}),
    ],
)
def test_verbs_say_what_came_of_it(hub: FakeHub, arguments: Sequence[str], body: dict[str, str]) -> None:
    """Each posts its reason, and prints the state with what is waited for."""
    hub.on(f"POST rollouts/shop/{arguments[0]}", sent(rollout_row()))
    result = hub.run("rollout", *arguments, "--reason", "night")
    assert result.stdout == "shop#42 is Running: prod waits: eu-2: it must stay healthy for 600 s\n"
    assert hub.asked[-1].body == {**body, "reason": "night"}


def test_a_verb_may_name_its_rollout(hub: FakeHub) -> None:
    """Then the number goes along, and another one is the hub's to refuse."""
    hub.on("POST rollouts/shop/abort", sent(rollout_row()))
    assert hub.run("rollout", "abort", "shop", "--reason", "r", "--release", "42").exit_code == 0
    assert hub.asked[-1].body == {"reason": "r", "release": 42}


def test_approve_finds_the_stage_that_waits(hub: FakeHub) -> None:
    """With the plan as it was then; more than one, or none, must be named."""
    hub.on("GET rollouts/shop", sent(rollout_detail()))
    hub.on("POST rollouts/shop/approve", sent(rollout_row()))
    assert hub.run("rollout", "approve", "shop", "--reason", "ok").exit_code == 0
    assert hub.asked[-1].body == {"stage": "last", "plan": DIGEST, "reason": "ok"}
    last = rollout_detail().stages[2]
    both = rollout_detail(None, last, msgspec.structs.replace(last, environment="other"))
    hub.on("GET rollouts/shop", sent(both), sent(over("Succeeded")))
    result = hub.run("rollout", "approve", "shop", "--reason", "ok")
    assert (result.exit_code, result.stderr) == (
        2,
        "fleet: 2 stages wait for approval; choose with --stage: last, other\n",
    )
    hub.on("GET rollouts/shop", sent(rollout_detail(None, stage_row("dev", "Done"))))
    assert "no stage of shop waits for approval" in hub.run("rollout", "approve", "shop", "--reason", "ok").stderr


def test_a_stale_plan_is_an_error(hub: FakeHub) -> None:
    """In the hub's words, with exit code 2."""
    hub.refuse("POST rollouts/shop/approve", 409, "the plan of last is other now", "StalePlan")
    result = hub.run("rollout", "approve", "shop", "--stage", "last", "--plan", "f" * 16, "--reason", "ok")
    assert (result.exit_code, result.stderr) == (2, "fleet: the plan of last is other now\n")


@pytest.mark.parametrize(("state", "code"), [("Succeeded", 0), ("RolledBack", 1), ("Aborted", 1), ("Superseded", 1)])
def test_watch_prints_steps_until_it_ends(hub: FakeHub, state: str, code: int) -> None:
    """Elsewhere than on a terminal: each step once, what is waited for, and how it ended; the code says whether well."""
    going(hub, rollout_detail(), over(state))
    result = hub.run("rollout", "watch", "shop")
    assert result.exit_code == code
    lines = lines_of(result.stdout)
    assert lines[0] == "2030-01-31T11:48:00Z rollout Planned -> Running Started"
    assert lines[1] == "2030-01-31T12:00:00Z rollout Paused -> Running by ada Resumed: ok"
    assert lines[2] == "2030-01-31T12:00:00Z prod waits: eu-2: it must stay healthy for 600 s"
    assert lines[3:] == [f"{lines[3].split()[0]} shop#42 at 2222222: {state}"]
    stream = next(asked for asked in hub.asked if asked.headers.get("accept") == "text/event-stream")
    assert stream.query == {"app": "shop", "since": "6"}


def test_watch_ends_at_a_pause_when_told_to(hub: FakeHub) -> None:
    """With 1; else it goes on watching."""
    paused = rollout_detail(rollout_row(state="Paused", waits_for="waits for somebody: night"))
    going(hub, paused)
    result = hub.run("rollout", "watch", "shop", "--exit")
    assert result.exit_code == 1
    assert "waits for somebody: night" in result.stdout
    going(hub, paused, over("Succeeded"))
    assert hub.run("rollout", "watch", "shop").exit_code == 0


@pytest.mark.parametrize(
    ("data", "news"),
    [
        ('{"seq": 8, "kind": "rollout"}', True),
        ('{"seq": 8, "kind": "health"}', True),
        ('{"seq": 8, "kind": "drift"}', False),
        ('{"reason": "Stopping"}', False),
        ("[]", False),
        ("no JSON", False),
    ],
)
def test_only_some_events_are_a_reason_to_look_again(data: str, news: bool) -> None:
    """Those that a rollout's state can follow from."""
    from fleet.cli.rollout_watch import is_news

    assert is_news(data) is news


def test_watch_of_nothing_is_an_error(hub: FakeHub) -> None:
    """In the hub's words."""
    hub.refuse("GET rollouts/shop", 404, "app shop has no rollout yet", "NoRollout")
    result = hub.run("rollout", "watch", "shop")
    assert (result.exit_code, result.stderr) == (2, "fleet: app shop has no rollout yet\n")


# a test run in the background may ignore SIGINT, and children inherit that
MAIN = "import signal; signal.signal(2, signal.default_int_handler); from fleet.cli.main import main; main()"


def on_a_terminal(hub: FakeHub, *arguments: str, interrupt_at: str = "") -> tuple[int, str]:
    """Run a command on a terminal of 100 by 40; return its exit code and everything it wrote."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "FLEET_SERVER": hub.url, "COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
    command = [sys.executable, "-c", MAIN, *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        text = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                text += os.read(ours, 65536)
            except OSError:
                break
            if interrupt_at and interrupt_at.encode() in text:
                interrupt_at = ""
                process.send_signal(signal.SIGINT)
        code = process.wait(30)
    os.close(ours)
    return code, text.decode()


def test_watch_redraws_a_tree_on_a_terminal(hub: FakeHub) -> None:
    """The countdown goes on between two looks; the cursor is back at the end."""
    quiet = rollout_detail()
    going(hub, quiet, quiet, over("Succeeded"), news=b": alive\n\n")
    code, text = on_a_terminal(hub, "rollout", "watch", "shop")
    assert code == 0
    assert len(set(re.findall(r"\((4m|3m\d+s) to go\)", text))) > 1
    assert hub.calls().count("GET rollouts/shop/42") == 3
    assert "✓ shop#42 at 2222222: Succeeded" in text
    assert text.rstrip().endswith("\x1b[?25h")


def test_an_interrupted_watch_leaves_the_terminal_clean(hub: FakeHub) -> None:
    """Exit code 130, the cursor shown, no traceback."""
    going(hub, rollout_detail(), news=b": alive\n\n")
    code, text = on_a_terminal(hub, "rollout", "watch", "shop", interrupt_at="to go)")
    assert code == 130
    assert "Traceback" not in text
    assert text.rstrip().endswith("\x1b[?25h")


def test_the_status_has_a_line_for_each(hub: FakeHub) -> None:
    """What each waits for, or came to."""
    hub.on("GET status", status(rollouts=(rollout_row(), over("Failed").rollout)))
    hub.on_items("GET targets")
    shown = hub.run("status").stdout.splitlines()
    assert "  shop#42: Running: prod waits: eu-2: it must stay healthy for 600 s" in shown
    assert "  shop#42: Failed: all is over" in shown


def test_watching_starts_fast() -> None:
    """Nothing of the hub's is imported, nor an event loop."""
    code = (
        "import sys, fleet.cli.rollout, fleet.cli.rollout_watch, rich.live, rich.console\n"
        "print([m for m in ('asyncio', 'aiohttp', 'pydantic', 'structlog', 'fleet.hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
