"""`fleet seal` in a repository of its own: offline, from the signed list of public keys."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from nacl.signing import SigningKey

from fleet.cli.main import cli
from fleet.document import load_documents
from fleet.secrets import age
from fleet.secrets.bundle import write_bundle
from fleet.secrets.document import Sealed, parse_sealed
from fleet.secrets.key import KeyState, PublicKey
from fleet.secrets.native import open_sealed
from fleet.secrets.opened import Scope
from tests.harness.seal import AT, Ring, make_break_glass, make_key

SIGNER = SigningKey(bytes(range(32)))
EU, US, DEV, AP = make_key("prod-eu-1"), make_key("prod-us-1"), make_key("dev-1", "dev"), make_key("prod-ap-1")
NEW_EU = make_key("prod-eu-1", number=2)
RING = Ring(EU, US, DEV, AP, NEW_EU)
IDENTITY, RECIPIENT = make_break_glass()
HOME = Scope("prod-eu-1", "production", "shop", "db")
PRODUCTION = ("--for", "environment=production")
GIVEN = ("--name", "db", "--namespace", "shop")


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a list of keys, and a user who has sealed nothing yet."""
    directory = tmp_path / "repo"
    (directory / ".git").mkdir(parents=True)
    (directory / "apps").mkdir()
    for name in [name for name in os.environ if name.startswith("FLEET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(directory / "apps")
    write_keys(directory, EU.public, US.public, DEV.public)
    return directory


def write_keys(repo: Path, *keys: PublicKey, signer: SigningKey = SIGNER) -> None:
    """Put a signed list into the repository."""
    (repo / ".fleet").mkdir(exist_ok=True)
    (repo / ".fleet" / "keys.yaml").write_text(write_bundle(keys, hub="h1", issued_at=AT, signer=signer))


def seal(*arguments: str, stdin: bytes = b"") -> Result:
    """Run `fleet seal` with arguments."""
    return CliRunner().invoke(cli, ["seal", *arguments], input=stdin, prog_name="fleet")


def sealed(text: str) -> Sealed:
    """Read what was printed."""
    (document,) = load_documents(text.encode(), "out")
    return parse_sealed(document.value)


def opened(document: Sealed, scope: Scope = HOME) -> dict[str, bytes]:
    """Open it with every key there is."""
    return {item: plain.reveal() for item, plain in open_sealed(document, scope, RING).items.items()}


MANIFEST = b"""apiVersion: v1
kind: Secret
metadata:
  name: db
  namespace: shop
  labels: {app: shop}
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{"stringData":{"password":"hunter2"}}'
type: kubernetes.io/basic-auth
immutable: true
data:
  password: d3Jvbmc=
  key: //4=
stringData:
  password: hunter2
"""


def test_a_manifest_is_sealed_for_an_environment(repo: Path) -> None:
    """Each cluster of the environment opens it, another one does not; no plaintext is left in the file."""
    result = seal("-", *PRODUCTION, stdin=MANIFEST)
    assert result.exit_code == 0, result.stderr
    document = sealed(result.stdout)
    for cluster in ("prod-eu-1", "prod-us-1"):
        assert opened(document, HOME._replace(cluster=cluster)) == {"password": b"hunter2", "key": b"\xff\xfe"}
    assert document.clusters == ["prod-eu-1", "prod-us-1"]
    assert (document.template.type, document.template.immutable) == ("kubernetes.io/basic-auth", True)
    assert document.template.labels == {"app": "shop"}
    assert "hunter2" not in result.stdout
    assert "last-applied" not in result.stdout


def test_literals_and_files_are_sealed(repo: Path, tmp_path: Path) -> None:
    """Items come from options too, a file's under its own name unless another is given."""
    (tmp_path / "tls.key").write_bytes(b"\x00\x01")
    result = seal(
        "--from-literal", "user=a=b", "--from-file", str(tmp_path / "tls.key"), "--from-file", "in=-",
        *GIVEN, "--for", "cluster=prod-eu-1", "-w", "db.yaml", stdin=b"x",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    document = sealed(Path("db.yaml").read_text())
    assert opened(document) == {"user": b"a=b", "tls.key": b"\x00\x01", "in": b"x"}
    assert str(document.audience) == "cluster/prod-eu-1"


def test_every_secret_of_a_file_is_sealed(repo: Path) -> None:
    """A file of several Secrets gives as many documents."""
    other = MANIFEST.replace(b"name: db", b"name: other")
    result = seal("-", *PRODUCTION, stdin=MANIFEST + b"---\n" + other)
    assert [each.value["metadata"]["name"] for each in load_documents(result.stdout.encode(), "x")] == ["db", "other"]


def test_break_glass_opens_it_too(repo: Path) -> None:
    """An age recipient is one more line, and its identity opens the file for a rewrap."""
    result = seal("-", *PRODUCTION, "--break-glass", RECIPIENT, stdin=MANIFEST)
    assert RECIPIENT in sealed(result.stdout).recipients


def test_items_are_merged_without_opening(repo: Path) -> None:
    """Merging keeps the file's recipients, scope and other items, in place; a break-glass key stays one."""
    seal("-", *PRODUCTION, "--break-glass", RECIPIENT, "-w", "db.yaml", stdin=MANIFEST)
    before = sealed(Path("db.yaml").read_text())
    result = seal("--from-literal", "token=t", "--merge-into", "db.yaml")
    assert result.exit_code == 0, result.stderr
    after = sealed(Path("db.yaml").read_text())
    assert after.values["password"] == before.values["password"]
    assert opened(after)["token"] == b"t"
    assert all(RECIPIENT in key.wraps for key in after.keys.values())


@pytest.mark.parametrize("given", [("--name", "other"), ("--namespace", "other"), ("--for", "cluster=dev-1")])
def test_a_merge_into_another_place_is_refused(repo: Path, given: tuple[str, str]) -> None:
    """Items that would not open there are not merged, and the file stays as it is."""
    seal("-", *PRODUCTION, "-w", "db.yaml", stdin=MANIFEST)
    before = Path("db.yaml").read_bytes()
    result = seal("--from-literal", "token=t", "--merge-into", "db.yaml", *given)
    assert result.exit_code == 2
    assert Path("db.yaml").read_bytes() == before


def test_traps_are_warned_of_without_showing_values(repo: Path) -> None:
    """A newline at the end and base64 twice are said on stderr; the values are not."""
    result = seal("--from-file", "a=-", "--from-literal", "b=aHVudGVyMg==", *GIVEN, *PRODUCTION, stdin=b"hunter2\n")
    assert result.exit_code == 0
    assert "item a ends with a newline" in result.stderr
    assert "item b looks like base64 already" in result.stderr
    assert "hunter2" not in result.output
    assert "aHVudGVyMg" not in result.output


def test_an_old_list_is_warned_of(repo: Path) -> None:
    """Keys that are long past their renewal are named: the list may have been put back to an earlier one."""
    past = datetime(2020, 1, 1, tzinfo=UTC)
    write_keys(repo, replace(EU.public, renew_at=past), US.public)
    result = seal("-", *PRODUCTION, stdin=MANIFEST)
    assert result.exit_code == 0
    assert "the key of prod-eu-1 should have been renewed long ago" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        ((), b"", "nothing to seal"),
        (("--from-literal", "a=b", *GIVEN), b"", "say who can open it"),
        (("--from-literal", "hunter2", *GIVEN, *PRODUCTION), b"", "takes KEY=VALUE"),
        (("--from-literal", "a=b", "--name", "x", *PRODUCTION), b"", "say --namespace"),
        (("--from-literal", "a=b", *GIVEN, "--for", "cluster=prod-eu-2"), b"", "did you mean prod-eu-1?"),
        (("--from-literal", "a=b", *GIVEN, "--for", "prod"), b"", "write environment=NAME"),
        (("-", *PRODUCTION), b"kind: ConfigMap\n", "stdin:1: this is no Secret"),
        (("-", *PRODUCTION), MANIFEST.replace(b"d3Jvbmc=", b"hunter2"), "data.password is not base64"),
        (("-", *PRODUCTION, "--namespace", "web"), MANIFEST, "is of namespace shop, not web"),
        (("absent.yaml", *PRODUCTION), b"", "absent.yaml cannot be read"),
    ],
)
def test_what_is_wrong_is_said(repo: Path, arguments: tuple[str, ...], stdin: bytes, said: str) -> None:
    """A mistake ends with 2 and a sentence that says what to do, and never with a value."""
    result = seal(*arguments, stdin=stdin)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "hunter2" not in result.output


def test_a_repository_without_a_list_says_where_to_get_it(repo: Path) -> None:
    """Without keys there is a sentence, not a traceback."""
    (repo / ".fleet" / "keys.yaml").unlink()
    result = seal("-", *PRODUCTION, stdin=MANIFEST)
    assert result.exit_code == 2
    assert "fleet seal keys --server URL > .fleet/keys.yaml" in result.stderr


def test_the_first_signer_is_trusted_and_no_other(repo: Path) -> None:
    """A list that somebody else signed for the same hub is refused from the second use on."""
    assert "trusting ed25519:" in seal("-", *PRODUCTION, stdin=MANIFEST).stderr
    assert seal("-", *PRODUCTION, stdin=MANIFEST).stderr == ""
    write_keys(repo, AP.public, signer=SigningKey(bytes(32)))
    result = seal("-", *PRODUCTION, stdin=MANIFEST)
    assert result.exit_code == 2
    assert "do not seal with it before you know why" in result.stderr
    assert result.stdout == ""


def test_a_pinned_signer_needs_no_first_use(repo: Path) -> None:
    """--signer decides by itself, and is written nowhere."""
    result = seal("-", *PRODUCTION, "--signer", "ed25519:AAAA", stdin=MANIFEST)
    assert result.exit_code == 2
    assert "not by ed25519:AAAA" in result.stderr


def test_inspect_shows_who_can_open_it(repo: Path) -> None:
    """Everything current ends with 0 and lists cluster, state and key."""
    seal("-", *PRODUCTION, "-w", "db.yaml", stdin=MANIFEST)
    result = seal("inspect", "db.yaml")
    assert result.exit_code == 0
    assert "SealedSecret shop/db, scope strict, for environment/production" in result.stdout
    assert f"prod-eu-1  active  2/2    {EU.public.kid}" in result.stdout


def test_inspect_finds_what_is_missing_or_retired(repo: Path) -> None:
    """A cluster that joined, one with a new key, one whose key is retired and one that is gone end with 1."""
    seal("-", *PRODUCTION, "-w", "db.yaml", stdin=MANIFEST)
    old = make_key("prod-eu-1", state=KeyState.RETIRED).public
    write_keys(repo, old, NEW_EU.public, AP.public)
    result = seal("inspect", "db.yaml", "-o", "json")
    assert result.exit_code == 1
    found = {(row["recipient"], row["state"]) for row in json.loads(result.stdout)["recipients"]}
    assert found == {
        ("prod-eu-1", "retired"),
        ("prod-eu-1", "missing"),
        ("prod-ap-1", "missing"),
        ("prod-us-1", "unknown"),
    }


def test_inspect_of_a_key_that_is_on_its_way_out(repo: Path) -> None:
    """A cluster whose old key still opens is not missing; one whose key was compromised opens nothing."""
    seal("-", *PRODUCTION, "-w", "db.yaml", stdin=MANIFEST)
    for state, standing in [
        (KeyState.RETIRING, {("prod-eu-1", "retiring", "2/2")}),
        (KeyState.COMPROMISED, {("prod-eu-1", "compromised", "0/2"), ("prod-eu-1", "missing", "0/2")}),
    ]:
        write_keys(repo, make_key("prod-eu-1", state=state).public, NEW_EU.public)
        rows = json.loads(seal("inspect", "db.yaml", "-o", "json").stdout)["recipients"]
        assert {(r["recipient"], r["state"], r["items"]) for r in rows if r["recipient"] == "prod-eu-1"} == standing


def test_inspect_reads_the_other_formats_too(repo: Path) -> None:
    """Of a file of SOPS the recipients are told by their clusters, of kubeseal's the scope; other files are refused."""
    mine = age.format_recipient(EU.public.age_public)
    block = {"mac": "x", "age": [{"recipient": mine, "enc": ""}, {"recipient": RECIPIENT, "enc": ""}]}
    Path("a.json").write_text(
        json.dumps({"kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "x"}, "sops": block})
    )
    rows = json.loads(seal("inspect", "a.json", "-o", "json").stdout)["recipients"]
    assert [(row["recipient"], row["state"]) for row in rows] == [("prod-eu-1", "active"), ("?", "elsewhere")]
    kubeseal = {
        "apiVersion": "bitnami.com/v1alpha1",
        "kind": "SealedSecret",
        "metadata": {"name": "b", "namespace": "n"},
    }
    Path("b.json").write_text(json.dumps({**kubeseal, "spec": {"encryptedData": {"k": "AgB0"}}}))
    assert "SealedSecret n/b, sealed by kubeseal, strict" in seal("inspect", "b.json").stdout
    Path("c.yaml").write_bytes(MANIFEST)
    result = seal("inspect", "c.yaml")
    assert (result.exit_code, result.stdout) == (2, "")


def prepare(repo: Path, tmp_path: Path) -> list[str]:
    """Seal with a break-glass key, let a cluster join; return the options that name the identity."""
    seal("-", *PRODUCTION, "--break-glass", RECIPIENT, "-w", "db.yaml", stdin=MANIFEST)
    write_keys(repo, NEW_EU.public, US.public, AP.public)
    path = tmp_path / "identity"
    path.write_text(f"# kept in a safe\n{age.format_identity(IDENTITY)}\n")
    return ["--identity", str(path)]


def test_rewrap_lets_a_new_cluster_in(repo: Path, tmp_path: Path) -> None:
    """With the break-glass identity, offline: today's clusters open it, and no value changed."""
    identity = prepare(repo, tmp_path)
    before = sealed(Path("db.yaml").read_text())
    result = seal("rewrap", "db.yaml", *identity)
    assert result.exit_code == 0, result.stderr
    after = sealed(Path("db.yaml").read_text())
    assert after.values == before.values
    assert opened(after, HOME._replace(cluster="prod-ap-1"))["password"] == b"hunter2"
    assert EU.public.kid not in after.recipients
    assert seal("inspect", "db.yaml").exit_code == 0


@pytest.mark.parametrize("verb", ["rewrap", "reseal"])
def test_what_a_compromised_key_opened_is_not_spread(repo: Path, tmp_path: Path, verb: str) -> None:
    """The file stays as it is, to be found by a check, until its values were changed."""
    identity = prepare(repo, tmp_path)
    write_keys(repo, make_key("prod-eu-1", state=KeyState.COMPROMISED).public, NEW_EU.public, US.public)
    before = Path("db.yaml").read_text()
    result = seal(verb, "db.yaml", *identity)
    assert result.exit_code == 2
    assert "change them at their source" in result.stderr
    assert Path("db.yaml").read_text() == before
    seal("--from-literal", "password=new", "--from-literal", "key=new", "--merge-into", "db.yaml")
    assert seal("inspect", "db.yaml").exit_code == 0


def test_reseal_changes_every_value(repo: Path, tmp_path: Path) -> None:
    """Every item is encrypted anew under one data key, and opens as before."""
    identity = prepare(repo, tmp_path)
    seal("--from-literal", "token=t", "--merge-into", "db.yaml")
    before = sealed(Path("db.yaml").read_text())
    assert seal("reseal", "db.yaml", *identity).exit_code == 0
    after = sealed(Path("db.yaml").read_text())
    assert len(before.keys) == 2
    assert len(after.keys) == 1
    assert all(after.values[item] != before.values[item] for item in before.values)
    assert opened(after) == {"password": b"hunter2", "key": b"\xff\xfe", "token": b"t"}


def test_a_moved_file_is_not_rewrapped(repo: Path, tmp_path: Path) -> None:
    """A file whose name was edited is refused, not spread to more clusters."""
    identity = prepare(repo, tmp_path)
    Path("db.yaml").write_text(Path("db.yaml").read_text().replace("  name: db", "  name: other"))
    for verb in ("rewrap", "reseal"):
        result = seal(verb, "db.yaml", *identity)
        assert result.exit_code == 2
        assert "sealed for item" in result.stderr


def test_edit_seals_what_was_changed(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The editor sees the items as text; only what it changed is sealed again, and nothing of it stays in memory."""
    identity = prepare(repo, tmp_path)
    memory = tmp_path / "memory"
    memory.mkdir()
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\ngrep -q 'password: hunter2' \"$1\" && sed -i 's/hunter2/other/; /key:/d' \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(memory))
    result = seal("edit", "db.yaml", *identity)
    assert result.exit_code == 0, result.stderr
    assert opened(sealed(Path("db.yaml").read_text())) == {"password": b"other"}
    assert list(memory.iterdir()) == []


def test_edit_that_changes_nothing_writes_nothing(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing the editor leaves the file to the byte."""
    identity = prepare(repo, tmp_path)
    before = Path("db.yaml").read_bytes()
    monkeypatch.setenv("VISUAL", "true")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    result = seal("edit", "db.yaml", *identity)
    assert "nothing was changed" in result.stderr
    assert Path("db.yaml").read_bytes() == before


def test_another_identity_is_told_whose_it_is(repo: Path, tmp_path: Path) -> None:
    """An identity that is no recipient is refused with the recipients; it is never printed."""
    prepare(repo, tmp_path)
    path = tmp_path / "other"
    path.write_text(age.format_identity(make_break_glass(2)[0]))
    result = seal("rewrap", "db.yaml", "--identity", str(path))
    assert result.exit_code == 2
    assert RECIPIENT in result.stderr
    assert "AGE-SECRET-KEY" not in result.output


def test_keys_prints_the_list_once_its_signature_is_checked(repo: Path) -> None:
    """`fleet seal keys` gives the list to the byte, and nothing for one that was changed."""
    path = repo / ".fleet" / "keys.yaml"
    assert seal("keys").stdout == path.read_text()
    path.write_text(path.read_text().replace("cluster: dev-1", "cluster: dev-2"))
    result = seal("keys")
    assert (result.exit_code, result.stdout) == (2, "")
