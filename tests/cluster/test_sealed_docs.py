"""What the pages about sealed values tell people to type works, on a real API server."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from nacl.utils import random

from fleet.secrets.age import derive_recipient, format_identity, format_recipient
from fleet.sim.real import ControlPlane, find_binaries
from tests.cluster.shell import Shell, blocks_after, eventually, open_shell
from tests.cluster.test_docs import HELLO, INVENTORY

pytestmark = pytest.mark.timeout(300)
READY = "export FLEET_DATA=tour/data\n"


@pytest.fixture
async def shell(tmp_path: Path, plane: ControlPlane) -> Shell:
    """A shell where the tutorial before this one has been followed up to its running hub."""
    made = await open_shell(tmp_path, plane)
    page = "tutorial/getting-started.md"
    make, manifest, _, commit = blocks_after(page, "Make a repository")
    inventory, connect = blocks_after(page, "Describe the fleet")
    await made.run(make.text)
    (made.directory / HELLO).write_text(manifest.text)
    await made.run(commit.text)
    (made.directory / INVENTORY).write_text(inventory.text)
    await made.run(connect.text)
    return made


async def test_seal_a_secret(shell: Shell) -> None:
    """Every step of the tutorial does what it says: backup, public keys, sealing, a refusal, a change."""
    page = "tutorial/seal-a-secret.md"
    backup, keys = blocks_after(page, "Have a backup of the keys")
    [fetch] = blocks_after(page, "Fetch the public keys")
    seal, inspect, commit, look = blocks_after(page, "Seal")
    misuse, undo = blocks_after(page, "Try to misuse it")
    [change] = blocks_after(page, "Change it")
    _, read = look.text.splitlines()
    async with shell.background("fleet run --inventory tour/clusters.d --data tour/data"):
        await eventually(shell, f"{READY}fleet status", "Synced")
        await eventually(shell, f"{READY}fleet keys list", "pending")
        await shell.run(READY + backup.text)
        assert "active" in await shell.run(READY + keys.text)
        await shell.run(fetch.text.replace("http://127.0.0.1:8420", shell.environment["FLEET_SERVER"]))
        await shell.run(seal.text)
        sealed = (shell.directory / "tour/config/hello/db.yaml").read_text()
        assert "SealedSecret" in sealed
        assert "hunter2" not in sealed
        assert "local" in await shell.run(f"cd tour/config\n{inspect.text}")
        await shell.run(f"cd tour/config\n{commit.text}")
        await eventually(shell, read, "hunter2")
        await shell.run(misuse.text.replace("fleet status", "true"))
        await eventually(shell, f"{READY}fleet status local/hello", "ScopeMismatch")
        assert "hunter2" in await shell.run(read)
        assert "NotFound" in await shell.run("kubectl get secret stolen -n hello 2>&1 || true")
        await shell.run(undo.text)
        await eventually(shell, f"{READY}fleet status local/hello", "Synced")
        await shell.run(change.text)
        await eventually(shell, read, "correct-horse")
        assert "hunter2" not in await shell.run(
            f"{READY}fleet events; fleet diff hello; fleet render hello --cluster local"
        )
    await shell.run("kubectl delete namespace hello")


CONTROLLER_KEY = """\
openssl req -x509 -newkey rsa:2048 -nodes -keyout tls.key -out tls.crt -days 30 -subj /O=sealed-secret 2>/dev/null
kubectl create secret tls sealed-secrets-key1 -n kube-system --cert=tls.crt --key=tls.key
kubectl label secret sealed-secrets-key1 -n kube-system sealedsecrets.bitnami.com/sealed-secrets-key=active
"""
SEAL = """\
kubectl create secret generic db -n hello --from-literal=password=hunter2 --dry-run=client -o yaml > plain.yaml
kubeseal --cert tls.crt -o yaml < plain.yaml > tour/config/hello/db.yaml
git -C tour/config add hello/db.yaml
"""
OWNER = "{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, name: db, uid: 0-0, controller: true}"


def needs(*tools: str) -> None:
    """Skip loudly where a tool that the page uses is absent."""
    binaries = find_binaries()
    for tool in tools:
        if not shutil.which(tool) and not (binaries is not None and (binaries / tool).exists()):
            pytest.skip(f"PAGE NOT FOLLOWED: there is no {tool}")


async def test_move_from_sealed_secrets(shell: Shell) -> None:
    """Keys that kubectl dumped open what kubeseal sealed; a Secret is taken over once its owner has let go of it."""
    needs("openssl", "kubeseal", "jq")
    page = "how-to/move-from-sealed-secrets.md"
    dump, imported = blocks_after(page, "1. Bring the keys")[0].text.splitlines()
    _, release = blocks_after(page, "2. Let the controller go, and keep what it made")[0].text.splitlines()
    read = "kubectl get secret db -n hello -o jsonpath='{.data.password}' | base64 -d"
    await shell.run(CONTROLLER_KEY)
    async with shell.background("fleet run --inventory tour/clusters.d --data tour/data"):
        await eventually(shell, f"{READY}fleet status", "Synced")
        await shell.run(dump)
        await shell.run(READY + imported.replace("prod-eu-1", "local"))
        await shell.run(SEAL)
        await shell.run("kubectl create -f plain.yaml")
        owned = yaml.safe_load(f"metadata: {{ownerReferences: [{OWNER}]}}")
        await shell.run(f"kubectl patch secret db -n hello -p '{json.dumps(owned)}'")
        before = await shell.run("kubectl get secret db -n hello -o jsonpath='{.metadata.uid}'")
        await shell.run("git -C tour/config commit -qm sealed")
        await eventually(shell, f"{READY}fleet status local/hello", "OwnedElsewhere")
        await shell.run(release)
        await shell.run(f"{READY}fleet sync hello")
        await eventually(shell, f"{READY}fleet status local/hello", "Synced")
        assert "hunter2" in await shell.run(read)
        assert before == await shell.run("kubectl get secret db -n hello -o jsonpath='{.metadata.uid}'")
        await shell.run("kubectl delete secret db -n hello")
        await eventually(shell, read, "hunter2")
    await shell.run("kubectl delete namespace hello; kubectl delete secret sealed-secrets-key1 -n kube-system")


async def test_move_from_sops(shell: Shell) -> None:
    """The age key of Flux, fetched as the guide says, opens what `sops` encrypted for it."""
    needs("sops")
    key, imported = blocks_after("how-to/move-from-sops.md", "1. Bring the age key")[0].text.splitlines()
    identity = random(32)
    (shell.directory / "made.agekey").write_text(f"# made by a test\n{format_identity(identity)}\n")
    recipient = format_recipient(derive_recipient(identity))
    await shell.run(
        "kubectl get namespace flux-system || kubectl create namespace flux-system\n"
        "kubectl create secret generic sops-age -n flux-system --from-file=age.agekey=made.agekey"
    )
    inventory = shell.directory / INVENTORY
    async with shell.background("fleet run --inventory tour/clusters.d --data tour/data"):
        await eventually(shell, f"{READY}fleet status", "Synced")
        await shell.run(key)
        await shell.run(READY + imported.replace("prod-eu-1", "local"))
        await shell.run(
            "kubectl create secret generic db -n hello --from-literal=password=hunter2 --dry-run=client -o yaml > db.yaml\n"
            f"sops encrypt --age {recipient} --encrypted-regex '^(data|stringData)$' db.yaml > tour/config/hello/db.yaml\n"
            "git -C tour/config add hello/db.yaml\ngit -C tour/config commit -qm encrypted"
        )
        await eventually(shell, f"{READY}fleet status local/hello", "decryption: {provider: sops}")
        text = inventory.read_text()
        inventory.write_text(text.replace("  path: hello\n", "  path: hello\n  decryption: {provider: sops}\n"))
        await eventually(shell, "kubectl get secret db -n hello -o jsonpath='{.data.password}' | base64 -d", "hunter2")
        await eventually(shell, f"{READY}fleet status local/hello", "Synced")
    await shell.run("kubectl delete secret sops-age -n flux-system\nkubectl delete namespace hello")
