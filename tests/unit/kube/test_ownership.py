"""managedFields as sets of paths."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.kube.ownership import (
    FieldSet,
    Lost,
    foreign_additions,
    lost,
    own_fields,
    owned_digest,
    parse_pointer,
    plan_fold,
    plan_preexisting,
    plan_served,
)
from fleet.kube.wire import ManagedEntry

SEGMENTS = ["f:spec", "f:a", "f:b", 'k:{"name":"web"}', 'v:"x"', "i:0"]
KUBECTL = ("kubectl*",)
paths = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).map(tuple)
sets = st.lists(paths, max_size=8).map(FieldSet.of)


def entry(manager: str, fields: Any, **more: Any) -> ManagedEntry:
    """Write one managedFields entry."""
    defaults: dict[str, Any] = {"operation": "Update", "api_version": "v1", "time": "2026-01-01T00:00:00Z"}
    return ManagedEntry(manager=manager, fields=json.dumps(fields).encode(), **{**defaults, **more})


def ours(fields: Any) -> ManagedEntry:
    """Write our own entry."""
    return entry("fleet", fields, operation="Apply")


def members(fields: FieldSet) -> set[tuple[str, ...]]:
    """Return the paths as a plain set: the model that the tree must equal."""
    return set(fields.members())


@given(sets, sets)
def test_sets_behave_as_sets(a: FieldSet, b: FieldSet) -> None:
    """Union, intersection and difference are those of the plain sets of paths."""
    assert members(a.union(b)) == members(a) | members(b)
    assert members(a.intersection(b)) == members(a) & members(b)
    assert members(a.difference(b)) == members(a) - members(b)
    assert a.difference(b).is_empty == (not members(a) - members(b))


@given(sets)
def test_serialised_sets_read_back_equal(a: FieldSet) -> None:
    """fieldsV1 written by us reads back as the same set, and equal sets are equal bytes."""
    again = FieldSet.parse(a.serialise())
    assert again == a
    assert again.serialise() == a.serialise()
    assert members(FieldSet.of(sorted(members(a)))) == members(a)


@given(sets, sets)
def test_order_does_not_matter(a: FieldSet, b: FieldSet) -> None:
    """A union's bytes do not depend on which side came first."""
    assert a.union(b).serialise() == b.union(a).serialise()


@given(st.binary(max_size=40))
def test_garbage_owns_nothing(raw: bytes) -> None:
    """Bytes that are no fieldsV1 never raise."""
    FieldSet.parse(raw).paths()


FIELDS = {
    "f:metadata": {"f:labels": {".": {}, "f:app.kubernetes.io/name": {}}},
    "f:spec": {
        "f:replicas": {},
        "f:template": {
            "f:spec": {"f:containers": {'k:{"name":"web"}': {".": {}, "f:image": {}, "f:name": {}}}},
        },
        "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}}},
        "f:finalizers": {'v:"example.com/x"': {}},
        "f:list": {"i:0": {}},
    },
}


def test_paths_are_readable() -> None:
    """Paths read as in the API server's own messages."""
    assert FieldSet.parse(json.dumps(FIELDS).encode()).paths() == [
        ".metadata.labels.app.kubernetes.io/name",
        '.spec.finalizers[="example.com/x"]',
        ".spec.list[0]",
        '.spec.ports[port=80,protocol="TCP"].port',
        ".spec.replicas",
        '.spec.template.spec.containers[name="web"].image',
        '.spec.template.spec.containers[name="web"].name',
    ]


