"""The plan as tables: every action and every reason, and what holds whatever the input."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.kube.ownership import FieldSet, digest_fields
from fleet.kube.wire import ManagedEntry, Observed
from fleet.object import Adopt, Apply, Flags, GroupKind, Manifest, ObjectKey, TargetId
from fleet.reconcile.live import LiveObject, summarise
from fleet.reconcile.plan import BLOCKING, FAILURES, WRITES, Action, Change, View, not_allowed, plan_target, unseen
from fleet.reconcile.port import IgnoreRule, Policy
from fleet.store.ledger import Entry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
APP, OTHER = TargetId("prod", "app"), TargetId("prod", "other")
KEY = ObjectKey("", "ConfigMap", "shop", "a")
UID, NEW_UID = (f"00000000-0000-4000-8000-{n:012d}" for n in (1, 2))
OURS = FieldSet.of([("f:data", "f:k"), ("f:data", "f:j")])
FLEET = ManagedEntry(manager="fleet", operation="Apply", api_version="v1", fields=OURS.serialise())
EDIT = ManagedEntry(
    manager="kubectl-edit",
    operation="Update",
    api_version="v1",
    fields=FieldSet.of([("f:data", "f:added")]).serialise(),
)
TAKEN = ManagedEntry(
    manager="fleet", operation="Apply", api_version="v1", fields=FieldSet.of([("f:data", "f:j")]).serialise()
)


def a_manifest(digest: bytes = b"one", key: ObjectKey = KEY, **flags: Any) -> Manifest:
    """A desired object; only identity, digest and flags matter to a plan."""
    return Manifest(key=key, version="v1", body=b"{}", digest=digest, flags=Flags(**flags))


def an_entry(key: ObjectKey = KEY, **more: Any) -> Entry:
    """A ledger row of what `a_live` shows."""
    known: dict[str, Any] = {"desired": b"one", "owned": digest_fields(OURS), "uid": UID, "rv": 10}
    return Entry(key=key, version="v1", applied_at=NOW, **{**known, **more})


def observed(key: ObjectKey = KEY, *, managed: tuple[ManagedEntry, ...] = (FLEET,), **more: Any) -> Observed:
    """An object as a watch shows it, with our labels."""
    labels = {"fleet/hub": "hub", "applyset.kubernetes.io/part-of": "set"}
    known: dict[str, Any] = {"uid": UID, "rv": 10, "labels": labels, "managed": managed}
    return Observed(key=key, version="v1", **{**known, **more})


def a_live(**more: Any) -> LiveObject:
    """The same in the cache."""
    return summarise(observed(**more), "hub", NOW)


@dataclass(kw_only=True)
class World:
    """One object seen from three sides, and what is known around it."""

    desired: Manifest | None = field(default_factory=a_manifest)
    entry: Entry | None = field(default_factory=an_entry)
    live: LiveObject | None = field(default_factory=a_live)
    found: Observed | None = None
    looked: bool = True
    policy: Policy = field(default_factory=Policy)
    synced: bool = True
    served: bool = True
    owner: TargetId | None = APP
    other_wants: bool = False
    ended: str = ""
    removed: bool = False
    schema_changed: bool = False
    kinds: tuple[GroupKind, ...] = ()

    def view(self) -> View:
        """What a plan is made from."""
        kind = GroupKind("", "ConfigMap")
        return View(
            target=APP,
            part_of="set",
            hub_id="hub",
            policy=self.policy,
            desired={self.desired.key: self.desired} if self.desired else {},
            ledger={self.entry.key: self.entry} if self.entry else {},
            live=lambda _: self.live,
            synced=lambda _: self.synced,
            served=lambda _: self.served,
            found={KEY: self.found} if self.looked else {},
            owner=lambda _: self.owner,
            wants=lambda _key, target: target == OTHER and self.other_wants,
            wanted_by=lambda _key, _target: OTHER if self.other_wants else None,
            ended=lambda _: self.ended,
            schema_changed=frozenset({kind}) if self.schema_changed else frozenset(),
            removed=self.removed,
            kinds=lambda: self.kinds,
        )

    def change(self) -> Change:
        """The one change."""
        (change,) = plan_target(self.view()).changes
        return change


NEW: Mapping[str, Any] = {"entry": None, "live": None, "owner": None}
GONE: Mapping[str, Any] = {"live": None}
LEFT: Mapping[str, Any] = {"desired": None}
DRIFTED: Mapping[str, Any] = {"live": a_live(rv=11, managed=(TAKEN,))}
ADDED: Mapping[str, Any] = {"live": a_live(rv=11, managed=(FLEET, EDIT))}
REPORT = Policy(repair=False)
IGNORE = Policy(ignore=(IgnoreRule(kind="ConfigMap", paths=("/data/k", "/data/added")),))
WITHOUT_IGNORED = digest_fields(OURS.without(["/data/k", "/data/added"]))
OPTED_OUT = a_live(annotations={"fleet/reconcile": "disabled"})

CASES: dict[str, tuple[Mapping[str, Any], str]] = {
    # desired, in no ledger
    "absent": (NEW, "create Absent"),
    "not looked up": ({**NEW, "looked": False}, "skip NotLookedUp"),
    "kind not served": ({**NEW, "served": False}, "skip MissingKind"),
    "kind of Kubernetes that it does not have": (
        {**NEW, "served": False, "kinds": (GroupKind("", "Secret"),)},
        "skip UnknownKind",
    ),
    "found unowned": ({**NEW, "found": observed(labels={})}, "adopt Adopted"),
    "found, never": ({**NEW, "found": observed(), "policy": Policy(adopt=Adopt.NEVER)}, "skip OwnedElsewhere"),
    "found, never but asked in Git": (
        {**NEW, "found": observed(), "policy": Policy(adopt=Adopt.NEVER), "desired": a_manifest(adopt=Adopt.ALWAYS)},
        "adopt Adopted",
    ),
    "found, of another hub": ({**NEW, "found": observed(labels={"fleet/hub": "x"})}, "skip OwnedElsewhere"),
    "found, of another set": (
        {**NEW, "found": observed(labels={"applyset.kubernetes.io/part-of": "x"}, managed=())},
        "skip OwnedElsewhere",
    ),
    "found, left by us": ({**NEW, "found": observed(labels={"applyset.kubernetes.io/part-of": "x"})}, "adopt Adopted"),
    "found, of this hub": ({**NEW, "found": observed()}, "adopt Adopted"),
    "found, of a controller": ({**NEW, "found": observed(labels={}, controller="X/y")}, "skip OwnedElsewhere"),
    "found, of Flux": (
        {**NEW, "found": observed(labels={"kustomize.toolkit.fluxcd.io/name": "x"})},
        "skip OwnedElsewhere",
    ),
    "found, of Argo CD": (
        {**NEW, "found": observed(labels={"argocd.argoproj.io/instance": "x"})},
        "skip OwnedElsewhere",
    ),
    "found, of Helm": (
        {
            **NEW,
            "found": observed(
                labels={"app.kubernetes.io/managed-by": "Helm"}, annotations={"meta.helm.sh/release-name": "x"}
            ),
        },
        "skip OwnedElsewhere",
    ),
    "found, of Rancher": (
        {**NEW, "found": observed(labels={"objectset.rio.cattle.io/hash": "x"})},
        "skip OwnedElsewhere",
    ),
    "found, always": (
        {**NEW, "found": observed(controller="X/y"), "policy": Policy(adopt=Adopt.ALWAYS)},
        "adopt Adopted",
    ),
    "found, only created": (
        {**NEW, "found": observed(), "desired": a_manifest(apply=Apply.IF_NOT_PRESENT)},
        "unchanged IfNotPresent",
    ),
    "found, being deleted": ({**NEW, "found": observed(labels={}, deleting=True)}, "skip Terminating"),
    "ours, ledger lost": ({"entry": None}, "configure LedgerMissing"),
    "an intent, absent": ({**GONE, "entry": an_entry(uid="", desired=b"", rv=0)}, "create Absent"),
    "an intent, found": (
        {**GONE, "entry": an_entry(uid="", desired=b"", rv=0), "found": observed(labels={})},
        "adopt Adopted",
    ),
    # desired and in the ledger
    "in sync": ({}, "unchanged InSync"),
    "status since": ({"live": a_live(rv=99)}, "unchanged InSync"),
    "changed": ({"desired": a_manifest(b"two")}, "configure Changed"),
    "changed, only created": ({"desired": a_manifest(b"two", apply=Apply.IF_NOT_PRESENT)}, "unchanged IfNotPresent"),
    "taken": (DRIFTED, "configure Drifted"),
    "taken, report": ({**DRIFTED, "policy": REPORT}, "skip Drifted"),
    "taken, seen before our write": ({"live": a_live(managed=(TAKEN,))}, "unchanged InSync"),
    "taken, ignored": ({**DRIFTED, "policy": IGNORE, "entry": an_entry(owned=WITHOUT_IGNORED)}, "unchanged InSync"),
    "added": (ADDED, "configure Added"),
    "added, report": ({**ADDED, "policy": REPORT}, "skip Added"),
    "added, merged": ({**ADDED, "desired": a_manifest(apply=Apply.MERGE)}, "unchanged InSync"),
    "added, merged by hand": (
        {"live": a_live(rv=11, managed=(FLEET, EDIT), annotations={"fleet/ssa": "merge"})},
        "unchanged InSync",
    ),
    "added, nobody's": ({**ADDED, "policy": Policy(drift_managers=())}, "unchanged InSync"),
    "added, ignored": ({**ADDED, "policy": IGNORE}, "unchanged InSync"),
    "deleted": (GONE, "create Deleted"),
    "deleted, report": ({**GONE, "policy": REPORT}, "skip Deleted"),
    "deleted and changed": ({**GONE, "desired": a_manifest(b"two"), "policy": REPORT}, "create Changed"),
    "deleted, finished": ({**GONE, "entry": an_entry(state="finished")}, "unchanged Finished"),
    "deleted, seen to end": ({**GONE, "ended": UID}, "unchanged Finished"),
    "deleted, another one ended": ({**GONE, "ended": NEW_UID}, "create Deleted"),
    "deleted, finished and changed": (
        {**GONE, "entry": an_entry(state="finished"), "desired": a_manifest(b"two")},
        "create Changed",
    ),
    "gone from a broken watch": ({**GONE, "synced": False}, "skip NotObserved"),
    "kind went away": ({**GONE, "served": False}, "skip MissingKind"),
    "replaced": ({"live": a_live(uid=NEW_UID, rv=11)}, "configure Replaced"),
    "replaced, report": ({"live": a_live(uid=NEW_UID, rv=11), "policy": REPORT}, "skip Replaced"),
    "other labels": ({"live": a_live(labels={"fleet/hub": "hub"})}, "configure Labels"),
    "schema changed": ({"schema_changed": True}, "configure SchemaChanged"),
    "older than our write, view incomplete": ({"live": a_live(rv=9), "synced": False}, "unchanged NotObserved"),
    "older than our write": ({"live": a_live(rv=9)}, "configure Rewound"),
    # refusals come first
    "a hook": ({**NEW, "desired": a_manifest(hook="helm.sh/hook: test")}, "skip HookUnsupported"),
    "opted out in Git": ({**NEW, "desired": a_manifest(reconcile=False)}, "skip OptedOut"),
    "opted out by hand": ({"live": OPTED_OUT, "desired": a_manifest(b"two")}, "skip OptedOut"),
    "being deleted": ({"live": a_live(deleting=True), "desired": a_manifest(b"two")}, "skip Terminating"),
    "not allowed": ({**NEW, "policy": Policy(allow_kinds=("Secret",))}, "skip NotAllowed"),
    # held by another target
    "a duplicate": ({**NEW, "owner": OTHER, "other_wants": True}, "skip Duplicate"),
    "handed over": ({**NEW, "owner": OTHER}, "hand-over HandedOver"),
    # in the ledger, not desired
    "left": (LEFT, "prune NotInGit"),
    "left, gone": ({**LEFT, **GONE}, "prune Gone"),
    "left, not seen": ({**LEFT, **GONE, "synced": False}, "skip NotObserved"),
    "left, kind went away": ({**LEFT, **GONE, "served": False}, "prune Gone"),
    "left, being deleted": ({**LEFT, "live": a_live(deleting=True)}, "skip Terminating"),
    "left, not ours": ({**LEFT, "live": a_live(managed=())}, "prune NotOurs"),
    "left, of a controller": ({**LEFT, "live": a_live(controller="X/y")}, "prune NotOurs"),
    "left, of another set": (
        {**LEFT, "live": a_live(labels={"fleet/hub": "hub", "applyset.kubernetes.io/part-of": "x"})},
        "prune NotOurs",
    ),
    "left, wanted elsewhere": ({**LEFT, "other_wants": True}, "skip HandedOver"),
    "left, kept by hand": ({**LEFT, "live": a_live(annotations={"fleet/prune": "disabled"})}, "prune Orphaned"),
    "left, prune off": ({**LEFT, "policy": Policy(prune=False)}, "prune Orphaned"),
    "left, app removed": ({**LEFT, "removed": True}, "prune NotInGit"),
    "left, app removed, prune off": ({**LEFT, "removed": True, "policy": Policy(prune=False)}, "prune NotInGit"),
    "left, app removed, orphan": (
        {**LEFT, "removed": True, "policy": Policy(on_remove_prune=False)},
        "prune Orphaned",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_action_and_reason(name: str) -> None:
    """Each row of the table gets its action and reason, and every reason but the plainest says why in words."""
    world, expected = CASES[name]
    change = World(**world).change()
    assert f"{change.action.value} {change.reason}" == expected
    assert change.message or change.reason in ("Absent", "Changed", "InSync")
    keeps = change.reason in ("Orphaned", "NotOurs")
    assert change.orphan is keeps


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        ("", "Namespace"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("", "PersistentVolume"),
        ("", "PersistentVolumeClaim"),
    ],
)
def test_data_is_never_pruned(group: str, kind: str) -> None:
    """With a namespace, a definition or a volume goes what no commit brings back."""
    key = ObjectKey(group, kind, "", "x")
    change = World(desired=None, entry=an_entry(key)).change()
    assert (change.reason, change.orphan) == ("Orphaned", True)


@pytest.mark.parametrize(
    ("policy", "key", "rule"),
    [
        (Policy(), KEY, None),
        (Policy(allow_namespaces=("sh*",)), KEY, None),
        (Policy(allow_namespaces=("team-*",)), KEY, "namespace shop is not in allow.namespaces"),
        (Policy(allow_cluster_scoped=False), ObjectKey("", "Namespace", "", "x"), "allow.clusterScoped is false"),
        (Policy(allow_cluster_scoped=False), KEY, None),
        (Policy(allow_kinds=("ConfigMap",)), KEY, None),
        (Policy(allow_kinds=("Deployment.apps",)), ObjectKey("apps", "Deployment", "shop", "x"), None),
        (Policy(allow_kinds=("Secret",)), KEY, "kind ConfigMap is not in allow.kinds"),
    ],
)
def test_what_an_app_may_write(policy: Policy, key: ObjectKey, rule: str | None) -> None:
    """The rule of `allow` that refuses is named."""
    assert not_allowed(policy, a_manifest(key=key)) == rule


@pytest.mark.parametrize(
    ("wrong", "served", "told"),
    [
        (
            GroupKind("", "Servicee"),
            GroupKind("", "Service"),
            "no Servicee, and no CRD can bring it; did you mean Service?",
        ),
        (GroupKind("apps", "Deploymnet"), GroupKind("apps", "Deployment"), "did you mean Deployment?"),
        (GroupKind("storage.k8s.io", "StorageClasss"), GroupKind("storage.k8s.io", "StorageClass"), "StorageClass?"),
        (GroupKind("apps", "Deploymnet"), GroupKind("batch", "Job"), "waiting for its CRD"),
        (GroupKind("example.com", "Widgett"), GroupKind("example.com", "Widget"), "waiting for its CRD"),
        (
            GroupKind("gateway.networking.k8s.io", "GRPCRoute"),
            GroupKind("gateway.networking.k8s.io", "HTTPRoute"),
            "waiting for its CRD",
        ),
    ],
    ids=lambda value: str(value).partition(" ")[0],
)
def test_a_kind_that_no_definition_can_bring(wrong: GroupKind, served: GroupKind, told: str) -> None:
    """A slip in a kind of Kubernetes itself is named with the nearest; a kind that a definition may bring is awaited."""
    key = ObjectKey(wrong.group, wrong.kind, "shop", "x")
    world = World(desired=a_manifest(key=key), **NEW, served=False, kinds=(served, GroupKind("", "Secret")))
    assert told in world.change().message


def test_an_object_of_unknown_scope_is_not_refused_yet() -> None:
    """While a custom kind's scope is unknown nobody can say that it is cluster-scoped."""
    m = replace(a_manifest(key=ObjectKey("example.com", "Widget", "", "w")), scoped=False)
    assert not_allowed(Policy(allow_cluster_scoped=False), m) is None


