"""Everything an operator can set on the hub: one flag and one `FLEET_*` variable each, flag first."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, get_type_hints

from fleet.errors import SettingsError


def _setting(default: object, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The hub's settings. Seconds end in `_s`; each has its reason in its help text."""

    inventory: Path = _setting(Path("clusters.d"), "Directory of inventory files.")
    data: Path = _setting(Path("data"), "Data directory (SQLite, Git objects, keys); made with mode 0700.")
    listen: str = _setting("127.0.0.1:8420", "Address of the HTTP server, HOST:PORT.")
    probe_listen: str = _setting("", "A second address that answers probes and metrics only; empty for none.")
    tls_cert: str = _setting("", "PEM certificate chain; required to listen beyond loopback.")
    tls_key: str = _setting("", "PEM private key of --tls-cert.")
    insecure_http: bool = _setting(False, "Listen beyond loopback without TLS (behind a proxy that terminates it).")
    allowed_hosts: str = _setting("", "Comma-separated Host headers accepted besides the listen address and loopback.")
    log_level: str = _setting("info", "debug, info, warning or error.")
    log_format: str = _setting("auto", "json, text or auto (text on a terminal).")
    removal_quiet_s: float = _setting(
        10.0, "Seconds the inventory must be quiet before a removal counts: a half-done pull is not one."
    )
    stale_after_s: float = _setting(90.0, "Seconds without an observation after which a cluster is shown as Stale.")
    heartbeat_s: float = _setting(60.0, "Seconds between Lease renewals in each cluster: the only idle write.")
    git_timeout_s: float = _setting(60.0, "Deadline of one fetch.")
    render_timeout_s: float = _setting(60.0, "Deadline of one render.")
    render_workers: int = _setting(2, "Worker processes for rendering.")
    kustomize: str = _setting("", "Path of kustomize (or kubectl); empty looks on PATH.")
    request_timeout_s: float = _setting(30.0, "Deadline of one request to an API server.")
    unschedulable_grace_s: float = _setting(30.0, "Seconds a pod may be unschedulable before its workload is Failed.")
    stop_timeout_s: float = _setting(25.0, "Seconds a stop may take; below a pod's 30 s grace.")

    @classmethod
    def load(cls, environ: Mapping[str, str], flags: Mapping[str, object]) -> Self:
        """Read settings; flags win over `FLEET_*` variables. A flag that is None was not given.

        Raises: SettingsError naming the variable, its value's fault and the nearest valid name.
        """
        kinds = get_type_hints(cls)
        names = {f"FLEET_{f.name.upper()}": f.name for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for variable, text in environ.items():
            if variable in names:
                values[names[variable]] = _parse(variable, kinds[names[variable]], text)
            elif variable.startswith("FLEET_") and variable not in CLIENT_VARIABLES:
                raise SettingsError(f"{variable} is not a setting{_nearest(variable, names)}")
        values.update(
            {name: _parse(f"--{name}", kinds[name], value) for name, value in flags.items() if value is not None}
        )
        return cls(**values)


CLIENT_VARIABLES = frozenset({"FLEET_SERVER", "FLEET_TOKEN", "FLEET_TOKEN_FILE", "FLEET_CA"})
"""Variables that client commands read; the hub passes over them."""


def _parse(name: str, kind: Any, value: object) -> Any:
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
        if str(value).lower() not in words:
            raise SettingsError(f"{name}: {value!r} is neither true nor false")
        return words[str(value).lower()]
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{name}: {value!r} is not {kind.__name__}") from error


def _nearest(word: str, known: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""
