"""Repositories served by the real `git http-backend`: credentials, TLS, and servers that misbehave."""

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from fleet.child import InlineWorkers, ProcessWorkers
from fleet.errors import RevisionMissing
from fleet.git.http import HttpRemote
from fleet.git.order import FETCH, FetchOrder, decode
from fleet.net.reach import DirectReach
from fleet.sim.tls import Tls
from tests.harness.githttp import GitServer, serve_git
from tests.harness.gitrepo import GitRepository
from tests.integration.git.conftest import make_document, open_site


@pytest.fixture
async def server(tmp_path: Path, repository: GitRepository) -> AsyncIterator[GitServer]:
    """Serve `repository` as `repo`, by plain HTTP."""
    async with serve_git(tmp_path) as server:
        yield server


async def test_a_branch_is_followed_over_http(
    tmp_path: Path, repository: GitRepository, server: GitServer, processes: ProcessWorkers
) -> None:
    """First commit and next commit arrive; a poll that finds nothing new is one POST and no fetch."""
    first = repository.commit(files={"a": "1"})
    async with open_site(tmp_path / "store", [make_document("config", f"{server.url}/repo")], processes) as site:
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (first, "")
        second = repository.commit(files={"a": "2"})
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (second, "")
        assert await site.mirror.contains(first, second)
        server.seen.clear()
        site.workers.take()
        await site.mirror.sync()
        assert [(seen.method, seen.path, seen.protocol) for seen in server.seen] == [
            ("POST", "git-upload-pack", "version=2")
        ]
        assert site.workers.take() == []


async def test_a_second_document_brings_its_branch_into_reach(
    tmp_path: Path, repository: GitRepository, server: GitServer, processes: ProcessWorkers
) -> None:
    """A commit of a branch that no document follows is not here; another document for the same remote brings it."""
    repository.commit(files={"a": "1"})
    repository.git("checkout", "-q", "-b", "review")
    proposed = repository.commit(files={"a": "2"})
    repository.git("checkout", "-q", "main")
    config = make_document("config", f"{server.url}/repo")
    async with open_site(tmp_path / "store", [config], processes) as site:
        await site.mirror.sync()
        with pytest.raises(RevisionMissing, match="no commit here begins with"):
            await site.mirror.find(proposed[:7])
        review = make_document("config-review", f"{server.url}/repo", ref={"branch": "review"})
        site.mirror.follow([config, review])
        await site.mirror.sync()
        assert await site.mirror.find(proposed[:7]) == proposed
        assert site.revision() != proposed


async def test_old_servers_are_understood(
    tmp_path: Path, repository: GitRepository, server: GitServer, processes: ProcessWorkers
) -> None:
    """A server without protocol version 2 is polled by its advertisement, annotated tags included."""
    server.speaks_v2 = False
    first = repository.commit()
    repository.tag("v1.0.0", message="annotated")
    documents = [
        make_document("config", f"{server.url}/repo"),
        make_document("tag", f"{server.url}/repo", ref={"tag": "v1.0.0"}),
    ]
    async with open_site(tmp_path / "store", documents, processes) as site:
        await site.mirror.sync()
        assert [(site.revision(name), site.error(name)) for name in ("config", "tag")] == [(first, "")] * 2


async def test_tags_ranges_and_commits_over_http(
    tmp_path: Path, repository: GitRepository, server: GitServer, processes: ProcessWorkers
) -> None:
    """Annotated tags are peeled, ranges choose the highest, and a commit is found in the history of a branch."""
    old = repository.commit()
    middle = repository.commit()
    repository.tag("v1.3.0", message="annotated")
    repository.commit()
    url = f"{server.url}/repo"
    documents = [
        make_document("commit", url, ref={"commit": old}),
        make_document("semver", url, ref={"semver": ">=1 <2"}),
        make_document("tag", url, ref={"tag": "v1.3.0"}),
    ]
    async with open_site(tmp_path / "store", documents, processes) as site:
        await site.mirror.sync()
        assert [site.error(d.name) for d in documents] == [""] * 3
        assert [site.revision(d.name) for d in documents] == [old, middle, middle]


