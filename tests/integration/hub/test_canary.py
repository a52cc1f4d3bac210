"""Opened values leave a hub in requests to clusters and nowhere else: a whole run, and then every byte of it searched."""

import asyncio
import base64
import re
import sqlite3
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import prometheus_client
import pytest
import yaml

from fleet.errors import FleetError
from fleet.hub.service import HubService
from fleet.hub.view import HoldRequest, PauseRequest, SyncRequest
from fleet.metric import REGISTRY
from fleet.server.answer import Exit
from fleet.server.api import OPERATIONS
from fleet.server.operation import Call
from tests.harness.fleet import ADA, app_document
from tests.harness.keys import MemoryKeyring, bitnami_body, box_key, native_document, rsa_key
from tests.harness.sops import encrypt_env, encrypt_yaml
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import config
from tests.integration.hub.test_sealed import config_of, read
from tests.integration.render.conftest import kustomize

__all__ = ["kustomize"]

KEY = box_key("one")
AGE = [KEY.public.age_public]
CANARIES = [f"canary-{number}-{base64.b32encode(bytes([number] * 10)).decode().lower()}" for number in range(1, 8)]
NATIVE, BITNAMI, SOPS, ENV, PATCH, BROKEN, MOVED = CANARIES


def shapes(canary: str) -> set[bytes]:
    """Return what a value looks like as it is and in base64, whatever stands before it."""
    raw = canary.encode()
    encoded = {base64.b64encode(b"x" * shift + raw)[shift + 2 : -4] for shift in range(3)}
    return {raw, raw[::-1], raw.hex().encode(), *encoded}


def find_canaries(where: str, content: bytes) -> list[str]:
    """Name the canaries in some bytes."""
    return [f"{canary} in {where}" for canary in CANARIES for shape in shapes(canary) if shape in content]


def read_directory(root: Path) -> Iterator[tuple[str, bytes]]:
    """Read every file, and what is compressed in them once more."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            yield str(path), content
            yield from ((f"{path}@{at}", found) for at, found in inflate(content))


def inflate(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Decompress whatever may begin a zlib stream."""
    for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", content):
        found = b""
        try:
            found = zlib.decompressobj().decompress(content[match.start() :])
        except zlib.error:
            continue
        if found:
            yield match.start(), found


def read_database(path: Path) -> Iterator[tuple[str, bytes]]:
    """Read every value of every table."""
    with closing(sqlite3.connect(path)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f"SELECT * FROM {table}"):
                for value in row:
                    content = value if isinstance(value, bytes) else str(value).encode()
                    yield table, content
                    yield from ((f"{table}@{at}", found) for at, found in inflate(content))


async def ask_everything(hub: HubService) -> list[tuple[str, bytes]]:
    """Ask for everything that can be read over HTTP, once for each target and each app."""
    answers: list[tuple[str, bytes]] = []
    with ThreadPoolExecutor(max_workers=1) as executor:
        exit_ = Exit(executor)
        for operation in OPERATIONS:
            if operation.method != "GET" or operation.secret:
                continue
            for app in ("shop", "broken", "moved"):
                known = {"app": app, "cluster": "one", "name": "one", "commit": "HEAD"}
                names = {name: known.get(name, "1") for name in re.findall(r"\{(\w+)\}", operation.path)}
                taken = operation.takes()
                if "limit" in taken.__struct_fields__:
                    taken = msgspec.structs.replace(taken, limit=1000)
                if isinstance(getattr(taken, "since", None), int):
                    taken = msgspec.structs.replace(taken, since=0)
                try:
                    value = await operation.carry_out(Call(hub=hub, actor=ADA, path=names), taken)
                    answer = await exit_.json(value)
                    content = bytes(answer.body)  # type: ignore[arg-type]
                except FleetError as error:
                    content = f"{error.reason} {error.message} {error!r}".encode()
                answers.append((f"{operation.path} of {app}", content))
    return answers


def tell(answer: object) -> bytes:
    """Write the answer of an act as the server does, and as a log would."""
    return msgspec.json.encode(answer) + repr(answer).encode()


