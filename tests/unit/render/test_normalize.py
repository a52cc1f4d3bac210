"""Desired objects in one form."""

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.document import load_documents
from fleet.object import GroupKind, ObjectKey, Origin, encode_canonical
from fleet.render.normalize import check_identity, flatten, make_manifest, normalize, with_namespace
from fleet.render.scope import BUILT_IN, read_scopes

KEY = b"k" * 16


def load(text: str) -> Any:
    """Return the value of the one document in a text."""
    return load_documents(text.encode(), "f.yaml")[0].value


def body(text: str) -> dict[str, Any]:
    """Normalise an object without faults."""
    value, faults = normalize(load(text))
    assert faults == []
    return value


def faults(text: str) -> list[str]:
    """Return what is wrong with an object."""
    value = load(text)
    return [fault.message for fault in check_identity(value) or normalize(value)[1]]


def pod(container: str) -> str:
    """Return a Deployment with one container of these fields."""
    lines = "\n".join(f"        {line}" for line in container.splitlines())
    return f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: x}}\nspec:\n  template:\n    spec:\n      containers:\n      - name: c\n{lines}\n"


def container_of(value: dict[str, Any]) -> dict[str, Any]:
    """Return the first container of a Deployment."""
    found: dict[str, Any] = value["spec"]["template"]["spec"]["containers"][0]
    return found


def test_server_set_fields_are_dropped() -> None:
    """Status and what only the server writes in metadata is left out."""
    text = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: x
  uid: 1
  resourceVersion: "5"
  generation: 3
  creationTimestamp: null
  selfLink: /x
  managedFields: [{manager: kubectl}]
  deletionTimestamp: "2020-01-01T00:00:00Z"
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
  labels: {}
  finalizers: []
status: {a: 1}
data: {a: b}
"""
    assert body(text) == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}}


def test_string_data() -> None:
    """A Secret's stringData becomes data, and wins over it."""
    value = body(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {a: YQ==, b: 'Yg=\n\n  ='}\nstringData: {a: z, c: }\n"
    )
    assert {name: base64.b64decode(text) for name, text in value["data"].items()} == {"a": b"z", "b": b"b", "c": b""}
    assert "stringData" not in value


@pytest.mark.parametrize("value", ["hunter2!", "5", "a"])
def test_secret_that_is_not_base64(value: str) -> None:
    """Plain text under data is refused without showing it."""
    (message,) = faults(f"apiVersion: v1\nkind: Secret\nmetadata: {{name: x}}\ndata: {{p: {value}}}\n")
    assert "stringData" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "field",
    [
        "ingress: []",
        "podSelector: {}",
        "policyTypes: [Ingress]",
        "egress: [{}]",
        "unknown: []",
        "unknown: {}",
        "unknown: ''",
        "unknown: false",
    ],
)
def test_meaningful_empties_stay(field: str) -> None:
    """An empty list or map that says something is kept."""
    text = f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: x}}\nspec:\n  {field}\n"
    assert body(text)["spec"] == load(text)["spec"]


def test_merged_empties_are_dropped() -> None:
    """An empty list that the API server merges says nothing."""
    value = body(pod("env: []\nports: []\nvolumeMounts: []\nargs: []\nresources: {}\n"))
    assert container_of(value) == {"name": "c", "args": [], "resources": {}}


def test_empty_dir_stays() -> None:
    """`emptyDir: {}` is what makes the volume one."""
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  volumes: [{name: a, emptyDir: {}}, {name: b, emptyDir: {sizeLimit: 1024Mi}}]\n"
    assert [volume["emptyDir"] for volume in body(text)["spec"]["volumes"]] == [{}, {"sizeLimit": "1Gi"}]


def test_aggregated_rules() -> None:
    """Rules that a controller fills in are not emptied; a role without rules stays one."""
    role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: x}\nrules: []\n"
    assert body(role)["rules"] == []
    assert "rules" not in body(role + "aggregationRule: {clusterRoleSelectors: []}\n")


@pytest.mark.parametrize("bundle", ['""', "Cg==", "~"])
def test_empty_bundle(bundle: str) -> None:
    """An empty caBundle, which a controller fills in, is left out."""
    hook = f"apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {{name: x}}\nwebhooks: [{{name: a, clientConfig: {{caBundle: {bundle}}}}}]\n"
    assert body(hook)["webhooks"] == [{"name": "a", "clientConfig": {}}]
    service = f"apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {{name: x}}\nspec: {{caBundle: {bundle}}}\n"
    assert body(service)["spec"] == {}


def test_nulls_are_dropped() -> None:
    """A null says nothing, except in a map of texts, where it is the empty text."""
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: , labels: {a: }}\ndata: {A: , B: b}\nimmutable: ~\n"
    assert body(text) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x", "labels": {"a": ""}},
        "data": {"A": "", "B": "b"},
    }


