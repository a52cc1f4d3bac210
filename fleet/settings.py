"""Everything an operator can set on the hub: one flag and one `FLEET_*` variable each, flag first."""

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, get_type_hints

from fleet.errors import SettingsError


def _setting(default: object, text: str, *, choices: Sequence[str] = (), least: float | None = None) -> Any:
    """Declare a setting. A number is more than 0, or at least `least`."""
    return field(default=default, metadata={"help": text, "choices": tuple(choices), "least": least})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The hub's settings. Seconds end in `_s`; each has its reason in its help text."""

    inventory: Path = _setting(Path("clusters.d"), "Directory of inventory files.")
    data: Path = _setting(Path("data"), "Data directory (SQLite, Git objects, keys); made with mode 0700.")
    master_key_from: str = _setting(
        "",
        "Where the master key of the sealing keys is: file:PATH, credential:NAME, env:VARIABLE, command:PROGRAM ARGUMENTS, or"
        " passphrase: before one of these. Empty is systemd credential fleet-master-key, else DATA/master.key, which is made.",
    )
    keys_backup: str = _setting(
        "",
        "Directory, on another disk, that gets a backup of the sealing keys whenever one changes; empty leaves new keys"
        " unused until somebody runs fleet keys backup.",
    )
    keys_renew_days: float = _setting(90.0, "Days after which a sealing key is replaced; the old one still opens.")
    anonymous_seal_keys: bool = _setting(
        False,
        "Give public sealing keys and certificates to whoever asks, also beyond loopback, as kubeseal --cert needs.",
    )
    listen: str = _setting("127.0.0.1:8420", "Address of the HTTP server, HOST:PORT.")
    probe_listen: str = _setting("", "A second address that answers probes and metrics only; empty for none.")
    tls_cert: str = _setting("", "PEM certificate chain; required to listen beyond loopback.")
    tls_key: str = _setting("", "PEM private key of --tls-cert.")
    insecure_http: bool = _setting(False, "Listen beyond loopback without TLS (behind a proxy that terminates it).")
    allowed_hosts: str = _setting("", "Comma-separated Host headers accepted besides the listen address and loopback.")
    log_level: str = _setting("info", "debug, info, warning or error.", choices=("debug", "info", "warning", "error"))
    log_format: str = _setting("auto", "json, text or auto (text on a terminal).", choices=("json", "text", "auto"))
    removal_quiet_s: float = _setting(
        10.0, "Seconds the inventory must be quiet before a removal counts: a half-done pull is not one.", least=0
    )
    stale_after_s: float = _setting(90.0, "Seconds without an observation after which a cluster is shown as Stale.")
    unreachable_after_s: float = _setting(
        20.0,
        "Seconds without an answer after which rollouts treat a cluster as unreachable (onUnreachable): more than the"
        " restart of an API server takes.",
    )
    heartbeat_s: float = _setting(60.0, "Seconds between Lease renewals in each cluster: the only idle write.")
    git_timeout_s: float = _setting(60.0, "Deadline of one fetch.")
    render_timeout_s: float = _setting(60.0, "Deadline of one render.")
    render_workers: int = _setting(2, "Worker processes for rendering.")
    kustomize: str = _setting("", "Path of kustomize (or kubectl); empty looks on PATH.")
    tmpfs: str = _setting(
        "/dev/shm",  # noqa: S108 - only private directories with random names are made in it
        "A directory on tmpfs, for Kustomize builds of files encrypted with SOPS: opened values never reach a disk.",
    )
    request_timeout_s: float = _setting(30.0, "Deadline of one request to an API server.")
    unschedulable_grace_s: float = _setting(
        30.0, "Seconds a pod may be unschedulable before its workload is Failed.", least=0
    )
    stop_timeout_s: float = _setting(25.0, "Seconds a stop may take; below a pod's 30 s grace.")

    @classmethod
    def load(cls, environ: Mapping[str, str], flags: Mapping[str, object]) -> Self:
        """Read settings; flags win over `FLEET_*` variables. A flag that is None was not given.

        Raises: SettingsError naming the variable, its value's fault and the nearest valid name.
        """
        kinds = get_type_hints(cls)
        known = {f"FLEET_{f.name.upper()}": f for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for variable, text in environ.items():
            if variable in known:
                setting = known[variable]
                values[setting.name] = _parse(variable, kinds[setting.name], text, setting.metadata)
            elif variable.startswith("FLEET_") and variable not in CLIENT_VARIABLES and not _INJECTED.match(variable):
                raise SettingsError(f"{variable} is not a setting{_nearest(variable, known)}")
        for setting in known.values():
            if flags.get(setting.name) is not None:
                flag = f"--{setting.name.replace('_', '-')}"
                values[setting.name] = _parse(flag, kinds[setting.name], flags[setting.name], setting.metadata)
        return cls(**values)


CLIENT_VARIABLES = frozenset({"FLEET_SERVER", "FLEET_TOKEN", "FLEET_TOKEN_FILE", "FLEET_CA"})
"""Variables that client commands read; the hub passes over them."""

# the kubelet sets these in every pod beside a Service named `fleet`
_INJECTED = re.compile(r"FLEET_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}


def _parse(name: str, kind: Any, value: object, rules: Mapping[str, Any]) -> Any:
    if kind is bool:
        if str(value).lower() not in _BOOLEANS:
            raise SettingsError(f"{name}: {value!r} is neither true nor false")
        return _BOOLEANS[str(value).lower()]
    if kind is Path:
        if not str(value):
            raise SettingsError(f"{name}: is empty; name a path")
        return Path(str(value))
    if kind is str:
        if rules["choices"] and value not in rules["choices"]:
            raise SettingsError(f"{name}: {value!r} is none of {', '.join(rules['choices'])}")
        return str(value)
    return _parse_number(name, kind, value, rules["least"])


def _parse_number(name: str, kind: Any, value: Any, least: float | None) -> Any:
    try:
        number = kind(value)
        if not math.isfinite(number):
            raise ValueError
    except ValueError as error:
        word = "whole number" if kind is int else "number"
        raise SettingsError(f"{name}: {value!r} is not a {word}") from error
    if number < (least or 0) or (least is None and number == 0):
        raise SettingsError(f"{name}: must be {'more than 0' if least is None else f'at least {least:g}'}")
    return number


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""
