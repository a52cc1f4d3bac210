"""What files may say, and every fault at its place."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.inventory.parse import parse_file
from fleet.inventory.reference import write_reference
from fleet.inventory.schema import KINDS, App, Cluster, Environment, Repository
from fleet.object import Adopt, Origin
from tests.unit.inventory.build import app, cluster, environment, repository


def faults(text: str) -> list[str]:
    """Return the faults of `text` without the file name."""
    return [str(problem).removeprefix("f.yaml:") for problem in parse_file(text.encode(), "f.yaml")[1]]


def spec(kind: str, *lines: str) -> str:
    """Return a document whose spec starts at line 5."""
    return f"apiVersion: fleet/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec:\n" + "".join(
        f"  {line}\n" for line in lines
    )


REPOSITORY = ("Repository", "url: https://git.example.com/x.git")
APP = ("App", "repository: r", "path: p", "targets: {environments: [dev]}")
CLUSTER = ("Cluster", "environment: dev")

TABLE: list[tuple[str, list[str]]] = [
    ("just text\n", ["1:1: must be a document with apiVersion, kind, metadata and spec"]),
    ("apiVersion: v1\nkind: Pod\n", ["1:13: apiVersion: must be fleet/v1: other documents do not belong here"]),
    ("apiVersion: fleet/v1\nkind: Clustr\n", ["2:7: kind: must be one of Repository, Environment, App, Cluster; did you mean Cluster?"]),
    ("apiVersion: fleet/v1\nmetadata: {}\n", ["1:1: kind: must be one of Repository, Environment, App, Cluster"]),
    ("apiVersion: fleet/v1\nkind: Environment\nmetadata: {}\n", ["3:1: metadata.name: is required"]),
    ("apiVersion: fleet/v1\nkind: Environment\nmetadata: {name: Dev_1}\n", ["3:18: metadata.name: must be a DNS label: a-z, 0-9 and -, at most 63 characters"]),
    ("apiVersion: fleet/v1\nkind: Cluster\nmetadata: {name: x, labels: {a: 'b c', '-': d}}\nspec: {environment: dev, connection: {inCluster: true}}\n", ["3:33: metadata.labels.a: is not a valid label value", "3:40: metadata.labels.-: is not a valid label key"]),
    (spec(*REPOSITORY, "intervall: 30s"), ["6:3: spec.intervall: no such field; did you mean interval?"]),
    (spec(*REPOSITORY, "zzz: 1"), ["6:3: spec.zzz: no such field; there are url, ref, interval, auth, allowRewrites"]),
    (spec(*REPOSITORY, "interval: 30"), ["6:13: spec.interval: a duration needs a unit: write 30s, 30m or 30h"]),
    (spec(*REPOSITORY, "interval: soon"), ["6:13: spec.interval: must be a duration such as 30s, 10m or 1h30m"]),
    (spec(*REPOSITORY, "interval: 100ms"), ["6:13: spec.interval: must be at least 1s"]),
    (spec(*REPOSITORY, "ref: {branch: main, tag: v1}"), ["6:8: spec.ref: needs exactly one of branch, tag, semver, commit; branch and tag are given"]),
    (spec(*REPOSITORY, "ref: {semver: '>=1.x.y <'}"), ["6:17: spec.ref.semver: '1.x.y' is not a version such as 1.2.3, 1.2 or 1.x"]),
    (spec(*REPOSITORY, "ref: {}"), ["6:8: spec.ref: needs exactly one of branch, tag, semver, commit"]),
    (spec(*REPOSITORY, "ref: {commit: 3f9c2e1}"), ["6:17: spec.ref.commit: must be a full commit sha: 40 lower-case hex digits"]),
    (spec(*REPOSITORY, "ref: {branch: '-x'}"), ["6:17: spec.ref.branch: is not a name that Git accepts for a branch or tag"]),
    (spec(*REPOSITORY, "verify: {signers: x}"), ["6:3: spec.verify: verifying signatures is not available yet; remove this field"]),
    (spec(*REPOSITORY, "auth: {password: hunter2}"), ["6:10: spec.auth.password: no such field; did you mean passwordFile?"]),
    (spec(*REPOSITORY, "auth: {username: me}"), ["6:9: spec.auth: username and passwordFile belong together"]),
    (spec(*REPOSITORY, "auth: {sshKeyFile: a, knownHostsFile: b}"), ["5:3: spec: auth.sshKeyFile needs an ssh URL, and ssh is not supported yet; use tokenFile over https"]),
    (spec("Repository", "url: ssh://git@git.example.com/x.git"), ["5:8: spec.url: ssh is not supported yet; use an https URL or a local path"]),
    (spec("Repository", "url: git@git.example.com:x.git"), ["5:8: spec.url: ssh is not supported yet; use an https URL or a local path"]),
    (spec("Repository", "url: https://me:hunter2@git.example.com/x.git"), ["5:8: spec.url: credentials do not belong in a URL; name a file that holds them in auth"]),
    (spec("Repository", "url: 'https://me:hunter2@[x/'"), ["5:8: spec.url: must be an https, http or file URL, or a local path"]),
    (spec("Repository", "url: https://git.example.com:x/y"), ["5:8: spec.url: must be an https, http or file URL, or a local path"]),
    (spec("Repository", "url: 'https:///x.git'"), ["5:8: spec.url: must be an https, http or file URL, or a local path"]),
    (spec("Repository", "url: ''"), ["5:8: spec.url: must be an https, http or file URL, or a local path"]),
    (spec("Repository", "url: ftp://git.example.com/x.git"), ["5:8: spec.url: must be an https, http or file URL, or a local path"]),
    (spec("Environment", "after: dev"), ["5:10: spec.after: must be a list"]),
    (spec("Environment", "variables: {REPLICAS: 2, DEBUG: yes, 2X: a}"), ["5:25: spec.variables.REPLICAS: must be text: put it in quotes", "5:35: spec.variables.DEBUG: must be text: put it in quotes", "5:40: spec.variables.2X: is not a variable name: letters, digits and _, not starting with a digit"]),
    (spec("App", "repository: r", "path: p"), ["4:1: spec.targets: is required"]),
    (spec("App", "repository: r", "path: p", "targets: {}"), ["7:12: spec.targets: selects nothing: give environments, clusters or clusterSelector ({} selects every cluster)"]),
    (spec("App", "repository: r", "path: ../p", "targets: {environments: [dev, Dev]}"), ["6:9: spec.path: must be a path inside the repository: relative, with / and without ..", "7:33: spec.targets.environments[1]: must be a DNS label: a-z, 0-9 and -, at most 63 characters"]),
    (spec("App", "repository: r", "path: p", "targets: {clusterSelector: {matchLabel: {a: b}}}"), ["7:31: spec.targets.clusterSelector.matchLabel: no such field; did you mean matchLabels?"]),
    (spec("App", "repository: r", "path: p", "targets: {clusterSelector: {matchExpressions: [{key: a, operator: In}]}}"), ["7:50: spec.targets.clusterSelector.matchExpressions[0]: In and NotIn need values; Exists and DoesNotExist take none"]),
    (spec("App", "repository: r", "path: p", "targets: {clusterSelector: {matchExpressions: [{key: a, operator: Inn, values: [b]}]}}"), ["7:69: spec.targets.clusterSelector.matchExpressions[0].operator: must be In, NotIn, Exists or DoesNotExist; did you mean In?"]),
    (spec(*APP, "adopt: alwais"), ["8:10: spec.adopt: must be never, unowned, always or exact; did you mean always?"]),
    (spec(*APP, "prune: 'yes'"), ["8:10: spec.prune: must be true or false"]),
    (spec(*APP, "createNamespace: true"), ["5:3: spec: createNamespace needs namespace"]),
    (spec(*APP, "overrides: [{variables: {A: b}}, {cluster: a, environment: b, path: c}, {cluster: a}]"), ["8:15: spec.overrides[0]: needs exactly one of environment, cluster, clusterSelector", "8:36: spec.overrides[1]: needs exactly one of environment, cluster, clusterSelector", "8:75: spec.overrides[2]: changes nothing: give variables or path"]),
    (spec(*APP, "dependsOn: [ingress]"), ["8:15: spec.dependsOn[0]: must be a mapping"]),
    (spec(*APP, "ignore: [{kind: Deployment, paths: [spec/replicas]}]"), ["8:39: spec.ignore[0].paths[0]: must be a JSON pointer such as /spec/replicas"]),
    (spec(*APP, "ignore: [{kind: Deployment, paths: []}]"), ["8:38: spec.ignore[0].paths: must not be empty"]),
    (spec(*APP, "impersonate: {serviceAccount: deployer}"), ["8:33: spec.impersonate.serviceAccount: must be NAMESPACE:NAME"]),
    (spec(*APP, "impersonate: {serviceAccount: 'a:b', groups: [c]}"), ["8:16: spec.impersonate: groups need user"]),
    (spec(*APP, "paused: {reason: '', until: tomorrow}"), ["8:20: spec.paused.reason: must not be empty", "8:31: spec.paused.until: must be a time with its zone, such as 2030-01-02T03:04:05Z"]),
    (spec(*APP, "paused: {until: 2030-01-01T00:00:00Z}"), ["8:3: spec.paused.reason: is required"]),
    (spec(*CLUSTER, "connection: {}"), ["6:15: spec.connection: needs exactly one of kubeconfig, server, inCluster"]),
    (spec(*CLUSTER, "connection: {inCluster: true, server: 'https://x'}"), ["6:15: spec.connection: needs exactly one of kubeconfig, server, inCluster; server and inCluster are given"]),
    (spec(*CLUSTER, "connection: {kubeconfig: {}}"), ["6:28: spec.connection.kubeconfig: needs exactly one of file, inline"]),
    (spec(*CLUSTER, "connection: {kubeconfig: {file: a}, tokenFile: b}"), ["6:15: spec.connection: tokenFile: only with server"]),
    (spec(*CLUSTER, "connection: {server: 'http://x', tokenFile: b}"), ["6:15: spec.connection: tokenFile: over http a token would go in clear; use https"]),
    (spec(*CLUSTER, "connection: {server: 'http://10.0.0.1:8080', tokenFile: b}"), ["6:15: spec.connection: tokenFile: over http a token would go in clear; use https"]),
    (spec(*CLUSTER, "connection: {server: 'https://x', token: hunter2}"), ["6:37: spec.connection.token: no such field; did you mean tokenFile?"]),
    (spec(*CLUSTER, "connection: {server: 'https://x', clientCertFile: a}"), ["6:15: spec.connection: clientCertFile and clientKeyFile belong together"]),
    (spec(*CLUSTER, "connection: {server: x}"), ["6:24: spec.connection.server: must be an https or http URL"]),
    (spec(*CLUSTER, "connection: {server: 'https://x', proxyUrl: 'http://me:hunter2@p'}"), ["6:47: spec.connection.proxyUrl: credentials do not belong in a URL"]),
    (spec(*CLUSTER, "connection: {server: 'https://x', bastion: b}"), ["6:37: spec.connection.bastion: bastions are not available yet; remove this field"]),
    (spec(*CLUSTER, "connection: {inCluster: true}", "limits: {parallelApplies: 0}"), ["7:29: spec.limits.parallelApplies: must be at least 1"]),
    (spec(*CLUSTER, "connection:"), ["6:14: spec.connection: is empty; must be a mapping"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TABLE)
def test_faults_name_line_column_field_and_what_to_do(text: str, expected: list[str]) -> None:
    """Every fault of a document is listed, at its place, with the nearest valid name."""
    assert faults(text) == expected


def test_no_fault_shows_a_value() -> None:
    """Whatever stands in a field, messages speak of the field alone."""
    for text, _ in TABLE:
        assert "hunter2" not in " ".join(faults(text))


def test_all_faults_of_a_file_are_listed_at_once() -> None:
    """A broken document hides neither its siblings' faults nor its good siblings."""
    text = environment("dev") + "a: [\n---\n" + spec("Environment", "aftr: [x]") + "---\n" + environment("prod")
    entries, problems = parse_file(text.encode(), "f.yaml")
    assert [entry.name for entry in entries] == ["dev", "prod"]
    assert [problem.line for problem in problems] == [7, 12]


