"""Kustomize builds with the real tools."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleet.errors import RenderError
from fleet.object import Manifest
from fleet.render.build import Tool, find_tool
from tests.unit.render.files import render

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n"
OVERLAY = {
    "base/kustomization.yaml": "resources: [web.yaml, service.yaml]\nconfigMapGenerator:\n- name: settings\n  files: [settings.ini]\n",
    "base/web.yaml": """apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web:1
        env:
        - {name: SHARDS, value: "${SHARDS}"}
        envFrom: [{configMapRef: {name: settings}}]
        resources: {limits: {cpu: 1000m}}
""",
    "base/service.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n",
    "base/settings.ini": "a=b\n",
    "base/unused.yaml": "[this is not read",
    "apps/shop/prod/kustomization.yaml": """resources: [../../../base, ../extra]
namePrefix: shop-
namespace: shop
images: [{name: web, newTag: "2"}]
patches:
- path: replicas.yaml
""",
    "apps/shop/prod/replicas.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3}\n",
    "apps/shop/extra/kustomization.yaml": "resources: [cm.yaml]\n",
    "apps/shop/extra/cm.yaml": CONFIG % "extra" + "data: {tier: '${TIER}'}\n",
}
PROD = "apps/shop/prod"


@pytest.fixture
def build(tool: Tool, tmp_path: Path) -> Any:
    """Return a function that renders files with the tool."""

    def run(files: dict[str, str], path: str, **more: Any) -> list[Manifest]:
        return render(files, path, str(tmp_path / "scratch"), **{"kustomize": tool.path, **more})

    return run


def problems(build: Any, files: dict[str, str], path: str, **more: Any) -> list[str]:
    """Return the problems of a build that fails."""
    with pytest.raises(RenderError) as caught:
        build(files, path, **more)
    return [str(problem) for problem in caught.value.problems]


def test_overlay(build: Any, tmp_path: Path) -> None:
    """An overlay over bases renders, normalised, with each object's source file, and leaves no files behind."""
    found = build(OVERLAY, PROD)
    assert [(str(m.key).split("-")[0], m.origin.file) for m in found] == [
        ("ConfigMap shop/shop", "apps/shop/extra/cm.yaml"),
        ("ConfigMap shop/shop", "base/kustomization.yaml"),
        ("Service shop/shop", "base/service.yaml"),
        ("Deployment.apps shop/shop", "base/web.yaml"),
    ]
    web = msgspec.json.decode(found[3].body)
    container = web["spec"]["template"]["spec"]["containers"][0]
    assert (web["spec"]["replicas"], container["image"], container["resources"]) == (
        3,
        "web:2",
        {"limits": {"cpu": "1"}},
    )
    assert container["envFrom"][0]["configMapRef"]["name"] == found[1].key.name
    assert "annotations" not in web["metadata"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_substitution_after_the_build(build: Any) -> None:
    """Values go into the build's output; what was quoted and Kubernetes wants as text stays text."""
    found = build(OVERLAY, PROD, substitute=True, variables={"SHARDS": "4", "TIER": "true"})
    web = msgspec.json.decode(found[3].body)
    assert web["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "SHARDS", "value": "4"}]
    assert msgspec.json.decode(found[0].body)["data"] == {"tier": "true"}
    assert problems(build, OVERLAY, PROD, substitute=True) == [
        "apps/shop/extra/cm.yaml:5:14: data.tier: the variable TIER is not set; set it, or give a default: ${TIER:-...}",
        "base/web.yaml:15:33: spec.template.spec.containers[0].env[0].value: the variable SHARDS is not set; set it, or give a default: ${SHARDS:-...}",
    ]


def test_broken_source(build: Any) -> None:
    """A file that is not YAML is named with its line, not by the tool's chain of causes."""
    files = {**OVERLAY, "base/service.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: web\n"}
    (problem,) = problems(build, files, PROD)
    assert problem.startswith("base/service.yaml:4:1: did not find expected ',' or '}'")


def test_patch_without_target(build: Any) -> None:
    """What only the tool can find is told in its words, with paths as in the repository."""
    files = {**OVERLAY, f"{PROD}/replicas.yaml": OVERLAY[f"{PROD}/replicas.yaml"].replace("name: web", "name: nope")}
    (problem,) = problems(build, files, PROD)
    assert problem.startswith(f"{PROD}/kustomization.yaml: ")
    assert "nope" in problem
    assert "scratch" not in problem


def test_fault_in_a_base(build: Any) -> None:
    """What is wrong with an object is shown where its source stands."""
    files = {
        **OVERLAY,
        "base/service.yaml": "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  labels:\n    a: 5\nspec: {ports: [{port: 80}]}\n",
    }
    assert problems(build, files, PROD) == [
        "base/service.yaml:6:8: metadata.labels.a: the number 5 where Kubernetes wants text; put it in quotes"
    ]


def test_file_outside_the_closure(build: Any) -> None:
    """Even a generator that names a file above the overlay gets it, and nothing else exists there."""
    files = {"top.txt": "x", "app/kustomization.yaml": "configMapGenerator: [{name: x, files: [../top.txt]}]\n"}
    (found,) = build(files, "app")
    assert msgspec.json.decode(found.body)["data"] == {"top.txt": "x"}


def test_root_directory(build: Any) -> None:
    """The repository's root builds like any directory."""
    files = {"kustomization.yaml": "namespace: x\nresources: [a.yaml]\n", "a.yaml": CONFIG % "a"}
    (found,) = build(files, "")
    assert (found.key.namespace, found.origin.file) == ("x", "a.yaml")


def test_flow_style_kustomization(build: Any) -> None:
    """A kustomization that cannot be asked for origins still builds."""
    files = {"app/kustomization.yaml": "{resources: [a.yaml]}", "app/a.yaml": CONFIG % "a"}
    assert [m.origin.file for m in build(files, "app")] == ["app/kustomization.yaml"]


def test_own_build_metadata(build: Any) -> None:
    """Annotations that the kustomization itself asks for stay."""
    files = {
        "app/kustomization.yaml": "resources: [a.yaml]\nbuildMetadata: [originAnnotations]\n",
        "app/a.yaml": CONFIG % "a",
    }
    assert b"config.kubernetes.io/origin" in build(files, "app")[0].body


def test_empty_build(build: Any) -> None:
    """A build of nothing is an error, never an app without objects."""
    with pytest.raises(RenderError, match="nothing was rendered"):
        build({"app/kustomization.yaml": "resources: []\n"}, "app")


def test_hostile_names(build: Any) -> None:
    """A directory that looks like an option is a directory."""
    path = "--enable-alpha-plugins"
    files = {f"{path}/kustomization.yaml": "resources: [a.yaml]\n", f"{path}/a.yaml": CONFIG % "a"}
    assert len(build(files, path)) == 1


def test_deadline(tmp_path: Path) -> None:
    """A build that hangs is ended and named, and its directory is gone."""
    hanging = tmp_path / "kustomize"
    hanging.write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    hanging.chmod(0o755)
    scratch = tmp_path / "scratch"
    files = {"app/kustomization.yaml": "resources: [a.yaml]\n", "app/a.yaml": CONFIG % "a"}
    with pytest.raises(RenderError, match=r"took longer than 0\.2 s") as caught:
        render(files, "app", str(scratch), kustomize=str(hanging), timeout_s=0.2)
    assert caught.value.reason == "RenderTimeout"
    assert list(scratch.iterdir()) == []


def test_missing_tool(tmp_path: Path) -> None:
    """Without a tool the error says how to get one."""
    files = {"app/kustomization.yaml": "resources: [a.yaml]\n", "app/a.yaml": CONFIG % "a"}
    with pytest.raises(RenderError, match="FLEET_KUSTOMIZE") as caught:
        render(files, "app", str(tmp_path), kustomize=str(tmp_path / "none"))
    assert caught.value.reason == "KustomizeMissing"


def test_only_the_closure_and_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool sees the files it needs and none of the hub's variables."""
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    spy = tmp_path / "kustomize"
    seen = tmp_path / "seen"
    spy.write_text(f'#!/bin/sh\n/usr/bin/env > {seen}\n/usr/bin/find . >> {seen}\necho "$@" >> {seen}\n')
    spy.chmod(0o755)
    with pytest.raises(RenderError, match="nothing was rendered"):
        render(OVERLAY, PROD, str(tmp_path / "scratch"), kustomize=str(spy))
    text = seen.read_text()
    assert "hunter2" not in text
    assert "unused.yaml" not in text
    assert f"--load-restrictor LoadRestrictionsNone ./{PROD}" in text
    assert oct((tmp_path / "scratch").stat().st_mode)[-3:] == "700"


def test_remains_of_a_killed_worker(tool: Tool, tmp_path: Path) -> None:
    """A directory whose worker is gone is removed by the next build; one of a living worker stays."""
    scratch = tmp_path / "scratch"
    (scratch / "999999999-left").mkdir(parents=True)
    (scratch / f"{os.getppid()}-living").mkdir()
    render(OVERLAY, PROD, str(scratch), kustomize=tool.path)
    assert [left.name for left in scratch.iterdir()] == [f"{os.getppid()}-living"]


def test_identity_of_a_tool(tool: Tool) -> None:
    """The reply names the binary that built, so that another one's output is never taken for it."""
    assert find_tool(tool.path) == tool
    assert tool.path in tool.identity
