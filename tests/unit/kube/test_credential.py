"""Kubeconfigs and their like -> credentials, with errors that name file and field."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.errors import ConfigError
from fleet.kube.credential import (
    Credential,
    Direct,
    FileToken,
    Impersonation,
    InCluster,
    KubeconfigFile,
    KubeconfigInline,
    StaticToken,
    load_credential,
)


def b64(text: str) -> str:
    """Encode as kubeconfigs do."""
    return base64.b64encode(text.encode()).decode()


def kubeconfig(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write a kubeconfig with two contexts, `a` being current."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "contexts": [
            {"name": "a", "context": {"cluster": "one", "user": "admin"}},
            {"name": "b", "context": {"cluster": "two", "user": "admin"}},
        ],
        "clusters": [
            {"name": "one", "cluster": {"server": "https://one.example:6443", **(cluster or {})}},
            {"name": "two", "cluster": {"server": "https://two.example"}},
        ],
        "users": [{"name": "admin", "user": user or {}}],
    }


def inline(document: dict[str, Any], directory: Path = Path(), **options: Any) -> KubeconfigInline:
    """Name it as a cluster file would."""
    return KubeconfigInline(document=document, directory=directory, origin="clusters.d/one.yaml", **options)


async def test_inline_data() -> None:
    """Certificates, keys and tokens inline are decoded; nothing of them is shown."""
    document = kubeconfig(
        {
            "certificate-authority-data": b64("CA"),
            "tls-server-name": "kubernetes",
            "proxy-url": "http://user:hunter2@proxy:3128",
        },
        {"client-certificate-data": b64("CERT"), "client-key-data": b64("KEY"), "token": "sesame"},
    )
    c = await load_credential(inline(document))
    assert (c.server, c.ca, c.certificate, c.key) == ("https://one.example:6443", b"CA", b"CERT", b"KEY")
    assert c.token == StaticToken("Bearer sesame")
    assert (c.tls_server_name, c.proxy_url) == ("kubernetes", "http://user:hunter2@proxy:3128")
    assert not any(secret in repr(c) for secret in ("sesame", "hunter2", "KEY", "CERT"))


async def test_no_key_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would leave keys in temporary files; it is never given any."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    user = {"client-certificate-data": b64("CERT"), "client-key-data": b64("KEY")}
    await load_credential(inline(kubeconfig({"certificate-authority-data": b64("CA")}, user)))
    assert list(tmp_path.iterdir()) == []


async def test_file_with_relative_paths(tmp_path: Path) -> None:
    """Paths in a kubeconfig are relative to it; a context may be chosen."""
    (tmp_path / "pki").mkdir()
    for name in ("ca", "cert", "key"):
        (tmp_path / "pki" / name).write_text(name)
    (tmp_path / "pki" / "token").write_text("sesame\n")
    user = {"client-certificate": "pki/cert", "client-key": "pki/key", "tokenFile": "pki/token", "token": "old"}
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(kubeconfig({"certificate-authority": "pki/ca"}, user)))
    c = await load_credential(KubeconfigFile(path=path))
    assert (c.ca, c.certificate, c.key) == (b"ca", b"cert", b"key")
    assert isinstance(c.token, FileToken)
    assert await c.token.authorization() == "Bearer sesame"
    other = await load_credential(KubeconfigFile(path=path, context="b"))
    assert (other.server, other.ca) == ("https://two.example", b"")


async def test_fingerprint_follows_what_needs_new_connections() -> None:
    """Equal credentials have equal fingerprints; a changed key, server or identity has another."""
    first = await load_credential(inline(kubeconfig(user={"token": "a"})))
    again = await load_credential(inline(kubeconfig(user={"token": "a"})))
    other = await load_credential(inline(kubeconfig(user={"token": "b"})))
    acting = await load_credential(inline(kubeconfig(user={"token": "a"})), impersonate=Impersonation(user="x"))
    assert first.fingerprint == again.fingerprint
    assert len({first.fingerprint, other.fingerprint, acting.fingerprint}) == 3


async def test_impersonation_in_the_kubeconfig() -> None:
    """`as` and `as-groups` count, and yield to what the inventory says."""
    document = kubeconfig(user={"token": "t", "as": "ann", "as-groups": ["x", "y"]})
    c = await load_credential(inline(document))
    assert c.impersonation == Impersonation(user="ann", groups=("x", "y"))
    assert c.impersonation.headers == (
        ("Impersonate-User", "ann"),
        ("Impersonate-Group", "x"),
        ("Impersonate-Group", "y"),
    )
    chosen = await load_credential(inline(document), impersonate=Impersonation.of_service_account("shop:deployer"))
    assert chosen.impersonation == Impersonation(user="system:serviceaccount:shop:deployer")


async def test_basic_authentication() -> None:
    """User and password, which some proxies in front of API servers want, are kept as they are."""
    c = await load_credential(inline(kubeconfig(user={"username": "u", "password": "p"})))
    assert c.token == StaticToken(f"Basic {b64('u:p')}")


async def test_plain_http_needs_no_verification() -> None:
    """Where there is no TLS, skipping its verification means nothing."""
    document = kubeconfig({"server": "http://127.0.0.1:8001/", "insecure-skip-tls-verify": True})
    assert (await load_credential(inline(document))).server == "http://127.0.0.1:8001"


def test_secrets_are_not_shown() -> None:
    """Printing a way to authenticate shows none of it."""
    held = [
        StaticToken("Bearer hunter2"),
        Credential(server="https://x", key=b"hunter2", proxy_url="http://a:hunter2@b"),
    ]
    assert "hunter2" not in repr(held)


@pytest.mark.parametrize("name", ["certificate-authority", "client-certificate", "client-key", "tokenFile"])
async def test_empty_files_are_faults(tmp_path: Path, name: str) -> None:
    """An empty file, perhaps half written, is never read as "none": no authority would mean the machine's."""
    (tmp_path / "empty").write_text(" \n")
    cluster = {name: "empty"} if name == "certificate-authority" else {}
    user = {} if cluster else {name: "empty", **({"client-key-data": b64("k")} if name == "client-certificate" else {})}
    with pytest.raises(ConfigError) as fault:
        await load_credential(inline(kubeconfig(cluster, user), tmp_path))
    assert f"{name}: {tmp_path / 'empty'} is empty" in fault.value.message


BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"server": "ftp://x"}, {}, "server: 'ftp://x' is not an http(s) URL"),
    ({"server": ""}, {}, "clusters[one].cluster.server: not set"),
    ({"server": "https://"}, {}, "server: 'https:' is not an http(s) URL"),
    ({"server": "https://[::1"}, {}, "server: 'https://[::1' is not an http(s) URL"),
    ({"server": "https://one:99999"}, {}, "server: 'https://one:99999' is not an http(s) URL"),
    ({"server": "https://one:https"}, {}, "server: 'https://one:https' is not an http(s) URL"),
    ({"server": "https://me:hunter2@one"}, {}, "server: credentials do not belong into the URL"),
    ({"server": "https://me:hunter2@[x"}, {}, "is not an http(s) URL"),
    ({"proxy-url": "http://me:hunter2@[x"}, {}, "proxy-url: it is not a URL"),
    ({"proxy-url": "socks5://x"}, {}, "proxy-url: only http"),
    ({"insecure-skip-tls-verify": True}, {}, "insecure-skip-tls-verify: refused"),
    ({"certificate-authority-data": "%%%"}, {}, "certificate-authority-data: it is not base64"),
    ({"certificate-authority": "absent.pem"}, {}, "certificate-authority: absent.pem cannot be read: No such file"),
    ({}, {"client-certificate-data": b64("c")}, "client-certificate: a client certificate and its key"),
    ({}, {"tokenFile": "absent"}, "users[admin].user.tokenFile: absent cannot be read"),
    ({}, {"exec": {"command": "aws"}}, "users[admin].user.exec: running 'aws'"),
    ({}, {"auth-provider": {"name": "gcp"}}, "users[admin].user.auth-provider: removed"),
    ({}, {"as-groups": ["x"]}, "as-groups: needs `as`"),
    ({}, {"as": "x", "as-user-extra": {"a": ["b"]}}, "as-user-extra: not supported"),
]