async def test_an_empty_remote_over_http(
    tmp_path: Path, repository: GitRepository, server: GitServer, processes: ProcessWorkers
) -> None:
    """Both protocol versions tell an empty repository from a missing branch."""
    async with open_site(tmp_path / "store", [make_document("config", f"{server.url}/repo")], processes) as site:
        for server.speaks_v2 in (True, False):
            await site.mirror.sync()
            assert "the remote is empty: push a commit" in site.error()
        first = repository.commit()
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (first, "")


async def test_a_token_is_read_again_when_it_changes(
    tmp_path: Path, repository: GitRepository, server: GitServer, processes: ProcessWorkers
) -> None:
    """A missing file, a wrong token and a rotated one: each says so, and the right one works at the next poll."""
    first = repository.commit()
    token = tmp_path / "token"
    document = make_document("config", f"{server.url}/repo", auth={"tokenFile": token})
    server.authorization = "Bearer right"
    async with open_site(tmp_path / "store", [document], processes) as site:
        await site.mirror.sync()
        assert (
            site.error() == f"CredentialsUnreadable: {server.url}/repo: auth.tokenFile {token} cannot be read"
            " (No such file or directory)"
        )
        token.write_text("")
        await site.mirror.sync()
        assert "does not hold one line" in site.error()
        token.write_text("wrong\n")
        await site.mirror.sync()
        assert site.error().startswith("Unauthorized: ")
        assert f"the token in {token}" in site.error()
        assert "wrong" not in site.error()
        token.write_text("right\n")
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (first, "")
        server.authorization = "Bearer rotated"
        second = repository.commit()
        await site.mirror.sync()
        assert (site.revision(), "Unauthorized" in site.error()) == (first, True)
        token.write_text("rotated")
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (second, "")


async def test_a_user_and_password(
    tmp_path: Path, repository: GitRepository, server: GitServer, processes: ProcessWorkers
) -> None:
    """Basic authentication is sent at once; without any, the error names what to configure."""
    first = repository.commit()
    password = tmp_path / "password"
    password.write_text("s:3 cret\n")
    server.authorization = f"Basic {base64.b64encode(b'ada:s:3 cret').decode()}"
    url = f"{server.url}/repo"
    async with open_site(tmp_path / "anonymous", [make_document("config", url)], processes) as site:
        await site.mirror.sync()
        assert "wants credentials (401); name a tokenFile" in site.error()
    document = make_document("config", url, auth={"username": "ada", "passwordFile": password})
    async with open_site(tmp_path / "store", [document], processes) as site:
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (first, "")
        password.write_text("wrong")
        await site.mirror.sync()
        assert f"user ada with the password in {password} (401)" in site.error()


async def test_credentials_stay_with_the_hub(
    tmp_path: Path, repository: GitRepository, server: GitServer, processes: ProcessWorkers
) -> None:
    """The worker is told a loopback address under a one-time token, which answers nobody else and ends with the fetch."""
    repository.commit()
    token = tmp_path / "token"
    token.write_text("secret-token")
    server.authorization = "Bearer secret-token"
    document = make_document("config", f"{server.url}/repo", auth={"tokenFile": token})
    async with open_site(tmp_path / "store", [document], processes) as site:
        await site.mirror.sync()
        assert site.error() == ""
        (payload,) = (payload for job, payload in site.workers.payloads if job == FETCH)
        assert b"secret-token" not in payload
        url = decode(payload, FetchOrder).url
        assert url.startswith("http://127.0.0.1:")
        assert server.url not in url
        host, port = url.removeprefix("http://").split("/")[0].split(":")
        with pytest.raises(OSError):
            await asyncio.open_connection(host, int(port))


async def test_an_own_authority_is_trusted_by_file(
    tmp_path: Path, repository: GitRepository, processes: ProcessWorkers
) -> None:
    """A server with a certificate of an own CA is refused until caFile names it; a wrong CA and no CA say so."""
    first = repository.commit()
    tls, other, ca = Tls("git"), Tls("other"), tmp_path / "ca.pem"
    async with serve_git(tmp_path, tls=tls.server_context("git.example.com")) as server:
        url = f"{server.url}/repo"
        async with open_site(tmp_path / "plain", [make_document("config", url)], processes) as site:
            await site.mirror.sync()
            assert site.error().startswith("CertificateUnknown: ")
            assert "name its CA in auth.caFile" in site.error()
        document = make_document("config", url, auth={"caFile": ca})
        async with open_site(tmp_path / "store", [document], processes) as site:
            for content, expected in (
                (None, "cannot be read"),
                (b"no certificate", "not a PEM certificate"),
                (other.authority.cert_pem, "CertificateUnknown"),
            ):
                if content is not None:
                    ca.write_bytes(content)
                await site.mirror.sync()
                assert expected in site.error()
            ca.write_bytes(tls.authority.cert_pem)
            await site.mirror.sync()
            assert (site.revision(), site.error()) == (first, "")


