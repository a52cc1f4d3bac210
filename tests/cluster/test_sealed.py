"""Sealed values on real API servers, sealed by fleet, by unmodified kubeseal and by unmodified sops."""

import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.hub.service import HubService
from fleet.hub.world import open_world
from fleet.secrets import native
from fleet.secrets.age import format_recipient
from fleet.secrets.certificate import RsaKey, make_rsa
from fleet.secrets.document import Template, write_sealed
from fleet.secrets.key import Algorithm, KeyState, PrivateKey
from fleet.sim.real import ControlPlane, find_binaries
from tests.cluster.test_hub import release_leases
from tests.harness.fleet import Fleet, app_document, cluster_document, environment_document, repository_document
from tests.harness.keys import MemoryKeyring, box_key

VALUES = {"password": b"hunter2\n", "blob": bytes(range(256)) * 20, "empty": b""}


class SealedFleet(Fleet):
    """A fleet of two real clusters whose hub has keys."""

    def __init__(self, root: Path, planes: list[ControlPlane]) -> None:
        super().__init__(root)
        self.planes = planes
        self.keys = {plane.name: box_key(plane.name) for plane in planes}
        self.rsa: RsaKey = make_rsa("any", datetime.now(UTC))
        self.keyring = MemoryKeyring(*self.keys.values(), *(self._rsa_key(plane) for plane in planes))

    def _rsa_key(self, plane: ControlPlane) -> PrivateKey:
        public = replace(
            self.keys[plane.name].public, kid=self.rsa.kid, algorithm=Algorithm.RSA, public=self.rsa.certificate
        )
        return PrivateKey(public=public, secret=self.rsa.secret)

    @property
    def targets(self) -> list[tuple[str, str]]:
        """The app on every cluster."""
        return [(plane.name, "shop") for plane in self.planes]

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[HubService]:
        """Run a hub that opens with the keyring."""
        async with open_world(self.settings) as world, self.running(replace(world, keyring=self.keyring)) as hub:
            yield hub

    def seal(self, values: Mapping[str, bytes], namespace: str, *keys: PrivateKey, name: str = "db") -> str:
        """Seal a Secret for these keys, or for all clusters."""
        recipients = [key.public for key in keys or self.keys.values()]
        return write_sealed(native.seal(values, recipients, namespace=namespace, name=name))


@pytest.fixture
async def fleet(tmp_path: Path, planes: list[ControlPlane], namespace: str) -> SealedFleet:
    """Two clusters with the same namespace, and one app on both."""
    await release_leases(planes)
    for other in planes[1:]:
        await other.kubectl("create", "namespace", namespace)
    made = SealedFleet(tmp_path, planes)
    made.declare("fleet.yaml", repository_document(made.repository.path), environment_document())
    made.declare("apps.yaml", app_document("shop", "app", decryption={"provider": "sops"}))
    for plane in planes:
        made.declare(f"{plane.name}.yaml", cluster_document(plane.name, plane.kubeconfig_path))
    return made


async def read(plane: ControlPlane, name: str, namespace: str) -> Mapping[str, bytes] | None:
    """Read a Secret's values with kubectl."""
    out = await plane.kubectl("get", "secret", name, "-n", namespace, "-o", "json", "--ignore-not-found")
    data: dict[str, str] = json.loads(out).get("data", {}) if out.strip() else {}
    return {item: base64.b64decode(value) for item, value in data.items()} if out.strip() else None


def run_tool(name: str, *args: str, stdin: str = "", **environ: str) -> str:
    """Run kubeseal, sops or age as `make envtest` builds them."""
    binaries = find_binaries()
    if binaries is None or not (binaries / name).exists():
        pytest.skip(f"REAL {name.upper()} NOT TESTED: none from `make envtest`")
    done = subprocess.run(
        [str(binaries / name), *args],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath, "HOME": "/nonexistent", **environ},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def plain(name: str, namespace: str, **values: str) -> str:
    """Write a Secret in the clear."""
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}}
    return yaml.safe_dump({**body, "stringData": values}, sort_keys=False)


async def test_one_document_for_two_clusters(fleet: SealedFleet, namespace: str) -> None:
    """Both clusters have the Secret byte for byte; drift is healed; in another namespace it is refused by name."""
    fleet.repository.commit("first", {"app/db.yaml": fleet.seal(VALUES, namespace)})
    async with fleet.opening():
        await fleet.synced(*fleet.targets)
        for plane in fleet.planes:
            assert await read(plane, "db", namespace) == VALUES
        first = fleet.planes[0]
        await first.kubectl("patch", "secret", "db", "-n", namespace, "-p", '{"stringData": {"password": "evil"}}')
        await fleet.until(lambda: _holds(first, namespace, VALUES))
        await first.kubectl("delete", "secret", "db", "-n", namespace)
        await fleet.until(lambda: _holds(first, namespace, VALUES))
        moved = fleet.seal(VALUES, namespace, name="moved").replace(f"namespace: {namespace}", "namespace: default")
        fleet.repository.commit("moved", {"app/moved.yaml": moved})
        for plane in fleet.planes:
            row = await fleet.state(plane.name, "shop", "Degraded", "ScopeMismatch")
            assert f"{namespace}/moved" in row.message
            assert await read(plane, "moved", "default") is None
            assert await read(plane, "db", namespace) == VALUES


async def _holds(plane: ControlPlane, namespace: str, values: Mapping[str, bytes], name: str = "db") -> bool:
    return await read(plane, name, namespace) == values


