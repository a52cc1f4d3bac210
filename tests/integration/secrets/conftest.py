"""A hub that runs as a process, beside a simulated cluster on loopback, and a person's shell."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from fleet.sim.cluster import SimCluster
from fleet.sim.program import free_port
from fleet.sim.real import find_binaries
from tests.cluster.shell import Shell
from tests.harness.fleet import Fleet, app_document, cluster_document, environment_document, repository_document


@pytest.fixture
async def cluster() -> AsyncIterator[SimCluster]:
    """A simulated cluster on loopback."""
    made = SimCluster("dev-1", seed=1)
    await made.serve_tcp()
    yield made
    await made.close()


@pytest.fixture
def fleet(tmp_path: Path, cluster: SimCluster) -> Fleet:
    """The inventory and the repository of a hub with one cluster."""
    fleet = Fleet(tmp_path)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(cluster.kubeconfig()))
    fleet.repository.commit("first", {"app/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"})
    fleet.declare(
        "fleet.yaml",
        repository_document(fleet.repository.path),
        environment_document(),
        app_document("shop", "app", namespace="default"),
        cluster_document("dev-1", kubeconfig),
    )
    return fleet


@pytest.fixture
def shell(tmp_path: Path, fleet: Fleet) -> Shell:
    """A shell beside them."""
    port = free_port()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{find_binaries() or ''}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "FLEET_LISTEN": f"127.0.0.1:{port}",
        "FLEET_SERVER": f"http://127.0.0.1:{port}",
    }
    for name in ("safe", "usb"):
        (tmp_path / name).mkdir()
    return Shell(tmp_path, environment)
