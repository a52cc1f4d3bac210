"""The way to the hub: tokens, TLS, and what a person reads when it fails."""

import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.cli.hub import Answer, FakeHub, run, status, target


def _token_sent(hub: FakeHub, *arguments: str, env: dict[str, str] | None = None) -> str:
    hub.on_items("GET targets", target())
    result = hub.run("status", "shop", *arguments, env=env)
    assert result.exit_code == 0, result.stderr
    return hub.asked[-1].headers.get("authorization", "")


def test_no_token_is_sent_without_one(hub: FakeHub) -> None:
    """Reading on loopback is free."""
    assert _token_sent(hub) == ""


def test_where_a_token_comes_from(hub: FakeHub, tmp_path: Path) -> None:
    """A flag wins over variables, and any of them over the admin token of the data directory."""
    for name in ("admin.token", "other", "flag"):
        (tmp_path / name).write_text(f"flt_{name}\n")
    env = {"FLEET_DATA": str(tmp_path)}
    assert _token_sent(hub, env=env) == "Bearer flt_admin.token"
    env["FLEET_TOKEN_FILE"] = str(tmp_path / "other")
    assert _token_sent(hub, env=env) == "Bearer flt_other"
    env["FLEET_TOKEN"] = "flt_word"
    assert _token_sent(hub, env=env) == "Bearer flt_word"
    assert _token_sent(hub, "--token-file", str(tmp_path / "flag"), env=env) == "Bearer flt_flag"


def test_the_admin_token_stays_on_this_machine(tmp_path: Path) -> None:
    """A hub elsewhere gets no token that it was not meant to get."""
    from fleet.cli.connection import find_connection

    (tmp_path / "admin.token").write_text("flt_secret")
    far = find_connection({}, server="http://fleet.example.com", token_file="", ca="", data=tmp_path)
    near = find_connection({}, server="http://localhost:1/", token_file="", ca="", data=tmp_path)
    assert (far.token, far.token_from, near.token, near.server) == ("", "", "flt_secret", "http://localhost:1")
    assert "flt_secret" not in repr(near)


def test_a_token_of_another_hub_does_not_take_reading_away(hub: FakeHub, tmp_path: Path) -> None:
    """What was found, not given, is left out when it is refused; acting is refused all the same."""
    (tmp_path / "admin.token").write_text("flt_other")
    env = {"FLEET_DATA": str(tmp_path)}
    refusal = Answer({"status": 401, "detail": "unknown token"}, 401, "application/problem+json")
    hub.on("GET status", refusal, status())
    hub.on_items("GET targets", target())
    assert hub.run("status", env=env).exit_code == 0
    assert [asked.headers.get("authorization") for asked in hub.asked] == ["Bearer flt_other", None, None]
    hub.on("POST sync", refusal)
    acted = hub.run("sync", env=env)
    assert (acted.exit_code, acted.stderr) == (4, f"fleet: unknown token (token: {tmp_path}/admin.token)\n")
    hub.on("GET status", refusal, status())
    assert f"{tmp_path}/admin.token is another hub's" in hub.run("doctor", env=env).stdout
    revoked = {"status": 401, "detail": "token admin was revoked; restart the hub", "reason": "TokenRevoked"}
    hub.on("GET status", Answer(revoked, 401, "application/problem+json"), status())
    told = hub.run("doctor", env=env).stdout
    assert f"{tmp_path}/admin.token is refused" in told
    assert "-> token admin was revoked; restart the hub" in told
    hub.on("GET status", refusal)
    assert hub.run("status", env={"FLEET_TOKEN": "flt_given"}).exit_code == 4


def test_a_missing_token_file_is_named(hub: FakeHub, tmp_path: Path) -> None:
    """It is not passed over in silence."""
    result = hub.run("status", "--token-file", str(tmp_path / "missing"))
    assert result.exit_code == 2
    assert result.stderr == f"fleet: the token file {tmp_path}/missing cannot be read: No such file or directory\n"


def test_a_token_with_line_breaks_is_refused(hub: FakeHub) -> None:
    """It would break the request's head, and is not shown."""
    result = hub.run("status", env={"FLEET_TOKEN": "flt_x\r\nX: y"})
    assert (result.exit_code, hub.asked) == (2, [])
    assert "flt_x" not in result.output


@pytest.mark.parametrize(
    "server", ["127.0.0.1:8420", "ftp://x", "http://", "http://h:99999", "http://h/?a=b", "http://h /", "http://h:0"]
)
def test_a_wrong_address_is_explained(server: str) -> None:
    """With an example of a right one."""
    result = run("status", "--server", server)
    assert result.exit_code == 2
    assert "write for example http://127.0.0.1:8420" in result.stderr


def test_a_password_in_the_address_is_not_repeated() -> None:
    """It is refused, and not printed."""
    result = run("status", "--server", "http://me:hunter2@h")
    assert result.exit_code == 2
    assert "hunter2" not in result.output