async def test_kubeseal_and_sops(fleet: SealedFleet, namespace: str, tmp_path: Path) -> None:
    """What unmodified kubeseal and sops make arrives the same way, in all three scopes and from a generator."""
    certificate = tmp_path / "cert.pem"
    certificate.write_bytes(fleet.rsa.certificate)
    recipients = ",".join(format_recipient(key.public.age_public) for key in fleet.keys.values())
    files = {}
    for scope in ("strict", "namespace-wide", "cluster-wide"):
        secret = plain(scope, namespace, password=scope)
        files[f"app/{scope}.yaml"] = run_tool(
            "kubeseal", "--cert", str(certificate), "--scope", scope, "-o", "yaml", stdin=secret
        )
    soap, env = tmp_path / "soap.yaml", tmp_path / "prod.env"
    soap.write_text(plain("soap", namespace, password="hunter2"))
    env.write_text("TOKEN=s3cret\n")
    files["app/soap.yaml"] = run_tool(
        "sops", "encrypt", "--age", recipients, "--encrypted-regex", "^(data|stringData)$", str(soap)
    )
    files["app/prod.env"] = run_tool("sops", "encrypt", "--age", recipients, str(env))
    resources = [name.removeprefix("app/") for name in files if name.endswith(".yaml")]
    generator = [{"name": "env", "namespace": namespace, "envs": ["prod.env"]}]
    files["app/kustomization.yaml"] = yaml.safe_dump(
        {
            "resources": resources,
            "secretGenerator": generator,
            "generatorOptions": {"disableNameSuffixHash": True},
        }
    )
    binaries = find_binaries()
    assert binaries is not None
    fleet.kustomize = str(binaries / "kustomize")
    fleet.repository.commit("first", files)
    async with fleet.opening():
        await fleet.synced(*fleet.targets)
        for plane in fleet.planes:
            for scope in ("strict", "namespace-wide", "cluster-wide"):
                assert await read(plane, scope, namespace) == {"password": scope.encode()}
            assert await read(plane, "soap", namespace) == {"password": b"hunter2"}
            assert await read(plane, "env", namespace) == {"TOKEN": b"s3cret"}


async def test_a_key_is_rotated(fleet: SealedFleet, namespace: str) -> None:
    """Values sealed for the new key arrive, the old key can go when nothing needs it, and shows when something does."""
    plane = fleet.planes[0]
    old, new = fleet.keys[plane.name], box_key(plane.name, 2)
    fleet.repository.commit("first", {"app/db.yaml": fleet.seal(VALUES, namespace)})
    async with fleet.opening():
        await fleet.synced(*fleet.targets)
        fleet.keyring.add(new)
        fleet.keyring.set_state(old, KeyState.RETIRING)
        await fleet.synced(*fleet.targets)
        fleet.keyring.set_state(old, KeyState.RETIRED)
        await fleet.state(plane.name, "shop", "Degraded", "RetiredKey")
        assert await read(plane, "db", namespace) == VALUES
        others = [key for name, key in fleet.keys.items() if name != plane.name]
        again = fleet.repository.commit("again", {"app/db.yaml": fleet.seal(VALUES, namespace, new, *others)})
        await fleet.synced(*fleet.targets, revision=again)
        assert await read(plane, "db", namespace) == VALUES


async def test_an_immutable_secret(fleet: SealedFleet, namespace: str) -> None:
    """A changed value of an immutable Secret is refused with the way out, which makes it anew."""
    plane = fleet.planes[0]

    def sealed(value: bytes, **annotations: str) -> str:
        recipients = [key.public for key in fleet.keys.values()]
        template = Template(immutable=True, annotations=annotations)
        return write_sealed(
            native.seal({"password": value}, recipients, namespace=namespace, name="db", template=template)
        )

    fleet.repository.commit("first", {"app/db.yaml": sealed(b"old")})
    async with fleet.opening():
        await fleet.synced(*fleet.targets)
        fleet.repository.commit("second", {"app/db.yaml": sealed(b"new")})
        row = await fleet.state(plane.name, "shop", "Failed", "ImmutableField")
        assert "fleet/force" in row.message
        assert await read(plane, "db", namespace) == {"password": b"old"}
        third = fleet.repository.commit("third", {"app/db.yaml": sealed(b"new", **{"fleet/force": "enabled"})})
        await fleet.synced(*fleet.targets, revision=third)
        assert await read(plane, "db", namespace) == {"password": b"new"}


async def test_a_changed_value_restarts_pods(fleet: SealedFleet, namespace: str) -> None:
    """A workload that asks for it rolls when the value changes, and not when it is only sealed again."""
    plane = fleet.planes[0]
    web = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace, "annotations": {"fleet/restart": "on-secret-change"}},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {"name": "web", "image": "example.com/web:1", "envFrom": [{"secretRef": {"name": "db"}}]}
                    ]
                },
            },
        },
    }

    async def generation() -> str:
        return await plane.kubectl("get", "deployment", "web", "-n", namespace, "-o", "jsonpath={.metadata.generation}")

    files = {"app/db.yaml": fleet.seal(VALUES, namespace), "app/web.yaml": yaml.safe_dump(web)}
    fleet.repository.commit("first", files)
    async with fleet.opening():
        await fleet.synced(*fleet.targets)
        assert await generation() == "1"
        again = fleet.repository.commit("again", {"app/db.yaml": fleet.seal(VALUES, namespace)})
        await fleet.synced(*fleet.targets, revision=again)
        assert await generation() == "1"
        other = {**VALUES, "password": b"other"}
        changed = fleet.repository.commit("other", {"app/db.yaml": fleet.seal(other, namespace)})
        await fleet.synced(*fleet.targets, revision=changed)
        assert await generation() == "2"
