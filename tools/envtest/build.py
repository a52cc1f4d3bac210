#!/usr/bin/env python3
"""Build the real control plane that tests run against, once per user.

Each directory beside this file holds one Go module that pins one upstream release through `tool` lines; nothing of it
is ours but the choice of versions. The binaries land in a cache directory named by a hash of those module files, so a
second call has nothing to do and a version bump builds anew beside the old one.

    build.py             build what is missing, then print the directory (the last and only line on stdout)
    build.py --locate    print the directory if it is ready; exit 1 otherwise, without building
    build.py --optional  without a Go new enough explain what is missing and exit 0

`KUBEBUILDER_ASSETS`, when it names a directory with etcd and kube-apiserver, wins over building.
Needs only Python 3.11 and Go; no package of the project.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEEDED = ("kube-apiserver", "etcd")  # what makes a directory of binaries usable at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One Go module: its directory, the module whose version it pins, and binary name -> main package."""

    directory: str
    module: str
    programs: Mapping[str, str]
    version_variables: tuple[str, ...] = ()  # Go string variables that get the version, `vMAJOR.MINOR.PATCH`
    number_packages: tuple[str, ...] = ()  # Go packages with gitMajor, gitMinor beside gitVersion


RECIPES = (
    Recipe(
        directory="k8s",
        module="k8s.io/kubernetes",
        # One `go build` for all three: they share nearly every package, and link side by side.
        programs={
            "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
            "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
            "kubectl": "k8s.io/kubernetes/cmd/kubectl",
        },
        # Without these the server calls itself v0.0.0-master+$Format:%H$, which no client can parse.
        number_packages=("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"),
    ),
    Recipe(
        directory="etcd",
        module="go.etcd.io/etcd/server/v3",
        programs={"etcd": "go.etcd.io/etcd/server/v3"},
    ),
    Recipe(
        directory="kustomize",
        module="sigs.k8s.io/kustomize/kustomize/v5",
        programs={"kustomize": "sigs.k8s.io/kustomize/kustomize/v5"},
        version_variables=("sigs.k8s.io/kustomize/api/provenance.version",),
    ),
    # The peers whose files fleet opens, and that open fleet's.
    Recipe(
        directory="age",
        module="filippo.io/age",
        programs={"age": "filippo.io/age/cmd/age"},
        version_variables=("main.Version",),
    ),
    Recipe(
        directory="sops",
        module="github.com/getsops/sops/v3",
        programs={"sops": "github.com/getsops/sops/v3/cmd/sops"},
    ),
    Recipe(
        directory="kubeseal",
        module="github.com/bitnami-labs/sealed-secrets",  # later releases moved to another module path
        programs={"kubeseal": "github.com/bitnami-labs/sealed-secrets/cmd/kubeseal"},
        version_variables=("main.VERSION",),
    ),
)


class BuildError(Exception):
    """The binaries cannot be had; the message says what to do."""


class GoMissing(BuildError):
    """No Go toolchain on this machine that could build the modules."""


def digest(modules: Path) -> str:
    """Hash every `*/go.mod` and `*/go.sum` below `modules`, names included: 16 hex digits."""
    total = hashlib.sha256()
    for path in sorted(p for name in ("go.mod", "go.sum") for p in modules.glob(f"*/{name}")):
        content = path.read_bytes()
        total.update(f"{path.relative_to(modules)} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()[:16]


def cache_root(environment: Mapping[str, str]) -> Path:
    """Name the per-user directory that holds one directory of binaries per digest."""
    base = environment.get("XDG_CACHE_HOME") or ""
    # The XDG specification has relative paths ignored.
    root = Path(base) if Path(base).is_absolute() else Path(environment.get("HOME") or Path.home()) / ".cache"
    return root / "fleet-envtest"


def usable(directory: Path) -> bool:
    """Tell whether a control plane can be started from `directory`."""
    return all(os.access(directory / name, os.X_OK) for name in NEEDED)


def locate(modules: Path, environment: Mapping[str, str]) -> Path | None:
    """Find ready binaries: those the environment names, else those built from exactly these module files."""
    given = environment.get("KUBEBUILDER_ASSETS")
    if given and usable(Path(given)):
        return Path(given).absolute()
    built = cache_root(environment) / digest(modules)
    return built if usable(built) else None


def pinned_version(go_mod: str, module: str) -> str:
    """Read the version that `go_mod` requires of `module`."""
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(module)}\s+(v\d+\.\d+\.\d+\S*)", go_mod, re.MULTILINE)
    if found is None:
        raise BuildError(f"no version of {module} is required; run `go get {module}@vX.Y.Z` in its directory")
    return found.group(1)


