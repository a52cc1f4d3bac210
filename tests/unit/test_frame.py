"""The frame of the checkout keeps its promises: locks, make targets, licence."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {
    "help", "setup", "demo", "fmt", "lint", "types", "test", "test-cluster", "bench", "docs", "check", "clean", "image",
    "envtest",
}  # fmt: skip


def read_lock(name: str) -> dict[str, str]:
    """Read a lock: distribution -> version. Fails on a line that is neither a pin nor a hash."""
    pins: dict[str, str] = {}
    for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        pin = re.fullmatch(r"([a-z0-9][a-z0-9.-]*)==(\S+)(?: ; [^\\]+)? \\", line)
        assert pin or re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line), line
        if pin:
            pins[canonicalize_name(pin[1])] = pin[2]
    return pins


def read_project() -> dict[str, Any]:
    """Read pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def wanted(lock: str) -> list[str]:
    """Return the requirements that a lock must satisfy."""
    project = read_project()
    runtime: list[str] = project["project"]["dependencies"]
    development: list[str] = project["project"]["optional-dependencies"]["dev"]
    build: list[str] = project["build-system"]["requires"]
    return {"run": runtime, "dev": [*runtime, *development], "build": build}[lock]


@pytest.mark.parametrize("lock", ["run", "dev", "build"])
def test_lock_satisfies_pyproject(lock: str) -> None:
    """Every requirement of pyproject.toml is pinned to a version that it accepts, by hash and without an address."""
    pins = read_lock(lock)
    for requirement in map(Requirement, wanted(lock)):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in requirements/{lock}.txt"
        assert requirement.specifier.contains(version), f"{requirement} but {version}"


@pytest.mark.parametrize("lock", ["run", "build"])
def test_what_is_tested_is_what_runs(lock: str) -> None:
    """The image's versions are the ones that tests run with."""
    assert read_lock(lock).items() <= read_lock("dev").items()


def test_every_runtime_dependency_has_a_reason() -> None:
    """A line of the decision on dependencies names each of them."""
    text = (ROOT / "docs" / "adr" / "0001-dependencies.md").read_text()
    rows = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    assert rows == {Requirement(each).name for each in wanted("run")}


def test_make_targets_are_all_there_and_short() -> None:
    """Each target has at most three lines and a help text."""
    recipes: dict[str, int] = {}
    name = ""
    for line in (ROOT / "Makefile").read_text().splitlines():
        if rule := re.match(r"([a-z.][\w./-]*):(?!=)", line):
            name = rule[1]
            recipes[name] = 0
        elif line.startswith("\t"):
            recipes[name] += 1
    assert recipes.keys() - {".PHONY", ".venv/.installed"} == TARGETS
    assert max(recipes.values()) <= 3
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert {line.split()[0] for line in shown.splitlines()} == TARGETS


def test_ci_is_one_executable() -> None:
    """CI needs nothing but `.ci/run`."""
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_licence_is_whole() -> None:
    """The licence that pyproject.toml names is in the tree, to its last line."""
    text = (ROOT / "LICENSE").read_text()
    assert read_project()["project"]["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert text.rstrip().endswith("limitations under the License.")
