"""Trying a release without writing: what is refused, what cannot be told, and that nothing changes."""

from collections.abc import Mapping
from typing import Any

import pytest

from fleet.errors import FleetError, Forbidden, Invalid, KubeError, NotFound, SealError, ServerFailure, Unreachable
from fleet.object import GroupKind, Manifest, TargetId
from fleet.reconcile.port import Policy
from fleet.reconcile.preflight import Coming, Outcome, Preflight, Trial
from fleet.reconcile.run import Desired, Order
from fleet.reconcile.target import Target
from tests.harness.reconcile import (
    CLUSTER,
    Body,
    NoUnsealer,
    Rig,
    annotated,
    config,
    deployment,
    job,
    key_of,
    manifests,
    plain,
)

GADGET = GroupKind("example.org", "Gadget")
GADGETS = plain(
    "apiextensions.k8s.io/v1",
    "CustomResourceDefinition",
    "gadgets.example.org",
    spec={"group": "example.org", "names": {"kind": "Gadget"}, "scope": "Namespaced", "versions": [{"name": "v1"}]},
)
A_GADGET = plain("example.org/v1", "Gadget", "one")


async def try_out(rig: Rig, *bodies: Body, others: Coming | None = None, policy: Policy | None = None) -> list[Trial]:
    """Try objects as a new release."""
    desired = Desired(release=2, revision="1" * 40, digest="new", manifests=manifests(*bodies))
    order = Order(policy=policy or Policy(), desired=desired)
    return list(await Target(TargetId(CLUSTER, "app"), rig.around).preflight(order, others or Coming()))


def told(trials: list[Trial]) -> dict[str, str]:
    """Write trials as `kind/name: action outcome reason`."""
    return {
        f"{t.change.key.kind}/{t.change.key.name}": f"{t.change.action.value} {t.outcome.value} {t.reason}".strip()
        for t in trials
    }


async def test_what_changes_is_tried_and_nothing_is_written(rig: Rig) -> None:
    """Only objects that differ are asked about; neither the cluster nor the ledger is another one afterwards."""
    await rig.settle(config("a", k="1"), config("b"), config("gone"))
    versions = {key: stored.rv for key, stored in rig.cluster.objects.items()}
    rows, writes = dict(rig.target().entries), rig.ledger.writes
    rig.cluster.drain()
    trials = await try_out(rig, config("a", k="2"), config("b"), config("new"))
    assert told(trials) == {
        "ConfigMap/a": "configure ok",
        "ConfigMap/b": "unchanged ok",
        "ConfigMap/new": "create ok",
        "ConfigMap/gone": "prune ok",
    }
    assert {(verb, key.name) for verb, key in rig.cluster.drain()} == {("apply", "a"), ("get", "new"), ("apply", "new")}
    assert {key: stored.rv for key, stored in rig.cluster.objects.items()} == versions
    assert (rig.target().entries, rig.ledger.writes) == (rows, writes)


async def test_a_running_target_keeps_its_own_release(rig: Rig) -> None:
    """A release that is tried is never what the target's next run applies."""
    await rig.settle(config("a", k="1"))
    await try_out(rig, config("a", k="2"))
    report = await rig.run(config("a", k="1"))
    assert report.complete
    assert report.written == 0


REFUSED: Mapping[str, tuple[KubeError, str]] = {
    "quota": (Forbidden("exceeded quota: small", reason="QuotaExceeded", status=403), "QuotaExceeded"),
    "admission": (
        Forbidden("ValidatingAdmissionPolicy says no", reason="AdmissionDenied", status=403),
        "AdmissionDenied",
    ),
    "right": (Forbidden("cannot patch", status=403), "Forbidden"),
    "invalid": (Invalid("spec.x: wrong", status=422), "Invalid"),
    "version": (Invalid("v1beta1 is not served; use v1", reason="VersionNotServed"), "VersionNotServed"),
    "namespace": (NotFound('namespaces "shop" not found', what="namespace"), "NotFound"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_is_a_value(rig: Rig, case: str) -> None:
    """Each is told with the server's reason and words; its neighbours are tried all the same."""
    error, reason = REFUSED[case]
    rig.cluster.refuse("apply", key_of(config("a")), error)
    trials = await try_out(rig, config("a"), config("b"))
    assert told(trials) == {"ConfigMap/a": f"create refused {reason}", "ConfigMap/b": "create ok"}
    found = Preflight(target=TargetId(CLUSTER, "app"), release=2, trials=tuple(trials))
    assert found.outcome is Outcome.REFUSED
    assert found.explain() == f"ConfigMap shop/a: {error.reason}: {error.message}"


UNKNOWN: Mapping[str, tuple[KubeError, Body]] = {
    "namespace": (REFUSED["namespace"][0], plain("v1", "Namespace", "shop", x=1)),
    "quota": (REFUSED["quota"][0], plain("v1", "ResourceQuota", "small")),
    "account": (
        Forbidden('error looking up service account: serviceaccount "runner" not found', status=403),
        plain("v1", "ServiceAccount", "runner"),
    ),
    "right": (REFUSED["right"][0], plain("rbac.authorization.k8s.io/v1", "ClusterRole", "deployer")),
}


@pytest.mark.parametrize("case", UNKNOWN)
async def test_what_the_release_brings_itself_is_unverified(rig: Rig, case: str) -> None:
    """A failure that the same release would end is listed, and is no refusal."""
    error, cause = UNKNOWN[case]
    rig.cluster.refuse("apply", key_of(config("a")), error)
    trials = told(await try_out(rig, config("a"), cause))
    assert trials["ConfigMap/a"] == "create unverified ComesWithRelease"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            Invalid('admission webhook "x" does not support dry run', reason="BadRequest", status=400),
            "DryRunUnsupported",
        ),
        (ServerFailure("failed calling webhook", reason="WebhookFailed", status=500), "WebhookFailed"),
        (Unreachable("no answer in time", reason="Timeout"), "Timeout"),
        (Forbidden("being terminated", reason="NamespaceTerminating", status=403), "NamespaceTerminating"),
    ],
)
async def test_what_trying_again_may_mend_is_unverified(rig: Rig, error: KubeError, reason: str) -> None:
    """Also a webhook that has side effects and is therefore not asked."""
    rig.cluster.refuse("apply", key_of(config("a")), error)
    assert told(await try_out(rig, config("a"))) == {"ConfigMap/a": f"create unverified {reason}"}


