"""Which app goes to which cluster, with which variables, from which path. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from fleet.inventory.field import check_tree_path
from fleet.inventory.schema import App, Cluster, Entry, Environment, Override, Targets
from fleet.inventory.value import Inventory
from fleet.object import TargetId


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One app on one cluster, with everything the inventory says about the pair."""

    id: TargetId
    app: App
    cluster: Cluster
    environment: Environment
    path: str
    """Directory in the repository, nothing left to expand."""
    variables: Mapping[str, str]
    origins: Mapping[str, str] = field(compare=False)
    """Where each variable came from, for people: `Environment production (clusters.d/stages.yaml:3)`."""
    depends_on: tuple[TargetId, ...]
    problem: str = ""
    """Why the target cannot run, empty if it can."""


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


def select_overrides(overrides: Sequence[Override], cluster: Cluster) -> Iterator[tuple[int, Override]]:
    """Yield (index, override) of those that apply to the cluster, weakest first."""
    for index, override in enumerate(overrides):
        if (
            override.cluster == cluster.name
            or override.environment == cluster.spec.environment
            or (override.cluster_selector is not None and override.cluster_selector.matches(cluster.labels))
        ):
            yield index, override


def merge_variables(app: App, environment: Environment, cluster: Cluster) -> tuple[dict[str, str], dict[str, str]]:
    """Return the variables of a target and where each came from: App < Environment < Cluster < App `overrides`."""
    layers = [
        (_describe(app), app.spec.variables),
        (_describe(environment), environment.spec.variables),
        (_describe(cluster), cluster.spec.variables),
        *(
            (_describe(app, f" overrides[{index}]"), override.variables)
            for index, override in select_overrides(app.spec.overrides, cluster)
        ),
    ]
    variables: dict[str, str] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        variables |= layer
        origins |= dict.fromkeys(layer, origin)
    return dict(sorted(variables.items())), dict(sorted(origins.items()))


def expand_path(path: str, cluster: Cluster) -> str:
    """Replace `${environment}`, `${cluster}`, `${label:KEY}` and, for other words, the label of that name.

    Raises: ValueError naming the word that has no value.
    """

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
    for _, override in select_overrides(app.spec.overrides, cluster):
        written = override.path or written
    depends_on = tuple(TargetId(target_id.cluster, dependency.app) for dependency in app.spec.depends_on)
    missing = [needed.app for needed in depends_on if needed not in chosen]
    problem = f"depends on {', '.join(missing)}, which does not go to cluster {target_id.cluster}" if missing else ""
    path = written
    try:
        path = expand_path(written, cluster)
    except ValueError as error:
        problem = str(error)
    variables, origins = merge_variables(app, environment, cluster)
    return Target(
        id=target_id,
        app=app,
        cluster=cluster,
        environment=environment,
        path=path,
        variables=MappingProxyType(variables),
        origins=MappingProxyType(origins),
        depends_on=depends_on,
        problem=problem,
    )


def _describe(entry: Entry, part: str = "") -> str:
    return f"{entry.kind} {entry.name}{part} ({entry.origin})"
