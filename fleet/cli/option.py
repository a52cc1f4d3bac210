"""Options and argument types that commands share."""

import functools
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import click

from fleet.cli.client import Client
from fleet.cli.connection import DEFAULT_SERVER, find_connection
from fleet.cli.duration import parse_duration
from fleet.cli.exit import Failure

STATES = ("Synced", "Progressing", "Waiting", "Drifted", "Degraded", "Failed", "Paused", "Stale", "Unknown")

Command = Callable[..., Any]


def connected(command: Command) -> Command:
    """Give a command the options that find the hub, and pass it a Client as its first argument."""

    @click.option("--server", envvar="FLEET_SERVER", default=DEFAULT_SERVER, metavar="URL", help=_SERVER)
    @click.option("--token-file", default="", metavar="FILE", help=_FILE)
    @click.option("--ca", envvar="FLEET_CA", default="", metavar="FILE", help=_CA)
    @click.option(
        "--data", envvar="FLEET_DATA", default="data", metavar="DIR", type=click.Path(path_type=Path), help=_DATA
    )
    @functools.wraps(command)
    def connect(*, server: str, token_file: str, ca: str, data: Path, **rest: Any) -> Any:
        connection = find_connection(os.environ, server=server, token_file=token_file, ca=ca, data=data)
        return command(Client(connection), **rest)

    return connect


_SERVER = f"Address of the hub. Default: {DEFAULT_SERVER}. [env: FLEET_SERVER]"
_FILE = "File with the token to show; FLEET_TOKEN may hold the token itself. [env: FLEET_TOKEN_FILE]"
_CA = "PEM file of the authorities to trust instead of the system's. [env: FLEET_CA]"
_DATA = "Data directory of a hub on this machine, whose admin token is used unless another is given. [env: FLEET_DATA]"
CONNECTION_HELP = frozenset({_SERVER, _FILE, _CA, _DATA})
"""Help of the options that every client command has."""


def output(*formats: str) -> Callable[[Command], Command]:
    """Add -o/--output; the first format is the default."""
    return click.option(
        "-o", "--output", type=click.Choice(formats), default=formats[0], help=f"Output format. Default: {formats[0]}."
    )


def filters(command: Command) -> Command:
    """Add the options that narrow a list of targets."""
    for name, metavar, text in reversed(_FILTERS):
        command = click.option(name, default="", metavar=metavar, help=text)(command)
    return command


_FILTERS = (
    ("--cluster", "NAME", "Only this cluster."),
    ("--environment", "NAME", "Only clusters of this environment."),
    ("--label", "SELECTOR", "Only clusters whose labels match, as in `kubectl get -l`."),
)


class Duration(click.ParamType[float]):
    """Seconds, written as `90s`, `10m`, `2h` or `30d`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse what was typed; a default that is a number already stays."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def split_target(name: str, cluster: str) -> tuple[str, str]:
    """Return (cluster, app) of `CLUSTER/APP`, or of APP with --cluster; what is not said is empty.

    Raises: Failure when both name a cluster, and not the same.
    """
    before, slash, after = name.partition("/")
    if not slash:
        return cluster, name
    if cluster not in ("", before):
        raise Failure(f"{name} names cluster {before}, but --cluster says {cluster}; give one of them")
    return before, after


def find_target(client: Client, name: str, cluster: str) -> tuple[str, str]:
    """Return (cluster, app) of one target; without a cluster, that of an app that goes to one only.

    Raises: Failure naming the clusters to choose from.
    """
    cluster, app = split_target(name, cluster)
    if cluster:
        return cluster, app
    clusters = [row["cluster"] for row in client.items("targets", query={"app": app})]
    if not clusters:
        raise unknown_app(client, app)
    if len(clusters) > 1:
        raise Failure(f"app {app} goes to {len(clusters)} clusters; choose with --cluster: {', '.join(clusters)}")
    return clusters[0], app


def unknown_app(client: Client, app: str) -> Failure:
    """Return the failure for an app that goes nowhere, with the nearest name that is right."""
    return Failure(f"no app {app} goes to any cluster; {_hint(app, _app_names(client))}")


def wrong_name(client: Client, query: Mapping[str, str]) -> Failure | None:
    """Return the failure for the first app, cluster or environment of a filter that nothing has, with the nearest name.

    None when all names are right. Commas part several names.
    """
    for app in _split(query.get("app", "")):
        if app not in _app_names(client):
            return unknown_app(client, app)
    for key, field in (("cluster", "name"), ("environment", "environment")):
        names = _split(query.get(key, ""))
        known = {str(row[field]) for row in client.items("clusters")} if names else set()
        for name in names:
            if name not in known:
                return Failure(f"there is no {key} {name}; {_hint(name, known)}")
    return None


def no_target(client: Client, query: Mapping[str, str]) -> Failure:
    """Return the failure for a filter that no target matches: the wrong name if there is one."""
    return wrong_name(client, query) or Failure("no target matches; fleet status lists what there is")


def _split(names: str) -> list[str]:
    return [name for name in (word.strip() for word in names.split(",")) if name]


def _app_names(client: Client) -> set[str]:
    return {str(row["app"]) for row in client.items("apps")}


def _hint(name: str, known: Collection[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, sorted(known), 1)
    return f"did you mean {close[0]}?" if close else "fleet status lists what there is"