async def test_a_missing_kind_is_refused_unless_its_definition_comes(rig: Rig) -> None:
    """With the same release, or with another app's."""
    assert told(await try_out(rig, A_GADGET)) == {"Gadget/one": "skip refused MissingKind"}
    with_crd = told(await try_out(rig, GADGETS, A_GADGET))
    assert with_crd["Gadget/one"] == "skip unverified ComesWithRelease"
    elsewhere = await try_out(rig, A_GADGET, others=Coming(kinds=frozenset({GADGET})))
    assert told(elsewhere) == {"Gadget/one": "skip unverified ComesWithRelease"}


async def test_an_immutable_field_is_refused_unless_the_object_is_made_anew(rig: Rig) -> None:
    """A Job of our own would be recreated, and a Service with the annotation; another Service may not change."""
    service = plain("v1", "Service", "web", spec={"clusterIP": "10.0.0.1"})
    moved = plain("v1", "Service", "web", spec={"clusterIP": "10.0.0.2"})
    await rig.settle(service, job(image="m:1"))
    assert told(await try_out(rig, moved, job(image="m:2"))) == {
        "Service/web": "configure refused ImmutableField",
        "Job/migrate": "configure unverified Recreated",
    }
    forced = told(await try_out(rig, annotated(moved, **{"fleet/force": "enabled"}), job(image="m:1")))
    assert forced["Service/web"] == "configure unverified Recreated"
    assert key_of(service) in rig.cluster.objects


async def test_what_fleet_itself_refuses_is_refused(rig: Rig) -> None:
    """Nothing is asked about an object that the App document does not allow."""
    trials = await try_out(rig, deployment(), policy=Policy(allow_kinds=("ConfigMap",)))
    assert told(trials) == {"Deployment/web": "skip refused NotAllowed"}


async def test_an_object_that_may_not_be_looked_up_is_refused(rig: Rig) -> None:
    """A missing right to read stops the run as one to write does."""
    rig.cluster.refuse("get", key_of(config("a")), Forbidden("cannot get", status=403))
    assert told(await try_out(rig, config("a"))) == {"ConfigMap/a": "skip refused Forbidden"}


async def test_a_cluster_that_fails_as_a_whole_raises(rig: Rig) -> None:
    """No object is to blame: the caller calls the cluster unverified."""
    rig.cluster.refuse("apply", key_of(config("a")), Unreachable("connection refused"))
    with pytest.raises(Unreachable):
        await try_out(rig, config("a"), config("b"))


async def test_a_cluster_that_was_not_asked_is_unverified() -> None:
    """And a release that cannot be had for a cluster is refused; both say why."""
    target = TargetId(CLUSTER, "app")
    away = Preflight(target=target, release=2, trouble=FleetError("not connected"))
    assert (away.outcome, away.explain()) == (Outcome.UNVERIFIED, "not connected")
    lost = Preflight(target=target, release=2, trouble=FleetError("a.yaml:1: wrong"), refused=True)
    assert (lost.outcome, lost.explain()) == (Outcome.REFUSED, "a.yaml:1: wrong")
    assert Preflight(target=target, release=2).explain() == ""


class _Vault(NoUnsealer):
    """Opens one manifest into something else."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    async def open(self, m: Manifest, cluster: str) -> Manifest:
        """Note what was opened, or refuse."""
        self.opened.append(m.key.name)
        if m.key.name == "shut":
            raise SealError("not sealed for prod", reason="NotARecipient")
        return m


async def test_manifests_are_opened_as_for_a_run(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not open is refused by the reason of the seal; nothing is sent of it."""
    vault = _Vault()
    monkeypatch.setattr(rig, "around", _with_unsealer(rig, vault))
    trials = await try_out(rig, config("a"), config("shut"))
    assert told(trials) == {"ConfigMap/a": "create ok", "ConfigMap/shut": "create refused NotARecipient"}
    assert sorted(vault.opened) == ["a", "shut"]


def _with_unsealer(rig: Rig, vault: _Vault) -> Any:
    from dataclasses import replace

    return replace(rig.around, unsealer=vault)