@pytest.mark.parametrize(
    ("pointer", "gone"),
    [
        ("/spec/replicas", ".spec.replicas"),
        ("/metadata/labels/app.kubernetes.io~1name", ".metadata.labels.app.kubernetes.io/name"),
        ("/spec/template/spec/containers/*/image", '.spec.template.spec.containers[name="web"].image'),
        ('/spec/template/spec/containers/[name="web"]/image', '.spec.template.spec.containers[name="web"].image'),
        ("/spec/template/spec/containers/[name=web]/image", '.spec.template.spec.containers[name="web"].image'),
        ("/spec/ports/[port=80]/port", '.spec.ports[port=80,protocol="TCP"].port'),
        ("/spec/list/0", ".spec.list[0]"),
        ("/spec/template/spec/containers/[name=other]/image", ""),
        ("/spec/template/spec/containers/0/image", ""),
        ("/spec/nothing", ""),
        ("", ""),
    ],
)
def test_without_drops_a_subtree(pointer: str, gone: str) -> None:
    """A JSON pointer names fields and list items; what it does not name stays."""
    whole = FieldSet.parse(json.dumps(FIELDS).encode())
    left = whole.without([pointer])
    dropped = set(whole.leaves()) - set(left.leaves())
    assert FieldSet.of(sorted(dropped)).paths() == ([gone] if gone else [])


def test_pointer_escapes() -> None:
    """`~1` is a slash and `~0` a tilde, in that order."""
    assert parse_pointer("/a~01/b~1c") == ("a~1", "b/c")


def test_digest_speaks_of_our_entry_alone() -> None:
    """Other managers' entries, and our own entries of other kinds, do not move the digest; our fields do."""
    mine = ours({"f:data": {"f:k": {}}})
    digest = owned_digest([mine])
    assert len(digest) == 16
    assert owned_digest([entry("x", {"f:data": {"f:l": {}}}), mine]) == digest
    assert owned_digest([mine, entry("fleet", {"f:status": {}}, subresource="status")]) == digest
    assert owned_digest([ours({"f:data": {}})]) != digest
    assert owned_digest([]) == b""
    assert owned_digest([entry("fleet", {"f:data": {}})]) == b""


def test_ignored_paths_do_not_move_the_digest() -> None:
    """An ignored path may come and go."""
    both, one = ours({"f:data": {"f:k": {}, "f:l": {}}}), ours({"f:data": {"f:k": {}}})
    assert owned_digest([both], ["/data/l"]) == owned_digest([one], ["/data/l"]) == owned_digest([one])


def test_lost_names_the_taker() -> None:
    """Taken paths come with the manager that holds them, through an atomic parent too; removed ones with none."""
    before = FieldSet.parse(b'{"f:data":{"f:k":{},"f:l":{},"f:m":{}},"f:spec":{"f:args":{"i:0":{}}}}')
    after = [
        ours({"f:data": {"f:m": {}}}),
        entry("kubectl-edit", {"f:data": {"f:k": {}}}, time="2026-01-02T00:00:00Z"),
        entry("old", {"f:data": {"f:k": {}}}),
        entry("atomic", {"f:spec": {"f:args": {}}}, time=None),
    ]
    assert lost(before, after) == [
        Lost(".data.k", "kubectl-edit", "2026-01-02T00:00:00Z"),
        Lost(".data.l", "", ""),
        Lost(".spec.args[0]", "atomic", ""),
    ]


def test_a_parent_that_is_merely_held_takes_nothing() -> None:
    """Holding a map does not mean holding each of its keys."""
    before = FieldSet.parse(b'{"f:data":{"f:k":{}}}')
    assert lost(before, [entry("x", {"f:data": {".": {}, "f:other": {}}})])[0].manager == ""


