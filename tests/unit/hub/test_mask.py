"""What of a manifest people never see."""

from dataclasses import replace
from typing import Any

import msgspec

from fleet.hub.mask import hidden_of, mask_body
from fleet.object import Manifest, Origin
from fleet.render.normalize import make_manifest
from fleet.render.sealed import Sealing


def manifest(kind: str = "Secret", api_version: str = "v1", **more: Any) -> Manifest:
    """Make a manifest as rendering does."""
    body = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "labels": {"a": "b"}}, **more}
    return make_manifest(
        body, namespace="", scopes={}, digest_key=b"k", origin=Origin("x.yaml", 1), sealing=Sealing(sops=True)
    )


def shown(m: Manifest) -> str:
    """Return what a rendering shows."""
    return str(mask_body(m, msgspec.json.decode(m.body)))


def test_a_secret_shows_its_items_and_no_value() -> None:
    """Names of items are seen; so is everything beside them."""
    text = shown(manifest(data={"password": "c2VjcmV0"}, type="Opaque"))
    assert "password" in text
    assert "Opaque" in text
    assert "c2VjcmV0" not in text


def test_any_object_of_a_build_with_opened_values_shows_its_name_only() -> None:
    """A value may stand anywhere in it, annotations included."""
    opened = replace(manifest("ConfigMap", data={"k": "s3cret"}), sensitive=True)
    assert "s3cret" not in shown(opened)
    hidden = hidden_of(opened)
    assert [hidden(p) for p in (".data.k", ".metadata.annotations.x", ".metadata", ".metadata.name")] == [
        True,
        True,
        True,
        False,
    ]
    assert "s3cret" in shown(manifest("ConfigMap", data={"k": "s3cret"}))


def test_sealed_documents_stay_as_they_are_in_git() -> None:
    """Ciphertext is shown; what a template gives in the clear, and the file behind an encrypted object, are not."""
    template = {"data": {"user": "lovelace"}, "type": "Opaque"}
    spec = {"encryptedData": {"password": "AgBy"}, "template": template}
    text = shown(manifest("SealedSecret", "bitnami.com/v1alpha1", spec=spec))
    assert "AgBy" in text
    assert "lovelace" not in text
    assert "whole file" not in shown(manifest(sops={"file": "the whole file", "document": 0}))


def test_a_secrets_differences_are_masked() -> None:
    """Values, and the copy of them that kubectl leaves in an annotation."""
    hidden = hidden_of(manifest())
    last = ".metadata.annotations.kubectl.kubernetes.io/last-applied-configuration"
    assert [hidden(path) for path in (".data.a", ".stringData.a", last, ".type")] == [True, True, True, False]
