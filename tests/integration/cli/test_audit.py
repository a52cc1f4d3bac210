"""`fleet audit` and `fleet audit verify`."""

import json
from typing import Any

from tests.integration.cli.hub import Answer, FakeHub

HASH = "ab" * 32


def act(**fields: Any) -> dict[str, Any]:
    """One act as the hub shows it."""
    row = {"seq": 7, "at": "2026-01-02T03:00:00Z", "actor": "ada", "action": "Paused", "cluster": "one", "app": "shop"}
    row |= {"subject": "app shop", "reason": "incident 12", "before": {}, "after": {"pause": "incident 12"}}
    return {**row, "result": "done", "finished_at": "2026-01-02T03:00:01Z", "hash": HASH, **fields}


def verdict(**fields: Any) -> dict[str, Any]:
    """What a check found."""
    return {"intact": True, "rows": 8, "head": f"8:{HASH}", "broken": 0, "message": "", **fields}


def test_the_newest_acts(hub: FakeHub) -> None:
    """Who, what, where, what came of it and why; an act without a result says so."""
    hub.on_items("GET audit", act(), act(seq=9, action="Resumed", actor="otto", result="", reason=""))
    result = hub.run("audit", "--actor", "ada", "--app", "shop", "--cluster", "one")
    assert result.exit_code == 0
    title, first, second = result.stdout.splitlines()
    assert title.split() == ["TIME", "ACTOR", "ACTION", "TARGET", "RESULT", "MESSAGE"]
    assert first.split(maxsplit=5) == [
        "2026-01-02T03:00:00Z",
        "ada",
        "Paused",
        "one/shop",
        "done",
        "app shop: incident 12",
    ]
    assert "not known" in second
    assert hub.asked[0].query == {"actor": "ada", "app": "shop", "cluster": "one", "limit": "100"}


def test_what_an_act_changed(hub: FakeHub) -> None:
    """Wide shows what was so before and is so now; JSON is the hub's rows."""
    hub.on_items("GET audit", act(before={"pause": "night"}))
    assert "pause: night -> incident 12" in hub.run("audit", "-o", "wide").stdout
    assert json.loads(hub.run("audit", "-o", "json").stdout)["items"][0]["hash"] == HASH
    assert hub.run("audit", "-o", "name").stdout == "7\n"


def test_since_reads_every_page(hub: FakeHub) -> None:
    """All acts since a time are shown, however many."""
    hub.on("GET audit", {"items": [act(seq=1)], "continue": "1"}, {"items": [act(seq=3)], "continue": ""})
    assert hub.run("audit", "--since", "24h", "-o", "name").stdout == "1\n3\n"
    assert [asked.query["since"] for asked in hub.asked] == ["24h", "24h"]


def test_verify_an_intact_log(hub: FakeHub) -> None:
    """Exit 0, and the head to keep for the next time."""
    hub.on("GET audit/verify", verdict())
    result = hub.run("audit", "verify", "--head", f"2:{HASH}")
    assert (result.exit_code, result.stdout) == (0, f"intact: 8 rows, 8:{HASH}\n")
    assert hub.asked[0].query == {"head": f"2:{HASH}"}


def test_verify_a_broken_log(hub: FakeHub) -> None:
    """Exit 1 names the first row that is not as it was written, in JSON, too."""
    hub.on("GET audit/verify", verdict(intact=False, broken=3, message="row 3 is not as it was written"))
    result = hub.run("audit", "verify")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the audit log is broken at row 3: row 3 is not as it was written" in result.stderr
    result = hub.run("audit", "verify", "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)["broken"]) == (1, 3)


def test_a_refused_query(hub: FakeHub) -> None:
    """The hub says what is wrong with a time."""
    problem = {"title": "no", "status": 400, "detail": "since: 'x' is neither RFC 3339 nor a length of time"}
    hub.on("GET audit", Answer(problem, 400, "application/problem+json"))
    result = hub.run("audit", "--since", "x")
    assert result.exit_code == 2
    assert "neither RFC 3339" in result.stderr