def test_additions_are_what_a_repair_removes() -> None:
    """Only drift managers' fields of our version and outside subresources count, less what we hold."""
    managed = [
        ours({"f:data": {"f:k": {}}}),
        entry("kubectl-edit", {"f:data": {"f:k": {}, "f:extra": {}}}),
        entry("kubectl-scale", {"f:spec": {"f:replicas": {}}}, subresource="scale"),
        entry("kubectl-old", {"f:data": {"f:older": {}}}, api_version="v1beta1"),
        entry("controller", {"f:data": {"f:theirs": {}}}),
        entry("fleet-preexisting", {"f:data": {"f:before": {}}}),
        entry("before-first-apply", {"f:data": {"f:before": {}}}),
    ]
    assert foreign_additions(managed, KUBECTL).paths() == [".data.extra"]
    assert foreign_additions(managed, ["*"]).paths() == [".data.extra", ".data.theirs"]
    assert foreign_additions(managed, ["*", "before-first-apply"]).paths() == [
        ".data.before",
        ".data.extra",
        ".data.theirs",
    ]
    assert foreign_additions(managed, []).is_empty
    assert foreign_additions(managed[1:], KUBECTL).is_empty


EXEMPT = {
    "f:metadata": {
        "f:finalizers": {".": {}, 'v:"x"': {}},
        "f:ownerReferences": {".": {}, 'k:{"uid":"1"}': {}},
        "f:annotations": {".": {}, "f:fleet/reconcile": {}, "f:kustomize.toolkit.fluxcd.io/prune": {}},
    },
    "f:spec": {"f:template": {"f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}}},
    "f:status": {"f:phase": {}},
}


def test_exempt_fields_are_never_additions() -> None:
    """Finalizers, owners, status, a restart and opt-outs are not drift, nor are the maps that hold them."""
    managed = [ours({"f:spec": {"f:x": {}}}), entry("kubectl", EXEMPT)]
    assert foreign_additions(managed, KUBECTL).is_empty
    assert plan_fold(managed, KUBECTL, 7) is None


def test_fold_takes_additions_and_leaves_exempt_fields() -> None:
    """Folded fields become ours; what is exempt stays with its manager, container included."""
    theirs = {**EXEMPT, "f:data": {"f:extra": {}}}
    managed = [ours({"f:data": {"f:k": {}}}), entry("kubectl", theirs), entry("x", {"f:data": {"f:y": {}}})]
    patch = plan_fold(managed, KUBECTL, 7)
    assert patch is not None
    entries = {e["manager"]: e for e in patch[0]["value"]}
    assert entries["fleet"]["fieldsV1"] == {"f:data": {"f:extra": {}, "f:k": {}}}
    assert entries["fleet"]["operation"] == "Apply"
    assert entries["kubectl"]["fieldsV1"] == EXEMPT
    assert entries["x"]["fieldsV1"] == {"f:data": {"f:y": {}}}
    assert patch[1] == {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}


def test_fold_empties_entries_that_only_share() -> None:
    """Once something was added, the whole entry goes, shared fields too: else a later removal in Git would not remove."""
    managed = [ours({"f:data": {"f:k": {}}}), entry("kubectl", {"f:data": {"f:k": {}, "f:extra": {}}})]
    patch = plan_fold(managed, KUBECTL, 7)
    assert patch is not None
    assert [e["manager"] for e in patch[0]["value"]] == ["fleet"]


def test_sharing_alone_is_no_drift() -> None:
    """Somebody who wrote the value we want added nothing."""
    managed = [ours({"f:data": {"f:k": {}}}), entry("kubectl", {"f:data": {"f:k": {}}})]
    assert plan_fold(managed, KUBECTL, 7) is None


def test_preexisting_merges_and_subtracts() -> None:
    """Old entries become one per version, without what we hold now; others are untouched."""
    managed = [
        ours({"f:data": {"f:k": {}}}),
        entry("kubectl-create", {"f:data": {"f:k": {}, "f:a": {}}}),
        entry("kubectl", {"f:data": {"f:b": {}}}, operation="Apply"),
        entry("before-first-apply", {"f:data": {"f:c": {}}}, time=None),
        entry("kubectl-old", {"f:data": {"f:d": {}}}, api_version="v1beta1"),
        entry("kubectl-same", {"f:data": {"f:k": {}}}),
        entry("kubectl", {"f:status": {}}, subresource="status"),
        entry("fleet-preexisting", {"f:data": {"f:k": {}, "f:e": {}}}),
    ]
    patch = plan_preexisting(managed, KUBECTL, 7)
    assert patch is not None
    entries = {(e["manager"], e["apiVersion"], e.get("subresource", "")): e for e in patch[0]["value"]}
    assert set(entries) == {
        ("fleet", "v1", ""),
        ("kubectl", "v1", "status"),
        ("fleet-preexisting", "v1", ""),
        ("fleet-preexisting", "v1beta1", ""),
    }
    merged = entries["fleet-preexisting", "v1", ""]
    assert merged["operation"] == "Update"
    assert merged["fieldsV1"] == {"f:data": {"f:a": {}, "f:b": {}, "f:c": {}, "f:e": {}, "f:k": {}}}
    assert "time" not in merged or merged["time"]


@pytest.mark.parametrize("rv", [0, 7])
def test_nothing_to_mark(rv: int) -> None:
    """Without an entry of ours, without others', or without a position there is no patch."""
    theirs = entry("kubectl", {"f:data": {"f:a": {}}})
    assert plan_preexisting([theirs], KUBECTL, rv) is None
    assert plan_preexisting([ours({"f:data": {}}), entry("x", {"f:data": {}})], KUBECTL, rv) is None
    if not rv:
        assert plan_preexisting([ours({"f:data": {}}), theirs], KUBECTL, rv) is None
        assert plan_fold([ours({"f:data": {}}), theirs], KUBECTL, rv) is None


@given(sets, sets, sets)
def test_fold_loses_no_path(mine: FieldSet, theirs: FieldSet, others: FieldSet) -> None:
    """Whatever is folded, every path stays held by somebody, and others' entries are untouched."""
    managed = [
        ours(json.loads(mine.serialise())),
        entry("kubectl", json.loads(theirs.serialise())),
        entry("x", json.loads(others.serialise())),
    ]
    patch = plan_fold(managed, KUBECTL, 1)
    if patch is None:
        assert foreign_additions(managed, KUBECTL).is_empty
        return
    after = [FieldSet.parse(json.dumps(e["fieldsV1"]).encode()) for e in patch[0]["value"]]
    held: set[tuple[str, ...]] = set().union(*(members(f) for f in after))
    assert held == members(mine) | members(theirs) | members(others)
    assert foreign_additions(
        [
            ManagedEntry(
                manager=e["manager"],
                operation=e["operation"],
                api_version=e["apiVersion"],
                fields=json.dumps(e["fieldsV1"]).encode(),
            )
            for e in patch[0]["value"]
        ],
        KUBECTL,
    ).is_empty


def test_own_fields_needs_an_apply() -> None:
    """An Update under our name is not our apply."""
    assert own_fields([entry("fleet", {"f:data": {}})]) is None
    assert own_fields([ours({"f:data": {"f:k": {}}})]) == FieldSet.of([("f:data", "f:k")])


def test_entries_of_a_version_that_is_gone_move_with_their_fields() -> None:
    """Each keeps its manager and fields at the version that is served, joined with an entry that is there already."""
    old = entry("kubectl-edit", {"f:spec": {"f:a": {}}}, api_version="v1beta1")
    now = entry("kubectl-edit", {"f:spec": {"f:b": {}}})
    patch = plan_served([ours({"f:spec": {}}), old, now], lambda version: version == "v1", "v1", 7)
    assert patch is not None
    moved = patch[0]["value"]
    assert [(e["manager"], e["apiVersion"]) for e in moved] == [("fleet", "v1"), ("kubectl-edit", "v1")]
    assert moved[1]["fieldsV1"]["f:spec"].keys() == {"f:a", "f:b"}
    assert patch[1]["value"] == "7"


def test_nothing_moves_while_every_version_is_served() -> None:
    """An object without old entries is not patched."""
    assert plan_served([ours({"f:spec": {}})], lambda _version: True, "v1", 7) is None
