"""The unmodified age, sops and kubeseal: what they seal opens here, and what is sealed here they open."""

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fleet.document import load_documents, parse_documents
from fleet.errors import SealError
from fleet.secrets import age, bitnami, sops
from fleet.secrets.opened import Scope
from fleet.sim.real import find_binaries
from tests.harness.seal import Ring, make_break_glass, make_rsa, make_rsa_key

IDENTITY, RECIPIENT = make_break_glass(1)
OTHER, OTHER_RECIPIENT = make_break_glass(2)
KEY = make_rsa(4096)
RING = Ring(make_rsa_key(KEY))
HOME = Scope("prod-eu-1", "production", "shop", "db")
SECRET = b"""apiVersion: v1
kind: Secret
metadata:
  name: db
  namespace: shop
  labels: {app: shop}
type: kubernetes.io/basic-auth
immutable: true
data:
  raw: AAH/
stringData:
  username: shop
  password: "h\xc3\xbcnter2\\n"
"""

Run = Callable[..., bytes]


def find(name: str) -> Path:
    """Return a program that `make envtest` built, or skip."""
    binaries = find_binaries()
    if binaries is None or not (binaries / name).is_file():
        pytest.skip(f"NO {name.upper()}: `make envtest` builds it (once, needs Go)")
    return binaries / name


