"""What is written before what, and pruned after it."""

import pytest

from fleet.object import Flags, ObjectKey
from fleet.reconcile.order import prune_rank, rank, stage_of

WRITTEN = [
    ("", "Namespace"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("", "ServiceAccount"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("", "ConfigMap"),
    ("", "PersistentVolumeClaim"),
    ("apps", "Deployment"),
    ("", "Service"),
    ("batch", "Job"),
    ("example.com", "Widget"),
    ("networking.k8s.io", "Ingress"),
    ("gateway.networking.k8s.io", "HTTPRoute"),
    ("apiregistration.k8s.io", "APIService"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
]
STAGES = [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5]


@pytest.mark.parametrize(("kind", "stage"), list(zip(WRITTEN, STAGES, strict=True)), ids=str)
def test_stages(kind: tuple[str, str], stage: int) -> None:
    """What others need comes first, what can refuse others last."""
    assert stage_of(ObjectKey(*kind, "", "x")) == stage


def test_pruning_is_the_reverse() -> None:
    """Webhooks go first, namespaces and definitions last."""
    keys = [ObjectKey(*kind, "", "x") for kind in WRITTEN]
    assert sorted(keys, key=prune_rank) == sorted(keys, key=lambda key: -stage_of(key))
    assert prune_rank(keys[-1]) < prune_rank(keys[11]) < prune_rank(keys[1])


@pytest.mark.parametrize(
    "key",
    [
        ObjectKey("example.com", "Namespace", "", "x"),
        ObjectKey("networking.istio.io", "Gateway", "", "x"),
        ObjectKey("example.com", "ValidatingWebhookConfiguration", "", "x"),
    ],
    ids=str,
)
def test_a_custom_kind_is_no_built_in(key: ObjectKey) -> None:
    """A custom resource goes with the workloads, whatever its kind is called."""
    assert stage_of(key) == 3


def test_waves_come_before_stages() -> None:
    """A sync-wave orders across kinds; inside a wave stages order."""
    namespace, web = ObjectKey("", "Namespace", "", "x"), ObjectKey("apps", "Deployment", "x", "web")
    assert rank(web, Flags(wave=-1)) < rank(namespace, Flags())
    assert rank(namespace, Flags(wave=2)) < rank(web, Flags(wave=2))
