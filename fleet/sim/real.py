"""Real control planes on loopback: one etcd, and any number of kube-apiservers with their controller managers.

For tests, benches and the demo. Nothing here runs containers; `fleet.sim.pod` plays the kubelet.

Each plane is a cluster of its own: own CAs, own users, own key prefix in the shared etcd. A ready server takes about
four seconds of one core to start and 275 MB, its controller manager 85 MB.
"""

import asyncio
import base64
import contextlib
import csv
import http.client
import json
import os
import secrets
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from fleet.sim.authority import Authority, Issued, create_key_pair
from fleet.sim.program import Program, ProgramError, free_port

START_TIMEOUT_S: Final = 120.0  # a server needs 4 s of a free core; the machine may be busy
PORT_ATTEMPTS: Final = 5
GRACE_S: Final = (
    2.0  # a server told to stop waits up to 60 s for clients that watch over HTTP/1.1; a cluster's host would not
)
GUEST: Final = "guest"  # the user who may nothing
NEEDED: Final = ("etcd", "kube-apiserver")
CONTROLLERS: Final = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "job-controller",
    "namespace-controller",
    "persistentvolume-binder-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
)
_POLL_S: Final = 0.1
_CLASH: Final = "address already in use"


class RealError(Exception):
    """A real control plane or kubectl did not do what was asked; the message ends with what it said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What an API server answered. `body` is decoded JSON, or text when it is not JSON."""

    code: int
    body: Any


