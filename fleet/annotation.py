"""Annotations and labels that mean something to fleet, and what Flux and Argo CD call the same. Pure."""

import re
from collections.abc import Mapping

from fleet.object import Adopt, Apply, Flags

PART_OF = "applyset.kubernetes.io/part-of"
"""Label on every object we apply: the ApplySet of its target."""
HUB = "fleet/hub"
"""Label on every object we apply: the hub's id. Watches select on it."""
FORMER_HUBS = "fleet/former-hubs"
"""Annotation on a hub's Lease: the hubs from which the cluster was taken over."""
APPLYSET_ID = "applyset.kubernetes.io/id"
APPLYSET_TOOLING = "applyset.kubernetes.io/tooling"
APPLYSET_KINDS = "applyset.kubernetes.io/contains-group-kinds"
APPLYSET_NAMESPACES = "applyset.kubernetes.io/additional-namespaces"

RECONCILE = ("fleet/reconcile", "kustomize.toolkit.fluxcd.io/reconcile")
PRUNE = ("fleet/prune", "kustomize.toolkit.fluxcd.io/prune")
SSA = ("fleet/ssa", "kustomize.toolkit.fluxcd.io/ssa")
FORCE = ("fleet/force", "kustomize.toolkit.fluxcd.io/force")
SUBSTITUTE = ("fleet/substitute", "kustomize.toolkit.fluxcd.io/substitute")
DECRYPT = ("fleet/decrypt", "kustomize.toolkit.fluxcd.io/decrypt")
"""`disabled`: the object is encrypted with SOPS and stays so; a controller in the cluster opens it."""
RESTART = "fleet/restart"
"""On a workload: `on-secret-change` replaces its pods when a Secret of the same app that they use changes."""
SECRETS = "fleet/secrets"
"""On the pod template of such a workload: a keyed digest of the Secrets that its pods use."""
MANAGED, PATCH = "sealedsecrets.bitnami.com/managed", "sealedsecrets.bitnami.com/patch"
"""What Sealed Secrets calls taking over a Secret that exists, and adding to it."""
ADOPT = "fleet/adopt"
WAVE = "argocd.argoproj.io/sync-wave"
SYNC_OPTIONS = "argocd.argoproj.io/sync-options"
KEEP_OPTIONS = frozenset({"Prune=false", "Prune=confirm", "Delete=false", "Delete=confirm"})
"""Sync options that forbid a deletion, or want it confirmed."""
RESOURCE_POLICY = "helm.sh/resource-policy"
HOOKS = ("argocd.argoproj.io/hook", "helm.sh/hook")

HEEDED = frozenset({*RECONCILE, *PRUNE, *SSA, *FORCE, ADOPT, WAVE, SYNC_OPTIONS, RESOURCE_POLICY, MANAGED, PATCH})
"""Annotations of a sealed document that its Secret gets, too: several count on the object in the cluster."""

OPT_OUT_PREFIXES = ("fleet/", "kustomize.toolkit.fluxcd.io/")
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"

_WAVE = re.compile(r"[+-]?[0-9]{1,9}")
_SSA_WORDS = {
    "merge": Apply.MERGE,
    "if-not-present": Apply.IF_NOT_PRESENT,
    "ifnotpresent": Apply.IF_NOT_PRESENT,
    "override": Apply.OVERRIDE,
}


def parse_flags(annotations: Mapping[str, str]) -> Flags:
    """Read what an object's annotations ask for; unknown values ask for nothing.

    >>> parse_flags({"fleet/ssa": "merge", "argocd.argoproj.io/sync-wave": "-1"}).wave
    -1
    >>> parse_flags({"kustomize.toolkit.fluxcd.io/prune": "disabled"}).prune
    False
    """
    if not annotations:
        return Flags()
    ssa = _first(annotations, SSA).lower()
    return Flags(
        reconcile=_first(annotations, RECONCILE) != "disabled" and ssa != "ignore",
        prune=_may_prune(annotations),
        substitute=_first(annotations, SUBSTITUTE) != "disabled",
        force=_first(annotations, FORCE) == "enabled",
        apply=_SSA_WORDS.get(ssa, Apply.MERGE if annotations.get(PATCH) == "true" else Apply.OVERRIDE),
        adopt=_parse_adopt(annotations.get(ADOPT, "")) or _parse_bitnami_adoption(annotations),
        wave=_parse_wave(annotations.get(WAVE, "")),
        hook=next((f"{name}: {annotations[name]}" for name in HOOKS if name in annotations), ""),
        restart=annotations.get(RESTART) == "on-secret-change",
    )


def is_opted_out_of_decryption(annotations: Mapping[str, object]) -> bool:
    """Tell whether an object encrypted with SOPS is to stay so."""
    return any(str(annotations.get(name, "")).lower() == "disabled" for name in DECRYPT)


def _may_prune(annotations: Mapping[str, str]) -> bool:
    options = {part.strip() for part in annotations.get(SYNC_OPTIONS, "").split(",")}
    kept = annotations.get(RESOURCE_POLICY) == "keep" or options & KEEP_OPTIONS
    return _first(annotations, PRUNE) != "disabled" and not kept


def _first(annotations: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((annotations[name] for name in names if name in annotations), "")


def _parse_adopt(word: str) -> Adopt | None:
    return next((adopt for adopt in Adopt if adopt.value == word), None)


def _parse_bitnami_adoption(annotations: Mapping[str, str]) -> Adopt | None:
    return Adopt.ALWAYS if "true" in (annotations.get(MANAGED), annotations.get(PATCH)) else None


def _parse_wave(text: str) -> int:
    return int(text) if _WAVE.fullmatch(text.strip()) else 0
