"""`fleet doctor`: what it finds, and what it says to do."""

import json
import os
from pathlib import Path

import pytest

from fleet import __version__
from fleet.cli.client import Client
from fleet.cli.connection import Connection
from fleet.cli.doctor import check_data, check_hub, check_machine
from tests.integration.cli.hub import FakeHub, run, status

NEAR = {"environments": ["dev"], "name": "ci", "role": "operator"}


def _tool(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def _findings(hub: FakeHub, env: dict[str, str]) -> dict[str, dict[str, str]]:
    result = hub.run("doctor", "-o", "json", env=env)
    return {finding["check"]: finding for finding in json.loads(result.stdout)["items"]}


def test_a_good_machine_and_a_good_hub(hub: FakeHub, tmp_path: Path) -> None:
    """Every check says ok; only the hub's clock, fixed in this test, is off."""
    _tool(tmp_path, "git", "echo git version 2.39.5")
    _tool(tmp_path, "kubectl", 'test "$*" = "version --client" && echo Client Version: v1.36.0')
    (tmp_path / "data").mkdir(mode=0o700)
    hub.on("GET status", status(version=__version__))
    hub.on("GET whoami", NEAR)
    env = {"PATH": str(tmp_path), "FLEET_TOKEN": "flt_x", "FLEET_DATA": str(tmp_path / "data")}
    found = _findings(hub, env)
    assert list(found) == ["python", "git", "kustomize", "isolation", "data", "hub", "version", "clock", "token"]
    assert {name for name, finding in found.items() if finding["state"] != "ok"} <= {"isolation", "clock"}
    assert found["kustomize"]["message"] == "kubectl Client Version: v1.36.0"
    assert found["token"]["message"] == "ci, operator of dev, from FLEET_TOKEN"
    assert "NTP" in found["clock"]["todo"]


def test_a_key_in_no_backup_is_named(hub: FakeHub, tmp_path: Path) -> None:
    """Losing the disk would lose it; keys that open nothing any more do not count."""
    hub.on("GET status", status())
    rows = [
        {"kid": "a" * 20, "cluster": "eu-1", "state": "active", "backed_up_at": "2026-01-01T00:00:00Z"},
        {"kid": "b" * 20, "cluster": "us-1", "state": "pending", "backed_up_at": ""},
        {"kid": "c" * 20, "cluster": "us-1", "state": "destroyed", "backed_up_at": ""},
    ]
    hub.on_items("GET keys", *rows)
    found = _findings(hub, {"PATH": str(tmp_path)})["keys"]
    assert (found["state"], found["message"]) == ("warning", f"in no backup: {'b' * 20} of us-1")
    hub.on_items("GET keys", *rows[:1])
    found = _findings(hub, {"PATH": str(tmp_path)})["keys"]
    assert (found["state"], found["message"]) == ("ok", "1 sealing key, each in a backup")


def test_a_master_key_that_others_may_read_fails(tmp_path: Path) -> None:
    """It opens every secret, together with the database beside it."""
    tmp_path.chmod(0o700)
    (tmp_path / "master.key").touch(mode=0o600)
    assert check_data(tmp_path).state == "ok"
    (tmp_path / "master.key").chmod(0o640)
    assert check_data(tmp_path).state == "failed"


def test_missing_tools_are_warnings(hub: FakeHub, tmp_path: Path) -> None:
    """The hub runs without them; what will not work is said."""
    hub.on("GET status", status(version="9.9.9"))
    found = _findings(hub, {"PATH": str(tmp_path)})
    assert {name for name, finding in found.items() if finding["state"] == "warning"} >= {
        "git",
        "kustomize",
        "version",
        "token",
    }
    assert "FLEET_KUSTOMIZE" in found["kustomize"]["todo"]
    assert "FLEET_TOKEN" in found["token"]["todo"]


def test_a_tool_that_fails_is_not_there(hub: FakeHub, tmp_path: Path) -> None:
    """A configured kustomize is tried, and no other instead."""
    _tool(tmp_path, "kubectl", "echo fine")
    _tool(tmp_path, "broken", "exit 3")
    hub.on("GET status", status())
    found = _findings(hub, {"PATH": str(tmp_path), "FLEET_KUSTOMIZE": str(tmp_path / "broken")})
    assert (found["kustomize"]["state"], found["kustomize"]["message"]) == (
        "warning",
        f"{tmp_path}/broken does not run",
    )


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o707])
def test_a_data_directory_that_others_may_read_fails(tmp_path: Path, mode: int) -> None:
    """It holds keys and tokens; the cure is one command."""
    tmp_path.chmod(mode)
    finding = check_data(tmp_path)
    assert (finding.state, finding.todo) == ("failed", f"chmod -R go= {tmp_path}")


def test_an_admin_token_that_others_may_read_fails(tmp_path: Path) -> None:
    """Also inside a private directory."""
    tmp_path.chmod(0o700)
    (tmp_path / "admin.token").write_text("flt_x")
    (tmp_path / "admin.token").chmod(0o644)
    assert check_data(tmp_path).state == "failed"


def test_a_data_directory_that_is_none(tmp_path: Path) -> None:
    """A file in its place, and one that is not there yet."""
    (tmp_path / "file").write_text("")
    assert check_data(tmp_path / "file").state == "failed"
    assert check_data(tmp_path / "missing").state == "ok"


def test_a_hub_out_of_reach_fails() -> None:
    """Exit 1, and the same words as every command."""
    result = run("doctor", "--server", "http://127.0.0.1:1", env={"PATH": os.environ["PATH"]})
    assert result.exit_code == 1
    assert "hub        failed" in result.stdout
    assert "-> no hub answers at http://127.0.0.1:1" in result.stdout


def test_a_refused_token_fails(hub: FakeHub) -> None:
    """A token that is wrong is worse than none."""
    hub.on("GET status", status())
    hub.refuse("GET whoami", 401, "token ci was revoked", "TokenRevoked")
    found = _findings(hub, {"FLEET_TOKEN": "flt_x"})
    assert (found["token"]["state"], found["token"]["todo"]) == ("failed", "token ci was revoked (token: FLEET_TOKEN)")


def test_a_token_in_the_clear_is_a_warning(hub: FakeHub) -> None:
    """Beyond this machine, https is what protects it."""
    hub.on("GET status", status())
    far = Client(Connection(server=hub.url.replace("127.0.0.1", "127.1")))
    assert [finding.state for finding in check_hub(far) if finding.check == "tls"] == ["warning"]


def test_only_this_machine(tmp_path: Path) -> None:
    """--local asks no hub."""
    result = run("doctor", "--local", "-o", "yaml")
    assert "check: data" in result.stdout
    assert "check: hub" not in result.stdout
    assert [finding.check for finding in check_machine(tmp_path)] == ["python", "git", "kustomize", "isolation", "data"]
