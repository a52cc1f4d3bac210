"""What public keys of a running hub seal, with an unmodified kubeseal, sops and fleet seal, reaches the cluster."""

import asyncio
import base64
import json
from typing import Any

import pytest

from fleet.sim.cluster import SimCluster
from fleet.sim.real import find_binaries
from tests.cluster.shell import Shell, eventually
from tests.harness.fleet import Fleet, app_document

RUN = "fleet run --inventory clusters.d --data data --keys-backup safe"
SECRET = """apiVersion: v1
kind: Secret
metadata: {name: NAME, namespace: default}
stringData: {password: "hunter2"}
"""


def needs(program: str) -> None:
    """Skip where a program was not built."""
    binaries = find_binaries()
    if binaries is None or not (binaries / program).is_file():
        pytest.skip(f"NO {program.upper()}: `make envtest` builds it (once, needs Go)")


def data_of(cluster: SimCluster, name: str) -> dict[str, str]:
    """The Secret's items as the cluster has them; none when it is not there."""
    found: Any = cluster.find("v1", "Secret", "default", name)
    return {k: base64.b64decode(v).decode() for k, v in found["data"].items()} if found is not None else {}


async def arrives(shell: Shell, cluster: SimCluster, name: str, wanted: dict[str, str]) -> None:
    """Wait until the cluster has a Secret with exactly these items; say what the hub shows when it does not come."""
    try:
        async with asyncio.timeout(30):
            while data_of(cluster, name) != wanted:
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(await shell.run("fleet status; fleet events || true")) from None


async def test_kubeseal_seals_against_the_hub(cluster: SimCluster, fleet: Fleet, shell: Shell) -> None:
    """Whole, --raw and --merge-into, from nothing but the certificate's address; a rotation leaves old files good."""
    needs("kubeseal")
    (shell.directory / "secret.yaml").write_text(SECRET.replace("NAME", "db"))
    seal = 'kubeseal --cert "$FLEET_SERVER/v1/clusters/dev-1/cert.pem" -o yaml'
    raw = f"{seal} --raw --scope strict --namespace default --name db --from-file=/dev/stdin"
    async with shell.background(RUN):
        await eventually(shell, "fleet keys list", "active")
        await shell.run(f"{seal} < secret.yaml > sealed.yaml")
        (shell.directory / "more.yaml").write_text(SECRET.replace("NAME", "db").replace("password", "token"))
        await shell.run(f"{seal} --merge-into sealed.yaml < more.yaml")
        value = (await shell.run(f"printf swordfish | {raw}")).strip()
        sealed = (shell.directory / "sealed.yaml").read_text()
        sealed = sealed.replace("encryptedData:\n", f"encryptedData:\n    raw: {value}\n")
        fleet.repository.commit("sealed", {"app/sealed.yaml": sealed})
        wanted = {"password": "hunter2", "token": "hunter2", "raw": "swordfish"}
        await arrives(shell, cluster, "db", wanted)
        await shell.run('fleet keys rotate dev-1 --algorithm rsa4096 --reason "drill"')
        (shell.directory / "new.yaml").write_text(SECRET.replace("NAME", "new"))
        fleet.repository.commit("new", {"app/new.yaml": await shell.run(f"{seal} < new.yaml")})
        await arrives(shell, cluster, "new", {"password": "hunter2"})
        cluster.delete("v1", "Secret", "default", "db")
        await arrives(shell, cluster, "db", wanted)
        await eventually(shell, "fleet keys usage --cluster dev-1", "app/sealed.yaml")


async def test_sops_encrypts_for_a_cluster(cluster: SimCluster, fleet: Fleet, shell: Shell) -> None:
    """The recipient is the one that fleet keys shows; a rotation leaves the file good."""
    needs("sops")
    (shell.directory / "secret.yaml").write_text(SECRET.replace("NAME", "db"))
    decryption = {"decryption": {"provider": "sops"}, "namespace": "default"}
    fleet.declare("more.yaml", app_document("sops", "sops", **decryption))
    async with shell.background(RUN):
        await eventually(shell, "fleet keys list", "active")
        [key] = json.loads(await shell.run("fleet keys list --state active -o json"))["items"]
        encrypt = f"sops encrypt --age {key['recipient']} --encrypted-regex ^stringData$ secret.yaml"
        fleet.repository.commit("sops", {"sops/secret.yaml": await shell.run(encrypt)})
        await arrives(shell, cluster, "db", {"password": "hunter2"})
        await shell.run('fleet keys rotate dev-1 --reason "drill"')
        cluster.delete("v1", "Secret", "default", "db")
        await arrives(shell, cluster, "db", {"password": "hunter2"})


@pytest.mark.timeout(120)
async def test_a_compromise_stops_what_was_sealed_and_a_restore_brings_it_back(
    cluster: SimCluster, fleet: Fleet, shell: Shell
) -> None:
    """From fleet seal to Degraded with a list of what to change; what was sealed since survives a lost directory."""
    (shell.directory / "secret.yaml").write_text(SECRET.replace("NAME", "db"))
    seal = 'fleet seal secret secret.yaml --for cluster=dev-1 --server "$FLEET_SERVER" 2>/dev/null'
    async with shell.background(RUN):
        await eventually(shell, "fleet keys list", "active")
        fleet.repository.commit("sealed", {"app/sealed.yaml": await shell.run(seal)})
        await arrives(shell, cluster, "db", {"password": "hunter2"})
        kid = (await shell.run("fleet keys list --state active -o name")).strip()
        await eventually(shell, f"fleet keys usage {kid}", "app/sealed.yaml")
        printed = await shell.run(f'fleet keys compromise {kid} --reason "laptop lost"')
        assert "Change each of these at its source" in printed
        assert "app/sealed.yaml" in printed
        await eventually(shell, "fleet status shop || true", "CompromisedKey")
        assert data_of(cluster, "db") == {"password": "hunter2"}
        await eventually(shell, "fleet keys list --state active", "dev-1")  # the new key is, once its backup is written
        (shell.directory / "secret.yaml").write_text(SECRET.replace("NAME", "db").replace("hunter2", "swordfish"))
        fleet.repository.commit("changed", {"app/sealed.yaml": await shell.run(seal)})
        await arrives(shell, cluster, "db", {"password": "swordfish"})
        newer = await shell.run("fleet keys list --state active -o name")
        await shell.run("cp data/master.key usb/")
    await shell.run("rm -r data && install -D -m 600 usb/master.key data/master.key")
    cluster.delete("v1", "Secret", "default", "db")
    await shell.run('fleet keys restore "$(ls safe/*.db | tail -1)"')
    async with shell.background(RUN):
        await arrives(shell, cluster, "db", {"password": "swordfish"})
        await eventually(shell, "fleet keys list --state active -o name", newer)
