"""Which app goes to which cluster, with which variables, from which path. Pure."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from fleet.inventory.field import check_tree_path
from fleet.inventory.schema import App, Cluster, Environment, Targets
from fleet.inventory.value import Inventory, Target
from fleet.inventory.variable import merge_variables, select_overrides
from fleet.object import TargetId


def plan_targets(inventory: Inventory) -> Mapping[TargetId, Target]:
    """Return every target, sorted by cluster and app.

    A target of a cluster whose environment is not in force is left out; a path that cannot be expanded or a dependency
    that does not go to the cluster is a target with a `problem`.
    """
    chosen = {
        TargetId(cluster.name, app.name): (app, cluster)
        for cluster in inventory.clusters.values()
        for app in inventory.apps.values()
        if cluster.spec.environment in inventory.environments and matches(app.spec.targets, cluster)
    }
    return MappingProxyType({
        target_id: _plan_target(target_id, app, cluster, inventory.environments[cluster.spec.environment], chosen)
        for target_id, (app, cluster) in sorted(chosen.items(), key=lambda item: item[0])
    })  # fmt: skip


def matches(targets: Targets, cluster: Cluster) -> bool:
    """Tell whether everything that `targets` gives holds for the cluster."""
    return (
        (not targets.environments or cluster.spec.environment in targets.environments)
        and (not targets.clusters or cluster.name in targets.clusters)
        and (targets.cluster_selector is None or targets.cluster_selector.matches(cluster.labels))
    )


def expand_path(path: str, cluster: Cluster) -> str:
    """Replace `${environment}`, `${cluster}`, `${label:KEY}` and, for other words, the label of that name.

    Raises: ValueError naming the word that has no value.
    """
    if "${" not in path:
        return path

    def value_of(match: re.Match[str]) -> str:
        word = match[1]
        known = {"environment": cluster.spec.environment, "cluster": cluster.name}
        if word in known:
            return known[word]
        label = word.removeprefix("label:")
        if not cluster.labels.get(label):
            raise ValueError(f"${{{word}}} in the path has no value: cluster {cluster.name} has no label {label}")
        return cluster.labels[label]

    return check_tree_path(re.sub(r"\$\{([^}]*)\}", value_of, path))


def _plan_target(
    target_id: TargetId, app: App, cluster: Cluster, environment: Environment, chosen: Mapping[TargetId, object]
) -> Target:
    written = app.spec.path
    for _, override in select_overrides(app, cluster):
        written = override.path or written
    depends_on = tuple(TargetId(target_id.cluster, dependency.app) for dependency in app.spec.depends_on)
    missing = [needed.app for needed in depends_on if needed not in chosen]
    problem = f"depends on {', '.join(missing)}, which does not go to cluster {target_id.cluster}" if missing else ""
    path = written
    try:
        path = expand_path(written, cluster)
    except ValueError as error:
        problem = str(error)
    return Target(
        id=target_id,
        app=app,
        cluster=cluster,
        environment=environment,
        path=path,
        variables=MappingProxyType(merge_variables(app, environment, cluster)),
        depends_on=depends_on,
        problem=problem,
    )
