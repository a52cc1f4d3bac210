"""Which files a Kustomize build reads, and what is refused before it starts."""

import pytest

from fleet.errors import RenderError
from fleet.render.kustomize import find_closure
from tests.unit.render.files import MemoryFiles


def closure(files: dict[str, str], path: str = "app") -> list[str]:
    """Return the closure's files in order."""
    return sorted(find_closure(MemoryFiles(files), path).files)


def refused(files: dict[str, str], path: str = "app") -> list[str]:
    """Return what is wrong with a build's files."""
    with pytest.raises(RenderError) as caught:
        find_closure(MemoryFiles(files), path)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "text",
    [
        "resources: [a.yaml]",
        "resources: [./sub/../a.yaml]",
        "components: [a.yaml]",
        "bases: [a.yaml]",
        "crds: [a.yaml]",
        "configurations: [a.yaml]",
        "patchesStrategicMerge: [a.yaml]",
        "patches: [{path: a.yaml, target: {kind: X}}]",
        "patchesJson6902: [{path: a.yaml, target: {kind: X, name: y}}]",
        "replacements: [{path: a.yaml}]",
        "configMapGenerator: [{name: x, files: [a.yaml]}]",
        "configMapGenerator: [{name: x, files: [key=a.yaml]}]",
        "secretGenerator: [{name: x, envs: [a.yaml]}]",
        "secretGenerator: [{name: x, env: a.yaml}]",
        "openapi: {path: a.yaml}",
        "generators: [plugin.yaml]",
        "transformers:\n- |\n  apiVersion: builtin\n  kind: PatchTransformer\n  metadata: {name: x}\n  path: a.yaml",
    ],
)
def test_every_reference(text: str) -> None:
    """Each field that names a file brings that file, and nothing else comes."""
    plugin = "apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: x}\nfiles: [a.yaml]\n"
    files = {"app/kustomization.yaml": text, "app/a.yaml": "", "app/b.yaml": "", "app/plugin.yaml": plugin}
    plugins = ["app/plugin.yaml"] if "plugin.yaml" in text else []
    assert closure(files) == ["app/a.yaml", "app/kustomization.yaml", *plugins]


@pytest.mark.parametrize(
    "text",
    [
        "patchesStrategicMerge:\n- |\n  kind: X\n  metadata: {name: a.yaml}",
        'patchesStrategicMerge: [\'{"kind": "X"}\']',
        "patches: [{patch: 'kind: X'}]",
        "configMapGenerator: [{name: x, literals: [a=a.yaml]}]",
        "images: [{name: a.yaml, newTag: b}]",
        "resources: []",
        "resources:",
        "namespace: x",
    ],
)
def test_nothing_else(text: str) -> None:
    """What stands in place names no file."""
    assert closure({"app/kustomization.yaml": text, "app/a.yaml": ""}) == ["app/kustomization.yaml"]


def test_bases_anywhere_in_the_repository() -> None:
    """Directories are followed, each once, above the app as well."""
    files = {
        "app/over/prod/kustomization.yaml": "resources: [../../base, ../../../shared]\ncomponents: [../../part]",
        "app/base/kustomization.yml": "resources: [x.yaml, ../../shared/y.yaml]",
        "app/part/Kustomization": "kind: Component\nresources: [../../shared]",
        "shared/kustomization.yaml": "resources: [y.yaml]",
        "app/base/x.yaml": "",
        "shared/y.yaml": "",
        "shared/z.yaml": "",
    }
    assert closure(files, "app/over/prod") == sorted(set(files) - {"shared/z.yaml"})


