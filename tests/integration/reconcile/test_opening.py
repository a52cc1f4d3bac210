"""Sealed documents in a target's run: planned by what they open to, and what happens when they do not open."""

import base64
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from fleet.errors import SealError
from fleet.object import Manifest, ObjectKey, Seal, encode_canonical
from fleet.reconcile.health import Health
from fleet.reconcile.run import Report
from fleet.reconcile.status import Facts, State, decide_state
from fleet.reconcile.summary import summarise_objects
from fleet.render.normalize import digest_body
from tests.harness.reconcile import Body, Rig, annotated, change_of, config, deployment, key_of, says

SECRET = ObjectKey("", "Secret", "shop", "db")


def sealed(values: str = "hunter2", salt: str = "1", key: str = "k1", **annotations: str) -> Body:
    """Write a document that `Unsealer` opens if it has `key`; `salt` is what sealing again changes."""
    spec = {"values": {"password": f"{key}:{salt}:{values}"}}
    metadata = {"name": "db", "namespace": "shop", "annotations": annotations}
    return {"apiVersion": "fleet/v1", "kind": "SealedSecret", "metadata": metadata, "spec": spec}


@dataclass
class Unsealer:
    """Opens by taking values apart; counts how often."""

    keys: set[str] = field(default_factory=lambda: {"k1"})
    changes: int = 0
    weighed: int = 0
    opened: int = 0

    def take(self, *keys: str) -> None:
        """Have these keys from now on."""
        self.keys = set(keys)
        self.changes += 1

    def version(self, cluster: str) -> int:
        """Count the changes."""
        return self.changes

    def _open(self, m: Manifest) -> dict[str, Any]:
        key, _, value = msgspec.json.decode(m.body)["spec"]["values"]["password"].split(":")
        if key not in self.keys:
            raise SealError(f"{m.origin}: no key {key}", reason="UnknownKey")
        data = {"password": base64.b64encode(value.encode()).decode()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "shop"}, "data": data}

    async def weigh(self, m: Manifest, cluster: str) -> bytes:
        """Digest what it opens to."""
        self.weighed += 1
        return digest_body(encode_canonical(self._open(m)), b"key")

    async def open(self, m: Manifest, cluster: str) -> Manifest:
        """Open."""
        if m.seal is Seal.NONE:
            return m
        self.opened += 1
        return replace(m, body=encode_canonical(self._open(m)), seal=Seal.NONE, sensitive=True)