def linker_flags(recipe: Recipe, version: str) -> str:
    """Strip debug data and tell the programs which release they are."""
    major, minor = version.removeprefix("v").split(".")[:2]
    values = dict.fromkeys(recipe.version_variables, version)
    for package in recipe.number_packages:
        values |= {
            f"{package}.gitVersion": version,
            f"{package}.gitMajor": major,
            f"{package}.gitMinor": minor,
            f"{package}.gitTreeState": "clean",
        }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in values.items())])


def go_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Fix what would change the result; leave proxies, caches and credentials to the user."""
    return {**environment, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}


def build_recipe(recipe: Recipe, modules: Path, target: Path, environment: Mapping[str, str]) -> None:
    """Build one module's programs into `target` under their own names."""
    directory = modules / recipe.directory
    version = pinned_version((directory / "go.mod").read_text(), recipe.module)
    say(f"building {', '.join(recipe.programs)} {version} ...")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=target) as products:
        done = subprocess.run(
            ["go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", linker_flags(recipe, version),
             "-o", products + os.sep, *recipe.programs.values()],
            cwd=directory, env=go_environment(environment), stdout=sys.stderr, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise BuildError(f"go build in {directory} failed with exit code {done.returncode} (output above)")
        for name, package in recipe.programs.items():
            (Path(products) / program_file(package)).rename(target / name)
    say(f"built {', '.join(recipe.programs)} in {time.monotonic() - started:.0f} s")


def program_file(package: str) -> str:
    """Name the file that `go build` makes of a main package: its last path element, or the one before `/vN`."""
    *_, parent, last = package.split("/")
    return parent if re.fullmatch(r"v\d+", last) else last


def require_go(modules: Path, environment: Mapping[str, str]) -> None:
    """Refuse with a reason a person can act on, before minutes are spent."""
    needed = max(_numbers(each.read_text(), r"^go (\S+)$") for each in modules.glob("*/go.mod"))
    advice = (
        f"the real API servers that tests/cluster needs cannot be built. Install Go {'.'.join(map(str, needed[:2]))} "
        "or newer, or point KUBEBUILDER_ASSETS at a directory with etcd and kube-apiserver."
    )
    go = shutil.which("go", path=environment.get("PATH"))
    if go is None:
        raise GoMissing(f"no Go toolchain on PATH, so {advice}")
    asked = subprocess.run(
        [go, "env", "GOVERSION"], env=go_environment(environment), capture_output=True, text=True, check=False
    )
    if _numbers(asked.stdout, r"^go(\d\S*)") < needed:
        raise GoMissing(f"Go is too old ({asked.stdout.strip() or 'of unknown version'}), so {advice}")


def _numbers(text: str, pattern: str) -> tuple[int, ...]:
    found = re.search(pattern, text, re.MULTILINE)
    return tuple(int(each) for each in re.findall(r"\d+", found.group(1))[:3]) if found else ()


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Let one builder per cache work at a time; a second one waits and then finds the work done."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is running; waiting for it ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(modules: Path, environment: Mapping[str, str]) -> Path:
    """Make the binaries ready and return their directory. Idempotent; whatever is visible in the cache is complete."""
    ready = locate(modules, environment)
    if ready is not None:
        return ready
    require_go(modules, environment)
    root = cache_root(environment)
    with locked(root):
        ready = locate(modules, environment)
        if ready is not None:
            return ready
        for leftover in root.glob("unfinished-*"):  # of builders that were killed: nobody else holds the lock
            shutil.rmtree(leftover, ignore_errors=True)
        built = root / digest(modules)
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=root) as work:
            target = Path(work) / "bin"
            target.mkdir()
            for recipe in RECIPES:
                build_recipe(recipe, modules, target, environment)
            shutil.rmtree(built, ignore_errors=True)  # a directory that lost a binary would refuse the rename
            target.rename(built)
    return built


def say(message: str) -> None:
    """Tell progress on stderr: stdout belongs to the result."""
    print(f"envtest: {message}", file=sys.stderr, flush=True)


def main() -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Build etcd, kube-apiserver and friends for tests, once per user.")
    parser.add_argument("--locate", action="store_true", help="only print the directory if it is ready")
    parser.add_argument("--optional", action="store_true", help="exit 0 when there is no Go that could build")
    options = parser.parse_args()
    if options.locate:
        ready = locate(HERE, os.environ)
        if ready is not None:
            print(ready)
        return 0 if ready else 1
    try:
        print(build(HERE, os.environ))
    except GoMissing as missing:
        say(str(missing))
        return 0 if options.optional else 1
    except BuildError as failed:
        say(str(failed))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
