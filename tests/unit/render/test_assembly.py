"""From documents to manifests, with every fault at its place."""

from typing import Any

import pytest

from fleet.errors import RenderError
from fleet.object import ObjectKey
from fleet.render import assembly, worker
from tests.unit.render.files import MemoryFiles, order, render, render_one

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n"


def problems(files: dict[str, str], **more: Any) -> list[str]:
    """Return the problems of a render that fails."""
    with pytest.raises(RenderError) as caught:
        render(files, **more)
    return [str(problem) for problem in caught.value.problems]


def test_sorted_by_key() -> None:
    """Manifests come in key order with their origins, whatever the files' order."""
    found = render({"app/a.yaml": CONFIG % "z" + "---\n" + CONFIG % "a", "app/b.yaml": CONFIG % "m"}, namespace="n")
    assert [(m.key, str(m.origin)) for m in found] == [
        (ObjectKey("", "ConfigMap", "n", "a"), "app/a.yaml:6"),
        (ObjectKey("", "ConfigMap", "n", "m"), "app/b.yaml:1"),
        (ObjectKey("", "ConfigMap", "n", "z"), "app/a.yaml:1"),
    ]


def test_list_items_have_lines() -> None:
    """An item of a List knows its own line."""
    text = (
        "apiVersion: v1\nkind: List\nitems:\n- "
        + (CONFIG % "a").replace("\n", "\n  ")
        + "\n- "
        + (CONFIG % "b").replace("\n", "\n  ")
    )
    assert [str(m.origin) for m in render({"app/x.yaml": text})] == ["app/x.yaml:4", "app/x.yaml:9"]


def test_all_problems_of_all_files() -> None:
    """Every fault of every file is listed at once, in file order, with line and column."""
    files = {
        "app/a.yaml": "kind: X\nmetadata:\n  name: a\n---\na: [1\n---\napiVersion: v1\nkind: X\nmetadata:\n  generateName: x-\n",
        "app/b.yaml": CONFIG % "b" + "data:\n  p: 5\n  p: 6\n",
        "app/c.yaml": CONFIG % "c" + "  labels:\n    x: 5\n    z: true\n",
    }
    assert problems(files) == [
        "app/a.yaml:1:1: apiVersion: is missing",
        "app/a.yaml:6:1: did not find expected ',' or ']' (while parsing a flow sequence that starts on line 5)",
        "app/a.yaml:10:17: metadata.generateName: generateName makes a new object at every apply; give it a name",
        "app/b.yaml:7:3: data.p: the key 'p' is given twice; the first is on line 6",
        "app/c.yaml:6:8: metadata.labels.x: the number 5 where Kubernetes wants text; put it in quotes",
        "app/c.yaml:7:8: metadata.labels.z: the word true where Kubernetes wants text; put it in quotes",
    ]


def test_twice_in_one_list() -> None:
    """Two entries of one key are refused with both lines."""
    text = """apiVersion: v1
kind: Pod
metadata: {name: x}
spec:
  containers:
  - name: c
    env:
    - name: A
      value: a
    - name: A
      value: b
"""
    assert problems({"app/x.yaml": text}) == [
        "app/x.yaml:10:7: spec.containers[0].env[1]: the entry name=A is given twice, which the API server refuses; the first is on line 8"
    ]


def test_duplicate_objects() -> None:
    """One object rendered twice is refused, naming both places; its version does not matter."""
    one = "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: x\n"
    assert problems({"app/a.yaml": one, "app/b.yaml": one.replace("v1", "v2")}, namespace="n") == [
        "app/b.yaml:4:9: metadata.name: HorizontalPodAutoscaler.autoscaling n/x is rendered twice; the first is in app/a.yaml:1"
    ]


def test_empty() -> None:
    """Nothing rendered is an error, even where a namespace would be created."""
    with pytest.raises(RenderError, match="nothing was rendered") as caught:
        render({"app/x.yaml": "# nothing\n---\n"}, namespace="n", create_namespace=True)
    assert caught.value.reason == "EmptyRender"


def test_create_namespace() -> None:
    """The app's namespace is added when asked for and not rendered itself."""
    files = {"app/x.yaml": CONFIG % "x"}
    namespace = ObjectKey("", "Namespace", "", "team")
    assert [m.key for m in render(files, namespace="team", create_namespace=True)][1] == namespace
    own = {"app/n.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: team, labels: {a: b}}\n", **files}
    (found,) = [m for m in render(own, namespace="team", create_namespace=True) if m.key == namespace]
    assert b'"labels"' in found.body
    assert [m.key.kind for m in render(files, create_namespace=True)] == ["ConfigMap"]


def test_substitution_only_when_asked() -> None:
    """Expansions are text until the app asks for them."""
    text = CONFIG % "x" + "data: {a: '${A}'}\n"
    assert render_one(text)["data"] == {"a": "${A}"}
    assert render_one(text, substitute=True, variables={"A": "b"})["data"] == {"a": "b"}
    assert problems({"app/x.yaml": text}, substitute=True) == [
        "app/x.yaml:5:11: data.a: the variable A is not set; set it, or give a default: ${A:-...}"
    ]


def test_replicas_become_a_number() -> None:
    """A number stays a number through substitution."""
    text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  replicas: ${R}\n"
    assert render_one(text, substitute=True, variables={"R": "6"})["spec"] == {"replicas": 6}


def test_hook_is_passed_through() -> None:
    """Another tool's hook keeps its mark, for whoever applies it to name."""
    (found,) = render({"app/x.yaml": CONFIG % "x" + "  annotations: {helm.sh/hook: pre-install}\n"})
    assert found.flags.hook == "helm.sh/hook: pre-install"


def test_too_many_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """More objects than one app may have are refused."""
    monkeypatch.setattr(assembly, "MOST_OBJECTS", 3)
    with pytest.raises(RenderError, match="more than 3 objects") as caught:
        render({"app/x.yaml": "---\n".join(CONFIG % n for n in "abcd")})
    assert caught.value.reason == "TooLarge"


def test_used_variables() -> None:
    """The reply names the variables that the app's files ask for."""
    files = MemoryFiles({"app/x.yaml": CONFIG % "x" + "data: {a: '${A}${B:-}'}\n"})
    found = worker.render_files(files, order("app", substitute=True, variables={"A": "", "C": ""}))
    assert set(found.used) == {"A", "B"}