def test_quantities_and_protocol() -> None:
    """Quantities take the server's form, and ports their default protocol."""
    found = container_of(
        body(
            pod(
                "resources: {limits: {cpu: 1000m, memory: 1024Mi}, requests: {cpu: 0.5, memory: 1000}}\nports: [{containerPort: 80}]\n"
            )
        )
    )
    assert found["resources"] == {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1k"}}
    assert found["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    service = body(
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 80, protocol: }, {port: 53, protocol: UDP}]}\n"
    )
    assert [port["protocol"] for port in service["spec"]["ports"]] == ["TCP", "UDP"]


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c, resources: {limits: {cpu: 1000m}}}]}}}}}\n",
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: x}\nspec: {hard: {cpu: 1000m}}\n",
        "apiVersion: v1\nkind: LimitRange\nmetadata: {name: x}\nspec: {limits: [{type: Container, max: {cpu: 1000m}}]}\n",
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: x}\nspec: {resources: {requests: {storage: 1000m}}}\n",
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: x}\nspec: {volumeClaimTemplates: [{spec: {resources: {requests: {storage: 1000m}}}}]}\n",
    ],
)
def test_quantity_places(text: str) -> None:
    """Quantities are found wherever built-in kinds have them."""
    assert b"1000m" not in encode_canonical(body(text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: X\nmetadata: {name: x}\n", "is missing"),
        ("apiVersion: v1\nmetadata: {name: x}\n", "is missing"),
        ("apiVersion: v1\nkind: X\n", "is missing"),
        ("apiVersion: v1\nkind: X\nmetadata: {name: ''}\n", "is missing"),
        ("apiVersion: v1\nkind: X\nmetadata: {name: 5}\n", "must be text"),
        ("apiVersion: v1\nkind: X\nmetadata: {name: x, namespace: 5}\n", "must be text"),
        ("apiVersion: v1\nkind: X\nmetadata: {generateName: x-}\n", "generateName"),
        ("apiVersion: v1\nkind: X\nmetadata: [a]\n", "must be a mapping"),
        ("apiVersion: 1\nkind: X\nmetadata: {name: x}\n", "must be text"),
        ("- a\n", "is a mapping"),
        ("apiVersion: fleet/v1\nkind: App\nmetadata: {name: x}\n", "App is a document of the inventory directory"),
        (
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nmetadata: {name: x}\n",
            "configures Kustomize",
        ),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nsops: {mac: x}\n", "encrypted with SOPS"),
        ("apiVersion: v1\nkind: X\nmetadata: {name: x, labels: {a: 5}}\n", "the number 5 where Kubernetes wants text"),
        ("apiVersion: v1\nkind: X\nmetadata: {name: x, annotations: {a: true}}\n", "the word true where"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: [1]}\n", "a list where"),
        (pod("env: [{name: A, value: 5}]\n"), "the number 5 where"),
        (pod("resources: {limits: {cpu: 1Gib}}\n"), "'1Gib' is not a quantity"),
        (pod("resources: {limits: {cpu: true}}\n"), "the word true where Kubernetes wants a quantity"),
        (pod("env: [{name: A, value: a}, {name: A, value: b}]\n"), "name=A is given twice"),
        (
            pod("ports: [{containerPort: 1}, {containerPort: 1, protocol: TCP}]\n"),
            "containerPort=1, protocol=TCP is given twice",
        ),
        ("apiVersion: v1\nkind: X\nmetadata: {name: x, finalizers: [a, a]}\n", "a is given twice"),
    ],
)
def test_refused(text: str, says: str) -> None:
    """What the API server would refuse, or what means something else than it says, is named."""
    (message,) = faults(text)
    assert says in message


def test_same_port_twice_under_two_protocols() -> None:
    """DNS listens on one port with two protocols."""
    value = body(pod("ports: [{containerPort: 53}, {containerPort: 53, protocol: UDP}]\n"))
    assert len(container_of(value)["ports"]) == 2


def test_flatten() -> None:
    """Lists of objects stand for their items, wherever they nest; kinds that merely end in List do not."""
    text = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
- apiVersion: v1
  kind: ServiceList
  items: [{metadata: {name: b}}]