def commit_all(stage: Stage) -> str:
    """Commit a secret value in every form, good and broken."""
    patch = {**config_of("settings"), "data": {"token": PATCH}}
    bad = [{"op": "replace", "path": f"/data/{BROKEN}", "value": BROKEN}]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "soap", "namespace": "default"}}
    files = {
        "app/kustomization.yaml": (
            "resources: [settings.yaml, db.yaml, b.yaml, soap.yaml]\n"
            "secretGenerator: [{name: env, namespace: default, envs: [prod.env]}]\n"
            "patches: [{path: patch.yaml}]\ngeneratorOptions: {disableNameSuffixHash: true}\n"
        ),
        "app/settings.yaml": config(),
        "app/db.yaml": native_document({"password": NATIVE}, KEY),
        "app/b.yaml": yaml.safe_dump(bitnami_body({"password": BITNAMI}, name="b")),
        "app/soap.yaml": encrypt_yaml({**secret, "stringData": {"password": SOPS}}, AGE),
        "app/prod.env": encrypt_env({"PASSWORD": ENV}, AGE),
        "app/patch.yaml": encrypt_yaml(patch, AGE),
        "broken/kustomization.yaml": (
            "resources: [settings.yaml]\npatches: [{path: patch.yaml, target: {kind: ConfigMap}}]\n"
        ),
        "broken/settings.yaml": config(name="other"),
        "broken/patch.yaml": encrypt_yaml({"data": bad[0]}, AGE),
        "moved/db.yaml": native_document({"password": MOVED}, KEY, name="moved").replace("name: moved", "name: here"),
    }
    return stage.repository.commit("all", files)


async def test_nothing_is_told(stage: Stage, kustomize: str, capsys: pytest.CaptureFixture[str]) -> None:
    """After a run with releases, drift, refusals, a way back and a restart no canary is in any byte that the hub made."""
    stage.kustomize = kustomize
    stage.world = replace(stage.world, keyring=MemoryKeyring(KEY, rsa_key("one")))
    cluster = await stage.add_cluster("one")
    sops = {"provider": "sops"}
    stage.declare("apps.yaml", *(app_document(name, name, decryption=sops) for name in ("broken", "moved")))
    stage.declare("shop.yaml", app_document("shop", "app", decryption=sops))
    commit_all(stage)
    found: list[tuple[str, bytes]] = []
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        await stage.state("one", "moved", "Degraded", "ScopeMismatch")
        await stage.state("one", "broken", "Failed")
        assert [read(cluster, name) for name in ("db", "b", "soap", "env")] == [
            {"password": NATIVE},
            {"password": BITNAMI},
            {"password": SOPS},
            {"PASSWORD": ENV},
        ]
        found += await ask_everything(hub)
        cluster.faults.fail(422, verb="patch", path="secrets/db")
        cluster.kubectl().patch("Secret", "db", {"data": {"password": base64.b64encode(b"evil").decode()}})
        await asyncio.sleep(5)
        found += await ask_everything(hub)
        cluster.faults.clear()
        await stage.synced(("one", "shop"))
        found.append(("pause", tell(await hub.pause(PauseRequest(app="shop", reason="look"), ADA))))
        cluster.kubectl().patch("Secret", "db", {"data": {"password": base64.b64encode(b"evil").decode()}})
        cluster.kubectl().patch("ConfigMap", "settings", {"data": {"token": "evil"}})
        await stage.state("one", "shop", "Paused")
        await asyncio.sleep(5)
        assert {f.path for row in await hub.diff("one", "shop") for f in row.fields} == {
            ".data.password",
            ".data.token",
        }
        found += await ask_everything(hub)
        found.append(("resume", tell(await hub.resume(PauseRequest(app="shop", reason=""), ADA))))
        await stage.synced(("one", "shop"))
        other = encrypt_env({"PASSWORD": "other"}, AGE)
        await stage.synced(("one", "shop"), revision=stage.repository.commit("other", {"app/prod.env": other}))
        found.append(("rollback", tell(await hub.rollback(HoldRequest(app="shop", reason="test"), ADA))))
        await stage.until(lambda: read(cluster, "env") == {"PASSWORD": ENV})
        found.append(("sync", tell(await hub.sync(SyncRequest(app="shop"), ADA))))
        found += await ask_everything(hub)
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: (row := stage.row("one", "shop")) and row.state == "Synced")
        found += await ask_everything(hub)
    assert len(found) > 100
    said = capsys.readouterr()
    found += [("stdout", said.out.encode()), ("stderr", said.err.encode())]
    found += [("metrics", prometheus_client.generate_latest(REGISTRY))]
    found += [*read_directory(stage.settings.data), *read_database(stage.world.directory.database)]
    assert [line for where, content in found for line in find_canaries(where, content)] == []


def test_the_search_would_find_them() -> None:
    """A canary is found as it is, in base64 at any place, and compressed."""
    for canary in CANARIES:
        for shift in range(3):
            encoded = base64.b64encode(b"a" * (9 + shift) + canary.encode() + b"z" * 5)
            assert any(canary in line for line in find_canaries("here", encoded))
    ((_, content),) = inflate(zlib.compress(NATIVE.encode()))
    assert find_canaries("here", content)
