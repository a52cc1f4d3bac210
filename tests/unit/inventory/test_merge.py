"""What stays in force: last good versions, waiting removals, references and cycles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.inventory.merge import list_changes, merge
from fleet.inventory.value import Inventory
from tests.unit.inventory.build import app, cluster, environment, faults, inventory, repository, scan

BASE = repository() + environment("dev")


def names(value: Inventory) -> list[str]:
    """Return kind/name of all that is in force."""
    return [f"{kind}/{name}" for kind, name in value.entries]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BASE + app("shop", "dependsOn: [{app: ingres}]") + app("ingress"), ["there is no app ingres; did you mean ingress?"]),
        (environment("dev") + app("shop"), ["there is no repository repo"]),
        (BASE + cluster("a", "def"), ["there is no environment def; did you mean dev?"]),
        (BASE + app("shop", targets="environments: [dev, prod]"), ["spec.targets.environments[1]: there is no environment prod"]),
        (BASE + app("shop", targets="clusters: [a]"), ["spec.targets.clusters[0]: there is no cluster a"]),
        (BASE + app("shop", "overrides: [{cluster: a, path: b}, {environment: prod, path: b}]"), ["spec.overrides[0].cluster: there is no cluster a", "spec.overrides[1].environment: there is no environment prod"]),
        (BASE + environment("prod", "after: [stag]"), ["spec.after[0]: there is no environment stag"]),
        (BASE + app("a", "dependsOn: [{app: b}]") + app("b", "dependsOn: [{app: a}]"), ["dependsOn forms a cycle: a (a.yaml:11) -> b (a.yaml:16) -> a (a.yaml:11)", "dependsOn forms a cycle: b (a.yaml:16) -> a (a.yaml:11) -> b (a.yaml:16)"]),
        (BASE + app("a", "dependsOn: [{app: a}]"), ["dependsOn forms a cycle: a (a.yaml:11) -> a (a.yaml:11)"]),
        (environment("e1", "after: [e2]") + environment("e2", "after: [e3]") + environment("e3", "after: [e1]"), ["after forms a cycle: e1 (a.yaml:1) -> e2 (a.yaml:6) -> e3 (a.yaml:11) -> e1 (a.yaml:1)", "after forms a cycle: e2", "after forms a cycle: e3"]),
        (BASE + app("shop") + app("shop"), ["a.yaml:18:18: metadata.name: app shop is already defined at a.yaml:11"]),
        (BASE + cluster("a", spec="uid: u") + cluster("b", spec="uid: u"), ["spec.uid: cluster b (a.yaml:16) is the same API server", "spec.uid: cluster a (a.yaml:11) is the same API server"]),
        (BASE + cluster("a") + cluster("b").replace("keys/b", "keys/a"), ["spec.connection.kubeconfig: cluster b (a.yaml:16) is the same API server", "spec.connection.kubeconfig: cluster a (a.yaml:11) is the same API server"]),
        (BASE + app("shop", "dependsOn: [{app: ingress}]") + app("ingress", targets="clusters: [b]") + cluster("a") + cluster("b"), ["spec.dependsOn: depends on ingress, which does not go to cluster a"]),
        (BASE + app("shop", path="x/${label:region}") + cluster("a"), ["spec.path: ${label:region} in the path has no value: cluster a has no label region"]),
        (BASE + app("shop") + cluster("a", "def"), ["there is no environment def"]),
        (repository("other") + environment("dev") + app("a", "dependsOn: [{app: b}]") + app("b"), ["there is no repository repo", "there is no repository repo"]),
    ],
)  # fmt: skip
def test_faults_between_documents_name_both_places(text: str, expected: list[str]) -> None:
    """Unknown names, cycles, duplicates and double clusters are refused, and nothing else is said."""
    found = faults(inventory(text))
    assert len(found) == len(expected), found
    for fault, part in zip(found, expected, strict=True):
        assert part in fault


def test_a_document_left_out_does_not_take_others_for_unknown() -> None:
    """What names a refused document is told so, not that there is none."""
    found = inventory(BASE, app("a", "dependsOn: [{app: b}]"), app("b", "dependsOn: [{app: c}]"))
    assert [fault.split(": ", 2)[2] for fault in faults(found)] == [
        "app b is itself refused: see a.yaml:16",
        "there is no app c",
    ]
    assert names(found) == ["Environment/dev", "Repository/repo"]
    assert not found.complete


def test_a_right_inventory_is_authoritative() -> None:
    """Without faults everything is in force and absence means removal."""
    found = inventory(BASE, app(), cluster("a"))
    assert (faults(found), found.authoritative) == ([], True)
    assert (list(found.apps), list(found.clusters), list(found.repositories)) == (["shop"], ["a"], ["repo"])


FILES = {"app.yaml": app("shop") + app("more"), "base.yaml": BASE, "cluster.yaml": cluster("a") + cluster("b")}


def start() -> Inventory:
    """Return the inventory of FILES."""
    return merge(None, scan(FILES), quiet=True)


def test_a_bad_file_keeps_its_last_good_version() -> None:
    """All documents of the file stay as they were; the fault is listed; other files change."""
    files = FILES | {"app.yaml": app("shop", "prune: false") + "a: [", "cluster.yaml": cluster("a") + cluster("c")}
    after = merge(start(), scan(files), quiet=True)
    assert list_changes(start().entries, after.entries) == [("Cluster", "b"), ("Cluster", "c")]
    assert len(after.problems) == 1
    assert after.complete


def test_a_file_that_stays_bad_keeps_its_last_good_version() -> None:
    """However often a bad file is read, the good version stays; repairing it takes effect."""
    value = start()
    for tail in ("a: [", "b: ]", "c: {"):
        value = merge(value, scan(FILES | {"app.yaml": app("shop") + tail}), quiet=True)
        assert value.entries == start().entries
    value = merge(value, scan(FILES | {"app.yaml": app("shop")}), quiet=True)
    assert list(value.apps) == ["shop"]


def test_a_file_bad_from_the_start_leaves_the_inventory_incomplete() -> None:
    """Nobody knows what it was to hold, so absence is no removal, also later."""
    files = FILES | {"app.yaml": app("shop") + "a: ["}
    first = merge(None, scan(files), quiet=True)
    assert (list(first.apps), first.complete) == (["shop"], False)
    later = merge(first, scan(files | {"cluster.yaml": cluster("a")}), quiet=True)
    assert (list(later.clusters), later.complete, later.pending) == (["a", "b"], False, (("Cluster", "b"),))


def test_a_bad_file_moved_keeps_its_documents() -> None:
    """Renaming a file and breaking it at once removes nothing."""
    files = {path: text for path, text in FILES.items() if path != "app.yaml"} | {"apps.yaml": "a: ["}
    assert merge(start(), scan(files), quiet=True).entries == start().entries


def test_a_document_may_move_between_files() -> None:
    """Moving is no removal, even out of a file that is bad afterwards."""
    files = FILES | {"app.yaml": "a: [", "moved.yaml": app("shop", "prune: false")}
    after = merge(start(), scan(files), quiet=False)
    assert list_changes(start().entries, after.entries) == [("App", "shop")]
    assert after.pending == ()


def test_removals_wait_for_quiet() -> None:
    """A document that vanished stays, marked, until the directory has been quiet."""
    files = FILES | {"cluster.yaml": cluster("a", labels="x: z") + cluster("c")}
    restless = merge(start(), scan(files), quiet=False)
    assert list(restless.clusters) == ["a", "b", "c"]
    assert (restless.pending, restless.authoritative) == ((("Cluster", "b"),), False)
    assert restless.clusters["a"].labels == {"x": "z"}
    quiet = merge(restless, scan(files), quiet=True)
    assert (list(quiet.clusters), quiet.pending, quiet.authoritative) == (["a", "c"], (), True)


@pytest.mark.parametrize(
    ("files", "stays"),
    [
        (FILES | {"base.yaml": environment("dev")}, "Repository/repo"),
        (FILES | {"base.yaml": repository()}, "Environment/dev"),
    ],
)
def test_what_is_still_named_is_not_removed(files: dict[str, str], stays: str) -> None:
    """Removing a document that another names is refused; the removed one stays in force."""
    after = merge(start(), scan(files), quiet=True)
    assert after.entries == start().entries
    assert stays in names(after)
    assert all("the removed one stays in force until then" in fault for fault in faults(after))
    assert after.problems


def test_an_edit_that_names_nothing_keeps_the_last_good_version() -> None:
    """A wrong reference takes back that document alone."""
    files = FILES | {"app.yaml": app("shop", "dependsOn: [{app: none}], prune: false") + app("more", "prune: false")}
    after = merge(start(), scan(files), quiet=True)
    assert list_changes(start().entries, after.entries) == [("App", "more")]
    assert after.complete


def test_a_cycle_made_by_an_edit_is_taken_back() -> None:
    """The edited documents return to their last good versions."""
    files = FILES | {"app.yaml": app("shop", "dependsOn: [{app: more}]") + app("more", "dependsOn: [{app: shop}]")}
    after = merge(start(), scan(files), quiet=True)
    assert after.entries == start().entries
    assert len(after.problems) == 2


def test_a_second_document_of_one_name_does_not_displace_the_first() -> None:
    """The one in force stays, wherever the other is written."""
    files = FILES | {"a-first.yaml": app("shop", "prune: false")}
    after = merge(start(), scan(files), quiet=True)
    assert after.entries == start().entries
    assert faults(after) == ["a-first.yaml:3:18: metadata.name: app shop is already defined at app.yaml:1"]


def test_a_second_name_for_a_cluster_does_not_displace_the_first() -> None:
    """The newcomer is refused although its name comes first."""
    files = FILES | {"a.yaml": cluster("aa").replace("keys/aa", "keys/b")}
    after = merge(start(), scan(files), quiet=True)
    assert after.entries == start().entries
    assert "cluster b (cluster.yaml:6) is the same API server" in faults(after)[0]


def test_an_edit_does_not_lose_a_cluster_its_name() -> None:
    """The name in force stays with its edit; only the second name for its server is refused."""
    edited = cluster("a") + cluster("b", labels="x: z")
    after = merge(
        start(),
        scan(FILES | {"a.yaml": cluster("aa").replace("keys/aa", "keys/b"), "cluster.yaml": edited}),
        quiet=True,
    )
    assert list(after.clusters) == ["a", "b"]
    assert after.clusters["b"].metadata.labels == {"x": "z"}
    assert len(faults(after)) == 1


def test_two_new_names_for_a_cluster_are_both_refused() -> None:
    """Neither is taken, what names them says so, and taking one away heals the other."""
    twin = cluster("d").replace("keys/d", "keys/c")
    after = merge(start(), scan(FILES | {"c.yaml": cluster("c"), "d.yaml": twin}), quiet=True)
    assert after.entries == start().entries
    assert [fault.partition(":")[0] for fault in faults(after)] == ["c.yaml", "d.yaml"]
    healed = merge(after, scan(FILES | {"d.yaml": twin}), quiet=True)
    assert list(healed.clusters) == ["a", "b", "d"]


def test_a_dependency_missing_on_one_cluster_leaves_the_app_in_force() -> None:
    """A cluster that joins without the dependency blocks the app there, not elsewhere."""
    shop = app("shop", "dependsOn: [{app: more}]") + app("more", targets="clusters: [a, b]")
    before = merge(None, scan(FILES | {"app.yaml": shop}), quiet=True)
    after = merge(before, scan(FILES | {"app.yaml": shop, "new.yaml": cluster("c")}), quiet=True)
    assert list(after.apps) == ["more", "shop"]
    assert len(after.problems) == 1


TEXTS = {
    "good": app("shop") + cluster("a"),
    "changed": app("shop", "prune: false") + cluster("a", labels="x: z"),
    "less": cluster("a"),
    "empty": "# nothing\n",
    "bad": "a: [\n",
    "dangling": app("shop", "dependsOn: [{app: none}]"),
    "other": app("other", "dependsOn: [{app: shop}]"),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(TEXTS)), st.sampled_from(sorted(TEXTS))), min_size=1, max_size=8))
def test_nothing_goes_out_of_force_while_restless(steps: list[tuple[str, str]]) -> None:
    """Without quiet no document ever leaves, whatever happens to the files."""
    value: Inventory | None = None
    for one, two in steps:
        files = {"base.yaml": BASE, "one.yaml": TEXTS[one], "two.yaml": TEXTS[two]}
        after = merge(value, scan(files), quiet=False)
        assert value is None or set(value.entries) <= set(after.entries)
        value = after


@given(st.lists(st.tuples(st.sampled_from(sorted(TEXTS)), st.sampled_from(sorted(TEXTS))), min_size=1, max_size=8))
def test_what_is_in_force_is_consistent_and_reading_again_changes_nothing(steps: list[tuple[str, str]]) -> None:
    """Every reference of a document in force leads to one in force; a second reading is a fixed point."""
    value: Inventory | None = None
    for one, two in steps:
        files = {"base.yaml": BASE, "one.yaml": TEXTS[one], "two.yaml": TEXTS[two]}
        value = merge(value, scan(files), quiet=True)
        assert not {dependency.app for shop in value.apps.values() for dependency in shop.spec.depends_on} - set(
            value.apps
        )
        assert merge(value, scan(files), quiet=True) == value