- {apiVersion: example.com/v1, kind: AllowList, metadata: {name: c}, items: [1]}
"""
    found = [(path, value["kind"], value["metadata"]["name"]) for path, value in flatten(load(text))]
    assert found == [
        (("items", 0), "ConfigMap", "a"),
        (("items", 1, "items", 0), "Service", "b"),
        (("items", 2), "AllowList", "c"),
    ]


def manifest(text: str, namespace: str = "", scopes: dict[GroupKind, bool] | None = None) -> Any:
    """Return the manifest of a text."""
    return make_manifest(body(text), namespace=namespace, scopes=scopes or {}, digest_key=KEY, origin=Origin("f", 1))


@pytest.mark.parametrize(
    ("kind", "named", "default", "key", "scoped"),
    [
        ("v1 ConfigMap", "", "team", "team", True),
        ("v1 ConfigMap", "own", "team", "own", True),
        ("v1 ConfigMap", "", "", "default", True),
        ("v1 Namespace", "own", "team", "", True),
        ("rbac.authorization.k8s.io/v1 ClusterRole", "", "team", "", True),
        ("example.com/v1 Widget", "", "team", "", False),
        ("example.com/v1 Widget", "own", "team", "own", True),
    ],
)
def test_namespace(kind: str, named: str, default: str, key: str, scoped: bool) -> None:
    """The app's namespace is for namespaced kinds that name none; custom kinds wait for discovery."""
    api_version, name = kind.split()
    found = manifest(f"apiVersion: {api_version}\nkind: {name}\nmetadata: {{name: x, namespace: '{named}'}}\n", default)
    assert (found.key.namespace, found.scoped) == (key, scoped)
    assert msgspec.json.decode(found.body)["metadata"].get("namespace", "") == key


def test_scope_from_crd() -> None:
    """A CustomResourceDefinition beside it tells the scope of a custom kind."""
    crd = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: x}\nspec: {group: example.com, scope: %s, names: {kind: Widget}}\n"
    text = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: x}\n"
    for scope, namespace in (("Namespaced", "team"), ("Cluster", "")):
        found = manifest(text, "team", read_scopes([body(crd % scope)]))
        assert (found.key.namespace, found.scoped) == (namespace, True)
    assert (
        read_scopes([{"kind": "CustomResourceDefinition"}, {"kind": "CustomResourceDefinition", "spec": {"names": 1}}])
        == {}
    )


def test_with_namespace() -> None:
    """A namespace found later gives what writing it at once would have given."""
    text = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: x%s}\nspec: {a: 1}\n"
    assert with_namespace(manifest(text % ""), "team", KEY) == manifest(text % ", namespace: team")
    cleared = with_namespace(manifest(text % ", namespace: team"), "", KEY)
    assert cleared.body == manifest(text % "").body
    assert cleared.key == ObjectKey("example.com", "Widget", "", "x")


def test_manifest_marks() -> None:
    """Secrets are sensitive, annotations become flags, and digests depend on the key."""
    secret = manifest("apiVersion: v1\nkind: Secret\nmetadata: {name: x, annotations: {fleet/prune: disabled}}\n")
    assert secret.sensitive
    assert not secret.flags.prune
    other = make_manifest(
        msgspec.json.decode(secret.body), namespace="", scopes={}, digest_key=b"other", origin=Origin("", 0)
    )
    assert (other.body, len(other.digest)) == (secret.body, 16)
    assert other.digest != secret.digest


def test_scope_table() -> None:
    """A few kinds whose scope people rely on."""
    assert BUILT_IN[GroupKind("apps", "Deployment")]
    assert not BUILT_IN[GroupKind("storage.k8s.io", "StorageClass")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=15,
)
CONTAINER = st.fixed_dictionaries(
    {"name": st.sampled_from("ab")},
    optional={
        "env": st.lists(st.fixed_dictionaries({"name": st.sampled_from("XY")}, optional={"value": JSON}), max_size=3),
        "ports": st.lists(
            st.fixed_dictionaries({"containerPort": st.integers(1, 2)}, optional={"protocol": JSON}), max_size=3
        ),
        "resources": JSON
        | st.fixed_dictionaries({"limits": st.dictionaries(st.text(max_size=3), st.sampled_from(["1000m", 1, 0.5]))}),
        "extra": JSON,
    },
)
OBJECT = st.fixed_dictionaries(
    {
        "apiVersion": st.sampled_from(["v1", "apps/v1", "example.com/v1"]),
        "kind": st.sampled_from(["Deployment", "Secret", "ConfigMap", "Pod", "Widget"]),
        "metadata": st.fixed_dictionaries(
            {"name": st.just("x")}, optional={"labels": JSON, "annotations": JSON, "finalizers": JSON, "uid": JSON}
        ),
    },
    optional={
        "data": JSON,
        "stringData": JSON,
        "status": JSON,
        "spec": JSON
        | st.fixed_dictionaries(
            {"template": st.fixed_dictionaries({"spec": st.fixed_dictionaries({"containers": st.lists(CONTAINER)})})}
        ),
    },
)


@given(OBJECT)
def test_idempotent(value: dict[str, Any]) -> None:
    """Normalising twice changes nothing, does not touch its argument, and gives stable bytes."""
    before = encode_canonical(value)
    once, wrong = normalize(value)
    assert encode_canonical(value) == before
    if not wrong:
        again = normalize(once)[0]
        assert encode_canonical(again) == encode_canonical(once)
        assert encode_canonical(msgspec.json.decode(encode_canonical(once))) == encode_canonical(once)
