"""A real Git server over HTTP: `git http-backend`, behind a listener that can refuse, redirect, stall and break off."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    method: str
    path: str
    """Below the repository, such as `info/refs`."""
    protocol: str
    authorization: str


@dataclass
class GitServer:
    """Serves the repositories below `root`; change the fields while it runs."""

    root: Path
    url: str = ""
    authorization: str = ""
    """What the Authorization header must be; empty lets everybody in."""
    status: int = 0
    """Answer everything with this status instead."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with `status`."""
    hang: str = ""
    """End of the paths that are never answered."""
    break_off: str = ""
    """End of the paths whose answers end in the middle."""
    speaks_v2: bool = True
    content_type: str = ""
    """Replaces the content type."""
    seen: list[Seen] = field(default_factory=list)

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(seen.path == path for seen in self.seen)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request as the fields say."""
        repository, path = request.match_info["repository"], request.match_info["path"]
        protocol = request.headers.get("Git-Protocol", "")
        self.seen.append(Seen(request.method, path, protocol, request.headers.get("Authorization", "")))
        if self.hang and path.endswith(self.hang):
            await asyncio.Event().wait()
        if self.status:
            return web.Response(status=self.status, headers=self.headers)
        if self.authorization and request.headers.get("Authorization") != self.authorization:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
        status, kind, body = await self._run(request, f"/{repository}/{path}")
        if self.break_off and path.endswith(self.break_off):
            response = web.StreamResponse(headers={"Content-Type": kind, "Content-Length": str(len(body))})
            await response.prepare(request)
            await response.write(body[: len(body) // 2])
            assert request.transport is not None
            request.transport.abort()
            return response
        return web.Response(status=status, body=body, headers={"Content-Type": self.content_type or kind})

    async def _run(self, request: web.Request, path: str) -> tuple[int, str, bytes]:
        body = await request.read()
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": "/nonexistent",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": request.query_string,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": "127.0.0.1",
        }
        if self.speaks_v2 and request.headers.get("Git-Protocol"):
            environ["GIT_PROTOCOL"] = request.headers["Git-Protocol"]
        process = await asyncio.create_subprocess_exec(
            "git", "http-backend", env=environ, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        answer, _ = await process.communicate(body)
        head, _, content = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        return int(headers.get("Status", "200")[:3]), headers["Content-Type"], content


@asynccontextmanager
async def serve_git(root: Path, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[GitServer]:
    """Serve on a loopback port; the repository in directory `a` is at `url`/a."""
    server = GitServer(root)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{repository}/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
