"""From sealed manifests to the objects that are applied, whatever sealed them."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
import yaml

from fleet.errors import SealError
from fleet.object import Adopt, Apply, Manifest, Seal
from fleet.secrets.key import KeyState
from fleet.secrets.unseal import AT_ONCE_BYTES, KeyringUnsealer
from fleet.secrets.usage import list_uses
from tests.harness.keys import MemoryKeyring, bitnami_body, box_key, encode, native_body, rsa_key
from tests.harness.sops import encrypt_binary, encrypt_env, encrypt_yaml
from tests.unit.render.files import render

DEV, PROD, RSA = box_key("dev-1"), box_key("prod-1", environment="prod"), rsa_key("dev-1")
ENVIRONMENTS = {"dev-1": "dev", "prod-1": "prod"}
AGE = [DEV.public.age_public]
SECRET: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "db", "namespace": "default"},
    "stringData": {"password": "hunter2"},
}


class Bench:
    """A keyring and an unsealer over it."""

    def __init__(self) -> None:
        self.keyring = MemoryKeyring(DEV, PROD, RSA)
        self.unsealer = KeyringUnsealer(
            self.keyring,
            environment_of=lambda cluster: ENVIRONMENTS.get(cluster, ""),
            digest_key=b"key",
            executor=ThreadPoolExecutor(max_workers=1),
        )

    async def open(self, m: Manifest, cluster: str = "dev-1") -> dict[str, Any]:
        """Open and decode."""
        opened = await self.unsealer.open(m, cluster)
        assert opened.sensitive
        assert (opened.seal, opened.key, opened.digest) == (Seal.NONE, m.key, m.digest)
        body: dict[str, Any] = msgspec.json.decode(opened.body)
        return body

    async def fail(self, m: Manifest, cluster: str = "dev-1") -> SealError:
        """Fail to open."""
        with pytest.raises(SealError) as caught:
            await self.unsealer.open(m, cluster)
        return caught.value


@pytest.fixture
def bench() -> Bench:
    """Two clusters with keys."""
    return Bench()


def manifest(body: Any, **more: Any) -> Manifest:
    """Render one document."""
    text = body if isinstance(body, str) else json.dumps(body)
    (made,) = render({"app/x.yaml": text}, **more)
    return made


async def test_native(bench: Bench) -> None:
    """One document opens for each of its clusters, to the same Secret, in the form that rendering gives a plain one."""
    sealed = manifest(native_body({"password": "hunter2"}, DEV, PROD))
    for cluster in ENVIRONMENTS:
        assert await bench.open(sealed, cluster) == {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "db", "namespace": "default"},
            "type": "Opaque",
            "data": {"password": encode("hunter2")},
        }


async def test_annotations_for_fleet_go_along(bench: Bench) -> None:
    """What keeps a Secret from being pruned must stand on the Secret; other annotations of the document stay behind."""
    body = native_body({"a": "1"}, DEV)
    body["metadata"]["annotations"] = {"fleet/prune": "disabled", "note": "x"}
    assert (await bench.open(manifest(body)))["metadata"]["annotations"] == {"fleet/prune": "disabled"}


async def test_the_digest_is_of_the_values(bench: Bench) -> None:
    """Sealing again, for more clusters, weighs the same; another value does not, nor does another hub's key tell."""
    weights = [
        await bench.unsealer.weigh(manifest(native_body({"a": value}, *keys)), "dev-1")
        for value, keys in [("1", [DEV]), ("1", [DEV, PROD]), ("2", [DEV])]
    ]
    assert weights[0] == weights[1] != weights[2]
    other = KeyringUnsealer(bench.keyring, environment_of=lambda _: "", digest_key=b"x", executor=ThreadPoolExecutor(1))
    assert await other.weigh(manifest(native_body({"a": "1"}, DEV)), "dev-1") != weights[0]


async def test_a_move_is_refused_with_its_place(bench: Bench) -> None:
    """Another namespace, given by the App or Kustomize, is a ScopeMismatch that names both and the file."""
    body = native_body({"password": "hunter2"}, DEV)
    body["metadata"]["namespace"] = "other"
    error = await bench.fail(manifest(body))
    assert error.reason == "ScopeMismatch"
    assert str(error).startswith("app/x.yaml:1: ")
    assert "default/db" in str(error)
    assert "other/db" in str(error)
    assert "after rendering" in str(error)


