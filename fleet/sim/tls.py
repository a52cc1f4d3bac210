"""TLS for a simulated API server: an authority of its own, a serving certificate, and client certificates."""

import ssl
import tempfile
from functools import cached_property
from pathlib import Path

from fleet.sim.authority import Authority, Issued


class Tls:
    """Certificates of one cluster. Keys live in memory; the serving pair touches the disk while it is loaded."""

    def __init__(self, name: str) -> None:
        self._name = name

    @cached_property
    def authority(self) -> Authority:
        """Signs the server and its clients alike."""
        return Authority.create(f"{self._name}-ca")

    def server_context(self, host: str) -> ssl.SSLContext:
        """Return a context to serve as `host` and localhost; clients may show a certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=self.authority.cert_pem.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        issued = self.authority.issue_server(list(dict.fromkeys((host, "localhost", "127.0.0.1"))))
        with tempfile.TemporaryDirectory() as directory:
            pair = Path(directory) / "pair.pem"
            pair.touch(mode=0o600)
            pair.write_bytes(issued.cert_pem + issued.key_pem)
            context.load_cert_chain(pair)
        return context

    def issue_client(self, user: str, *groups: str) -> Issued:
        """Make a client certificate; `user` is who the server takes its bearer for."""
        return self.authority.issue_client(user, groups)