def run(name: str, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
    """Run a program and return its output; its complaint is the failure."""
    done = subprocess.run(
        [find(name), *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(env or {})},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


# --- age ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1_000_000])
@pytest.mark.parametrize("armor", [True, False])
def test_age_and_fleet_open_each_others_files(size: int, tmp_path: Path, *, armor: bool) -> None:
    """Every size around a chunk's end, in both forms, for one of two recipients, both ways."""
    content = bytes(i * 7 % 256 for i in range(size))
    both = ["-r", OTHER_RECIPIENT, "-r", RECIPIENT]
    assert age.decrypt(run("age", *(["-a"] if armor else []), *both, stdin=content), [IDENTITY]) == content
    keys = tmp_path / "identity"
    keys.write_text(age.format_identity(IDENTITY))
    made = age.encrypt(content, [age.parse_recipient(OTHER_RECIPIENT), age.parse_recipient(RECIPIENT)])
    assert run("age", "-d", "-i", str(keys), stdin=age.armor(made) if armor else made) == content


# --- SOPS --------------------------------------------------------------------------------------------------------

CONTENT: dict[str, bytes] = {
    "secret.yaml": b"""# top
apiVersion: v1
kind: Secret
metadata:
  name: db
stringData:
  password: "hunter2"
  multi: |
    a
    b
  yes: "yes"
  truth: true
  float: 1.50
  tiny: 1e-7
  hex: 0x10
  octal: 010
  date: 2024-01-02
  moment: 2024-01-02T03:04:05.120+02:00
  empty: ""
  none: null
  text: "\\u00e9 \\u4e2d \\U0001f600 \\u0085"
  plain_unencrypted: 1.50
  date_unencrypted: 2024-01-02
  truth_unencrypted: True
  list: [a, {b: 2}, [deep]] # a comment in a list is an item of it once encrypted
  lines:
  # first
  - x
  - # inner
    - y
  - z # third
---
apiVersion: v1
kind: Secret
metadata: {name: second}
stringData: {a: b}
""",
    "values.json": b'{"a": 1, "b": 1.5, "c": true, "d": null, "e": "x\\u00e9\\n", "f": [1, {"g": "h"}], "h": "", "i": {}}',
    "prod.env": b"# note\nA=1\nB=hello world\nC=multi\\nline\nD=\nE_unencrypted=plain\n",
    "blob.bin": bytes(range(256)) * 40,
}
RULES = {
    "all": "",
    "regex": "encrypted_regex: ^(data|stringData|password|data|a|A)$",
    "unencrypted-regex": "unencrypted_regex: ^(metadata|kind|apiVersion|b|B)$",
    "suffix": "encrypted_suffix: word",
    "mac-only": "mac_only_encrypted: true",
}


def encrypt(name: str, rule: str, tmp_path: Path, recipients: str = f"{OTHER_RECIPIENT},{RECIPIENT}") -> bytes:
    """Let sops encrypt one of the contents for two recipients under a rule."""
    lines = ["creation_rules:", f"- age: {recipients}", *([f"  {RULES[rule]}"] if RULES[rule] else [])]
    (tmp_path / ".sops.yaml").write_text("\n".join(lines))
    (tmp_path / name).write_bytes(CONTENT[name])
    return run("sops", "--config", str(tmp_path / ".sops.yaml"), "encrypt", str(tmp_path / name))


def read(content: bytes, name: str) -> Any:
    """Return what kubectl would read; env files line by line without comments, other files as they are."""
    if name.endswith(".yaml"):
        return [each.value for each in load_documents(content, name)]
    if name.endswith(".json"):
        return json.loads(content)
    return (
        [line for line in content.split(b"\n") if line and not line.startswith(b"#")]
        if name.endswith(".env")
        else content
    )


@pytest.mark.parametrize("name", sorted(CONTENT))
@pytest.mark.parametrize("rule", sorted(RULES))
def test_what_sops_encrypts_opens(name: str, rule: str, tmp_path: Path) -> None:
    """Each format under each rule opens to what sops itself opens it to."""
    made = encrypt(name, rule, tmp_path)
    assert sops.is_sops(made)
    (tmp_path / name).write_bytes(made)
    wanted = run("sops", "decrypt", str(tmp_path / name), env={"SOPS_AGE_KEY": age.format_identity(IDENTITY)})
    found = sops.decrypt(made, sops.detect_format(name), [IDENTITY], name=name)
    assert read(found, name) == read(wanted, name)


WORDS = (
    "a", '"q"', "'it''s'", "1", "-0", "1.50", "1e3", "1e400", "0o17", "017", "0x1f", "0b11", "1_000", "true", "True", "yes",
    "~", '""', "2024-01-02", "2024-01-02T03:04:05Z", "12:30:45", ".inf", ".nan", "5.", "+1", "08", "\u00e9\u4e2d", "a#b", "{}",
    '"\\u0085\\x01"', '"tab\\tnl\\n"', "[]",
)  # fmt: skip


def make_up(rng: Random, indent: str = "", depth: int = 2) -> str:
    """Write a mapping of words, lists and mappings, with comments here and there."""
    lines = []
    for key in rng.sample(["a", "b", "password", "x_unencrypted", "key with space"], rng.randint(1, 4)):
        if rng.random() < 0.2:
            lines.append(f"{indent}# comment")
        kind = rng.random()
        if depth and kind < 0.25:
            lines += [f"{indent}{key}:", make_up(rng, indent + "  ", depth - 1)]
        elif depth and kind < 0.45:
            lines.append(f"{indent}{key}:")
            lines += [f"{indent}  - {rng.choice(WORDS)}{rng.choice(['', ' # why'])}" for _ in range(rng.randint(1, 3))]
        elif kind < 0.55:
            lines += [f"{indent}{key}: |", f"{indent}  one", f"{indent}  two"]
        else:
            lines.append(f"{indent}{key}: {rng.choice(WORDS)}")
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(20))
def test_made_up_files_open_as_sops_opens_them(seed: int, tmp_path: Path) -> None:
    """Whatever kinds of values, comments and rules come together, both read the same."""
    rng = Random(seed)
    (tmp_path / "made.yaml").write_text(make_up(rng) + "\n")
    rule = RULES[rng.choice(sorted(RULES))]
    (tmp_path / ".sops.yaml").write_text(f"creation_rules:\n- age: {RECIPIENT}\n" + (f"  {rule}\n" if rule else ""))
    made = run("sops", "--config", str(tmp_path / ".sops.yaml"), "encrypt", str(tmp_path / "made.yaml"))
    (tmp_path / "made.yaml").write_bytes(made)
    wanted = run("sops", "decrypt", str(tmp_path / "made.yaml"), env={"SOPS_AGE_KEY": age.format_identity(IDENTITY)})
    found = sops.decrypt(made, "yaml", [IDENTITY])
    # infinities are no JSON: such a document is refused from either
    assert [each.value for each in parse_documents(found, "x")[0]] == [
        each.value for each in parse_documents(wanted, "x")[0]
    ]


@pytest.mark.parametrize("name", sorted(CONTENT))
def test_a_tampered_mac_is_refused(name: str, tmp_path: Path) -> None:
    """A MAC of another moment does not pass."""
    made = encrypt(name, "all", tmp_path)
    at = re.search(rb'lastmodified[":= ]+\d{4}-\d\d-\d\dT\d\d:\d\d:\d(\d)', made)
    assert at is not None
    digit = b"0" if at[1] != b"0" else b"1"
    with pytest.raises(SealError, match="mac was changed") as caught:
        sops.decrypt(made[: at.start(1)] + digit + made[at.end(1) :], sops.detect_format(name), [IDENTITY])
    assert caught.value.reason == "Corrupt"


def test_another_recipient_is_told(tmp_path: Path) -> None:
    """A file for somebody else is NotARecipient."""
    made = encrypt("secret.yaml", "all", tmp_path, recipients=OTHER_RECIPIENT)
    with pytest.raises(SealError, match=OTHER_RECIPIENT) as caught:
        sops.decrypt(made, "yaml", [IDENTITY])
    assert caught.value.reason == "NotARecipient"


# --- kubeseal ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate for KEY in a file."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sealed-secret")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(KEY, SHA256())
    )
    path = tmp_path_factory.mktemp("cert") / "cert.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    return str(path)


