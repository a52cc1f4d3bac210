"""`fleet keys`."""

import base64
import fcntl
import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from fleet.secrets.age import encrypt, format_identity
from fleet.secrets.backup import pack_backup
from fleet.secrets.key import derive_public
from fleet.secrets.master import FileSource, MasterKey
from fleet.secrets.wrap import VERIFIED, bind_verifier
from tests.harness.keydesk import KID, USAGE, seal_key
from tests.integration.cli.hub import FakeHub, run

REASON = ("--reason", "laptop lost")
ROW = msgspec.to_builtins(seal_key())
USED = msgspec.to_builtins(USAGE)


def test_list_says_what_waits_for_a_backup(hub: FakeHub) -> None:
    """State, uses and backup are in the row; the hint is on stderr, where no program reads it."""
    pending = {**ROW, "kid": "d" * 20, "state": "pending", "backed_up_at": ""}
    hub.on_items("GET keys", ROW, pending)
    result = hub.run("keys", "list", "--cluster", "eu-1")
    assert result.stdout.splitlines()[1].split()[:5] == [KID, "eu-1", "dev", "x25519", "active"]
    assert result.stdout.splitlines()[2].split()[-1] == "none"
    assert "fleet keys backup FILE" in result.stderr
    assert hub.asked[-1].query["cluster"] == "eu-1"
    assert hub.run("keys", "list", "-o", "name").stdout == f"{KID}\n{'d' * 20}\n"


def test_show_by_key_and_by_cluster(hub: FakeHub) -> None:
    """What the state means, the age recipient, and what needs the key."""
    hub.on_items(f"GET keys/{KID}", ROW)
    hub.on_items("GET keys", ROW)
    hub.on_items("GET keys/usage", USED)
    for name in (KID, "eu-1"):
        shown = hub.run("keys", "show", name).stdout
        assert "new values are sealed with it" in shown
        assert "age1abc" in shown
        assert "apps/shop/secret.yaml" in shown
    hub.on_items("GET keys")
    assert hub.run("keys", "show", "nobody").exit_code == 1


def test_usage_of_one_key(hub: FakeHub) -> None:
    """File, Secret and item."""
    hub.on_items("GET keys/usage", USED)
    assert "shop/db" in hub.run("keys", "usage", KID).stdout
    assert hub.asked[-1].query["kid"] == KID


def test_acts_carry_their_reason(hub: FakeHub) -> None:
    """Each says what came of it."""
    hub.on("POST keys/rotate", {**ROW, "state": "pending"})
    assert "is pending: opens, and is used" in hub.run("keys", "rotate", "eu-1", *REASON).stdout
    assert hub.asked[-1].body == {"cluster": "eu-1", "algorithm": "x25519", "reason": "laptop lost"}
    hub.on(f"POST keys/{KID}/retire", {"items": [{**ROW, "state": "retired"}], "continue": ""})
    assert hub.run("keys", "retire", KID, *REASON).stdout == f"{KID} of eu-1 is retired\n"
    assert hub.asked[-1].body["how"] == "retire"
    hub.run("keys", "retire", KID, "--destroy", "--force", *REASON)
    assert (hub.asked[-1].body["how"], hub.asked[-1].body["force"]) == ("destroy", True)
    hub.on("POST keys/master", {"master": "m" * 20, "source": "file /data/master.key"})
    assert "fleet keys backup" in hub.run("keys", "rotate-master", *REASON).stdout
    for command in (["rotate", "eu-1"], ["retire", KID], ["compromise", KID], ["export"], ["rotate-master"]):
        assert hub.run("keys", *command).exit_code == 2


def test_compromise_says_what_to_change_and_where(hub: FakeHub) -> None:
    """Every value is listed, with the words that sealing it again is not enough."""
    hub.on(
        f"POST keys/{KID}/compromise", {"keys": [{**ROW, "state": "compromised", "backed_up_at": ""}], "values": [USED]}
    )
    shown = hub.run("keys", "compromise", KID, *REASON).stdout
    assert "Change each of these at its source" in shown
    assert "fleet keys backup" in shown
    assert "apps/shop/secret.yaml" in shown


def test_backup_is_read_back_before_it_counts(hub: FakeHub, tmp_path: Path) -> None:
    """The file is private, whole, and confirmed by its digest."""
    content = b"SQLite format 3\0..."
    digest = hashlib.sha256(content).hexdigest()
    made = {"digest": digest, "keys": 3, "made_at": "2030-01-01T00:00:00Z"}
    hub.on("POST keys/backup", {**made, "content": base64.b64encode(content).decode()})
    hub.on("POST keys/backup/confirm", made)
    file = tmp_path / "keys.db"
    result = hub.run("keys", "backup", str(file))
    assert result.exit_code == 0, result.output
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (content, 0o600)
    assert hub.asked[-1].body == {"digest": digest, "place": str(file)}
    hub.run("keys", "backup", str(file), "--unconfirmed")
    assert hub.calls()[-1] == "POST keys/backup"
    hub.run("keys", "confirm-backup", str(file))
    assert hub.asked[-1].body["digest"] == digest


