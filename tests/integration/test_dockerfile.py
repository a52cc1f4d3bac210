"""The image, as far as it can be proved without Docker: its install steps run, and what they install works."""

import fnmatch
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fleet import __version__
from fleet.sim.program import free_port
from tests.harness.dockerfile import Builder, Stage, StepFailed, parse_dockerfile

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = (
    "NewConnectionError", "Connection error", "Failed to establish", "Temporary failure in name resolution",
    "Could not find a version", "dial tcp", "no such host", "module lookup disabled", "requires go",
)  # fmt: skip
"""What pip and go say when no index answers, or when there is no toolchain to build with."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def stages() -> dict[str, Stage]:
    """The stages of our Dockerfile; the last one, without a name, is the image."""
    return {stage.name: stage for stage in parse_dockerfile((ROOT / "Dockerfile").read_text())}


def build_or_skip(builder: Builder, stage: Stage) -> None:
    """Run the steps; a machine that cannot download skips, any other failure is one."""
    try:
        builder.build(stage)
    except StepFailed as failed:
        if any(sign in str(failed) for sign in OFFLINE):
            pytest.skip(f"IMAGE NOT TESTED, nothing could be downloaded: {str(failed)[-300:]}")
        raise


def environment() -> dict[str, str]:
    """What the steps find: this Python as `python`, the machine's proxies and mirrors, nothing of this virtualenv."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "FLEET_"))
    }
    return {**kept, "GOTOOLCHAIN": "local"}


def test_build_stage_installs_a_working_fleet(stages: dict[str, Stage], tmp_path: Path) -> None:
    """The RUN lines of the build stage end with a `fleet` of this version, from locked dependencies alone."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python").symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    found = environment()
    build_or_skip(Builder(tmp_path, ROOT, found | {"PATH": f"{tools}:{found['PATH']}"}), stages["build"])

    program = tmp_path / "opt" / "fleet" / "bin" / "fleet"
    said = subprocess.run([program, "--version"], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert __version__ in said.stdout
    example = subprocess.run(
        [program, "validate", ROOT / "clusters.d"], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert example.returncode == 0, example.stdout + example.stderr
    site = next((tmp_path / "opt" / "fleet" / "lib").glob("python*/site-packages"))
    assert (site / "fleet/cli/demo/clusters.d/cluster.yaml").is_file()
    listed = subprocess.run([tmp_path / "opt/fleet/bin/pip", "list"], text=True, capture_output=True, check=True).stdout
    assert "pytest" not in listed
    assert "hatchling" not in listed
    assert_runs(stages[""], program, tmp_path)


def assert_runs(image: Stage, program: Path, root: Path) -> None:
    """Hold that the image's command comes up, is healthy, and ends well at a SIGTERM, with its dependencies alone."""
    port = free_port()
    hub = subprocess.Popen(
        [program, *json.loads(image.all("CMD")[0]), "--listen", "127.0.0.1:0", "--inventory", ROOT / "clusters.d"],
        cwd=root,
        env={"PATH": os.defpath, "FLEET_DATA": str(root / "data"), "FLEET_PROBE_LISTEN": f"127.0.0.1:{port}"},
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 60
        while health_of(image, port) != 0 and hub.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        healthy = health_of(image, port)
    finally:
        hub.terminate()
        _, told = hub.communicate(timeout=60)
    assert (healthy, hub.returncode) == (0, 0), told.decode()


def health_of(image: Stage, port: int) -> int:
    """Run the HEALTHCHECK command against a port; return its exit code."""
    command = json.loads(image.all("HEALTHCHECK")[0].partition("CMD ")[2].replace("8421", str(port)))
    return subprocess.run([sys.executable, *command[1:]], check=False, stderr=subprocess.DEVNULL).returncode


def test_kustomize_stage_builds_a_static_binary(stages: dict[str, Stage], tmp_path: Path) -> None:
    """The RUN line of the kustomize stage ends with a program that answers."""
    if shutil.which("go") is None:
        pytest.skip("KUSTOMIZE OF THE IMAGE NOT TESTED: there is no Go toolchain")
    build_or_skip(Builder(tmp_path, ROOT, environment()), stages["kustomize"])
    said = subprocess.run([tmp_path / "out" / "kustomize", "version"], text=True, capture_output=True, check=True)
    assert said.stdout.strip()


def test_image_runs_without_rights(stages: dict[str, Stage]) -> None:
    """The image runs as a numbered user, with its data in a volume that this user owns."""
    image = stages[""]
    assert image.all("USER") == ["65532:65532"]
    assert image.all("VOLUME") == ['["/data"]']
    assert "--from=build --chown=65532:65532 /opt/data /data" in image.all("COPY")
    assert not image.all("RUN")


def test_image_copies_only_what_earlier_stages_made(stages: dict[str, Stage]) -> None:
    """Every `COPY --from` names a stage of this file: nothing comes out of the build context or another image."""
    names = [copy.split()[0].removeprefix("--from=") for copy in stages[""].all("COPY")]
    assert names == ["kustomize", "build", "build"]


def test_ignore_file_admits_what_is_copied(stages: dict[str, Stage]) -> None:
    """Whatever a stage copies from the context exists and is let through `.dockerignore`."""
    patterns = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copies = [copy.split()[:-1] for name in ("kustomize", "build") for copy in stages[name].all("COPY")]
    for source in (each for copy in copies for each in copy):
        assert (ROOT / source).exists()
        assert any(source == each or fnmatch.fnmatch(source, f"{each}/*") for each in patterns), source


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Answer every request on a loopback port with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_health_check_asks_livez(stages: dict[str, Stage], status: int, code: int) -> None:
    """The HEALTHCHECK command ends with 0 for a hub that is alive and with 1 for one that is not."""
    with answering(status) as port:
        assert health_of(stages[""], port) == code


def test_health_check_fails_without_a_hub(stages: dict[str, Stage]) -> None:
    """Nobody listening is unhealthy."""
    with answering(200) as port:
        pass
    assert health_of(stages[""], port) == 1