def test_a_path_before_the_api_is_kept(hub: FakeHub) -> None:
    """A proxy may serve the hub below a path."""
    hub.refuse("GET /fleet/api/v1/status", 503, "seen")
    assert run("status", "--server", f"{hub.url}/fleet/").stderr == "fleet: seen\n"


def test_names_are_quoted_in_paths(hub: FakeHub) -> None:
    """A name cannot lead to another resource."""
    hub.on("GET targets/../../shop", Answer({"status": 404, "detail": "seen"}, 404, "application/problem+json"))
    hub.run("status", "../..", "--cluster", "x")
    hub.run("where", "a/../b?c=d")
    assert hub.asked[-1].query == {}
    assert hub.calls()[-1] == "GET where/a/../b?c=d"


def test_nobody_answers() -> None:
    """Exit 3, and how to start a hub."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = run("status", "--server", f"http://127.0.0.1:{port}")
    assert result.exit_code == 3
    assert result.stderr == (
        f"fleet: no hub answers at http://127.0.0.1:{port}; start one with fleet run,"
        " or say where it is with --server or FLEET_SERVER\n"
    )


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"", "closed the connection"),
        (b"SSH-2.0-OpenSSH_9\r\n", "does not speak HTTP (BadStatusLine)"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{}", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{", "broke off its answer"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n",
            "answered 200 OK, not as a hub does",
        ),
    ],
)
def test_something_else_answers(reply: bytes, message: str) -> None:
    """Exit 3 for whatever is not a hub."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_reply_once, args=(listener, reply))
        thread.start()
        result = run("status", "--server", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert result.exit_code == 3
    assert message in result.stderr


def _reply_once(listener: socket.socket, reply: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(reply)


def test_another_json_api_answers(hub: FakeHub) -> None:
    """JSON alone does not make a hub."""
    for body in ({"message": "hello"}, ["x"], "x"):
        hub.on("GET targets", body)
        result = hub.run("status", "shop")
        assert (result.exit_code, "answered no list" in result.stderr) == (3, True)


def test_denied_without_a_token(hub: FakeHub) -> None:
    """Exit 4, and the ways to give one."""
    hub.refuse("POST sync", 401, "this needs a token", "TokenMissing")
    result = hub.run("sync")
    assert result.exit_code == 4
    assert result.stderr.startswith("fleet: this needs a token. No token was sent: give one with --token-file")


@pytest.mark.parametrize("code", [401, 403])
def test_denied_with_a_token(hub: FakeHub, code: int) -> None:
    """Exit 4, and which token it was, but not the token itself."""
    hub.refuse("POST sync", code, "a viewer may not sync", "RoleTooLow")
    result = hub.run("sync", env={"FLEET_TOKEN": "flt_secret"})
    assert (result.exit_code, result.stderr) == (4, "fleet: a viewer may not sync (token: FLEET_TOKEN)\n")


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve HTTPS with a self-made certificate; yields URL and certificate file."""
    certificate, key = _make_certificate(tmp_path)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"items": [], "continue": ""}')

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Server(http.server.ThreadingHTTPServer):
        def finish_request(self, request: object, client_address: object) -> None:
            """Shake hands in the request's thread; a client that hangs up is no error of ours."""
            assert isinstance(request, socket.socket)
            try:
                with context.wrap_socket(request, server_side=True) as wrapped:
                    super().finish_request(wrapped, client_address)
            except OSError:
                return

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}", certificate
        server.shutdown()
        thread.join()


def _make_certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / "hub.crt", directory / "hub.key"
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


def test_an_own_authority_is_trusted_when_named(tls: tuple[str, Path]) -> None:
    """--ca and FLEET_CA name it; without, the message says so."""
    server, certificate = tls
    assert run("where", "abc", "--server", server, "--ca", str(certificate)).exit_code == 1
    assert run("where", "abc", "--server", server, env={"FLEET_CA": str(certificate)}).exit_code == 1
    result = run("where", "abc", "--server", server)
    assert result.exit_code == 3
    assert "name the file of its CA with --ca or FLEET_CA" in result.stderr


def test_a_ca_file_that_is_none(tls: tuple[str, Path], tmp_path: Path) -> None:
    """A wrong file is named."""
    (tmp_path / "bad").write_text("x")
    for name in ("bad", "missing"):
        result = run("where", "abc", "--server", tls[0], "--ca", str(tmp_path / name))
        assert result.exit_code == 2
        assert f"the CA file {tmp_path}/{name} cannot be used" in result.stderr


def test_https_to_a_hub_without_tls(hub: FakeHub) -> None:
    """The message asks whether it is a plain address."""
    result = run("status", "--server", hub.url.replace("http:", "https:"))
    assert result.exit_code == 3
    assert "is it a plain http:// address?" in result.stderr
