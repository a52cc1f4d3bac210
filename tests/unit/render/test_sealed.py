"""Sealed documents as rendering sees them: never opened, and known by what they open to."""

import base64

import msgspec
import pytest

from fleet.errors import RenderError
from fleet.object import Adopt, Apply, ObjectKey, Seal
from tests.unit.render.files import render

KEY = ObjectKey("", "Secret", "shop", "db")
NATIVE = """\
apiVersion: fleet/v1
kind: SealedSecret
metadata: {name: db, namespace: shop}
spec: {values: {password: "fs1:a:b:c"}}
"""
BITNAMI = """\
apiVersion: bitnami.com/v1alpha1
kind: SealedSecret
metadata:
  name: db
  namespace: shop
  annotations: {fleet/prune: disabled}
spec:
  encryptedData: {password: AgBy}
  template:
    metadata: {annotations: {sealedsecrets.bitnami.com/patch: "true"}}
"""
PLAIN = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\n"
SOPS = """\
apiVersion: v1
kind: Secret
metadata: {name: db, namespace: shop}
data: {password: "ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]"}
sops: {mac: "ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]", version: 3.9.0}
"""


@pytest.mark.parametrize(("text", "seal"), [(NATIVE, Seal.NATIVE), (BITNAMI, Seal.BITNAMI)])
def test_a_sealed_secret_goes_by_the_key_of_its_secret(text: str, seal: Seal) -> None:
    """Identity is that of the Secret, the body is what stands in Git, and nothing of it is a secret."""
    (manifest,) = render({"app/x.yaml": text})
    assert (manifest.key, manifest.version, manifest.seal) == (KEY, "v1", seal)
    assert msgspec.json.decode(manifest.body)["kind"] == "SealedSecret"
    assert not manifest.sensitive


def test_a_namespace_is_given_as_to_a_secret() -> None:
    """A document that names no namespace gets the App's, also in what is opened."""
    (manifest,) = render({"app/x.yaml": NATIVE.replace(", namespace: shop", "")}, namespace="team")
    assert manifest.key.namespace == "team"
    assert msgspec.json.decode(manifest.body)["metadata"]["namespace"] == "team"


def test_a_secret_and_its_sealed_form_are_the_same_object() -> None:
    """Two documents for one Secret are refused, both named."""
    with pytest.raises(RenderError, match=r"rendered twice; the first is in app/a\.yaml"):
        render({"app/a.yaml": NATIVE, "app/b.yaml": PLAIN})


def test_annotations_of_the_template_count() -> None:
    """What the Secret will carry is heeded like what the document carries; Bitnami's words are understood."""
    (manifest,) = render({"app/x.yaml": BITNAMI})
    assert not manifest.flags.prune
    assert manifest.flags.apply is Apply.MERGE
    assert manifest.flags.adopt is Adopt.ALWAYS


def test_annotations_of_fleets_own_template_count() -> None:
    """It has them without a `metadata` around."""
    (manifest,) = render(
        {"app/x.yaml": NATIVE.replace("spec: {", "spec: {template: {annotations: {fleet/force: enabled}}, ")}
    )
    assert manifest.flags.force


def test_passthrough_leaves_bitnami_documents_alone() -> None:
    """With a controller in the cluster the document itself is the object; fleet's own kind is opened all the same."""
    native, bitnami = render(
        {"app/x.yaml": BITNAMI, "app/y.yaml": NATIVE.replace("name: db", "name: other")}, passthrough=True
    )
    assert (bitnami.key.group, bitnami.key.kind, bitnami.seal) == ("bitnami.com", "SealedSecret", Seal.NONE)
    assert native.seal is Seal.NATIVE


def test_sops_is_refused_unless_the_app_asks() -> None:
    """A file encrypted with SOPS is not applied as it is: the message says what to write."""
    with pytest.raises(RenderError, match=r"app/x\.yaml:5:.*decryption: \{provider: sops\}"):
        render({"app/x.yaml": SOPS})


def test_sops_objects_carry_their_whole_file() -> None:
    """The MAC is over the file, so the file goes with each object in it, with the object's number."""
    other = SOPS.replace("name: db", "name: other")
    first, second = render({"app/x.yaml": f"{SOPS}---\n{other}"}, sops=True)
    assert (first.key, first.seal) == (KEY, Seal.SOPS)
    bodies = [msgspec.json.decode(manifest.body)["sops"] for manifest in (first, second)]
    assert [body["document"] for body in bodies] == [0, 1]
    assert {body["file"] for body in bodies} == {f"{SOPS}---\n{other}"}


def test_a_file_encrypted_as_a_whole_is_refused() -> None:
    """Without its name an object cannot be planned; the message says how to encrypt."""
    text = SOPS.replace("name: db", 'name: "ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]"')
    with pytest.raises(RenderError, match=r"app/x\.yaml:3:.*encrypted-regex"):
        render({"app/x.yaml": text}, sops=True)


@pytest.mark.parametrize("name", ["fleet/decrypt", "kustomize.toolkit.fluxcd.io/decrypt"])
def test_an_object_may_ask_to_stay_encrypted(name: str) -> None:
    """What another controller opens is applied as it is."""
    text = SOPS.replace("v1\nkind: Secret", "isindir.github.com/v1alpha3\nkind: SopsSecret")
    (manifest,) = render({"app/x.yaml": text.replace("shop}", f"shop, annotations: {{{name}: Disabled}}}}")}, sops=True)
    assert manifest.seal is Seal.NONE
    assert "ENC[AES256_GCM" in manifest.body.decode()


def test_sops_files_among_a_secrets_data_are_noticed() -> None:
    """A Secret that holds a file encrypted with SOPS is opened too, and its bytes count as secret."""
    value = base64.b64encode(SOPS.encode()).decode()
    (manifest,) = render({"app/x.yaml": f"{PLAIN}data: {{conf: {value}, a: YQ==}}\n"}, sops=True)
    assert manifest.seal is Seal.SOPS_ITEMS
    assert manifest.sensitive
    (manifest,) = render({"app/x.yaml": f"{PLAIN}data: {{conf: {value}}}\n"})
    assert manifest.seal is Seal.NONE