@pytest.mark.parametrize(("cluster", "user", "message"), BAD)
async def test_faults_name_file_and_field(cluster: dict[str, Any], user: dict[str, Any], message: str) -> None:
    """Every fault says in which file, at which field, and what to do."""
    with pytest.raises(ConfigError) as fault:
        await load_credential(inline(kubeconfig(cluster, user)))
    assert message in fault.value.message
    assert "hunter2" not in str(fault.value)
    assert fault.value.subject == "clusters.d/one.yaml"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"current-context": ""}, "current-context: not set"),
        ({"current-context": "c"}, "contexts: 'c' is not there; it has: a, b"),
        ({"contexts": None}, "contexts: 'a' is not there; it has: none"),
        ({"clusters": []}, "clusters: 'one' is not there"),
        ({"users": [{"name": "admin"}, {"name": "admin"}]}, "users: 'admin' occurs 2 times"),
        ({"clusters": "nonsense"}, "clusters: 'one' is not there"),
    ],
)
async def test_broken_structure(change: dict[str, Any], message: str) -> None:
    """A kubeconfig whose parts do not fit says which."""
    with pytest.raises(ConfigError) as fault:
        await load_credential(inline({**kubeconfig(), **change}))
    assert message in fault.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "it is not YAML at line 1"),
        ("- a\n- b\n", "it is not a kubeconfig"),
        ("", "it is not a kubeconfig"),
        ("\x00", "it is not YAML"),
    ],
)
async def test_unreadable_files(tmp_path: Path, text: str, message: str) -> None:
    """A file that is no kubeconfig is named with the reason; so is one that is not there."""
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigError) as fault:
        await load_credential(KubeconfigFile(path=path))
    assert message in fault.value.message
    assert fault.value.subject == str(path)
    with pytest.raises(ConfigError) as absent:
        await load_credential(KubeconfigFile(path=tmp_path / "absent"))
    assert "No such file" in absent.value.message


async def test_in_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pod everything comes from the mounted service account; elsewhere the error says so."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError) as outside:
        await load_credential(InCluster(directory=tmp_path))
    assert "does not run in a pod" in outside.value.message
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(ConfigError):
        await load_credential(InCluster(directory=tmp_path))
    (tmp_path / "token").write_text("sesame")
    (tmp_path / "ca.crt").write_text("CA")
    c = await load_credential(InCluster(directory=tmp_path))
    assert (c.server, c.ca) == ("https://[fd00::1]:443", b"CA")
    assert c.token is not None
    assert await c.token.authorization() == "Bearer sesame"


async def test_direct(tmp_path: Path) -> None:
    """A server named field by field; files are relative to the file that names them."""
    (tmp_path / "token").write_text("sesame")
    (tmp_path / "ca").write_text("CA")
    c = await load_credential(
        Direct(server="https://x/k8s/clusters/c-1/", directory=tmp_path, ca_file="ca", token_file="token")
    )
    assert (c.server, c.ca) == ("https://x/k8s/clusters/c-1", b"CA")
    with pytest.raises(ConfigError) as absent:
        await load_credential(Direct(server="https://x", directory=tmp_path, token_file="absent"))
    assert "tokenFile" in absent.value.message


@pytest.mark.parametrize("name", ["", "deployer", "a:", ":b", "a:b:c"])
def test_service_account_names(name: str) -> None:
    """A service account is written namespace:name."""
    with pytest.raises(ConfigError):
        Impersonation.of_service_account(name)
