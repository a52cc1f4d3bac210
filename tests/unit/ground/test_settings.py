"""Settings from flags and variables."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import get_type_hints

import pytest

from fleet.errors import SettingsError
from fleet.settings import CLIENT_VARIABLES, Settings

FIELDS = dataclasses.fields(Settings)
OTHER: Mapping[str, tuple[str, object]] = {
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
}
BY_KIND: Mapping[type, tuple[str, object]] = {
    bool: ("true", True),
    int: ("7", 7),
    float: ("2.5", 2.5),
    str: ("x", "x"),
    Path: ("some/where", Path("some/where")),
}


def example(name: str) -> tuple[str, object]:
    """Return another value than the default, as text and as read."""
    return OTHER.get(name) or BY_KIND[get_type_hints(Settings)[name]]


@pytest.mark.parametrize("name", [f.name for f in FIELDS])
def test_each_setting_has_a_flag_a_variable_a_default_and_a_text(name: str) -> None:
    """Every setting can be given either way, the flag wins, and nothing else changes."""
    (field,) = [f for f in FIELDS if f.name == name]
    assert field.metadata["help"].endswith((".", "?"))
    text, value = example(name)
    variable = f"FLEET_{name.upper()}"
    changed = Settings(**{name: value})  # type: ignore[arg-type]
    assert changed != Settings()
    assert Settings.load({variable: text}, {}) == changed
    assert Settings.load({}, {name: text}) == changed
    assert Settings.load({}, {name: value}) == changed
    assert Settings.load({variable: text}, {name: text}) == changed


def test_nothing_given_is_the_default() -> None:
    """Foreign variables, those of client commands and flags that were not given change nothing."""
    environ = {"PATH": "/bin", "FLEETING": "x", **dict.fromkeys(CLIENT_VARIABLES, "x")}
    assert Settings.load(environ, dict.fromkeys(f.name for f in FIELDS)) == Settings()


@pytest.mark.parametrize("text", ["false", "0", "no", "False", ""])
def test_words_for_no(text: str) -> None:
    """A switch is off by any of the usual words."""
    assert not Settings.load({"FLEET_INSECURE_HTTP": text}, {}).insecure_http


@pytest.mark.parametrize(
    ("environ", "flags", "message"),
    [
        ({"FLEET_LISTN": "x"}, {}, "FLEET_LISTN is not a setting; did you mean FLEET_LISTEN?"),
        ({"FLEET_ZZZZZZ": "x"}, {}, "FLEET_ZZZZZZ is not a setting"),
        ({"FLEET_INSECURE_HTTP": "maybe"}, {}, "FLEET_INSECURE_HTTP: 'maybe' is neither true nor false"),
        ({"FLEET_HEARTBEAT_S": "often"}, {}, "FLEET_HEARTBEAT_S: 'often' is not a number"),
        ({"FLEET_RENDER_WORKERS": "2.5"}, {}, "FLEET_RENDER_WORKERS: '2.5' is not a whole number"),
        ({}, {"render_workers": "0"}, "--render-workers: must be more than 0"),
        ({}, {"heartbeat_s": "-1"}, "--heartbeat-s: must be more than 0"),
        ({}, {"heartbeat_s": "nan"}, "--heartbeat-s: 'nan' is not a number"),
        ({}, {"heartbeat_s": "inf"}, "--heartbeat-s: 'inf' is not a number"),
        ({"FLEET_INVENTORY": ""}, {}, "FLEET_INVENTORY: is empty; name a path"),
        ({}, {"log_level": "verbose"}, "--log-level: 'verbose' is none of debug, info, warning, error"),
        ({}, {"log_format": "xml"}, "--log-format: 'xml' is none of json, text, auto"),
    ],
)
def test_faults_name_what_was_given(environ: dict[str, str], flags: dict[str, object], message: str) -> None:
    """A fault names the variable or flag as it was written, the value, and what would be right."""
    with pytest.raises(SettingsError) as fault:
        Settings.load(environ, flags)
    assert str(fault.value) == message


def test_a_quiet_time_may_be_nothing() -> None:
    """Waiting may be switched off where that makes sense."""
    settings = Settings.load({"FLEET_REMOVAL_QUIET_S": "0", "FLEET_UNSCHEDULABLE_GRACE_S": "0"}, {})
    assert (settings.removal_quiet_s, settings.unschedulable_grace_s) == (0, 0)


def test_what_kubernetes_injects_for_a_service_named_fleet() -> None:
    """A pod beside a Service called `fleet` gets these variables from the kubelet; a hub in it starts all the same."""
    address = "tcp://10.0.0.1:8420"
    environ = {
        "FLEET_SERVICE_HOST": "10.0.0.1",
        "FLEET_SERVICE_PORT": "8420",
        "FLEET_SERVICE_PORT_HTTP": "8420",
        "FLEET_PORT": address,
        "FLEET_PORT_8420_TCP": address,
        "FLEET_PORT_8420_TCP_PROTO": "tcp",
        "FLEET_PORT_8420_TCP_PORT": "8420",
        "FLEET_PORT_8420_TCP_ADDR": "10.0.0.1",
    }
    assert Settings.load(environ, {}) == Settings()