@pytest.mark.parametrize(
    ("world", "looked_up"),
    [
        (NEW, True),
        ({**NEW, "served": False}, False),
        ({**NEW, "owner": OTHER}, False),
        ({}, False),
        (GONE, False),
        ({"entry": None}, False),
        ({**GONE, "entry": an_entry(uid="")}, True),
    ],
)
def test_what_must_be_looked_up(world: Mapping[str, Any], *, looked_up: bool) -> None:
    """Only what is in no ledger and in no watch, of kinds that exist, and what was intended and never confirmed."""
    assert unseen(World(**{**world, "looked": False}).view()) == ([KEY] if looked_up else [])


worlds = st.builds(
    World,
    desired=st.sampled_from([None, a_manifest(), a_manifest(b"two"), a_manifest(apply=Apply.MERGE)]),
    entry=st.sampled_from([None, an_entry(), an_entry(state="finished"), an_entry(uid="", desired=b"", rv=0)]),
    live=st.sampled_from(
        [
            None,
            a_live(),
            a_live(rv=11, managed=(TAKEN,)),
            a_live(rv=11, managed=(FLEET, EDIT)),
            a_live(managed=()),
            a_live(deleting=True),
            a_live(uid=NEW_UID, rv=12),
            a_live(controller="X/y"),
        ]
    ),
    found=st.sampled_from([None, observed(labels={}), observed(controller="X/y", labels={})]),
    looked=st.booleans(),
    policy=st.sampled_from([Policy(), REPORT, Policy(prune=False), Policy(adopt=Adopt.NEVER), IGNORE]),
    synced=st.booleans(),
    served=st.booleans(),
    owner=st.sampled_from([None, APP, OTHER]),
    other_wants=st.booleans(),
    removed=st.booleans(),
).filter(lambda world: world.desired is not None or world.entry is not None)


