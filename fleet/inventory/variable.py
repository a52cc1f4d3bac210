"""The variables of an app on a cluster, and where each came from. Pure."""

from collections.abc import Iterator, Mapping

from fleet.inventory.schema import App, Cluster, Entry, Environment, Override


def select_overrides(app: App, cluster: Cluster) -> Iterator[tuple[int, Override]]:
    """Yield (index, override) of those that apply to the cluster, weakest first."""
    for index, override in enumerate(app.spec.overrides):
        if (
            override.cluster == cluster.name
            or override.environment == cluster.spec.environment
            or (override.cluster_selector is not None and override.cluster_selector.matches(cluster.labels))
        ):
            yield index, override


def merge_variables(app: App, environment: Environment, cluster: Cluster) -> dict[str, str]:
    """Return the variables in force, sorted by name: App < Environment < Cluster < App `overrides`."""
    merged: dict[str, str] = {}
    for _, _, variables in _list_layers(app, environment, cluster):
        merged |= variables
    return dict(sorted(merged.items()))


def stage_variables(app: App, environment: Environment) -> dict[str, str]:
    """Return the variables that an app has in an environment whatever the cluster: App < Environment < App `overrides`."""
    merged = {**app.spec.variables, **environment.spec.variables}
    for override in app.spec.overrides:
        if override.environment == environment.name and override.cluster is None and override.cluster_selector is None:
            merged |= override.variables
    return dict(sorted(merged.items()))


def explain_variables(app: App, environment: Environment, cluster: Cluster) -> dict[str, str]:
    """Return for each variable in force where it came from: `Environment production (clusters.d/stages.yaml:3)`."""
    origins: dict[str, str] = {}
    for entry, part, variables in _list_layers(app, environment, cluster):
        origins |= dict.fromkeys(variables, f"{entry.kind} {entry.name}{part} ({entry.origin})")
    return dict(sorted(origins.items()))


def _list_layers(
    app: App, environment: Environment, cluster: Cluster
) -> Iterator[tuple[Entry, str, Mapping[str, str]]]:
    """Yield (document, part of it, variables), weakest first."""
    yield app, "", app.spec.variables
    yield environment, "", environment.spec.variables
    yield cluster, "", cluster.spec.variables
    for index, override in select_overrides(app, cluster):
        yield app, f" overrides[{index}]", override.variables