def find_binaries() -> Path | None:
    """Find a directory with etcd and kube-apiserver: `KUBEBUILDER_ASSETS`, else what `make envtest` built.

    From a checkout only binaries of exactly its module files count; an installed package takes the newest ones.
    """
    build = Path(__file__).resolve().parents[2] / "tools" / "envtest" / "build.py"
    if build.is_file():
        # Its own command line knows where it builds to; a copy of that knowledge here would go stale.
        command = [sys.executable, "-I", str(build), "--locate"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return Path(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if given and _usable(Path(given)):
        return Path(given).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fleet-envtest"
    built = [each for each in cache.glob("*") if _usable(each)]
    return max(built, key=lambda each: each.stat().st_mtime, default=None)


@asynccontextmanager
async def control_planes(
    binaries: Path, root: Path, count: int, *, controller_manager: bool = True
) -> AsyncIterator[list["ControlPlane"]]:
    """Run `count` control planes below `root`, an existing directory; all are ready on entry and gone on exit."""
    async with rack(binaries, root) as running:
        yield await running.grow(count, controller_manager=controller_manager)


@asynccontextmanager
async def rack(binaries: Path, root: Path) -> AsyncIterator["Rack"]:
    """Run one etcd below `root`, with room for control planes; everything is gone on exit.

    Enter it in a thread that outlives it: see `Program`.
    """
    running = Rack(binaries, root)
    try:
        await running.start()
        yield running
    finally:
        await running.stop()


class Rack:
    """One etcd and the control planes that share it."""

    def __init__(self, binaries: Path, root: Path) -> None:
        self._binaries = binaries.absolute()
        self._root = root.absolute()
        self._etcd: Program | None = None
        self._etcd_port = 0
        self._slots = asyncio.Semaphore(os.cpu_count() or 1)  # more at a time only compete for the cores
        self._planes: list[ControlPlane] = []

    @property
    def etcd(self) -> Program:
        """The etcd process, to pause or to kill."""
        if self._etcd is None:
            raise RealError("etcd was not started")
        return self._etcd

    async def start(self) -> None:
        """Start etcd; ready on return."""
        (self._root / "etcd").mkdir(parents=True)
        for _ in range(PORT_ATTEMPTS):
            self._etcd_port = free_port()
            self._etcd = self._etcd_program(self._etcd_port, free_port())
            self._etcd.start()
            with _retry_on_clash(self._etcd):
                await _ready(self._etcd, self._etcd_healthy)
                return
        raise RealError(f"no port for etcd in {PORT_ATTEMPTS} attempts\n{self.etcd.tail()}")

    async def stop(self) -> None:
        """End every process. Idempotent."""
        try:
            async with asyncio.TaskGroup() as group:
                for plane in self._planes:
                    group.create_task(plane.stop_all(), name=f"stop/{plane.name}")
        finally:
            for plane in self._planes:
                plane.kill()
            if self._etcd is not None:
                self._etcd.kill()  # its data has no value after us

    async def grow(self, count: int, *, controller_manager: bool = True) -> list["ControlPlane"]:
        """Start `count` more control planes, a few at a time, and return the new ones when all are ready."""
        first = len(self._planes)
        added = [self._plane(first + index, controller_manager=controller_manager) for index in range(count)]
        self._planes += added
        try:
            async with asyncio.TaskGroup() as group:
                for plane in added:
                    group.create_task(self._start_in_turn(plane), name=f"start/{plane.name}")
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others were cancelled or failed alike
        return added

    async def compact(self) -> int:
        """Make etcd forget all history before now, for every plane; return the revision.

        A list at an exact old version and an old continue token then get 410, once the server's own cache of recent
        history cannot answer: after a restart. (Watches from an old version get 410 after a restart in any case.)
        """
        status = await self._etcd_call("/v3/maintenance/status", {})
        revision = int(status["header"]["revision"])
        await self._etcd_call("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        return revision

    async def _start_in_turn(self, plane: "ControlPlane") -> None:
        async with self._slots:
            await plane.start()

    def _plane(self, index: int, *, controller_manager: bool) -> "ControlPlane":
        manager = self._binaries / "kube-controller-manager"
        if controller_manager and not manager.is_file():
            raise RealError(f"{self._binaries} has no kube-controller-manager; `make envtest` builds one")
        return ControlPlane(
            f"c{index}",
            self._binaries,
            self._root / f"c{index}",
            etcd_url=f"http://127.0.0.1:{self._etcd_port}",
            # Compaction is etcd's, not a prefix's: one server does it for all.
            compacts=index == 0,
            controller_manager=controller_manager,
        )

    def _etcd_program(self, client_port: int, peer_port: int) -> Program:
        client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
        argv = [
            str(self._binaries / "etcd"),
            "--name=etcd",
            f"--data-dir={self._root / 'etcd' / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=etcd={peer}",
            "--unsafe-no-fsync=true",
            "--log-level=warn",
        ]
        log = self._root / "etcd" / "log"
        return Program("etcd", argv, log=log, environment=_environment(self._root / "etcd"))

    async def _etcd_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._etcd_port, timeout=5)
        return (await asyncio.to_thread(_exchange, connection, "GET", "/health", None, {})).code == 200

    async def _etcd_call(self, path: str, body: Mapping[str, Any]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._etcd_port, timeout=30)
        payload = json.dumps(body).encode()
        reply = await asyncio.to_thread(_exchange, connection, "POST", path, payload, {})
        if reply.code != 200:
            raise RealError(f"etcd answered {reply.code} to {path}: {reply.body}")
        return reply.body


class ControlPlane:
    """One kube-apiserver, its controller manager, and credentials for it.

    `admin_token` and the client certificate are members of system:masters; `guest_token` is the user `GUEST`, who may
    nothing but what is granted to everybody. Its methods may be called from any event loop.
    """

    def __init__(
        self,
        name: str,
        binaries: Path,
        root: Path,
        *,
        etcd_url: str,
        compacts: bool,
        controller_manager: bool,
    ) -> None:
        self.name = name
        self.root = root
        self.etcd_prefix = f"/{name}"
        self.port = 0
        self.admin_token = secrets.token_hex(16)
        self.guest_token = secrets.token_hex(16)
        self._binaries = binaries
        self._etcd_url = etcd_url
        self._compacts = compacts
        self._controller_manager = controller_manager
        self._server: Program | None = None
        self._manager: Program | None = None
        root.mkdir(mode=0o700)
        self._write_credentials()

    @property
    def url(self) -> str:
        """Where the server listens; the same after `stop` and `start`."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the API server now."""
        return self._running_server().pid

    @property
    def kubeconfig_path(self) -> Path:
        """A kubeconfig (mode 0600) with the admin's client certificate inside."""
        return self.root / "admin.kubeconfig"

    @property
    def ca_pem(self) -> bytes:
        """What a client has to trust."""
        return self._server_ca.cert_pem

    @property
    def client_cert_pem(self) -> bytes:
        """The admin's client certificate."""
        return self._admin.cert_pem

    @property
    def client_key_pem(self) -> bytes:
        """The key of the admin's client certificate."""
        return self._admin.key_pem

    def issue_client(self, user: str, *groups: str) -> Issued:
        """Make a client certificate that this server accepts for any user and groups."""
        return self._client_ca.issue_client(user, groups)

    def ssl_context(self, *, admin: bool = True) -> ssl.SSLContext:
        """Return a client context that trusts this server and, unless told otherwise, carries the admin's certificate."""
        context = ssl.create_default_context(cadata=self.ca_pem.decode())
        if admin:
            context.load_cert_chain(self.root / "admin.pem")
        return context

    async def start(self) -> None:
        """Start what does not run, on the port and with the data of last time; ready on return. Idempotent."""
        if self._server is None:
            await self._start_first()
        elif not self._server.running:
            if self._manager is not None:
                # Its watches have backed off, by up to half a minute each; a fresh one is there in two seconds.
                self._manager.kill()
            self._server.start()
            await _ready(self._server, self._healthy)
        if self._controller_manager:
            await self._start_manager()

    async def stop(self, *, grace_s: float = GRACE_S) -> None:
        """End the API server and keep the rest; `grace_s=0` kills it. Idempotent."""
        if self._server is not None:
            await self._server.stop(grace_s=grace_s)

    async def pause(self) -> None:
        """Freeze the API server: connections stay open and nothing answers."""
        self._running_server().pause()

    async def resume(self) -> None:
        """Let a frozen API server go on."""
        self._running_server().resume()

    async def stop_all(self, *, grace_s: float = GRACE_S) -> None:
        """End the API server and the controller manager. Idempotent."""
        if self._manager is not None:
            self._manager.kill()
        await self.stop(grace_s=grace_s)

    def kill(self) -> None:
        """End everything with SIGKILL. Idempotent."""
        for program in (self._manager, self._server):
            if program is not None:
                program.kill()

    async def request(
        self, method: str, path: str, body: Any = None, *, media: str = "application/json", timeout_s: float = 30.0
    ) -> Reply:
        """Send one request as admin, for arranging and checking in tests. `body` is made JSON.

        Raises: OSError, when there is no answer.
        """
        context = await asyncio.to_thread(self.ssl_context)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout_s, context=context)
        payload = None if body is None else json.dumps(body).encode()
        return await asyncio.to_thread(_exchange, connection, method, path, payload, {"Content-Type": media})

    async def kubectl(self, *args: str, stdin: str | None = None, timeout_s: float = 60.0) -> str:
        """Run kubectl as admin and return what it printed.

        Raises: RealError, with its stderr, on any other exit code than 0 or after `timeout_s`.
        Cancelled: kubectl is killed.
        """
        process = subprocess.Popen(  # noqa: ASYNC220 - asyncio's children belong to one loop; starting one blocks for 1 ms
            [str(self._binaries / "kubectl"), f"--kubeconfig={self.kubeconfig_path}", *args],
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(self.root),
        )
        try:
            output, complaint = await asyncio.to_thread(process.communicate, stdin, timeout_s)
        except subprocess.TimeoutExpired as late:
            raise RealError(f"kubectl {' '.join(args)} gave no answer in {timeout_s:.0f} s") from late
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        if process.returncode != 0:
            raise RealError(f"kubectl {' '.join(args)} exited with {process.returncode}: {complaint.strip()}")
        return output

    async def _start_first(self) -> None:
        for _ in range(PORT_ATTEMPTS):
            self.port = free_port()
            self._write_kubeconfig()
            self._server = self._server_program()
            self._server.start()
            with _retry_on_clash(self._server):
                await _ready(self._server, self._healthy)
                return
        raise RealError(f"no port for {self.name} in {PORT_ATTEMPTS} attempts\n{self._running_server().tail()}")

    async def _start_manager(self) -> None:
        if self._manager is not None and self._manager.running:
            return
        for _ in range(PORT_ATTEMPTS):
            port = free_port()
            self._manager = manager = self._manager_program(port)
            manager.start()
            with _retry_on_clash(manager):
                await _ready(manager, partial(self._manager_healthy, port))
                return
        raise RealError(f"no port for {self.name}'s controller manager in {PORT_ATTEMPTS} attempts")

    def _running_server(self) -> Program:
        if self._server is None:
            raise RealError(f"{self.name} was not started")
        return self._server

    async def _healthy(self) -> bool:
        if (await self.request("GET", "/readyz", timeout_s=5.0)).code != 200:
            return False
        return (await self.request("GET", "/api/v1/namespaces/default", timeout_s=5.0)).code == 200

    async def _manager_healthy(self, port: int) -> bool:
        context = ssl.create_default_context(cadata=self.ca_pem.decode())
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
        return (await asyncio.to_thread(_exchange, connection, "GET", "/healthz", None, {})).code == 200

    def _write_credentials(self) -> None:
        self._server_ca = Authority.create(f"{self.name}-server-ca")
        self._client_ca = Authority.create(f"{self.name}-client-ca")
        self._admin = self._client_ca.issue_client("admin", ["system:masters"])
        serving = self._server_ca.issue_server(["localhost", "127.0.0.1", "kubernetes.default.svc"])
        signing_key, verifying_key = create_key_pair()
        for name, content in {
            "server-ca.crt": self._server_ca.cert_pem,
            "client-ca.crt": self._client_ca.cert_pem,
            "server.crt": serving.cert_pem,
            "server.key": serving.key_pem,
            "admin.pem": self._admin.cert_pem + self._admin.key_pem,
            "service-account.key": signing_key,
            "service-account.pub": verifying_key,
        }.items():
            _write_private(self.root / name, content)
        with os.fdopen(os.open(self.root / "tokens.csv", os.O_WRONLY | os.O_CREAT, 0o600), "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow([self.admin_token, "token-admin", "token-admin", "system:masters"])
            rows.writerow([self.guest_token, GUEST, GUEST])

    def _write_kubeconfig(self) -> None:
        _write_private(self.kubeconfig_path, json.dumps(self.kubeconfig(), indent=2).encode())

    def kubeconfig(self) -> dict[str, Any]:
        """Return the admin's kubeconfig as a document; `kubeconfig_path` holds the same."""
        cluster = {"server": self.url, "certificate-authority-data": _base64(self.ca_pem)}
        user = {
            "client-certificate-data": _base64(self.client_cert_pem),
            "client-key-data": _base64(self.client_key_pem),
        }
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": cluster}],
            "users": [{"name": "admin", "user": user}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": "admin"}}],
            "current-context": self.name,
        }

    def _server_program(self) -> Program:
        argv = [
            str(self._binaries / "kube-apiserver"),
            f"--etcd-servers={self._etcd_url}",
            f"--etcd-prefix={self.etcd_prefix}",
            *([] if self._compacts else ["--etcd-compaction-interval=0"]),
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.root}",
            f"--tls-cert-file={self.root / 'server.crt'}",
            f"--tls-private-key-file={self.root / 'server.key'}",
            f"--client-ca-file={self.root / 'client-ca.crt'}",
            f"--token-auth-file={self.root / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            # Pods of tests name no service account; the plugin would refuse them until a controller made the default.
            "--disable-admission-plugins=ServiceAccount",
            f"--service-account-issuer=https://127.0.0.1:{self.port}/",
            f"--service-account-key-file={self.root / 'service-account.pub'}",
            f"--service-account-signing-key-file={self.root / 'service-account.key'}",
            "--service-cluster-ip-range=10.0.0.0/16",
            # Nothing looks for this server through the `kubernetes` Service, and the reconciler delays its shutdown.
            "--endpoint-reconciler-type=none",
            "--event-ttl=10m",
            "--profiling=false",
        ]
        name = f"{self.name}/kube-apiserver"
        return Program(name, argv, log=self.root / "apiserver.log", environment=_environment(self.root))

    def _manager_program(self, port: int) -> Program:
        argv = [
            str(self._binaries / "kube-controller-manager"),
            f"--kubeconfig={self.kubeconfig_path}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--tls-cert-file={self.root / 'server.crt'}",
            f"--tls-private-key-file={self.root / 'server.key'}",
            "--leader-elect=false",
            "--authorization-always-allow-paths=/healthz,/readyz,/livez,/metrics",
            f"--root-ca-file={self.root / 'server-ca.crt'}",
            f"--service-account-private-key-file={self.root / 'service-account.key'}",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            "--profiling=false",
            f"--controllers={','.join(CONTROLLERS)}",
        ]
        name = f"{self.name}/kube-controller-manager"
        return Program(name, argv, log=self.root / "controller-manager.log", environment=_environment(self.root))


async def _ready(program: Program, probe: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `probe` says so. Raises: ProgramError, when the program ends or takes too long."""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    if await probe():
                        return
                if not program.running:
                    raise ProgramError(f"{program.name} ended while starting\n{program.tail()}")
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise ProgramError(f"{program.name} was not ready in {START_TIMEOUT_S:.0f} s\n{program.tail()}") from None


@contextlib.contextmanager
def _retry_on_clash(program: Program) -> Iterator[None]:
    """Swallow a failed start if another process took the port first; end the program on every failure."""
    try:
        yield
    except BaseException as failed:
        program.kill()
        if isinstance(failed, ProgramError):
            if _CLASH in program.tail():
                return
            raise RealError(str(failed)) from failed
        raise


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> Reply:
    with contextlib.closing(connection):
        connection.request(method, path, body, dict(headers))
        reply = connection.getresponse()
        content = reply.read()
    try:
        return Reply(code=reply.status, body=json.loads(content))
    except ValueError:
        return Reply(code=reply.status, body=content.decode(errors="replace"))


def _environment(home: Path) -> dict[str, str]:
    """Give a child nothing of ours but PATH: no proxy, no KUBECONFIG, and its caches below `home`."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home)}


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def _usable(directory: Path) -> bool:
    return all(os.access(directory / name, os.X_OK) for name in NEEDED)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
