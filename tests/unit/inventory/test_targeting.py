"""Which app goes where, with which variables, from which path."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.inventory.targeting import plan_targets
from fleet.inventory.value import Target
from fleet.object import TargetId
from tests.unit.inventory.build import app, cluster, environment, inventory, repository

CLUSTERS = "".join([
    repository(), environment("dev"), environment("prod"),
    cluster("dev-1", "dev", "tier: web, region: eu"),
    cluster("prod-1", "prod", "tier: web, region: us"),
    cluster("prod-2", "prod", "tier: batch"),
])  # fmt: skip


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("clusterSelector: {}", "dev-1 prod-1 prod-2"),
        ("environments: [prod]", "prod-1 prod-2"),
        ("environments: [dev, prod]", "dev-1 prod-1 prod-2"),
        ("clusters: [dev-1, prod-2]", "dev-1 prod-2"),
        ("environments: [prod], clusters: [dev-1, prod-2]", "prod-2"),
        ("environments: [prod], clusters: [], clusterSelector: {matchLabels: {tier: web}}", "prod-1"),
        ("clusterSelector: {matchExpressions: [{key: region, operator: Exists}]}", "dev-1 prod-1"),
        ("clusterSelector: {matchExpressions: [{key: region, operator: DoesNotExist}]}", "prod-2"),
        ("clusterSelector: {matchExpressions: [{key: region, operator: In, values: [eu, ap]}]}", "dev-1"),
        ("clusterSelector: {matchExpressions: [{key: region, operator: NotIn, values: [eu]}]}", "prod-1 prod-2"),
        ("clusterSelector: {matchLabels: {tier: web}, matchExpressions: [{key: region, operator: In, values: [us]}]}", "prod-1"),
        ("clusterSelector: {matchLabels: {tier: none}}", ""),
    ],
)  # fmt: skip
def test_all_that_targets_gives_must_hold(targets: str, expected: str) -> None:
    """Environments, names and labels narrow each other."""
    planned = plan_targets(inventory(CLUSTERS, app(targets=targets)))
    assert [target.cluster for target in planned] == expected.split()


def plan(app_text: str, *, on: str = "prod-1") -> Target:
    """Return the target of an app on one of CLUSTERS."""
    return plan_targets(inventory(CLUSTERS, app("ingress"), app_text))[TargetId(on, "shop")]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("apps/shop", "apps/shop"),
        ("a/${environment}/${cluster}", "a/prod/prod-1"),
        ("a/${label:region}/${tier}", "a/us/web"),
    ],
)
def test_paths_are_expanded(path: str, expected: str) -> None:
    """Environment, cluster and labels may stand in a path."""
    assert plan(app(path=path)).path == expected


def test_a_path_without_value_is_a_problem_of_its_target_alone() -> None:
    """Only the cluster without the label has the problem."""
    planned = plan_targets(inventory(CLUSTERS, app(path="x/${label:region}")))
    assert [target.problem for target in planned.values()] == [
        "",
        "",
        "${label:region} in the path has no value: cluster prod-2 has no label region",
    ]


def test_overrides_change_path_and_variables_where_they_apply() -> None:
    """Later overrides win; others do not touch the target."""
    overrides = (
        "variables: {A: app}, overrides: ["
        "{environment: prod, variables: {A: environment}, path: 'prod/${cluster}'},"
        "{clusterSelector: {matchLabels: {tier: web}}, variables: {A: labels}},"
        "{cluster: dev-1, variables: {A: name}, path: never}]"
    )
    target = plan(app(spec=overrides))
    assert (target.path, dict(target.variables)) == ("prod/prod-1", {"A": "labels"})
    assert target.origins == {"A": "App shop overrides[1] (a.yaml:36)"}


def test_dependencies_are_targets_of_the_same_cluster() -> None:
    """dependsOn is resolved per cluster."""
    target = plan(app(spec="dependsOn: [{app: ingress}]"))
    assert (target.depends_on, target.problem) == ((TargetId("prod-1", "ingress"),), "")


def test_a_dependency_that_does_not_go_to_the_cluster_is_a_problem() -> None:
    """The target says which app is missing where."""
    text = app("db", targets="environments: [dev]") + app(spec="dependsOn: [{app: db}]")
    assert plan(text).problem == "depends on db, which does not go to cluster prod-1"


def test_targets_are_sorted() -> None:
    """The order never depends on how files are named."""
    planned = list(plan_targets(inventory(CLUSTERS, app("b"), app("a"))))
    assert planned == sorted(planned)


LAYERS = ("app", "environment", "cluster", "override")


@given(st.dictionaries(st.sampled_from("ABCDEF"), st.sets(st.sampled_from(LAYERS), min_size=1)))
def test_variables_come_from_the_strongest_layer(wanted: dict[str, set[str]]) -> None:
    """App < Environment < Cluster < App overrides, variable by variable, each with its origin."""
    layers = {
        layer: "{" + ", ".join(f"{name}: {layer}" for name, given_in in wanted.items() if layer in given_in) + "}"
        for layer in LAYERS
    }
    overrides = f", overrides: [{{cluster: a, variables: {layers['override']}}}]" if "override" in str(wanted) else ""
    value = inventory(
        repository(),
        environment("dev", f"variables: {layers['environment']}"),
        cluster("a", spec=f"variables: {layers['cluster']}"),
        app(spec=f"variables: {layers['app']}{overrides}"),
    )
    target = plan_targets(value)[TargetId("a", "shop")]
    strongest = {name: max(given_in, key=LAYERS.index) for name, given_in in wanted.items()}
    assert dict(target.variables) == strongest
    words = {
        "app": "App shop (",
        "environment": "Environment dev",
        "cluster": "Cluster a",
        "override": "App shop overrides[0]",
    }
    assert all(target.origins[name].startswith(words[layer]) for name, layer in strongest.items())
