"""Sealed values on a whole hub: from Git to two clusters, and what happens when they do not open."""

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from fleet.hub.feed import Feed
from fleet.hub.view import HoldRequest
from fleet.metric import REGISTRY
from fleet.object import TargetId
from fleet.reconcile.run import Desired
from fleet.secrets import native
from fleet.secrets.bundle import parse_bundle
from fleet.secrets.document import write_sealed
from fleet.secrets.key import Algorithm, PublicKey
from fleet.sim.cluster import SimCluster
from fleet.store.usage import Usage, UsageStore
from tests.harness.fleet import ADA, app_document, environment_document, repository_document
from tests.harness.gitrepo import GitRepository
from tests.harness.keys import MemoryKeyring, bitnami_body, box_key, native_document, rsa_key
from tests.harness.sops import encrypt_env, encrypt_yaml
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import config, writes
from tests.integration.render.conftest import kustomize

__all__ = ["kustomize"]

ONE, TWO = box_key("one"), box_key("two")
PLAIN = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "soap", "namespace": "default"}}


@pytest.fixture
def keyring(stage: Stage) -> MemoryKeyring:
    """The keys of the hub: one for each of two clusters, and RSA for the first."""
    made = MemoryKeyring(ONE, TWO, rsa_key("one"))
    stage.world = replace(stage.world, keyring=made)
    return made


def read(cluster: SimCluster, name: str = "db", namespace: str = "default") -> Mapping[str, str] | None:
    """What a Secret in a cluster says."""
    found = cluster.find("v1", "Secret", namespace, name)
    if found is None:
        return None
    return {item: base64.b64decode(value).decode() for item, value in found["data"].items()}


async def test_one_document_reaches_two_clusters(stage: Stage, keyring: MemoryKeyring) -> None:
    """Both have the Secret; sealing the same values again writes nothing; drift is healed with the opened value."""
    one, two = await stage.add_cluster("one"), await stage.add_cluster("two")
    stage.repository.commit("first", {"app/db.yaml": native_document({"password": "hunter2"}, ONE, TWO)})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"), ("two", "shop"))
        assert read(one) == read(two) == {"password": "hunter2"}
        one.forget_requests()
        again = stage.repository.commit("again", {"app/db.yaml": native_document({"password": "hunter2"}, ONE, TWO)})
        await stage.synced(("one", "shop"), ("two", "shop"), revision=again)
        assert writes(one) == []
        one.kubectl().patch("Secret", "db", {"data": {"password": base64.b64encode(b"evil").decode()}})
        await stage.until(lambda: read(one) == {"password": "hunter2"})