def test_a_backup_that_did_not_arrive_whole_is_not_confirmed(hub: FakeHub, tmp_path: Path) -> None:
    """What the hub sent and what the disk has must be one."""
    hub.on("POST keys/backup", {"digest": "0" * 64, "keys": 3, "made_at": "", "content": "AAAA"})
    result = hub.run("keys", "backup", str(tmp_path / "keys.db"))
    assert result.exit_code == 2
    assert "reads back otherwise" in result.output
    assert hub.calls() == ["POST keys/backup"]


def test_export_for_a_recipient(hub: FakeHub, tmp_path: Path) -> None:
    """The file is private; what may be opened by whom goes to the hub."""
    hub.on("POST keys/export", {"content": base64.b64encode(b"sealed").decode()})
    file = tmp_path / "keys.age"
    assert hub.run("keys", "export", "--to", "age1x", "-f", str(file), *REASON).exit_code == 0
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"sealed", 0o600)
    assert hub.asked[-1].body["recipients"] == ["age1x"]
    assert hub.run("keys", "export", "--plain", "--form", "age", *REASON).stdout == "sealed"


def test_import_opens_an_encrypted_export(hub: FakeHub, tmp_path: Path) -> None:
    """With the identity that it is for; each key goes to the cluster that it says, or that is named."""
    identity = bytes(range(1, 33))
    plain = json.dumps(
        {
            "kind": "FleetKeys",
            "keys": [
                {"cluster": c, "algorithm": "x25519", "secret": base64.b64encode(bytes(32)).decode()} for c in "ab"
            ],
        }
    ).encode()
    sealed, key = tmp_path / "keys.age", tmp_path / "identity"
    sealed.write_bytes(encrypt(plain, [derive_public(identity)]))
    key.write_text(format_identity(identity))
    hub.on("POST keys/import", {"items": [{**ROW, "state": "retiring"}], "continue": ""})
    refused = hub.run("keys", "import", str(sealed))
    assert "--identity" in refused.output
    result = hub.run("keys", "import", str(sealed), "--identity", str(key))
    assert result.exit_code == 0, result.output
    assert [asked.body["cluster"] for asked in hub.asked] == ["a", "b"]
    assert base64.b64decode(hub.asked[0].body["keys"][0]["secret"]) == bytes(32)


def test_import_asks_whose_a_foreign_key_is(hub: FakeHub, tmp_path: Path) -> None:
    """An age identity does not say it."""
    file = tmp_path / "key.agekey"
    file.write_text(format_identity(bytes(range(1, 33))))
    assert "--cluster" in hub.run("keys", "import", str(file)).output
    hub.on("POST keys/import", {"items": [], "continue": ""})
    assert hub.run("keys", "import", str(file), "--cluster", "eu-1").exit_code == 0
    assert hub.asked[-1].body["keys"][0]["algorithm"] == "age"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A backup without keys, and the data directory of its hub with its master key."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    master = MasterKey(FileSource(data / "master.key").make())
    row: dict[str, object] = {
        "id": master.id,
        "source": "file",
        "salt": bytes(16),
        "verifier": master.encrypt(VERIFIED, bind_verifier(master.id)),
        "created_at": "2030-01-01T00:00:00Z",
    }
    file = tmp_path / "keys.db"
    rows: dict[str, list[dict[str, object]]] = {"master_key": [row], "seal_key": [], "signing_key": []}
    file.write_bytes(pack_backup(rows, hub_id="0123456789abcdef", at="2030-01-01T00:00:00Z"))
    return file


def test_verify_opens_with_the_master_key_of_this_machine(saved: Path) -> None:
    """No hub is asked; another master key or none is told by name."""
    data = saved.parent / "data"
    assert "every one opens" in run("keys", "verify-backup", str(saved), "--data", str(data)).stdout
    (data / "master.key").unlink()
    missing = run("keys", "verify-backup", str(saved), "--data", str(data))
    assert (missing.exit_code, "put key" in missing.output) == (2, True)
    other = {"OTHER": "ab" * 32}
    wrong = run("keys", "verify-backup", str(saved), "--master-key-from", "env:OTHER", env=other)
    assert (wrong.exit_code, "another master key" in wrong.output) == (2, True)
    assert "no backup" in run("keys", "verify-backup", __file__, "--data", str(data)).output


def test_restore_lays_a_backup_ready_for_a_stopped_hub(saved: Path) -> None:
    """Private, beside the database; a new directory becomes that hub's; refused while a hub runs there."""
    data = saved.parent / "data"
    with (data / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        busy = run("keys", "restore", str(saved), "--data", str(data))
        assert (busy.exit_code, "stop it" in busy.output) == (2, True)
        assert not (data / "keys.restore").exists()
    result = run("keys", "restore", str(saved), "--data", str(data))
    assert result.exit_code == 0, result.output
    assert (data / "hub.id").read_text() == "0123456789abcdef"
    (data / "hub.id").write_text("fedcba9876543210")
    run("keys", "restore", str(saved), "--data", str(data))
    assert (data / "hub.id").read_text() == "fedcba9876543210"
    ready = data / "keys.restore"
    assert (ready.read_bytes(), ready.stat().st_mode & 0o777) == (saved.read_bytes(), 0o600)


def test_usage_of_what_is_no_key_says_what_is(hub: FakeHub) -> None:
    """A cluster's name in the place of a key is the mistake to expect."""
    result = hub.run("keys", "usage", "eu-1")
    assert result.exit_code == 2
    assert "--cluster" in result.stderr
