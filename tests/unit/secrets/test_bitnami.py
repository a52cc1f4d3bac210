"""Bitnami SealedSecrets: opened in the scope they were sealed in, without ever executing a template."""

import base64
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import SealError
from fleet.secrets import bitnami
from fleet.secrets.bitnami import CLUSTER_WIDE, NAMESPACE_WIDE, make_label, seal_value
from fleet.secrets.opened import Opened, Scope
from tests.harness.seal import Ring, make_rsa, make_rsa_key

KEY, OLD = make_rsa(), make_rsa(number=2)
RING = Ring(make_rsa_key(KEY, number=2), make_rsa_key(OLD, number=1))
HOME = Scope("prod-eu-1", "production", "shop", "db")
ANNOTATIONS: dict[str, dict[str, str]] = {
    "strict": {},
    "namespace-wide": {NAMESPACE_WIDE: "true"},
    "cluster-wide": {CLUSTER_WIDE: "true"},
}


def document(scope: str = "strict", *, said: str = "", key: Any = KEY, **template: Any) -> dict[str, Any]:
    """Return a document sealed in `scope` whose annotations say `said` (or the same)."""
    label = make_label(scope, "shop", "db")
    return {
        "apiVersion": "bitnami.com/v1alpha1",
        "kind": "SealedSecret",
        "metadata": {
            "name": "db",
            "namespace": "shop",
            "annotations": ANNOTATIONS[said or scope],
            "creationTimestamp": None,
        },
        "spec": {
            "encryptedData": {
                item: seal_value(value, key.public_key(), label)
                for item, value in {"user": b"shop", "empty": b"", "raw": bytes(range(256))}.items()
            },
            "template": template,
        },
    }


def open_at(body: dict[str, Any], scope: Scope = HOME, ring: Ring = RING) -> Opened:
    """Parse and open."""
    return bitnami.open_(bitnami.parse(body), scope, ring)


def reason_of(value: bytes) -> str:
    """Return why a single value does not open with keys that were read before."""
    body = {**SHELL, "spec": {"encryptedData": {"raw": base64.b64encode(value).decode()}}}
    with pytest.raises(SealError) as caught:
        bitnami.open_with(bitnami.parse(body), HOME, KEYS)
    return caught.value.reason


def reason_at(body: dict[str, Any], scope: Scope = HOME, ring: Ring = RING) -> str:
    """Return why it does not open; empty when it does."""
    try:
        open_at(body, scope, ring)
    except SealError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("scope", list(ANNOTATIONS))
def test_every_scope_opens_where_it_may(scope: str) -> None:
    """A scope opens in its own place, and elsewhere only as far as it is wide."""
    body = document(scope)
    assert {item: plain.reveal() for item, plain in open_at(body).items.items()} == {
        "user": b"shop",
        "empty": b"",
        "raw": bytes(range(256)),
    }
    elsewhere = {"strict": "ScopeMismatch", "namespace-wide": "", "cluster-wide": ""}[scope]
    assert reason_at(body, HOME._replace(name="other")) == elsewhere
    abroad = {"strict": "ScopeMismatch", "namespace-wide": "ScopeMismatch", "cluster-wide": ""}[scope]
    assert reason_at(body, HOME._replace(namespace="other")) == abroad


@pytest.mark.parametrize("scope", list(ANNOTATIONS))
@pytest.mark.parametrize("said", list(ANNOTATIONS))
def test_annotations_that_disagree_are_named(scope: str, said: str) -> None:
    """A value in a document whose annotations name another scope is refused with both scopes."""
    if scope == said:
        return
    with pytest.raises(SealError, match=f"sealed {scope}, the document's annotations say {said}") as caught:
        open_at(document(scope, said=said))
    assert caught.value.reason == "ScopeMismatch"


def test_the_widest_annotation_wins() -> None:
    """With both annotations a document is cluster-wide, as for the controller."""
    body = document("cluster-wide")
    body["metadata"]["annotations"] = {CLUSTER_WIDE: "true", NAMESPACE_WIDE: "true"}
    assert reason_at(body) == ""
    body["metadata"]["annotations"] = {CLUSTER_WIDE: "True", NAMESPACE_WIDE: "yes"}
    assert bitnami.parse(body).scope == "strict"