def test_a_full_app_is_read() -> None:
    """Every field of the App has its value."""
    text = """
apiVersion: fleet/v1
kind: App
metadata: {name: shop}
spec:
  repository: platform
  path: apps/shop/overlays/${environment}
  targets: {environments: [dev, staging, production], clusters: [], clusterSelector: {matchLabels: {tier: web}}}
  namespace: shop
  createNamespace: false
  substitute: true
  variables: {REPLICAS: "2"}
  overrides: [{environment: production, variables: {REPLICAS: "6"}}]
  dependsOn: [{app: ingress}]
  prune: true
  onRemove: orphan
  adopt: exact
  drift: report
  apply: report
  driftManagers: []
  ignore: [{kind: Deployment, paths: [/spec/replicas]}]
  impersonate: {serviceAccount: shop:deployer}
  allow: {namespaces: [shop, shop-*], clusterScoped: false}
  paused: {reason: "audit week", until: 2030-01-02T03:04:05Z}
"""
    (entry,), problems = parse_file(text.encode(), "f.yaml")
    assert not problems
    assert isinstance(entry, App)
    assert (entry.name, entry.origin) == ("shop", Origin("f.yaml", 2))
    assert (entry.spec.adopt, entry.spec.drift_managers, entry.spec.on_remove) == (Adopt.EXACT, (), "orphan")
    assert entry.spec.impersonate is not None
    assert entry.spec.impersonate.username == "system:serviceaccount:shop:deployer"
    assert entry.spec.paused is not None
    assert entry.spec.paused.until is not None
    assert entry.spec.paused.until.year == 2030


