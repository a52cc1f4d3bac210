"""The binaries that build: those of `make envtest`, else those on PATH, else the tests say loudly that they skip."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.render.build import Tool, find_tool

_LOCATE = Path(__file__).parents[3] / "tools" / "envtest" / "build.py"


def _locate(name: str) -> str:
    located = subprocess.run([sys.executable, _LOCATE, "--locate"], capture_output=True, text=True, check=False)
    built = Path(located.stdout.strip() or "/nonexistent") / name
    return str(built) if built.exists() else shutil.which(name) or ""


@pytest.fixture(scope="session", params=["kustomize", "kubectl"])
def tool(request: pytest.FixtureRequest) -> Tool:
    """Return each tool that can build."""
    path = _locate(request.param)
    if not path:
        pytest.skip(f"REAL {request.param.upper()} NOT TESTED: none from `make envtest` and none on PATH")
    found = find_tool(path)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def kustomize() -> str:
    """Return the path of one tool that can build."""
    path = _locate("kustomize") or _locate("kubectl")
    if not path:
        pytest.skip("REAL KUSTOMIZE NOT TESTED: none from `make envtest` and none on PATH")
    return path
