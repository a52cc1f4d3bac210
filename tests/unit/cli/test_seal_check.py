"""`fleet seal check`: nothing in the clear is committed unnoticed."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from fleet.cli.main import cli
from fleet.cli.validate import run
from tests.unit.cli.test_seal import AP, DEV, EU, MANIFEST, NEW_EU, PRODUCTION, repo, seal, write_keys

__all__ = ["repo"]

SOPS = Path(__file__).parents[1] / "secrets" / "vectors" / "sops"


def check(*arguments: str) -> Result:
    """Run `fleet seal check`."""
    return CliRunner().invoke(cli, ["seal", "check", *arguments], prog_name="fleet")


def test_a_secret_in_the_clear_is_found(repo: Path) -> None:
    """File, line and column of the first value are named, the value is not."""
    Path("db.yaml").write_bytes(b"kind: ConfigMap\napiVersion: v1\n---\n" + MANIFEST)
    result = check()
    assert result.exit_code == 1
    assert result.stdout.startswith("db.yaml:18:3: stringData.password: PlainSecret: ")
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {}\nstringData: {a: ''}\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Secret}\ndata: {a: b}\n",
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: a}\nspec: {encryptedData: {a: AgB}}\n",
    ],
)
def test_what_holds_no_value_passes(repo: Path, text: str) -> None:
    """Empty Secrets, other kinds and sealed ones are no fault."""
    Path("a.yaml").write_text(text)
    assert check().exit_code == 0


def test_a_secret_in_a_list_is_found(repo: Path) -> None:
    """Objects inside a List are looked at, too."""
    Path("a.yaml").write_text(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  data: {a: Yg==}\n"
    )
    assert "a.yaml:6:10: items[0].data.a: PlainSecret" in check().stdout


def test_what_sops_encrypted_passes(repo: Path) -> None:
    """A file of SOPS is no Secret in the clear, as a resource and as an item."""
    Path("a.yaml").write_bytes((SOPS / "regex.yaml").read_bytes())
    text = (SOPS / "prod.env").read_text()
    Path("b.yaml").write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}, "stringData": {"env": text}})
    )
    assert (check().stdout, check().exit_code) == ("", 0)


def test_generators_in_the_clear_are_found(repo: Path) -> None:
    """Kustomize's literals, and sources that sops did not encrypt, are in the clear; encrypted ones pass."""
    Path("prod.env").write_bytes((SOPS / "prod.env").read_bytes())
    Path("dev.env").write_text("A=b\n")
    Path("kustomization.yaml").write_text(
        "secretGenerator:\n- name: a\n  literals: [a=b]\n  envs:\n  - prod.env\n  - dev.env\n  files: [key=absent]\n"
    )
    result = check()
    assert [line.split(" ")[1] for line in result.stdout.splitlines()] == [
        "secretGenerator[0].literals[0]:",
        "secretGenerator[0].envs[1]:",
    ]


def test_stale_recipients_are_found(repo: Path) -> None:
    """A sealed file that a cluster cannot open, or whose key is gone, is named with what to run."""
    seal("-", *PRODUCTION, "-w", "db.yaml", stdin=MANIFEST)
    assert check().exit_code == 0
    write_keys(repo, EU.public, AP.public, DEV.public)
    result = check("db.yaml")
    assert result.exit_code == 1
    assert "StaleRecipients: cluster prod-ap-1 cannot open it; fleet seal rewrap db.yaml" in result.stdout
    assert "is unknown" in result.stdout
    (repo / ".fleet" / "keys.yaml").unlink()
    assert check("db.yaml").exit_code == 0


def test_a_key_that_was_renewed_is_stale_only_where_the_new_one_is_missing(repo: Path) -> None:
    """With the new key beside the old one nothing is to be done."""
    seal("-", *PRODUCTION, "-w", "db.yaml", stdin=MANIFEST)
    write_keys(repo, NEW_EU.public, DEV.public)
    assert "cluster prod-eu-1 cannot open it" in check().stdout


def test_a_damaged_document_is_found(repo: Path) -> None:
    """A sealed file that no fleet would read is a fault before it is pushed."""
    seal("-", *PRODUCTION, "-w", "db.yaml", stdin=MANIFEST)
    Path("db.yaml").write_text(Path("db.yaml").read_text().replace("fs1:", "fs2:"))
    assert "Corrupt: item" in check().stdout


def test_templates_are_passed_over_and_named(repo: Path) -> None:
    """What is no YAML ends nothing."""
    Path("a.yaml").write_text("kind: Secret\n{{ if }}\n")
    result = check()
    assert result.exit_code == 0
    assert "a.yaml was not checked to its end" in result.stderr


def test_validate_looks_there_too(repo: Path) -> None:
    """`fleet validate --secrets` lists them with the faults of the inventory, and only when asked."""
    inventory = repo / "clusters.d"
    inventory.mkdir()
    (inventory / "a.yaml").write_text("apiVersion: fleet/v1\nkind: Environment\nmetadata: {name: dev}\nspec: {}\n")
    Path("db.yaml").write_bytes(MANIFEST)
    assert run(inventory, "text")[1] == 0
    text, code = run(inventory, "text", ["."])
    assert code == 2
    assert "PlainSecret" in text


def test_the_hook_runs_a_command_that_there_is() -> None:
    """The pre-commit definition names `fleet seal check`, which takes file names."""
    (hook,) = yaml.safe_load((Path(__file__).parents[3] / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"] == "fleet seal check"
    words = [sys.executable, "-m", "fleet.cli", *hook["entry"].split()[1:], "README.md"]
    done = subprocess.run(words, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