def test_older_keys_are_tried_too() -> None:
    """What an earlier key sealed opens, and the key that did is told."""
    opened = open_at(document(key=OLD))
    assert set(opened.kids.values()) == {RING.keys[1].public.kid}


def test_an_unknown_key_is_told_from_a_wrong_scope() -> None:
    """A document for another key, and a cluster without any, are UnknownKey."""
    assert reason_at(document(key=make_rsa(number=3))) == "UnknownKey"
    with pytest.raises(SealError, match="fleet keys import") as caught:
        open_at(document(), ring=Ring())
    assert caught.value.reason == "UnknownKey"


def test_the_template_shapes_the_secret() -> None:
    """Type, labels, annotations, immutable and literal items are taken over; an item of the template wins."""
    opened = open_at(
        document(
            type="kubernetes.io/basic-auth",
            immutable=True,
            metadata={"labels": {"a": "b"}, "annotations": {bitnami.MANAGED: "true"}, "name": "ignored"},
            data={"config": "level: info", "user": "other"},
        )
    )
    assert (opened.type, opened.immutable) == ("kubernetes.io/basic-auth", True)
    assert (opened.labels, opened.annotations) == ({"a": "b"}, {bitnami.MANAGED: "true"})
    assert opened.items["config"].reveal() == b"level: info"
    assert opened.items["user"].reveal() == b"other"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"template": {"data": {"x": "{{ .user }}"}}}, "never does"),
        ({"data": "AgB"}, "form before 0.9"),
        ({"template": {"metadata": {"finalizers": ["a/b"]}}}, "finalizers"),
    ],
)
def test_what_fleet_does_not_do_is_unsupported(change: dict[str, Any], said: str) -> None:
    """Templates are never executed, the old form is not read, finalizers are not set: each is refused by name."""
    body = document()
    body["spec"] |= change
    with pytest.raises(SealError, match=said) as caught:
        bitnami.parse(body)
    assert caught.value.reason == "Unsupported"


SHELL = document()
KEYS = bitnami.load_keys(RING, "prod-eu-1")
SEALED = base64.b64decode(document()["spec"]["encryptedData"]["raw"])
LABEL = make_label("strict", "shop", "db")


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused(at: float, bit: int) -> None:
    """Every byte is covered. In the wrapped key damage looks like another key, which is all that can be told."""
    place = int(len(SEALED) * at)
    changed = SEALED[:place] + bytes([SEALED[place] ^ 1 << bit]) + SEALED[place + 1 :]
    assert reason_of(changed) in (("Corrupt", "UnknownKey") if place < 258 else ("Corrupt",))


@given(cut=st.integers(1, 600))
def test_a_cut_value_is_refused(cut: int) -> None:
    """Values that end early are Corrupt, however early."""
    assert reason_of(SEALED[:-cut]) == "Corrupt"


@given(data=st.binary(max_size=400))
def test_an_invented_block_is_no_oracle(data: bytes) -> None:
    """Bytes that nobody sealed for the key are never called a wrong scope: that answer would help to break others."""
    value = b"\x01\x00" + data.rjust(256, b"\0")[:256] + bytes(16)
    assert reason_of(value) == "UnknownKey"


@given(
    field=st.sampled_from(["metadata", "spec"]),
    junk=st.none() | st.text() | st.lists(st.integers()) | st.just({"a": 1}),
)
def test_only_seal_errors_come_out_of_the_parser(field: str, junk: object) -> None:
    """Whatever stands where a mapping must be, the answer is a SealError."""
    body = document()
    for holder, name in ((body, field), (body["spec"], "encryptedData"), (body["spec"], "template")):
        held = holder[name]
        holder[name] = junk
        with contextlib.suppress(SealError):
            bitnami.parse(body)
        holder[name] = held


@given(data=st.binary(max_size=100))
def test_bytes_that_are_no_document_are_refused(data: bytes) -> None:
    """Arbitrary bytes are a SealError."""
    with pytest.raises(SealError):
        bitnami.parse(data)
