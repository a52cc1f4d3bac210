"""tools/envtest builds the real control plane once, whole or not at all. Go is played by a script that only takes notes."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from fleet.sim.real import find_binaries

ENVTEST: Final = Path(__file__).resolve().parents[2] / "tools" / "envtest"
PROGRAMS: Final = {
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kubectl",
    "kustomize",
    "age",
    "sops",
    "kubeseal",
}
FAKE_GO: Final = """#!/bin/sh
if [ "$1" = env ]; then echo "${GO_VERSION:-go1.99.0}"; exit; fi
echo "$GOTOOLCHAIN $CGO_ENABLED $*" >> "$GO_NOTES"
echo "noise on stdout"
[ -z "$GO_FAILS" ] || exit 7
while [ $# -gt 0 ]; do
  case "$1" in
    -o) out=$2; shift ;;
    -ldflags) shift ;;
    build | -*) ;;
    *) name=${1##*/}; case "$name" in v[0-9]*) path=${1%/*}; name=${path##*/} ;; esac
       printf '#!/bin/sh\\n' > "$out$name"; chmod +x "$out$name" ;;
  esac
  shift
done
"""


def load_build() -> ModuleType:
    """Import the script, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("envtest_build", ENVTEST / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


build = load_build()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Somebody's machine: an empty cache, and a Go that takes notes."""

    environment: Mapping[str, str]
    cache: Path
    notes: Path

    @property
    def built(self) -> Path:
        digest: str = build.digest(ENVTEST)
        return self.cache / digest

    @property
    def calls(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def start(self, *options: str, **extra: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-I", str(ENVTEST / "build.py"), *options]
        environment = {**self.environment, **extra}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def run(self, *options: str, **extra: str) -> tuple[int, str, str]:
        process = self.start(*options, **extra)
        output, complaint = process.communicate()
        return process.returncode, output, complaint


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with Go."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "go").write_text(FAKE_GO)
    (tools / "go").chmod(0o755)
    notes = tmp_path / "notes"
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache"), "GO_NOTES": str(notes)}
    return Machine(environment=environment, cache=tmp_path / "cache" / "fleet-envtest", notes=notes)


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """A directory of binaries from elsewhere."""
    directory = tmp_path / "assets"
    directory.mkdir()
    for name in ("etcd", "kube-apiserver"):
        (directory / name).touch(mode=0o755)
    return directory


def test_builds_everything_and_prints_the_directory(machine: Machine) -> None:
    """All programs are there under their own names, and stdout is the directory and nothing else."""
    assert machine.run()[:2] == (0, f"{machine.built}\n")
    assert {each.name for each in machine.built.iterdir()} == PROGRAMS
    assert len(machine.calls) == 6
    assert all(call.startswith("local 0 build -mod=readonly -trimpath ") for call in machine.calls)


def test_second_call_builds_nothing(machine: Machine) -> None:
    """What is ready is only named."""
    machine.run()
    assert machine.run()[:2] == (0, f"{machine.built}\n")
    assert machine.run("--locate")[:2] == (0, f"{machine.built}\n")
    assert len(machine.calls) == 6


def test_two_at_a_time_build_once(machine: Machine) -> None:
    """A second builder waits for the first and takes its result."""
    both = [machine.start(), machine.start()]
    assert [process.communicate()[0] for process in both] == [f"{machine.built}\n"] * 2
    assert len(machine.calls) == 6


def test_failed_build_leaves_nothing(machine: Machine) -> None:
    """Neither half a directory nor its scaffolding stays when Go fails; the reason is said."""
    code, output, complaint = machine.run(GO_FAILS="1")
    assert (code, output) == (1, "")
    assert "exit code 7" in complaint
    assert [each.name for each in machine.cache.iterdir()] == [".lock"]
    assert machine.run()[0] == 0


def test_leftovers_of_a_killed_builder_go(machine: Machine) -> None:
    """Whatever a killed builder left is removed by the next."""
    (machine.cache / "unfinished-x" / "bin").mkdir(parents=True)
    machine.run()
    assert {each.name for each in machine.cache.iterdir()} == {".lock", machine.built.name}


def test_damaged_directory_is_built_anew(machine: Machine) -> None:
    """A directory that lost a needed program does not count."""
    machine.run()
    (machine.built / "etcd").unlink()
    assert machine.run("--locate")[:2] == (1, "")
    assert machine.run()[0] == 0
    assert {each.name for each in machine.built.iterdir()} == PROGRAMS


@pytest.mark.parametrize(("options", "code"), [((), 1), (("--optional",), 0)])
@pytest.mark.parametrize("without", [{"PATH": "/nonexistent"}, {"GO_VERSION": "go1.9.7"}, {"GO_VERSION": "nonsense"}])
def test_without_go_says_what_to_do(
    machine: Machine, options: tuple[str, ...], code: int, without: dict[str, str]
) -> None:
    """Without a Go new enough there is advice on stderr and no directory on stdout; `--optional` makes that a success."""
    answered, output, complaint = machine.run(*options, **without)
    assert (answered, output) == (code, "")
    assert "KUBEBUILDER_ASSETS" in complaint
    assert "Install Go" in complaint


@pytest.mark.parametrize("version", ["go1.26.0", "go1.27rc1", "go1.26.8 X:nocoverageredesign", "go2.0"])
def test_new_enough_go_builds(machine: Machine, version: str) -> None:
    """Whatever Go calls itself, a version from the module files' on will do."""
    assert machine.run(GO_VERSION=version)[0] == 0


def test_locate_never_builds(machine: Machine) -> None:
    """`--locate` on an empty cache fails silently."""
    assert machine.run("--locate") == (1, "", "")
    assert machine.calls == []


def test_given_binaries_win(machine: Machine, assets: Path) -> None:
    """`KUBEBUILDER_ASSETS` is taken as it is, unless it lacks what is needed."""
    assert machine.run(KUBEBUILDER_ASSETS=str(assets)) == (0, f"{assets}\n", "")
    (assets / "etcd").unlink()
    assert machine.run("--locate", KUBEBUILDER_ASSETS=str(assets))[:2] == (1, "")


def test_package_finds_the_same_binaries(machine: Machine, assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`find_binaries` sees what the builder sees."""
    monkeypatch.setenv("XDG_CACHE_HOME", machine.environment["XDG_CACHE_HOME"])
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    assert find_binaries() is None
    machine.run()
    assert find_binaries() == machine.built
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    assert find_binaries() == assets


def test_digest_covers_module_files_alone(tmp_path: Path) -> None:
    """Changing, moving or adding a module file changes the digest; other files do not."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "go.mod").write_text("module one\n")
    seen = [build.digest(tmp_path)]
    (tmp_path / "README").write_text("words")
    assert build.digest(tmp_path) == seen[0]
    (tmp_path / "one" / "go.sum").write_text("")
    seen.append(build.digest(tmp_path))
    (tmp_path / "one" / "go.mod").write_text("module two\n")
    seen.append(build.digest(tmp_path))
    (tmp_path / "one").rename(tmp_path / "two")
    seen.append(build.digest(tmp_path))
    assert len(set(seen)) == 4


@pytest.mark.parametrize(
    ("environment", "root"),
    [
        ({"HOME": "/home/me"}, "/home/me/.cache/fleet-envtest"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/var/tmp/me"}, "/var/tmp/me/fleet-envtest"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "relative"}, "/home/me/.cache/fleet-envtest"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": ""}, "/home/me/.cache/fleet-envtest"),
    ],
)
def test_cache_is_the_users_own(environment: dict[str, str], root: str) -> None:
    """The cache is where the XDG specification puts it."""
    assert build.cache_root(environment) == Path(root)


def test_every_program_is_a_tool_of_its_module() -> None:
    """The `tool` lines and the recipes name the same packages, so `go.sum` covers what is built."""
    for recipe in build.RECIPES:
        go_mod = (ENVTEST / recipe.directory / "go.mod").read_text()
        tools = set(re.findall(r"^(?:tool |\t)([a-z0-9./-]+)$", go_mod, re.MULTILINE))
        assert tools == set(recipe.programs.values())
        assert (ENVTEST / recipe.directory / "go.sum").stat().st_size > 0
    assert {name for recipe in build.RECIPES for name in recipe.programs} == PROGRAMS


def test_staging_modules_follow_the_release() -> None:
    """Each replacement has the minor and patch number of the Kubernetes release."""
    go_mod = (ENVTEST / "k8s" / "go.mod").read_text()
    release = build.pinned_version(go_mod, "k8s.io/kubernetes")
    replaced = re.findall(r"^\t(\S+) => (\S+) (\S+)$", go_mod, re.MULTILINE)
    assert len(replaced) == 33
    assert {version for _, _, version in replaced} == {release.replace("v1.", "v0.", 1)}
    assert all(left == right for left, right, _ in replaced)


def test_linker_flags_name_the_release() -> None:
    """The server will call itself by its semantic version, its major and its minor."""
    flags = build.linker_flags(build.RECIPES[0], "v1.36.3").split()
    assert flags[:2] == ["-s", "-w"]
    for value in ("gitVersion=v1.36.3", "gitMajor=1", "gitMinor=36"):
        assert f"k8s.io/component-base/version.{value}" in flags


def test_unpinned_module_is_refused() -> None:
    """A module file without the release says how to add it."""
    with pytest.raises(build.BuildError, match="go get"):
        build.pinned_version("module x\n", "k8s.io/kubernetes")