def test_defaults() -> None:
    """What is not said is as documented."""
    text = repository() + environment("dev") + app() + cluster("a")
    entries, problems = parse_file(text.encode(), "/inv/f.yaml")
    assert not problems
    repo, stage, shop, one = entries
    assert isinstance(repo, Repository)
    assert isinstance(stage, Environment)
    assert isinstance(shop, App)
    assert isinstance(one, Cluster)
    assert (repo.spec.ref.branch, repo.spec.interval, repo.spec.allow_rewrites) == ("main", 30.0, False)
    assert (shop.spec.prune, shop.spec.adopt, shop.spec.drift_managers) == (True, Adopt.UNOWNED, ("kubectl*",))
    assert one.spec.limits.parallel_applies == 16


def test_relative_paths_start_at_the_file_that_names_them() -> None:
    """Files and local repositories are found from the inventory file's own directory."""
    text = repository(spec="url: ../git/x, auth: {tokenFile: keys/t}") + cluster("a")
    (repo, one), _ = parse_file(text.encode(), "/inv/sub/f.yaml")
    assert isinstance(repo, Repository)
    assert isinstance(one, Cluster)
    assert repo.spec.url == "/inv/git/x"
    assert repo.spec.auth is not None
    assert str(repo.spec.auth.token_file) == "/inv/sub/keys/t"
    assert one.spec.connection.kubeconfig is not None
    assert str(one.spec.connection.kubeconfig.file) == "/inv/sub/keys/a.kubeconfig"