async def test_a_moved_document_is_refused_by_name(stage: Stage, keyring: MemoryKeyring) -> None:
    """Another namespace is a ScopeMismatch of this object alone; the others of the app arrive."""
    one = await stage.add_cluster("one")
    moved = native_document({"password": "hunter2"}, ONE).replace("namespace: default", "namespace: other")
    stage.repository.commit("first", {"app/db.yaml": moved, "app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        row = await stage.state("one", "shop", "Degraded", "ScopeMismatch")
        assert "app/db.yaml:1" in row.message
        assert "default/db" in row.message
        assert read(one, namespace="other") is None
        assert one.find("v1", "ConfigMap", "default", "settings") is not None
        events = await hub.events(since=0, limit=1000)
        assert [e.reason for e in events if e.object].count("ScopeMismatch") == 1


async def test_what_does_not_open_arrives_when_its_key_does(stage: Stage, keyring: MemoryKeyring) -> None:
    """The last good Secret stays while a key is unknown, and the new one comes by itself when the key does."""
    one = await stage.add_cluster("one")
    newer = box_key("one", 2)
    stage.repository.commit("first", {"app/db.yaml": native_document({"password": "old"}, ONE)})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        second = stage.repository.commit("second", {"app/db.yaml": native_document({"password": "new"}, newer)})
        row = await stage.state("one", "shop", "Degraded", "UnknownKey")
        assert row.applied_revision != second
        assert read(one) == {"password": "old"}
        keyring.add(newer)
        await stage.synced(("one", "shop"), revision=second)
        assert read(one) == {"password": "new"}


async def test_a_restart_opens_and_writes_nothing(stage: Stage, keyring: MemoryKeyring) -> None:
    """The digest of the opened value is what the ledger has: a new process finds nothing to do."""
    one = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/db.yaml": native_document({"password": "hunter2"}, ONE)})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
    one.forget_requests()
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
    assert writes(one) == []


async def test_bitnami_and_sops_arrive_the_same_way(stage: Stage, keyring: MemoryKeyring) -> None:
    """A document of kubeseal's and a file of SOPS's become Secrets; without `decryption` the file is refused by name."""
    one = await stage.add_cluster("one")
    sops = encrypt_yaml({**PLAIN, "stringData": {"a": "1"}}, [ONE.public.age_public])
    files = {"app/db.yaml": json.dumps(bitnami_body({"password": "hunter2"})), "app/soap.yaml": sops}
    stage.repository.commit("first", files)
    async with stage.running(stage.world):
        row = await stage.state("one", "shop", "Failed", "RenderFailed")
        assert "decryption" in row.message
        stage.declare("apps.yaml", app_document("shop", "app", decryption={"provider": "sops"}))
        await stage.synced(("one", "shop"))
        assert read(one) == {"password": "hunter2"}
        assert read(one, "soap") == {"a": "1"}


def definition() -> dict[str, Any]:
    """What the chart of sealed-secrets brings: `bitnami.com` SealedSecrets, with a status of their own."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    names = {"plural": "sealedsecrets", "singular": "sealedsecret", "kind": "SealedSecret"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "sealedsecrets.bitnami.com"},
        "spec": {"group": "bitnami.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }


async def test_passthrough_leaves_documents_to_a_controller(stage: Stage, keyring: MemoryKeyring) -> None:
    """The document itself is applied, no Secret is made, and its health is what the controller there says of it."""
    one = await stage.add_cluster("one", secrets={"bitnami": "passthrough"})
    one.create(definition())
    body = bitnami_body({"password": "x"})
    stage.repository.commit("first", {"app/db.yaml": json.dumps(body)})
    async with stage.running(stage.world):
        row = await stage.state("one", "shop", "Progressing")
        assert "its controller has not opened it yet" in row.message
        found = one.get("bitnami.com/v1alpha1", "SealedSecret", "default", "db")
        assert found["spec"] == {"encryptedData": body["spec"]["encryptedData"], "template": {}}
        assert read(one) is None
        for status, state in (("False", "Degraded"), ("True", "Synced")):
            seen = {"observedGeneration": found["metadata"]["generation"]}
            condition = {"type": "Synced", "status": status, "message": "no key could decrypt secret"}
            live = one.get("bitnami.com/v1alpha1", "SealedSecret", "default", "db")
            one.replace({**live, "status": {**seen, "conditions": [condition]}}, subresource="status")
            row = await stage.state("one", "shop", state)
            assert ("no key could decrypt" in row.message) is (status == "False")


async def test_going_back_gives_the_sealed_bytes_back(stage: Stage, keyring: MemoryKeyring) -> None:
    """An earlier release is opened from what the store kept of it, which is sealed: its commit is not needed."""
    one = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/db.yaml": native_document({"password": "old"}, ONE)})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        second = stage.repository.commit("second", {"app/db.yaml": native_document({"password": "new"}, ONE)})
        await stage.synced(("one", "shop"), revision=second)
        assert read(one) == {"password": "new"}
        stage.repository.path.rename(stage.root / "away")
        await hub.rollback(HoldRequest(app="shop", reason="test"), ADA)
        await stage.until(lambda: read(one) == {"password": "old"})


async def test_the_usage_index_follows_git(stage: Stage, keyring: MemoryKeyring) -> None:
    """Which file and item needs which key, per cluster and revision; what left Git is forgotten."""
    await stage.add_cluster("one")
    await stage.add_cluster("two")
    stage.declare("apps.yaml", app_document("shop", "app", decryption={"provider": "sops"}))
    files = {
        "app/db.yaml": native_document({"a": "1", "b": "2"}, ONE, TWO),
        "app/b.yaml": json.dumps(bitnami_body({"c": "3"}, name="b")),
        "app/s.yaml": encrypt_yaml({**PLAIN, "stringData": {"d": "4"}}, [ONE.public.age_public, TWO.public.age_public]),
    }
    first = stage.repository.commit("first", files)
    usage = UsageStore(stage.world.database)

    def said(rows: Any) -> list[tuple[str, ...]]:
        return sorted((r.cluster, r.path, r.item, r.kid) for r in rows)

    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        one = [
            ("one", "app/b.yaml", "c", rsa_key("one").public.kid),
            ("one", "app/db.yaml", "a", ONE.public.kid),
            ("one", "app/db.yaml", "b", ONE.public.kid),
            ("one", "app/s.yaml", "*", ONE.public.kid),
        ]

        async def found() -> list[Usage] | None:
            rows = list(await usage.load(cluster="one"))
            return rows if said(rows) == one else None

        rows = await stage.until(found)
        assert rows is not None
        assert {(r.revision, r.repository, r.app) for r in rows} == {(first, "config", "shop")}
        assert ("two", "app/db.yaml", "a", TWO.public.kid) in said(await usage.load(cluster="two"))
        stage.repository.remove("app/b.yaml")
        stage.repository.remove("app/s.yaml")
        stage.repository.commit("fewer")

        async def fewer() -> bool:
            return {r.path for r in await usage.load(cluster="one")} == {"app/db.yaml"}

        await stage.until(fewer)


async def test_with_the_hubs_own_keys(stage: Stage) -> None:
    """A cluster gets a key when it is met and the key is used once a backup holds it; a restart is quiet about all of it."""
    (backups := stage.root / "backups").mkdir()
    stage.keys_backup = str(backups)
    one = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))

        async def offered() -> list[PublicKey]:
            if not any(row.state == "active" and row.algorithm == "x25519" for row in await hub.keys.list()):
                return []
            return [key for key in parse_bundle(hub.keys.bundle()).keys if key.algorithm is Algorithm.X25519]

        keys = await stage.until(offered)
        sealed = native.seal({"password": b"hunter2"}, keys, namespace="default", name="db")
        second = stage.repository.commit("second", {"app/db.yaml": write_sealed(sealed)})
        await stage.synced(("one", "shop"), revision=second)
        assert read(one) == {"password": "hunter2"}

        async def used() -> bool:
            return [row.item for row in await hub.keys.usage(kid=keys[0].kid)] == ["password"]

        await stage.until(used)
        before = (await hub.events(limit=1))[0].seq
    one.forget_requests()
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"), revision=second)
        reasons = {event.reason for event in await hub.events(since=before, limit=1000)}
        assert not reasons & {"KeysLocked", "UnknownKey", "Applied"}
    assert writes(one) == []


async def test_a_key_of_one_cluster_is_no_news_to_others(stage: Stage, keyring: MemoryKeyring) -> None:
    """A hundred clusters are not opened for again whenever one of them gets a key."""
    await stage.add_cluster("one")
    await stage.add_cluster("two")
    stage.repository.commit("first", {"app/db.yaml": native_document({"password": "hunter2"}, ONE, TWO)})

    def opened(cluster: str) -> float:
        labels = {"cluster": cluster, "seal": "native", "result": "Opened"}
        return REGISTRY.get_sample_value("fleet_secrets_opened_total", labels) or 0.0

    async with stage.running(stage.world):
        await stage.synced(("one", "shop"), ("two", "shop"))
        before = (opened("one"), opened("two"))
        keyring.add(box_key("two", 2))
        await asyncio.sleep(5)
        assert (opened("one") - before[0], opened("two") - before[1]) == (0, 1)


async def test_an_app_that_does_not_render_keeps_no_key_from_being_made(stage: Stage) -> None:
    """A cluster gets its key although one of its apps has no files yet; while a repository is away it waits."""
    stage.declare("apps.yaml", app_document("shop", "app"), app_document("later", "nowhere"))
    stage.repository.commit("first", {"app/settings.yaml": config()})
    stage.repository.path.rename(stage.root / "away")
    await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        await asyncio.sleep(60)
        assert list(await hub.keys.list()) == []
        (stage.root / "away").rename(stage.repository.path)
        await stage.state("one", "later", "Failed", "PathMissing", timeout_s=600)

        async def made() -> bool:
            return [row.state for row in await hub.keys.list()] == ["pending"]

        await stage.until(made)


async def test_a_cluster_that_a_rollout_has_not_reached_has_its_key(stage: Stage) -> None:
    """Sealing for production must be possible before anything goes there; what waits for approval counts as known."""
    rollout = {"approval": {"required": 1}}
    stage.declare(
        "fleet.yaml",
        repository_document(stage.repository.path),
        environment_document(),
        environment_document("prod", after=["dev"], rollout=rollout),
    )
    await stage.add_cluster("one")
    await stage.add_cluster("two", environment="prod")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))

        async def made() -> bool:
            return {row.cluster for row in await hub.keys.list()} == {"one", "two"}

        await stage.until(made)
        row = stage.row("two", "shop")
        assert row is not None
        assert row.applied_revision == ""


async def test_uses_are_forgotten_with_the_inventory_only(stage: Stage, keyring: MemoryKeyring) -> None:
    """A repository that is away after a restart leaves its uses known; a cluster that an app leaves needs no key for it."""
    await stage.add_cluster("one")
    await stage.add_cluster("two")
    other = GitRepository(stage.root / "other")
    other.commit("first", {"web/db.yaml": native_document({"b": "2"}, ONE)})
    stage.declare("other.yaml", repository_document(other.path, "other"))
    web = app_document("web", "web", repository="other", targets={"clusters": ["one"]})
    stage.declare("web.yaml", web)
    stage.repository.commit("first", {"app/db.yaml": native_document({"a": "1"}, ONE, TWO)})
    usage = UsageStore(stage.world.database)

    async def uses(*wanted: tuple[str, str]) -> bool:
        return {(row.app, row.cluster) for row in await usage.load()} == set(wanted)

    everything = (("shop", "one"), ("shop", "two"), ("web", "one"))
    async with stage.running(stage.world):
        await stage.until(lambda: uses(*everything))
    other.path.rename(stage.root / "away")
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"), ("two", "shop"))
        await asyncio.sleep(30)
        assert await uses(*everything)
    stage.declare("apps.yaml", app_document("shop", "app", targets={"clusters": ["two"]}))
    async with stage.running(stage.world):
        await stage.until(lambda: uses(("shop", "two"), ("web", "one")))


@pytest.fixture
def sources(kustomize: str) -> dict[str, str]:
    """A Kustomize app with a generated Secret from an encrypted env file, and an encrypted patch."""
    patch = {**config_of("settings"), "data": {"token": "s3cret"}}
    age = [ONE.public.age_public]
    return {
        "app/kustomization.yaml": (
            "resources: [settings.yaml]\nsecretGenerator: [{name: env, namespace: default, envs: [prod.env]}]\n"
            "patches: [{path: patch.yaml}]\ngeneratorOptions: {disableNameSuffixHash: true}\n"
        ),
        "app/settings.yaml": config(),
        "app/prod.env": encrypt_env({"PASSWORD": "hunter2"}, age),
        "app/patch.yaml": encrypt_yaml(patch, age),
    }


def config_of(name: str) -> dict[str, Any]:
    """Begin a ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}


async def test_sources_of_a_build_are_opened_before_it(
    stage: Stage, keyring: MemoryKeyring, sources: dict[str, str], kustomize: str
) -> None:
    """An encrypted env file and an encrypted patch are built in; a cluster that cannot open them keeps what it has."""
    stage.kustomize = kustomize
    one, two = await stage.add_cluster("one"), await stage.add_cluster("two")
    stage.declare("apps.yaml", app_document("shop", "app", decryption={"provider": "sops"}))
    stage.repository.commit("first", sources)
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        assert read(one, "env") == {"PASSWORD": "hunter2"}
        settings = one.find("v1", "ConfigMap", "default", "settings")
        assert settings is not None
        assert settings["data"] == {"colour": "red", "token": "s3cret"}
        row = await stage.state("two", "shop", "Degraded", "NotARecipient")
        assert "app/prod.env" in row.message or "app/patch.yaml" in row.message
        assert read(two, "env") is None
        shown = await hub.render("one", "shop", "")
        assert "hunter2" not in str(shown)
        assert "s3cret" not in str(shown)
        keyring.drop(ONE)
        await stage.state("one", "shop", "Degraded", "NotARecipient")
        assert read(one, "env") == {"PASSWORD": "hunter2"}
        keyring.add(ONE)
        await stage.synced(("one", "shop"))


async def test_going_back_builds_again(
    stage: Stage, keyring: MemoryKeyring, sources: dict[str, str], kustomize: str
) -> None:
    """An earlier release of such an app is had again, from its commit and not from the store."""
    stage.kustomize = kustomize
    one = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app", decryption={"provider": "sops"}))
    stage.repository.commit("first", sources)
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        second = {"app/prod.env": encrypt_env({"PASSWORD": "other"}, [ONE.public.age_public])}
        await stage.synced(("one", "shop"), revision=stage.repository.commit("second", second))
        await stage.until(lambda: read(one, "env") == {"PASSWORD": "other"})
        await hub.rollback(HoldRequest(app="shop", reason="test"), ADA)
        await stage.until(lambda: read(one, "env") == {"PASSWORD": "hunter2"})


async def test_a_commit_that_mends_a_target_counts_at_once(
    stage: Stage, keyring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the disk is, a rollout never judges the new release by what was wrong with the one before."""
    await stage.add_cluster("one")
    good = native_document({"password": "hunter2"}, ONE)
    stage.repository.commit("first", {"app/db.yaml": good, "app/moved.yaml": good.replace("name: db", "name: moved")})
    save = Feed.note_applied

    async def save_slowly(feed: Feed, target: TargetId, desired: Desired) -> bool:
        await asyncio.sleep(1)
        return await save(feed, target, desired)

    monkeypatch.setattr(Feed, "note_applied", save_slowly)
    async with stage.running(stage.world) as hub:
        await stage.state("one", "shop", "Degraded", "ScopeMismatch")
        stage.repository.remove("app/moved.yaml")
        stage.repository.commit("second")
        await stage.state("one", "shop", "Synced", "Synced")
        events = await hub.events(since=0, limit=1000)
        assert not [e for e in events if e.reason == "ScopeMismatch" and e.message.startswith("shop#2")]
