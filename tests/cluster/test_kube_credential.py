"""Ways to be known by a real API server."""

import asyncio
from pathlib import Path

import pytest

from fleet.errors import ConfigError, Forbidden, Unauthorized, Unreachable
from fleet.kube.credential import Direct, Impersonation, KubeconfigInline, load_credential
from fleet.kube.gate import Priority
from fleet.object import GroupKind
from fleet.sim.real import ControlPlane
from tests.cluster.connection import admin_credential, connect

USER = Priority.USER


def direct(plane: ControlPlane, **options: object) -> Direct:
    """A connection named field by field."""
    return Direct(**{"server": plane.url, "ca": plane.ca_pem.decode(), **options})  # type: ignore[arg-type]


async def test_token_file_is_read_again_after_a_refusal(plane: ControlPlane, tmp_path: Path) -> None:
    """A rotated token is picked up at the first 401, without a failed call."""
    token = tmp_path / "token"
    token.write_text(plane.admin_token + "\n")
    credential = await load_credential(direct(plane, token_file=str(token)))
    async with connect(plane, credential) as c:
        assert await c.api.server_version()
        token.write_text("a-token-nobody-knows")
        credential.token._value = "Bearer a-token-of-yesterday"  # type: ignore[union-attr]
        with pytest.raises(Unauthorized):
            await c.api.namespace_uid("default")
        token.write_text(plane.admin_token)
        assert await c.api.namespace_uid("default")


async def test_client_certificate_by_files(plane: ControlPlane, tmp_path: Path) -> None:
    """Certificate, key and CA may be files, relative to the file that names them."""
    (tmp_path / "ca.pem").write_bytes(plane.ca_pem)
    (tmp_path / "admin.pem").write_bytes(plane.client_cert_pem)
    (tmp_path / "admin.key").write_bytes(plane.client_key_pem)
    document = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": plane.url, "certificate-authority": "ca.pem"}}],
        "users": [{"name": "u", "user": {"client-certificate": "admin.pem", "client-key": "admin.key"}}],
    }
    credential = await load_credential(KubeconfigInline(document=document, directory=tmp_path))
    async with connect(plane, credential) as c:
        assert await c.api.namespace_uid("kube-system")


async def test_impersonation(plane: ControlPlane, namespace: str) -> None:
    """Acting as a service account has that account's rights, by credential or by call."""
    account = Impersonation.of_service_account(f"{namespace}:deployer")
    async with connect(plane, await admin_credential(plane, impersonate=account)) as c:
        with pytest.raises(Forbidden) as refused:
            await c.api.list_metadata(GroupKind("", "ConfigMap"), namespace, priority=USER)
        assert f"system:serviceaccount:{namespace}:deployer" in refused.value.message
    await plane.kubectl(
        "-n", namespace, "create", "rolebinding", "view", "--clusterrole=view", f"--serviceaccount={namespace}:deployer"
    )
    async with connect(plane) as c:
        acting = c.api.acting_as(account)
        async with asyncio.timeout(30):
            while not await acting.can_i("list", "", "configmaps", namespace):
                await asyncio.sleep(0.05)
        assert await acting.list_metadata(GroupKind("", "ConfigMap"), namespace, priority=USER)
        assert not await acting.can_i("create", "", "configmaps", namespace)


async def test_groups(plane: ControlPlane, namespace: str) -> None:
    """Impersonated groups arrive, every one of them."""
    somebody = Impersonation(user="somebody", groups=("a", "system:masters"))
    async with connect(plane, await admin_credential(plane, impersonate=somebody)) as c:
        assert await c.api.can_i("delete", "", "nodes", "")


async def test_server_name_and_unknown_authority(plane: ControlPlane) -> None:
    """A certificate for another name and one of an unknown authority are refused with what to do about it."""
    other = plane.url.replace("127.0.0.1", "localhost")
    wrong_name = await load_credential(direct(plane, tls_server_name="elsewhere.example.com"))
    with pytest.raises(Unreachable) as name:
        async with connect(plane, wrong_name):
            pass
    assert name.value.reason == "CertificateNameMismatch"
    unknown = await load_credential(Direct(server=plane.url))
    with pytest.raises(Unreachable) as authority:
        async with connect(plane, unknown):
            pass
    assert authority.value.reason == "CertificateUnknown"
    named = await load_credential(direct(plane, server=other, tls_server_name="127.0.0.1"))
    with pytest.raises((Forbidden, Unauthorized)):
        async with connect(plane, named) as c:
            await c.api.namespace_uid("default")


async def test_insecure_is_refused(plane: ControlPlane) -> None:
    """Skipping verification must be asked for twice."""
    source = direct(plane, insecure_skip_tls_verify=True)
    with pytest.raises(ConfigError) as refused:
        await load_credential(source)
    assert "insecure-skip-tls-verify" in refused.value.message
    assert not (await load_credential(source, allow_insecure=True)).verify


async def test_proxy(plane: ControlPlane) -> None:
    """Requests and watches go through the proxy that the credential names, end to end encrypted."""
    tunnels: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split()[1].decode()
        tunnels.append(target)
        host, _, port = target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    (plane.root / "proxy-token").write_text(plane.admin_token)
    credential = await load_credential(
        direct(plane, proxy_url=f"http://127.0.0.1:{port}", token_file=str(plane.root / "proxy-token"))
    )
    async with connect(plane, credential) as c:
        assert await c.api.namespace_uid("default")
    assert set(tunnels) == {plane.url.removeprefix("https://")}
    server.close()
    await server.wait_closed()


async def test_closed_proxy(plane: ControlPlane) -> None:
    """A proxy that is not there is blamed, not the cluster."""
    credential = await load_credential(direct(plane, proxy_url="http://127.0.0.1:1"))
    with pytest.raises(Unreachable) as error:
        async with connect(plane, credential):
            pass
    assert error.value.reason == "ProxyFailed"