@pytest.mark.parametrize(
    ("keys", "state", "reason"),
    [
        ([PROD], KeyState.ACTIVE, "NotARecipient"),
        ([DEV], KeyState.RETIRED, "RetiredKey"),
        ([DEV], KeyState.COMPROMISED, "CompromisedKey"),
    ],
)
async def test_reasons(bench: Bench, keys: Any, state: KeyState, reason: str) -> None:
    """Each way not to open has its reason, in weighing as in opening."""
    bench.keyring.set_state(DEV, state)
    sealed = manifest(native_body({"a": "1"}, *keys))
    assert (await bench.fail(sealed)).reason == reason
    with pytest.raises(SealError) as caught:
        await bench.unsealer.weigh(sealed, "dev-1")
    assert caught.value.reason == reason


async def test_an_unknown_key_is_told_from_a_foreign_one(bench: Bench) -> None:
    """A cluster whose key was lost is not the same as one the value was never sealed for."""
    bench.keyring.drop(DEV)
    assert (await bench.fail(manifest(native_body({"a": "1"}, DEV)))).reason == "UnknownKey"


@pytest.mark.parametrize("scope", ["strict", "namespace-wide", "cluster-wide"])
async def test_bitnami(bench: Bench, scope: str) -> None:
    """All three scopes open, with type, labels, annotations, immutable and plain data of the template."""
    template = {
        "type": "kubernetes.io/basic-auth",
        "immutable": True,
        "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
        "data": {"username": "ada"},
    }
    opened = await bench.open(manifest(bitnami_body({"password": "hunter2"}, scope=scope, template=template)))
    assert opened["data"] == {"password": encode("hunter2"), "username": encode("ada")}
    assert (opened["type"], opened["immutable"]) == ("kubernetes.io/basic-auth", True)
    assert opened["metadata"]["labels"] == {"a": "b"}
    assert opened["metadata"]["annotations"] == {"c": "d"}


async def test_bitnami_templates_are_not_run(bench: Bench) -> None:
    """Text of the template language is refused with a reason."""
    body = bitnami_body({"password": "x"}, template={"data": {"url": "postgres://{{ .password }}"}})
    error = await bench.fail(manifest(body))
    assert error.reason == "Unsupported"
    assert "spec.template.data.url is a template" in str(error)


async def test_bitnami_moves_are_refused(bench: Bench) -> None:
    """A strict value under another name does not open, and the reason is the place, not the key."""
    body = bitnami_body({"password": "x"})
    body["metadata"]["name"] = "other"
    assert (await bench.fail(manifest(body))).reason == "ScopeMismatch"


async def test_bitnami_patch_and_managed(bench: Bench) -> None:
    """`patch` adds to a Secret that is there, `managed` takes it over: both also in the object's own annotations."""
    patch = {"sealedsecrets.bitnami.com/patch": "true"}
    sealed = manifest(bitnami_body({"a": "1"}, template={"metadata": {"annotations": patch}}))
    assert (sealed.flags.apply, sealed.flags.adopt) == (Apply.MERGE, Adopt.ALWAYS)
    assert (await bench.open(sealed))["metadata"]["annotations"] == patch


async def test_sops_object(bench: Bench) -> None:
    """An encrypted Secret opens with the cluster's age key, the block of SOPS is gone, texts become data."""
    sealed = manifest(encrypt_yaml(SECRET, AGE), sops=True)
    opened = await bench.open(sealed)
    assert opened["data"] == {"password": encode("hunter2")}
    assert "sops" not in opened
    assert (await bench.fail(sealed, "prod-1")).reason == "NotARecipient"


async def test_sops_object_of_several(bench: Bench) -> None:
    """An object keeps the namespace that rendering gave it, in place of one that the file leaves out."""
    plain = {**SECRET, "metadata": {"name": "db"}}
    opened = await bench.open(manifest(encrypt_yaml(plain, AGE), sops=True, namespace="team"))
    assert opened["metadata"] == {"name": "db", "namespace": "team"}


async def test_a_changed_sops_file_is_refused(bench: Bench) -> None:
    """The MAC covers what is not encrypted, too."""
    text = encrypt_yaml({**SECRET, "type": "Opaque"}, AGE)
    error = await bench.fail(manifest(text.replace("type: Opaque", "type: other"), sops=True))
    assert error.reason == "Corrupt"


async def test_other_keys_than_age_are_refused_by_name(bench: Bench) -> None:
    """A file for PGP alone says so, with its name and the way out."""
    value = yaml.safe_load(encrypt_yaml(SECRET, AGE))
    value["sops"]["pgp"] = [{"fp": "ABC", "enc": "x"}]
    del value["sops"]["age"]
    error = await bench.fail(manifest(yaml.safe_dump(value, sort_keys=False), sops=True))
    assert error.reason == "Unsupported"
    assert str(error).startswith("app/x.yaml:1: encrypted with PGP; ")


