"""What of a Kustomize build must be opened first, and what is kept quiet about it."""

from pathlib import Path

import pytest

from fleet.errors import Problem, RenderError
from fleet.render.kustomize import find_closure
from fleet.render.opened import HIDDEN, find_sealed, hide_values, may_spread
from fleet.render.private import is_memory, opened_directory, sweep_opened
from tests.unit.render.files import MemoryFiles
from tests.unit.render.test_sealed import SOPS


def spread(kustomization: str, **files: str) -> bool:
    """Tell whether opened values of a build may be anywhere."""
    tree = {"app/kustomization.yaml": kustomization, "app/s.yaml": SOPS, "app/c.yaml": "kind: ConfigMap\n", **files}
    closure = find_closure(MemoryFiles(tree), "app")
    sealed = find_sealed(closure)
    assert list(sealed) == ["app/s.yaml"]
    return may_spread(closure, sealed)


@pytest.mark.parametrize(
    ("kustomization", "anywhere"),
    [
        ("secretGenerator: [{name: x, files: [s.yaml]}]", False),
        ("resources: [s.yaml]", False),
        ("resources: [s.yaml]\nreplacements: []", True),
        ("resources: [c.yaml]\npatches: [{path: s.yaml}]", True),
        ("resources: [c.yaml]\npatchesStrategicMerge: [s.yaml]", True),
        ("configMapGenerator: [{name: x, files: [s.yaml]}]", True),
        ("secretGenerator: [{name: x, files: [s.yaml]}]\nconfigMapGenerator: [{name: x, files: [s.yaml]}]", True),
    ],
)
def test_where_opened_values_may_end_up(kustomization: str, anywhere: bool) -> None:
    """Only values that stay in Secrets leave the other objects of a build to be shown."""
    assert spread(kustomization) is anywhere


def test_an_encrypted_object_of_another_kind_may_be_anything() -> None:
    """A ConfigMap encrypted with SOPS becomes a ConfigMap with secret values."""
    tree = {"app/kustomization.yaml": "resources: [s.yaml]", "app/s.yaml": SOPS.replace("Secret", "ConfigMap")}
    closure = find_closure(MemoryFiles(tree), "app")
    assert may_spread(closure, find_sealed(closure))


def test_an_object_that_stays_encrypted_is_not_opened() -> None:
    """Opting out by annotation counts before a build, too."""
    text = SOPS.replace("namespace: shop", 'namespace: shop, annotations: {fleet/decrypt: "disabled"}')
    tree = {"app/kustomization.yaml": "resources: [s.yaml]", "app/s.yaml": text}
    assert find_sealed(find_closure(MemoryFiles(tree), "app")) == {}


def test_a_failed_build_quotes_nothing() -> None:
    """Words of the tool and of checks may hold values; places and our own words stay."""
    error = hide_values(RenderError([Problem("app/x.yaml", 3, 1, "spec.x", "'hunter2' is no quantity")]), "app/k.yaml")
    assert "hunter2" not in str([*error.problems, error])
    assert str(error.problems[0]) == f"app/x.yaml:3:1: spec.x: {HIDDEN}"
    ours = RenderError([Problem("app", 0, 0, "", "took too long")], reason="RenderTimeout")
    assert hide_values(ours, "app") is ours


def test_only_a_file_system_in_memory_is_taken(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A path that is not there, and one that is no tmpfs, are refused."""
    assert not is_memory(tmp_path_factory.getbasetemp() / "absent")
    assert not is_memory(Path("/proc"))
    assert is_memory(Path("/dev/shm"))


def test_what_a_killed_worker_left_is_removed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Directories of processes that are gone go; those of others, and of the living, stay."""
    above = tmp_path_factory.mktemp("shm")
    for name in ("fleet-999999999-a", "999999999-b", "other", "fleet-1-c"):
        (above / name).mkdir()
    with opened_directory(above) as made:
        sweep_opened(above)
        assert made.stat().st_mode & 0o777 == 0o700
        assert sorted(p.name for p in above.iterdir()) == sorted(["999999999-b", "other", "fleet-1-c", made.name])
    assert not made.exists()
