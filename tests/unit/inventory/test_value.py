"""The values that fields hold, the inventory as a value, and faults between documents."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.inventory.field import check_tree_path, parse_duration
from fleet.inventory.schema import Requirement, Selector
from fleet.inventory.variable import explain_variables
from tests.unit.inventory.build import app, cluster, environment, faults, inventory, repository

DAY_S = 86400.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400), ("0s", 0), ("1h1m1s1ms", 3661.001)],
)
def test_durations(text: str, seconds: float) -> None:
    """Durations are written as Go and Flux write them."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1 s", "1d", "1s1", ".5s", "1e3s", "٣s", None, True, [], "1S"])
def test_what_is_no_duration(text: object) -> None:
    """Everything else is refused, a missing unit with what to write."""
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(text)


@pytest.mark.parametrize(("number", "hint"), [(30, "write 30s, 30m or 30h"), (1.5, "write 1.5s, 1.5m or 1.5h")])
def test_a_number_needs_a_unit(number: object, hint: str) -> None:
    """A bare number is refused with what to write."""
    with pytest.raises(ValueError, match=hint):
        parse_duration(number)


@pytest.mark.parametrize("text", ["9" * 400 + "h", "99999999h"])
def test_durations_have_an_end(text: str) -> None:
    """Nobody waits for longer than a life: such a duration is a slip of the pen."""
    with pytest.raises(ValueError, match="too long"):
        parse_duration(text)


@given(st.lists(st.sampled_from(["a", "..", ".", "", "a/b", "\\", "\0", "/", "${x}"]), max_size=5))
def test_tree_paths_never_lead_out(parts: list[str]) -> None:
    """Whatever is accepted stays below the root, however it is put together."""
    text = "/".join(parts)
    try:
        accepted = check_tree_path(text)
    except ValueError:
        return
    assert accepted == text
    depth = 0
    for part in accepted.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        assert depth >= 0
    assert not accepted.startswith("/")


LABELS = {"tier": "web", "region": "eu"}


@pytest.mark.parametrize(
    ("key", "operator", "values", "holds"),
    [
        ("tier", "In", ("web", "db"), True),
        ("tier", "In", ("db",), False),
        ("absent", "In", ("web",), False),
        ("tier", "NotIn", ("db",), True),
        ("tier", "NotIn", ("web",), False),
        ("absent", "NotIn", ("web",), True),
        ("tier", "Exists", (), True),
        ("absent", "Exists", (), False),
        ("tier", "DoesNotExist", (), False),
        ("absent", "DoesNotExist", (), True),
    ],
)
def test_selectors_mean_what_they_mean_in_kubernetes(
    key: str, operator: str, values: tuple[str, ...], holds: bool
) -> None:
    """NotIn holds for what has no such label at all; all conditions must hold together."""
    requirement = Requirement.model_validate({"key": key, "operator": operator, "values": values})
    assert Selector(matchExpressions=(requirement,)).matches(LABELS) == holds
    assert not Selector(matchLabels={"region": "us"}, matchExpressions=(requirement,)).matches(LABELS)
    assert Selector(matchLabels={"region": "eu"}, matchExpressions=(requirement,)).matches(LABELS) == holds


def test_an_empty_selector_matches_everything() -> None:
    """As in Kubernetes."""
    assert Selector().matches({})
    assert Selector().matches(LABELS)


def test_origins_name_document_and_place() -> None:
    """For each variable people see the layer that won, and where it is written."""
    made = inventory(
        repository(),
        environment("dev", "variables: {A: env, B: env}"),
        cluster("one", spec="variables: {B: cluster, C: cluster}"),
        app(spec="variables: {A: app, D: app}, overrides: [{cluster: one, variables: {C: override}}]"),
    )
    (target,) = made.targets.values()
    assert target.variables == {"A": "env", "B": "cluster", "C": "override", "D": "app"}
    origins = explain_variables(target.app, target.environment, target.cluster)
    assert origins == target.origins
    assert {name: text.partition(" (")[0] for name, text in origins.items()} == {
        "A": "Environment dev",
        "B": "Cluster one",
        "C": "App shop overrides[0]",
        "D": "App shop",
    }
    assert all("a.yaml:" in text for text in origins.values())


def test_an_inventory_is_sorted_and_read_only() -> None:
    """Order in files does not matter; mappings cannot be changed by who reads them."""
    documents = [repository(), environment("dev"), cluster("b"), cluster("a"), app()]
    made, again = inventory(*documents), inventory(*reversed(documents))
    assert list(made.entries) == list(again.entries) == sorted(made.entries)
    assert list(made.clusters) == ["a", "b"]
    with pytest.raises(TypeError):
        made.clusters["c"] = made.clusters["a"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            "connection: {server: 'https://x'}",
            "connection: {server: 'https://x'}",
            "spec.connection.server: cluster a (a.yaml:",
        ),
        ("connection: {inCluster: true}", "connection: {inCluster: true}", "spec.connection.inCluster: cluster a"),
        (
            "uid: u, connection: {server: 'https://x'}",
            "uid: u, connection: {server: 'https://y'}",
            "spec.uid: cluster a",
        ),
    ],
)
def test_one_server_under_two_names(first: str, second: str, message: str) -> None:
    """Two clusters that are surely the same are both refused, each with the other's place: no order of files decides."""
    documents = [
        f"apiVersion: fleet/v1\nkind: Cluster\nmetadata: {{name: {name}}}\nspec: {{environment: dev, {spec}}}\n---\n"
        for name, spec in (("a", first), ("b", second))
    ]
    made = inventory(environment("dev"), *documents)
    of_a, of_b = faults(made)
    assert message in of_b
    assert message.replace("cluster a", "cluster b") in of_a
    for fault in (of_a, of_b):
        assert "is the same API server; neither is taken until one is removed" in fault
    assert list(made.clusters) == []


def test_one_server_through_two_proxies_is_two() -> None:
    """The same private address behind different proxies is another server."""
    documents = [
        f"apiVersion: fleet/v1\nkind: Cluster\nmetadata: {{name: {name}}}\n"
        f"spec: {{environment: dev, connection: {{server: 'https://10.0.0.1', proxyUrl: 'http://{name}'}}}}\n---\n"
        for name in ("a", "b")
    ]
    made = inventory(environment("dev"), *documents)
    assert faults(made) == []
    assert list(made.clusters) == ["a", "b"]


def test_long_cycles_are_told_by_every_member() -> None:
    """Each document of a cycle names the way around, so that whoever reads any of them sees it."""
    made = inventory(environment("a", "after: [c]"), environment("b", "after: [a]"), environment("c", "after: [b]"))
    told = faults(made)
    assert len(told) == 3
    assert "after forms a cycle: a (a.yaml:" in told[0]
    assert all(f"{name} (a.yaml:" in told[0] for name in "abc")
    assert not made.environments


def test_a_document_that_names_itself() -> None:
    """The shortest cycle is one too."""
    (fault,) = faults(inventory(environment("a", "after: [a]")))
    assert "after forms a cycle: a (a.yaml:1) -> a (a.yaml:1)" in fault
