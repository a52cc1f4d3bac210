"""The scalar table of the unit tests, asked of a real kubectl."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_document import KEYS, SCALARS


def find_kubectl() -> str | None:
    """Return a kubectl: the one for the tests' API servers, else the one on PATH."""
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    built = Path(assets) / "kubectl"
    return str(built) if assets and built.exists() else shutil.which("kubectl")


def ask_kubectl(kubectl: str, text: str) -> Any:
    """Return what kubectl makes of the field `x`; no server is asked."""
    manifest = f"apiVersion: example.com/v1\nkind: Thing\nmetadata: {{name: a}}\nx:\n{text}"
    command = [kubectl, "annotate", "--local", "-f", "-", "-o", "json", "asked=yes"]
    done = subprocess.run(command, input=manifest.encode(), capture_output=True, check=True, timeout=30)
    return json.loads(done.stdout, parse_int=parse_go_number)["x"]


def parse_go_number(text: str) -> int | float:
    """Read a whole number as an API server does: beyond int64 it is a float."""
    return int(text) if abs(int(text)) < 2**63 else float(text)


async def test_kubectl_agrees_with_the_scalar_table() -> None:
    """Every scalar and key of the table is read by kubectl as the table says."""
    kubectl = find_kubectl()
    if kubectl is None:
        pytest.skip("no kubectl in KUBEBUILDER_ASSETS or on PATH: the scalar table was not compared")
    scalars = "".join(f"- {written}\n" for written, _ in SCALARS)
    keys = "".join(f"- {{{written}: here}}\n" for written, _ in KEYS)
    assert await asyncio.to_thread(ask_kubectl, kubectl, scalars) == [meant for _, meant in SCALARS]
    assert await asyncio.to_thread(ask_kubectl, kubectl, keys) == [{meant: "here"} for _, meant in KEYS]
