"""Sockets and TLS: what the settings ask for, checked before anything listens."""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from fleet.errors import SettingsError
from fleet.server.address import Address, parse_address
from fleet.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Where to listen. `tls` is None for plain HTTP; probes are always plain, for kubelets."""

    main: Address
    probe: Address | None
    tls: ssl.SSLContext | None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Listeners":
        """Read the settings. Raises: SettingsError, also for plain HTTP beyond loopback that nobody asked for."""
        main = parse_address("--listen", settings.listen)
        tls = _server_context(settings)
        if tls is None and not main.is_loopback and not settings.insecure_http:
            raise SettingsError(
                f"--listen {settings.listen} is reachable from other machines: give --tls-cert and --tls-key, or"
                " --insecure-http behind a proxy that terminates TLS"
            )
        probe = parse_address("--probe-listen", settings.probe_listen) if settings.probe_listen else None
        return cls(main=main, probe=probe, tls=tls)


def _server_context(settings: Settings) -> ssl.SSLContext | None:
    if not settings.tls_cert and not settings.tls_key:
        return None
    if not settings.tls_cert or not settings.tls_key:
        raise SettingsError("--tls-cert and --tls-key are given together")
    context = _load(settings)
    context.sni_callback = _Renewal(settings, context).choose
    return context


class _Renewal:
    """Lets a renewed certificate take effect without a restart: each handshake looks whether the files changed."""

    def __init__(self, settings: Settings, first: ssl.SSLContext) -> None:
        self._settings = settings
        self._current = first
        self._seen = self._stamp()

    def choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Give a connection the newest context; files that cannot be used leave the one before."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._current = _load(self._settings)
                log.info("certificate renewed")
            except SettingsError as error:
                log.error("certificate not renewed", error=str(error))
        connection.context = self._current

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        """Say which files these are; a half-written or missing pair is looked at again when it changes."""
        stamps = []
        for path in (self._settings.tls_cert, self._settings.tls_key):
            try:
                found = Path(path).stat()
            except OSError:
                stamps.append((0, 0))
            else:
                stamps.append((found.st_mtime_ns, found.st_ino))
        return tuple(stamps)


def _load(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # without a password callback OpenSSL would ask on the terminal
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=lambda: "")
    except ssl.SSLError as error:
        raise SettingsError(
            f"--tls-cert {settings.tls_cert} and --tls-key {settings.tls_key} cannot be used"
            f" ({error.reason or 'not PEM, or an encrypted key'}); they must be PEM, match, and have no passphrase"
        ) from error
    except OSError as error:
        given = ("--tls-cert", settings.tls_cert), ("--tls-key", settings.tls_key)
        wrong = [pair for pair in given if not os.access(pair[1], os.R_OK)] or given
        named = " or ".join(" ".join(pair) for pair in wrong)
        raise SettingsError(f"{named} cannot be read: {error.strerror or error}") from error
    return context


async def listen(runner: web.AppRunner, setting: str, address: Address, tls: ssl.SSLContext | None) -> Address:
    """Start listening; returns the address with its real port. Raises: SettingsError when it cannot be had."""
    site = web.TCPSite(runner, address.host or None, address.port, ssl_context=tls, reuse_address=True)
    try:
        await site.start()
    except OSError as error:
        raise SettingsError(
            f"{setting} {address.host}:{address.port} cannot be listened on: {error.strerror or error};"
            f" does another hub run there? Choose another address with {setting}"
        ) from error
    # of several sockets (localhost, every interface) port 0 gives each its own: the first one is told
    port = int(runner.addresses[0][1])
    return Address(address.host, port)