def kubeseal(*arguments: str, stdin: bytes = b"") -> bytes:
    """Run kubeseal, which finds no cluster."""
    return run("kubeseal", *arguments, stdin=stdin)


def open_at(document: bytes, scope: Scope = HOME) -> dict[str, bytes]:
    """Open one document."""
    (found,) = load_documents(document, "sealed")
    return {
        item: plain.reveal() for item, plain in bitnami.open_(bitnami.parse(found.value), scope, RING).items.items()
    }


ITEMS = {"raw": b"\x00\x01\xff", "username": b"shop", "password": "h\u00fcnter2\n".encode()}
ELSEWHERE = [HOME, HOME._replace(name="other"), HOME._replace(namespace="other", name="other")]


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize(("scope", "opens"), [("strict", 1), ("namespace-wide", 2), ("cluster-wide", 3)])
def test_what_kubeseal_seals_opens(scope: str, opens: int, form: str, cert: str) -> None:
    """A whole Secret in each scope opens byte for byte, as far as its scope is wide."""
    made = kubeseal("--cert", cert, "--scope", scope, "-o", form, stdin=SECRET)
    (found,) = load_documents(made, "sealed")
    parsed = bitnami.parse(found.value)
    assert (parsed.type, parsed.immutable, parsed.labels) == ("kubernetes.io/basic-auth", True, {"app": "shop"})
    for number, place in enumerate(ELSEWHERE):
        if number < opens:
            assert open_at(made, place) == ITEMS
        else:
            with pytest.raises(SealError) as caught:
                open_at(made, place)
            assert caught.value.reason == "ScopeMismatch"


@pytest.mark.parametrize("scope", ["strict", "namespace-wide", "cluster-wide"])
def test_a_raw_value_opens(scope: str, cert: str) -> None:
    """`kubeseal --raw` gives a value that opens in its scope."""
    place = {
        "strict": ["--namespace", "shop", "--name", "db"],
        "namespace-wide": ["--namespace", "shop"],
        "cluster-wide": [],
    }
    made = kubeseal("--raw", "--cert", cert, "--scope", scope, *place[scope], stdin=b"hunter2\n").strip()
    label = bitnami.make_label(scope, "shop", "db")
    assert bitnami.open_value(base64.b64decode(made), KEY, label) == b"hunter2\n"


def test_merged_items_open(cert: str, tmp_path: Path) -> None:
    """`kubeseal --merge-into` adds and replaces items of a file that opens as a whole."""
    path = tmp_path / "db.json"
    path.write_bytes(kubeseal("--cert", cert, stdin=SECRET))
    more = b"apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\nstringData: {token: t, username: other}\n"
    kubeseal("--cert", cert, "--merge-into", str(path), stdin=more)
    assert open_at(path.read_bytes()) == {**ITEMS, "token": b"t", "username": b"other"}


def test_every_document_of_a_file_opens(cert: str) -> None:
    """Several Secrets in one file become documents that each open under their own names."""
    made = kubeseal("--cert", cert, "-o", "yaml", stdin=SECRET + b"---\n" + SECRET.replace(b"name: db", b"name: other"))
    for found in load_documents(made, "sealed"):
        sealed = bitnami.parse(found.value)
        opened = bitnami.open_(sealed, HOME._replace(name=sealed.name), RING)
        assert {item: plain.reveal() for item, plain in opened.items.items()} == ITEMS


@pytest.mark.parametrize("scope", ["strict", "namespace-wide", "cluster-wide"])
def test_kubeseal_opens_what_fleet_seals(scope: str, tmp_path: Path) -> None:
    """Values sealed here open with `kubeseal --recovery-unseal` and the private key."""
    pem = tmp_path / "key.pem"
    pem.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    annotation = {
        "strict": {},
        "namespace-wide": {bitnami.NAMESPACE_WIDE: "true"},
        "cluster-wide": {bitnami.CLUSTER_WIDE: "true"},
    }[scope]
    label = bitnami.make_label(scope, "shop", "db")
    document = {
        "apiVersion": bitnami.API_VERSION,
        "kind": bitnami.KIND,
        "metadata": {"name": "db", "namespace": "shop", "annotations": annotation},
        "spec": {
            "encryptedData": {item: bitnami.seal_value(value, KEY.public_key(), label) for item, value in ITEMS.items()}
        },
    }
    made = kubeseal("--recovery-unseal", "--recovery-private-key", str(pem), stdin=json.dumps(document).encode())
    assert {item: base64.b64decode(value) for item, value in json.loads(made)["data"].items()} == ITEMS
