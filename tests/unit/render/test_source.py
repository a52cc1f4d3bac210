"""What an app's path holds, and the files of a plain directory."""

import pytest

from fleet.errors import PathMissing, RenderError, TreeRefused
from fleet.render import source
from fleet.render.source import Kind, Node, detect_kind, read_plain
from tests.unit.render.files import MemoryFiles


@pytest.mark.parametrize(
    ("files", "path", "kind"),
    [
        ({"app/x.yaml": ""}, "app", Kind.PLAIN),
        ({"x.yaml": ""}, "", Kind.PLAIN),
        ({"app/x.yaml": ""}, "app/x.yaml", Kind.PLAIN),
        ({"app/kustomization.yaml": ""}, "app", Kind.KUSTOMIZE),
        ({"app/kustomization.yml": "", "app/Chart.yaml": ""}, "app", Kind.KUSTOMIZE),
        ({"app/Kustomization": ""}, "app", Kind.KUSTOMIZE),
        ({"app/sub/kustomization.yaml": ""}, "app", Kind.PLAIN),
    ],
)
def test_kind(files: dict[str, str], path: str, kind: Kind) -> None:
    """Kustomize shows itself by its file's name; everything else is plain."""
    assert detect_kind(MemoryFiles(files), path) is kind


def test_missing_path() -> None:
    """A path that is not there is never an app without objects."""
    with pytest.raises(PathMissing, match="there is no app"):
        detect_kind(MemoryFiles({"apps/x.yaml": ""}), "app")


@pytest.mark.parametrize("file", ["app/Chart.yaml", "app/sub/Chart.yaml"])
def test_helm(file: str) -> None:
    """A chart is refused by name and path."""
    files = MemoryFiles({file: "", "app/x.yaml": ""})
    with pytest.raises(RenderError, match=file) as caught:
        _ = detect_kind(files, "app"), read_plain(files, "app")
    assert caught.value.reason == "HelmUnsupported"


def test_plain_files() -> None:
    """Manifests are found at every depth, in order; other files and hidden ones are passed over."""
    names = [
        "app/b.yml",
        "app/a.yaml",
        "app/c.json",
        "app/README.md",
        "app/.x.yaml",
        "app/.git/x.yaml",
        "app/d/e/f.yaml",
        "other/x.yaml",
    ]
    found = read_plain(MemoryFiles(dict.fromkeys(names, "")), "app")
    assert list(found) == ["app/a.yaml", "app/b.yml", "app/c.json", "app/d/e/f.yaml"]


def test_kustomize_inside_plain() -> None:
    """A Kustomize directory inside a plain one is not read as manifests."""
    with pytest.raises(RenderError, match=r"app/base/kustomization\.yaml: a Kustomize directory"):
        read_plain(MemoryFiles({"app/base/kustomization.yaml": "", "app/x.yaml": ""}), "app")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({f"app/{n}.yaml": "a" * (1 << 20) for n in range(11)}, "more than 10485760 bytes"),
        ({f"app/{n}.yaml": "" for n in range(5001)}, "more than 5000 files"),
    ],
)
def test_too_large(files: dict[str, str], says: str) -> None:
    """Files and apps beyond their limits are refused with the number."""
    with pytest.raises(RenderError, match=says) as caught:
        read_plain(MemoryFiles(files), "app")
    assert caught.value.reason == "TooLarge"


def test_endless_directories() -> None:
    """Links that lead back into themselves end with an error."""

    class Loop(MemoryFiles):
        def kind(self, path: str) -> Node:
            return Node.DIRECTORY

        def list(self, path: str) -> list[str]:
            return ["again"]

    with pytest.raises(TreeRefused, match="nested deeper"):
        read_plain(Loop({}), "app")
    assert source.MOST_DEPTH < 100