@pytest.mark.parametrize("inline", ["{clusters: [{name: a}]}", '"clusters: [{name: a}]"'])
def test_an_inline_kubeconfig_is_text_or_mapping_and_never_shown(inline: str) -> None:
    """Both forms are read; printing the document does not print them."""
    text = spec(*CLUSTER, f"connection: {{kubeconfig: {{inline: {inline}}}}}")
    (one,), problems = parse_file(text.encode(), "f.yaml")
    assert not problems
    assert isinstance(one, Cluster)
    assert one.spec.connection.kubeconfig is not None
    assert one.spec.connection.kubeconfig.inline is not None
    assert "clusters" in one.spec.connection.kubeconfig.inline.get_secret_value()
    assert "clusters" not in repr(one)


def test_documents_are_equal_wherever_they_stand() -> None:
    """Moving a document to another file or line is no change."""
    (first,), _ = parse_file(app().encode(), "a.yaml")
    (second,), _ = parse_file(("# moved\n" + app()).encode(), "b.yaml")
    assert first == second
    assert hash(first) == hash(second)


FIELDS = sorted({path.split(".")[-1] for path in re.findall(r"`(?:spec|metadata)\.([\w.\[\]]+)`", write_reference())})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(["dev", "a", "1h", "https://x", "${x}"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), below, max_size=5),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(sorted(KINDS)), VALUES, st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_no_document_breaks_the_parser(kind: str, metadata: object, spec: dict[str, object]) -> None:
    """Whatever stands in a document gives faults with places or an entry, never another exception."""
    document = {"apiVersion": "fleet/v1", "kind": kind, "metadata": metadata, "spec": spec}
    entries, problems = parse_file(json.dumps(document, ensure_ascii=False).encode(errors="replace"), "f.yaml")
    assert bool(entries) != bool(problems)
    assert all(problem.line and problem.message for problem in problems)


@pytest.mark.parametrize("server", ["https://x", "http://127.0.0.1:8001", "http://[::1]:8001", "http://localhost:8001"])
def test_a_token_may_go_where_nobody_listens(server: str) -> None:
    """Over https, and to this machine itself (kubectl proxy), a token may be sent."""
    _, problems = parse_file(spec(*CLUSTER, f"connection: {{server: '{server}', tokenFile: b}}").encode(), "f.yaml")
    assert problems == []