@given(worlds)
def test_what_never_happens(world: World) -> None:
    """Whatever is seen: nothing foreign is deleted, nothing unseen is written, nothing being deleted is touched."""
    change = world.change()
    if change.action is Action.PRUNE and change.reason == "NotInGit":
        assert change.live is not None
        assert change.live.ours
        assert change.live.part_of == "set"
        assert not world.other_wants
    if change.action in WRITES:
        assert change.manifest is not None
        assert world.served or change.live is not None
        assert world.owner in (None, APP)
        assert change.live is None or not change.live.deleting
    if change.action is Action.CREATE:
        assert change.live is None
    if change.action is Action.SKIP and change.reason in FAILURES:
        assert change.message
    assert change.action is not Action.SKIP or change.reason in BLOCKING | {
        "OptedOut",
        "Drifted",
        "Deleted",
        "Replaced",
        "Added",
        "HandedOver",
    }


@given(worlds)
def test_a_plan_carried_out_leaves_nothing(world: World) -> None:
    """After the one change was made, the next plan changes nothing."""
    change = world.change()
    if change.action in WRITES and world.desired is not None:
        world.live = a_live(rv=20, uid=UID)
        world.entry = an_entry(desired=world.desired.digest, rv=20)
        yielded = digest_fields(OURS.without(world.policy.ignore[0].paths)) if world.policy.ignore else None
        world.entry = replace(world.entry, owned=yielded) if yielded else world.entry
        world.owner = APP
        world.served = world.synced = True
        assert world.change().reason == "InSync"
    elif change.action is Action.PRUNE:
        world.entry = None
        assert world.desired is None
