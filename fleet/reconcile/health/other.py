"""Built-in kinds other than workloads."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fleet.object import GroupKind
from fleet.reconcile.health.generic import conditions, text
from fleet.reconcile.health.verdict import CURRENT, Verdict, failed, progressing
from fleet.reconcile.health.workload import Rule

_SCALE_FAILURES = frozenset({"FailedGetScale", "FailedUpdateScale"})
_METRIC_FAILURES = frozenset({"FailedGetResourceMetric", "InvalidSelector"})


def assess_namespace(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a Namespace by its phase."""
    phase = (body.get("status") or {}).get("phase")
    return CURRENT if phase in (None, "Active") else progressing(f"phase {phase}")


def assess_claim(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a PersistentVolumeClaim: bound, or not yet. One that waits for its first pod says nothing of that."""
    status = body.get("status") or {}
    phase = status.get("phase")
    if phase == "Bound":
        return CURRENT
    if phase == "Lost":
        return failed("the volume it was bound to is gone", "ClaimLost")
    return progressing(f"phase {phase or 'unknown'}: no volume is bound yet", "Unbound")


def assess_service(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a Service: a LoadBalancer needs an address, any other kind is at once what it will be."""
    spec, status = body.get("spec") or {}, body.get("status") or {}
    if spec.get("type") != "LoadBalancer" or (status.get("loadBalancer") or {}).get("ingress"):
        return CURRENT
    return progressing("no address has been assigned to the load balancer yet", "NoAddress")


def assess_definition(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a CustomResourceDefinition: its names are accepted and it is served."""
    known = conditions(body)
    names, established = known.get("NamesAccepted", {}), known.get("Established", {})
    if names.get("status") == "False":
        return failed(text(names), "NamesNotAccepted")
    if established.get("status") == "True":
        return CURRENT
    if established.get("status") == "False" and established.get("reason") != "Installing":
        return failed(text(established), "NotEstablished")
    return progressing("it is not served yet")


def assess_autoscaler(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a HorizontalPodAutoscaler as Argo CD does: it can read what it scales by."""
    known = conditions(body)
    able, active = known.get("AbleToScale", {}), known.get("ScalingActive", {})
    if able.get("reason") in _SCALE_FAILURES:
        return failed(text(able), str(able["reason"]))
    if active.get("reason") in _METRIC_FAILURES:
        return failed(text(active), str(active["reason"]))
    if able.get("status") == "True" or known.get("ScalingLimited", {}).get("status") == "True":
        return CURRENT
    return progressing("it has not scaled yet") if known else CURRENT


def assess_api_service(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge an APIService by its Available condition."""
    available = conditions(body).get("Available", {})
    return CURRENT if available.get("status") == "True" else progressing(text(available, "not available yet"))


def assess_sealed(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a SealedSecret that a controller in the cluster opens, as Argo CD does; a word about an older form is none."""
    status = body.get("status") or {}
    synced = conditions(body).get("Synced", {})
    seen = status.get("observedGeneration", 0) >= (body.get("metadata") or {}).get("generation", 0)
    if not seen or synced.get("status") not in ("True", "False"):
        return progressing("its controller has not opened it yet", "NotOpened")
    return CURRENT if synced["status"] == "True" else failed(text(synced, "its controller cannot open it"), "NotSynced")


def assess_present(body: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge a kind that is right as soon as it exists."""
    return CURRENT


RULES: dict[GroupKind, Rule] = {
    GroupKind("", "Namespace"): assess_namespace,
    GroupKind("", "PersistentVolumeClaim"): assess_claim,
    GroupKind("", "Service"): assess_service,
    GroupKind("", "Node"): assess_present,
    GroupKind("", "PersistentVolume"): assess_present,
    GroupKind("policy", "PodDisruptionBudget"): assess_present,
    GroupKind("apiextensions.k8s.io", "CustomResourceDefinition"): assess_definition,
    GroupKind("autoscaling", "HorizontalPodAutoscaler"): assess_autoscaler,
    GroupKind("apiregistration.k8s.io", "APIService"): assess_api_service,
    GroupKind("bitnami.com", "SealedSecret"): assess_sealed,
}