class SealedRig(Rig):
    """A rig whose hub has keys."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.unsealer = Unsealer()
        self.around = replace(self.around, unsealer=self.unsealer)

    def password(self) -> str | None:
        """What the Secret in the cluster says."""
        stored = self.cluster.objects.get(SECRET)
        return base64.b64decode(self.cluster.value(SECRET, "data/password")).decode() if stored else None

    def state(self, report: Report) -> State:
        """The state that a report leads to."""
        s = self.summary(report)
        return decide_state(
            Facts(contacted=True, failed=s.failed, waiting=s.waiting, degraded=s.degraded, progressing=s.progressing)
        ).state


@pytest.fixture
def rig() -> SealedRig:
    """A cluster with nothing in it."""
    return SealedRig()


async def test_a_sealed_document_becomes_its_secret(rig: SealedRig) -> None:
    """The Secret is applied, recorded and in sync like any object; nothing is opened again when nothing changes."""
    report = await rig.settle(sealed())
    assert rig.password() == "hunter2"
    assert says(report) == {"Secret/db": "unchanged InSync"}
    assert rig.state(report) is State.SYNCED
    before = (rig.unsealer.weighed, rig.unsealer.opened)
    await rig.run(sealed())
    assert (rig.unsealer.weighed, rig.unsealer.opened) == before == (1, 1)


async def test_sealing_the_same_values_again_writes_nothing(rig: SealedRig) -> None:
    """Other ciphertext, same values: not one request. Other values: one."""
    await rig.settle(sealed())
    rig.cluster.drain()
    report = await rig.run(sealed(salt="2"), release=2)
    assert (report.complete, rig.cluster.drain()) == (True, [])
    await rig.run(sealed("other", salt="2"), release=3)
    assert rig.cluster.drain() == [("apply", SECRET)]
    assert rig.password() == "other"


async def test_a_document_that_does_not_open_harms_nothing(rig: SealedRig) -> None:
    """The last good Secret stays, the others of the app go on, the target is Degraded, and nothing is pruned."""
    await rig.settle(sealed(), config("old"))
    report = await rig.run(sealed("new", key="k2"), config("a"), release=2)
    assert rig.password() == "hunter2"
    assert says(report) == {
        "ConfigMap/a": "unchanged InSync",
        "ConfigMap/old": "prune NotInGit",
        "Secret/db": "skip UnknownKey",
    }
    assert rig.state(report) is State.DEGRADED
    assert "db.yaml:1: no key k2; the Secret in the cluster stays as it was" in change_of(report, SECRET).message
    healths = {o.change.key.name: o.health for o in summarise_objects(report, rig.live.get)}
    assert healths["db"] is Health.FAILED
    assert not report.complete


async def test_it_is_tried_again_when_a_key_changes(rig: SealedRig) -> None:
    """Until then it is not opened in vain and told once; then it arrives, and what left Git goes."""
    await rig.settle(sealed(), config("old"))
    news = [note.reason for _ in range(3) for note in (await rig.run(sealed("new", key="k2"), release=2)).notes]
    assert news == ["UnknownKey"]
    assert rig.unsealer.weighed == 2
    rig.unsealer.take("k1", "k2")
    report = await rig.settle(sealed("new", key="k2"), release=2)
    assert rig.password() == "new"
    assert says(report) == {"Secret/db": "unchanged InSync"}


async def test_a_lost_key_shows_although_nothing_is_to_be_written(rig: SealedRig) -> None:
    """What is in the cluster is right, but could not be put back: that is said before it is needed."""
    await rig.settle(sealed())
    rig.unsealer.take()
    rig.cluster.drain()
    report = await rig.run(sealed())
    assert says(report) == {"Secret/db": "skip UnknownKey"}
    assert rig.state(report) is State.DEGRADED
    assert rig.cluster.drain() == []


async def test_a_change_of_the_document_is_tried_at_once(rig: SealedRig) -> None:
    """A new commit needs no change of a key."""
    await rig.run(sealed("new", key="k2"))
    assert rig.password() is None
    await rig.settle(sealed("new", key="k1"), release=2)
    assert rig.password() == "new"


async def test_drift_of_a_secret_is_healed(rig: SealedRig) -> None:
    """An edit by hand and a deletion are undone with the opened values."""
    await rig.settle(sealed())
    rig.cluster.edit(SECRET, **{"data/password": base64.b64encode(b"evil").decode()})
    report = await rig.settle(sealed())
    assert rig.password() == "hunter2"
    rig.cluster.remove(SECRET)
    report = await rig.settle(sealed())
    assert rig.password() == "hunter2"
    assert report.complete


async def test_a_document_that_left_git_is_pruned(rig: SealedRig) -> None:
    """Removing the document removes the Secret."""
    await rig.settle(sealed(), config("a"))
    await rig.settle(config("a"), release=2)
    assert SECRET not in rig.cluster.objects


def web(name: str = "db") -> Body:
    """Write a Deployment that reads a Secret and asks for restarts."""
    body = annotated(deployment(), **{"fleet/restart": "on-secret-change"})
    container = body["spec"]["template"]["spec"]["containers"][0]
    container["envFrom"] = [{"secretRef": {"name": name}}]
    return body


def mark(rig: SealedRig) -> Any:
    """The digest in the Deployment's pod template."""
    metadata = rig.cluster.body(key_of(deployment()))["spec"]["template"].get("metadata", {})
    return metadata.get("annotations", {}).get("fleet/secrets")


async def test_a_changed_secret_restarts_who_asked(rig: SealedRig) -> None:
    """A new value changes the pod template, sealing the same one again does not; the mark is no digest of the value."""
    await rig.settle(sealed(), web())
    first = mark(rig)
    assert len(first) == 16
    await rig.settle(sealed(salt="2"), web(), release=2)
    assert mark(rig) == first
    await rig.settle(sealed("other"), web(), release=3)
    assert mark(rig) not in (first, None)


async def test_nobody_is_restarted_because_a_key_is_gone(rig: SealedRig) -> None:
    """While a Secret does not open its users keep the mark of what was applied."""
    await rig.settle(sealed(), web())
    first = mark(rig)
    rig.unsealer.take()
    await rig.run(sealed(), web())
    assert mark(rig) == first
    rig.unsealer.take("k1")
    await rig.settle(sealed(), web())
    assert mark(rig) == first


async def test_other_workloads_are_left_alone(rig: SealedRig) -> None:
    """Without the annotation, or without a Secret of the app, there is no mark."""
    await rig.settle(sealed(), deployment())
    assert mark(rig) is None
    await rig.settle(sealed(), web("elsewhere"), release=2)
    assert mark(rig) is None
