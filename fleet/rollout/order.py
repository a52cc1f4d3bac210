"""In which order the clusters of a stage go, and what an approval of a stage is for. Pure."""

import hashlib
from collections.abc import Mapping, Sequence

from fleet.object import encode_canonical
from fleet.rollout.policy import Policy, StagePolicy
from fleet.rollout.state import Run


def order_clusters(policy: Policy, members: Mapping[str, tuple[str, Mapping[str, str]]]) -> Mapping[str, Sequence[str]]:
    """Order the clusters of each stage; `members` are environment and labels by cluster."""
    found: dict[str, list[str]] = {stage.environment: [] for stage in policy.stages}
    for name, (environment, _) in members.items():
        if environment in found:
            found[environment].append(name)
    return {
        stage.environment: sorted(found[stage.environment], key=lambda name: _rank(stage, name, members[name][1]))
        for stage in policy.stages
    }


def _rank(stage: StagePolicy, name: str, labels: Mapping[str, str]) -> tuple[int, int, float, str, str]:
    """Canaries in their order, then by the label (numbers before words, none last), then by name.

    >>> _rank(StagePolicy(environment="x", order_label="ring"), "a", {"ring": "10"})
    (0, 0, 10.0, '', 'a')
    """
    first = stage.first.index(name) - len(stage.first) if name in stage.first else 0
    value = labels.get(stage.order_label) if stage.order_label else ""
    if value is None:
        return first, 2, 0.0, "", name
    try:
        return first, 0, float(value), "", name
    except ValueError:
        return first, 1, 0.0, value, name


def approval_digest(run: Run, stage: StagePolicy, order: Sequence[str]) -> str:
    """Return what an approval of a stage is bound to: the release, the clusters in their order, and the rules."""
    clusters = [name for name in order if name in run.clusters]
    parts = [run.app, run.release, stage.environment, clusters, repr(stage)]
    return hashlib.sha256(encode_canonical(parts)).hexdigest()[:16]