def test_root_of_the_repository() -> None:
    """The app's path may be the repository's root."""
    assert closure({"kustomization.yaml": "resources: [a.yaml]", "a.yaml": ""}, "") == ["a.yaml", "kustomization.yaml"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resources: [https://example.com/x.yaml]", "is remote"),
        ("resources: [github.com/org/repo//path?ref=v1]", "is remote"),
        ("resources: ['git@github.com:org/repo.git']", "is remote"),
        ("resources: ['git::https://example.com/x']", "is remote"),
        ("resources: ['ssh://git@example.com/x.git']", "is remote"),
        ("resources: ['file:///etc/passwd']", "is remote"),
        ("bases: ['git.example.com/org/repo.git//x']", "is remote"),
        ("bases: ['../x?ref=main']", "is remote"),
        ("openapi: {path: 'https://example.com/schema.json'}", "is remote"),
        ("configMapGenerator: [{name: x, files: ['http://169.254.169.254/latest']}]", "is remote"),
        ("resources: [/etc/passwd]", "not a relative path"),
        ("resources: ['..\\x']", "not a relative path"),
        ("resources: [../../x.yaml]", "leads out of the repository"),
        ("configMapGenerator: [{name: x, files: [k=../../../etc/passwd]}]", "leads out of the repository"),
        ("resources: [nope.yaml]", "app/nope.yaml is not in this revision"),
        ("patches: [{path: nope.yaml}]", "app/nope.yaml is not in this revision"),
        ("patches: [{path: sub}]", "is a directory"),
        ("resources: [5]", "must be a path"),
        ("resources: [sub]", "the directory has no kustomization.yaml"),
        ("resources: [.]", "a cycle of directories: app -> app"),
        ("resources: [../loop]", "a cycle of directories: app -> loop -> app"),
        ("helmCharts: [{name: x}]", "Helm charts"),
        ("helmChartInflationGenerator: [{chartName: x}]", "Helm charts"),
        ("generators: [helm.yaml]", "inflates a Helm chart"),
        ("transformers: [function.yaml]", "Function is a function plugin"),
        ("validators: [exec.yaml]", "Exec of example.com/v1 is not one of Kustomize's own"),
        (
            "transformers:\n- |\n  apiVersion: builtin\n  kind: PatchTransformer\n  path: nope.yaml",
            "app/nope.yaml is not in this revision",
        ),
        ("resources: [a.yaml\n", "flow sequence"),
        ("- a\n", "exactly one mapping"),
        ("resources: [a.yaml]\n---\nresources: []\n", "exactly one mapping"),
        ("resources: [a.yaml]\nresources: []\n", "given twice"),
    ],
)
def test_refused(text: str, says: str) -> None:
    """What leaves the repository, runs code or is not there is refused by name and place."""
    files = {
        "app/kustomization.yaml": text,
        "app/a.yaml": "",
        "app/sub/x.yaml": "",
        "loop/kustomization.yaml": "resources: [../app]",
        "app/helm.yaml": "apiVersion: builtin\nkind: HelmChartInflationGenerator\nmetadata: {name: x}\n",
        "app/function.yaml": "apiVersion: x/v1\nkind: Function\nmetadata:\n  annotations: {config.kubernetes.io/function: 'exec: {path: ./x}'}\n",
        "app/exec.yaml": "apiVersion: example.com/v1\nkind: Exec\n",
    }
    (problem,) = refused(files)
    assert says in problem


def test_line_and_column() -> None:
    """A refusal names file, line, column and field; all of them come at once."""
    files = {"app/kustomization.yaml": "resources:\n- nope.yaml\n- https://example.com/x\npatches:\n- path: p.yaml\n"}
    assert [problem.partition(": ")[0] for problem in refused(files)] == [
        "app/kustomization.yaml:2:3",
        "app/kustomization.yaml:3:3",
        "app/kustomization.yaml:5:9",
    ]


def test_two_kustomizations() -> None:
    """A directory with two kustomization files is as unclear as it is to Kustomize."""
    files = {"app/kustomization.yaml": "", "app/kustomization.yml": ""}
    assert refused(files) == ["app: the directory has both kustomization.yaml and kustomization.yml; keep one"]


def test_alias_bomb_in_a_resource() -> None:
    """A bomb hidden behind a kustomization is refused before the tool meets it."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)
    ]
    files = {"app/kustomization.yaml": "resources: [a.yaml]\n", "app/a.yaml": "\n".join(lines)}
    (problem,) = refused(files)
    assert "app/a.yaml:6:" in problem
    assert "aliases" in problem
