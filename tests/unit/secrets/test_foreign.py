"""Keys in the forms that they travel in."""

import base64
import contextlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import SealError
from fleet.secrets.age import format_identity
from fleet.secrets.birth import Birth, adopt_key
from fleet.secrets.certificate import RsaKey, make_rsa, write_pem
from fleet.secrets.foreign import parse_keys
from fleet.secrets.key import Algorithm
from fleet.secrets.master import MasterKey

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def rsa() -> RsaKey:
    """A key pair as a controller has it."""
    return make_rsa("dev-1", NOW)


def key_secret(rsa: RsaKey, label: str = "active") -> dict[str, object]:
    """A key Secret as kubectl dumps it."""
    encode = base64.b64encode
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": "sealed-secrets-keyabc",
            "namespace": "kube-system",
            "labels": {"sealedsecrets.bitnami.com/sealed-secrets-key": label},
        },
        "data": {
            "tls.crt": encode(rsa.certificate).decode(),
            "tls.key": encode(write_pem(rsa.secret)).decode(),
        },
    }


@pytest.mark.parametrize("form", ["one", "list", "yaml"])
def test_key_secrets_as_kubectl_dumps_them(form: str, rsa: RsaKey) -> None:
    """One Secret, a v1.List or several documents, JSON or YAML; the certificate is kept."""
    secret = key_secret(rsa)
    text = {
        "one": json.dumps(secret),
        "list": json.dumps({"apiVersion": "v1", "kind": "List", "items": [secret, {"kind": "ConfigMap"}]}),
        "yaml": f"---\nkind: ConfigMap\n---\n{json.dumps(secret)}\n",
    }[form]
    [key] = parse_keys(text.encode(), "dump")
    birth = Birth(cluster="dev-1", uid="u", now=NOW, renew_after=NOW - NOW)
    row = adopt_key(birth, key, MasterKey(bytes(32)))
    assert (row.kid, row.public, row.state) == (rsa.kid, rsa.certificate, "retiring")
    assert "kube-system/sealed-secrets-keyabc" in row.reason


def test_a_key_that_its_controller_calls_compromised(rsa: RsaKey) -> None:
    """It comes in as what it is, and opens nothing."""
    [key] = parse_keys(json.dumps(key_secret(rsa, "compromised")).encode(), "dump")
    birth = Birth(cluster="dev-1", uid="u", now=NOW, renew_after=NOW - NOW)
    assert adopt_key(birth, key, MasterKey(bytes(32))).state == "compromised"


def test_pem_with_and_without_a_certificate(rsa: RsaKey) -> None:
    """A certificate of another key is not taken for this one's."""
    pem = write_pem(rsa.secret)
    birth = Birth(cluster="dev-1", uid="u", now=NOW, renew_after=NOW - NOW)
    [plain] = parse_keys(pem, "key.pem")
    assert adopt_key(birth, plain, MasterKey(bytes(32))).kid == rsa.kid
    other = make_rsa("dev-2", NOW)
    [mixed] = parse_keys(pem + other.certificate, "key.pem")
    assert adopt_key(birth, mixed, MasterKey(bytes(32))).public != other.certificate


def test_age_identities(rsa: RsaKey) -> None:
    """A file of age-keygen, and the Secret that Flux keeps one in."""
    text = f"# created: today\n{format_identity(bytes(32))}\n".encode()
    [key] = parse_keys(text, "key.agekey")
    assert (key.algorithm, key.secret) == (Algorithm.AGE, bytes(32))
    secret = {"kind": "Secret", "data": {"a.agekey": base64.b64encode(text).decode(), "note": ""}}
    assert [k.secret for k in parse_keys(json.dumps(secret).encode(), "flux.json")] == [bytes(32)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"{",
        b"kind: Secret\ndata: {tls.crt: aGk=}",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"kind: FleetKeys\nkeys: [{algorithm: rot13}]",
        b"kind: Secret\ndata: {tls.key: '***canary***'}",
    ],
)
def test_what_holds_no_key_says_what_can_be_read(content: bytes) -> None:
    """And shows nothing of what it read."""
    with pytest.raises(SealError) as caught:
        parse_keys(content, "file")
    assert caught.value.reason == "Unsupported"
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("pem", [b"-----BEGIN RSA PRIVATE KEY-----\nY2FuYXJ5\n-----END RSA PRIVATE KEY-----\n"])
def test_a_broken_key_is_refused_without_showing_it(pem: bytes) -> None:
    """Neither the bytes nor the library's message are passed on."""
    [key] = parse_keys(pem, "file")
    birth = Birth(cluster="dev-1", uid="u", now=NOW, renew_after=NOW - NOW)
    with pytest.raises(SealError) as caught:
        adopt_key(birth, key, MasterKey(bytes(32)))
    assert "Y2FuYXJ5" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(content: bytes) -> None:
    """Whatever a file holds, the answer is keys or a SealError."""
    with contextlib.suppress(SealError):
        assert parse_keys(content, "file")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["Secret", "FleetKeys", "List"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "items", "keys", "metadata", "labels", "data", "tls.key"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_no_document_breaks_the_parser(document: object) -> None:
    """Nor does a value of the wrong type anywhere in it."""
    with contextlib.suppress(SealError):
        assert parse_keys(json.dumps(document).encode(), "file")