async def test_a_dead_remote_keeps_what_is_in_force(
    tmp_path: Path, repository: GitRepository, processes: ProcessWorkers
) -> None:
    """Nobody listens: the last good revision stays, and a hub that starts then has it."""
    first = repository.commit()
    async with serve_git(tmp_path) as server:
        documents = [make_document("config", f"{server.url}/repo")]
        async with open_site(tmp_path / "store", documents, processes) as site:
            await site.mirror.sync()
    for _ in range(2):
        async with open_site(tmp_path / "store", documents, processes) as site:
            await site.mirror.sync()
            assert site.revision() == first
            assert site.error().startswith("ConnectionRefused: ")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((403, {}), "Forbidden: "),
        ((404, {}), "RepositoryNotFound: there is no repository at"),
        ((500, {}), "Http500: "),
        ((429, {"Retry-After": "7"}), "Http429: "),
        ((301, {"Location": "https://elsewhere.example/repo/info/refs?service=git-upload-pack"}), "write that address"),
    ],
)
async def test_refusals_are_explained_and_pass(
    tmp_path: Path, server: GitServer, processes: ProcessWorkers, answer: tuple[int, dict[str, str]], expected: str
) -> None:
    """What the server answers instead of refs is in the error; when it answers again, so does the mirror."""
    first = GitRepository(tmp_path / "repo").commit()
    server.status, server.headers = answer
    async with open_site(tmp_path / "store", [make_document("config", f"{server.url}/repo")], processes) as site:
        await site.mirror.sync()
        assert expected in site.error()
        server.status = 0
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (first, "")


async def test_a_web_page_is_no_repository(tmp_path: Path, repository: GitRepository, server: GitServer) -> None:
    """A login page with status 200 is not taken for a Git server."""
    repository.commit()
    server.content_type = "text/html"
    async with open_site(tmp_path / "store", [make_document("config", f"{server.url}/repo")], InlineWorkers()) as site:
        await site.mirror.sync()
        assert "ProtocolError: " in site.error()
        assert "text/html and not as a Git server; check the URL" in site.error()


async def test_a_moved_path_on_the_same_server_is_followed(
    tmp_path: Path, repository: GitRepository, server: GitServer, processes: ProcessWorkers
) -> None:
    """A redirect of the same origin, as hosts answer for a missing `.git`, is followed by poll and fetch."""
    first = repository.commit()
    server.status, server.headers = 301, {"Location": "/repo/.git/info/refs?service=git-upload-pack"}
    async with open_site(tmp_path / "store", [make_document("config", f"{server.url}/repo")], processes) as site:
        asked = asyncio.create_task(site.mirror.sync())
        while not server.seen:
            await asyncio.sleep(0)
        server.status = 0
        await asked
        assert (site.revision(), site.error()) == (first, "")
        assert server.seen[1].path == ".git/info/refs"
        server.status, server.headers = 301, {"Location": "https://elsewhere.example/repo/info/refs"}
        await site.mirror.sync()
        assert "redirects to https://elsewhere.example/repo; write that address" in site.error()
        server.status = 0
        await site.mirror.sync()
        assert site.error() == ""


async def _hang_on_refs(server: GitServer) -> None:
    server.hang = "info/refs"


async def _hang_on_pack(server: GitServer) -> None:
    server.hang = "git-upload-pack"
    server.speaks_v2 = False


@pytest.mark.parametrize("hang", [_hang_on_refs, _hang_on_pack])
async def test_a_hanging_remote_is_given_up(
    tmp_path: Path,
    repository: GitRepository,
    server: GitServer,
    processes: ProcessWorkers,
    hang: Callable[[GitServer], object],
) -> None:
    """A server that accepts and then says nothing, to the listing or to the fetch, is an error and recovers."""
    first = repository.commit()
    await hang(server)  # type: ignore[misc]
    documents = [make_document("config", f"{server.url}/repo")]
    async with open_site(tmp_path / "store", documents, processes, timeout_s=1.0) as site:
        await site.mirror.sync()
        assert site.error().startswith("Timeout: ")
    server.hang = ""
    async with open_site(tmp_path / "store", documents, processes) as site:
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (first, "")