async def test_sops_entries_of_a_secret(bench: Bench) -> None:
    """Entries that are encrypted files are opened by the format of their names; others stay."""
    entries = {
        "conf.yaml": encrypt_yaml({"data": {"a": "1"}}, AGE),
        "prod.env": encrypt_env({"TOKEN": "s3cret"}, AGE),
        "blob": encrypt_binary(b"hello", AGE),
        "plain": "as it is",
    }
    body = {**SECRET, "data": {name: encode(text) for name, text in entries.items()}}
    del body["stringData"]
    opened = await bench.open(manifest(body, sops=True))
    found = {name: base64.b64decode(value).decode() for name, value in opened["data"].items()}
    assert yaml.safe_load(found["conf.yaml"]) == {"data": {"a": "1"}}
    assert found["prod.env"].strip() == "TOKEN=s3cret"
    assert (found["blob"], found["plain"]) == ("hello", "as it is")


async def test_a_source_that_does_not_open_is_named(bench: Bench) -> None:
    """The message of a build's source begins with its file."""
    with pytest.raises(SealError, match=r"^app/secret\.env: ") as caught:
        await bench.unsealer.open_file("prod-1", "app/secret.env", encrypt_env({"A": "1"}, AGE).encode())
    assert caught.value.reason == "NotARecipient"


async def test_a_bug_tells_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever breaks while values are open is one object's failure, and no value is in its text or in the log."""

    def broken(*_: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr("fleet.secrets.native.open_sealed", broken)
    error = await bench.fail(manifest(native_body({"password": "hunter2"}, DEV)))
    assert error.reason == "Corrupt"
    assert "hunter2" not in str(error)
    said = capsys.readouterr()
    assert "RuntimeError in test_unseal.py" in said.out + said.err
    assert "hunter2" not in said.out + said.err


async def test_a_large_document_is_opened_off_the_loop(bench: Bench) -> None:
    """Hundreds of items do not hold up everything else."""
    items = {f"item-{number}": "x" * 40 for number in range(400)}
    sealed = manifest(native_body(items, DEV))
    assert len(sealed.body) > AT_ONCE_BYTES
    assert len((await bench.open(sealed))["data"]) == 400


async def test_uses_name_the_keys(bench: Bench) -> None:
    """Which item needs which key is known without opening, but for Bitnami's, which opening tells."""
    native = manifest(native_body({"a": "1", "b": "2"}, DEV, PROD))
    kid = DEV.public.kid
    assert list(list_uses(native, "dev-1", bench.keyring, {})) == [("a", kid), ("b", kid)]
    bench.keyring.drop(DEV)
    assert [k for _, k in list_uses(native, "dev-1", bench.keyring, {})] == [kid, kid]
    bench.keyring.add(DEV)
    sops = manifest(encrypt_yaml(SECRET, AGE), sops=True)
    assert list(list_uses(sops, "dev-1", bench.keyring, {})) == [("*", kid)]
    bench.keyring.set_state(DEV, KeyState.COMPROMISED)
    assert list(list_uses(sops, "dev-1", bench.keyring, {})) == [("*", kid)]
    bench.keyring.add(DEV)
    bitnami = manifest(bitnami_body({"a": "1"}))
    await bench.unsealer.weigh(bitnami, "dev-1")
    learnt = bench.unsealer.kids["dev-1", bitnami.digest]
    assert list(list_uses(bitnami, "dev-1", bench.keyring, learnt)) == [("a", RSA.public.kid)]


async def test_uses_name_the_keys_of_encrypted_entries(bench: Bench) -> None:
    """An entry of a Secret that is a file of SOPS needs its key, too; entries in the clear need none."""
    data = {"env": encode(encrypt_env({"A": "1"}, AGE)), "plain": encode("x")}
    found = manifest({**SECRET, "stringData": {}, "data": data}, sops=True)
    assert found.seal is Seal.SOPS_ITEMS
    assert list(list_uses(found, "dev-1", bench.keyring, {})) == [("env", DEV.public.kid)]


@pytest.mark.parametrize(
    ("state", "reason"), [(KeyState.RETIRED, "RetiredKey"), (KeyState.COMPROMISED, "CompromisedKey")]
)
async def test_a_file_for_a_key_that_is_closed_says_so(bench: Bench, state: KeyState, reason: str) -> None:
    """Whoever reads it shall change the value, or bring the key back, and not add a recipient."""
    bench.keyring.set_state(DEV, state)
    error = await bench.fail(manifest(encrypt_yaml(SECRET, AGE), sops=True))
    assert error.reason == reason
    with pytest.raises(SealError) as caught:
        await bench.unsealer.open_file("dev-1", "app/secret.env", encrypt_env({"A": "1"}, AGE).encode())
    assert caught.value.reason == reason
