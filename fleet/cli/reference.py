"""The reference page of the command line, written from the commands themselves."""

import inspect
from collections.abc import Iterator

import click

from fleet.cli.main import COMMANDS, LazyGroup, cli
from fleet.cli.option import CONNECTION_HELP


def write_reference() -> str:
    """Return Markdown: one section per command in the order of `fleet --help`, one table row per option."""
    context = click.Context(cli, info_name="fleet")
    sections = [_write_index()]
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        sections += _write_command(command, f"fleet {name}")
    return "\n\n".join(sections)


def _write_index() -> str:
    rows = [f"| {entry.section} | [`fleet {name}`](#fleet-{name}) | {entry.help} |" for name, entry in COMMANDS.items()]
    return "\n".join(["| | command | what it does |", "|---|---|---|", *rows])


def _write_command(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    yield f"## `{path}`"
    yield f"    {usage}"
    yield inspect.cleandoc(command.help or "").replace("\b\n", "")
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    own = [option for option in options if option.help not in CONNECTION_HELP]
    if own:
        yield "\n".join(["| option | meaning |", "|---|---|", *map(_write_option, own)])
    if len(own) < len(options):
        yield "The options that [find the hub](#finding-the-hub) apply."
    if isinstance(command, click.Group) and not isinstance(command, LazyGroup):
        for name, inner in command.commands.items():
            yield from _write_command(inner, f"{path} {name}")


def _write_option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" `{_write_value(option)}`"
    needed = " Required." if option.required else ""
    text = " ".join((option.help or "").split()).replace("|", "\\|")
    return f"| {names}{value} | {text}{needed} |"


def _write_value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return "\\|".join(map(str, option.type.choices))
    return option.metavar or option.type.name.upper()