async def test_a_silent_remote_is_given_up_before_the_deadline(
    tmp_path: Path,
    repository: GitRepository,
    server: GitServer,
    processes: ProcessWorkers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Silence in the middle of a fetch ends it with the remote's name, and not with libgit2's words."""
    monkeypatch.setattr("fleet.git.http.SILENCE_S", 0.5)
    repository.commit()
    await _hang_on_pack(server)
    documents = [make_document("config", f"{server.url}/repo")]
    async with open_site(tmp_path / "store", documents, processes) as site:
        await site.mirror.sync()
        assert site.error() == f"Timeout: {server.url}/repo did not answer in time"


async def test_a_broken_transfer_is_an_error_and_starts_again(
    tmp_path: Path, repository: GitRepository, server: GitServer, processes: ProcessWorkers
) -> None:
    """A pack that ends in the middle leaves nothing behind, and the next poll fetches it whole."""
    server.speaks_v2 = False
    first = repository.commit(files={f"f{number}": str(number) * 1000 for number in range(50)})
    server.break_off = "git-upload-pack"
    async with open_site(tmp_path / "store", [make_document("config", f"{server.url}/repo")], processes) as site:
        await site.mirror.sync()
        assert site.error().startswith("ConnectionLost: ")
        server.break_off = ""
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (first, "")


async def test_a_worker_killed_in_a_fetch_is_an_error_and_starts_again(
    tmp_path: Path, repository: GitRepository, server: GitServer, processes: ProcessWorkers
) -> None:
    """Killing the child while it waits for the pack is one failed poll; the next one is served by a new child."""
    server.speaks_v2 = False
    first = repository.commit()
    server.hang = "git-upload-pack"
    async with open_site(tmp_path / "store", [make_document("config", f"{server.url}/repo")], processes) as site:
        polled = asyncio.create_task(site.mirror.sync())
        while not server.count("git-upload-pack"):
            await asyncio.sleep(0.01)
        _kill_newest_worker()
        await polled
        assert site.error().startswith("ChildCrashed: ")
        server.hang = ""
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (first, "")


def _kill_newest_worker() -> None:
    """Kill the worker of this process that was started last: the one that fetches."""
    found = []
    for task in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((task / "stat").read_text().rpartition(")")[2].split()[1])
            command = (task / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if parent == os.getpid() and b"fleet.child" in command:
            found.append(int(task.name))
    os.kill(max(found), signal.SIGKILL)


async def test_a_cancelled_poll_lets_go(
    tmp_path: Path, repository: GitRepository, server: GitServer, processes: ProcessWorkers
) -> None:
    """Cancelling in the middle of a fetch ends at once, with the listener closed, and the next poll works."""
    server.speaks_v2 = False
    first = repository.commit()
    server.hang = "git-upload-pack"
    async with open_site(tmp_path / "store", [make_document("config", f"{server.url}/repo")], processes) as site:
        polled = asyncio.create_task(site.mirror.sync())
        while not server.count("git-upload-pack"):
            await asyncio.sleep(0.01)
        polled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await polled
        server.hang = ""
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (first, "")


async def test_the_relay_forwards_a_fetch_and_nothing_else(repository: GitRepository, server: GitServer) -> None:
    """Without the token, for another path or to push, it says 404 and asks the remote nothing."""
    repository.commit()
    remote = HttpRemote(f"{server.url}/repo", auth=None, reach=DirectReach())
    async with remote.relay() as url, aiohttp.ClientSession() as session:
        origin, token = url.rsplit("/", 1)
        for method, path in (
            ("GET", "/wrong/info/refs"),
            ("GET", "/info/refs"),
            ("GET", f"/{token}/HEAD"),
            ("GET", f"/{token}/../repo/HEAD"),
            ("POST", f"/{token}/git-receive-pack"),
            ("POST", f"/{token}/info/refs"),
        ):
            async with session.request(method, origin + path) as answer:
                assert answer.status == 404
        assert server.seen == []
        async with session.get(f"{url}/info/refs?service=git-receive-pack") as answer:
            assert b"# service=git-upload-pack" in await answer.read()
    await remote.close()
