"""`fleet seal` with a hub: the list of keys from it, and documents that it changes."""

from pathlib import Path

import pytest
from nacl.signing import SigningKey

from fleet.secrets import native
from fleet.secrets.bundle import write_bundle
from fleet.secrets.document import Audience, encode_sealed, write_sealed
from tests.harness.seal import AT, make_key
from tests.integration.cli.hub import Answer, FakeHub, run

EU, US = make_key("prod-eu-1").public, make_key("prod-us-1").public
TEXT = write_bundle([EU, US], hub="h1", issued_at=AT, signer=SigningKey(bytes(range(32)))).encode()
PRODUCTION = Audience(environment="production")
BEFORE = native.seal({"a": b"b"}, [EU], namespace="shop", name="db", audience=PRODUCTION)
AFTER = native.seal({"a": b"b"}, [EU, US], namespace="shop", name="db", audience=PRODUCTION)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory, as a user who trusts nobody yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_the_list_of_keys_comes_from_the_hub_to_the_byte(hub: FakeHub) -> None:
    """`fleet seal keys --server` prints what the hub signed, and remembers by whom."""
    hub.on("GET /v1/seal/keys", Answer(TEXT, kind="application/yaml"))
    result = run("seal", "keys", "--server", hub.url)
    assert (result.exit_code, result.stdout) == (0, TEXT.decode())
    assert "2 keys offered" in result.stderr
    assert "h1" in Path("config/fleet/signers.json").read_text()


def test_a_list_that_was_changed_on_its_way_is_not_printed(hub: FakeHub) -> None:
    """Nothing goes into the repository that the hub did not sign."""
    hub.on(
        "GET /v1/seal/keys", Answer(TEXT.replace(b"cluster: prod-us-1", b"cluster: prod-us-2"), kind="application/yaml")
    )
    result = run("seal", "keys", "--server", hub.url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "changed after the hub signed it" in result.stderr


def test_what_is_no_hub_is_said(hub: FakeHub) -> None:
    """Another server's page, and a refusal, end with their own exit codes."""
    hub.on("GET /v1/seal/keys", Answer(b"<html>", 500, "text/html"))
    assert run("seal", "keys", "--server", hub.url).exit_code == 3
    hub.refuse("GET /v1/seal/keys", 401, "show a token")
    assert run("seal", "keys", "--server", hub.url).exit_code == 4


@pytest.mark.parametrize("verb", ["rewrap", "reseal"])
def test_the_hub_changes_a_file(verb: str, hub: FakeHub) -> None:
    """The document is sent as it is, and what comes back is written in place; no list of keys is needed."""
    Path("db.yaml").write_text(write_sealed(BEFORE))
    hub.on(f"POST seal/{verb}", {"document": encode_sealed(AFTER), "clusters": ["prod-eu-1", "prod-us-1"]})
    result = run("seal", verb, "db.yaml", "--server", hub.url)
    assert result.exit_code == 0, result.output
    assert hub.asked[-1].body == {"document": encode_sealed(BEFORE)}
    assert Path("db.yaml").read_text() == write_sealed(AFTER)


def test_a_refusal_leaves_the_file(hub: FakeHub) -> None:
    """What the hub does not open stays as it is, and the reason is said."""
    Path("db.yaml").write_text(write_sealed(BEFORE))
    hub.refuse("POST seal/rewrap", 409, "sealed for item a of Secret shop/other", "ScopeMismatch")
    result = run("seal", "rewrap", "db.yaml", "--server", hub.url)
    assert result.exit_code == 2
    assert "shop/other" in result.stderr
    assert Path("db.yaml").read_text() == write_sealed(BEFORE)
