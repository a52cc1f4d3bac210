"""Rows on stdout: a table for people, JSON, YAML or names for programs.

On a terminal the table has colour and wraps long texts; elsewhere it is plain, one row per line. JSON and YAML never
have colour, and hold rows exactly as the hub sent them.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from rich.text import Text

Row = Mapping[str, Any]

_STYLES = {
    **dict.fromkeys(("Synced", "Current", "Ready", "yes", "contained", "ok", "Done", "Succeeded"), "green"),
    **dict.fromkeys(("Progressing", "InProgress", "Connecting", "Terminating"), "cyan"),
    **dict.fromkeys(("Applying", "Verifying", "Running", "Checking", "Soaking"), "cyan"),
    **dict.fromkeys(("Drifted", "Waiting", "Paused", "configure", "create", "warning"), "yellow"),
    **dict.fromkeys(("Held", "AwaitingApproval"), "yellow"),
    **dict.fromkeys(("Degraded", "Failed", "prune", "NotFound", "failed", "refused", "Aborted", "RolledBack"), "red"),
    **dict.fromkeys(("Stale", "Unknown", "no", "skip", "unverified", "Deferred", "Skipped", "Superseded"), "magenta"),
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What would move a terminal's cursor or reorder its text; messages come from clusters and repositories."""


class Column(NamedTuple):
    """One column: its title, how to read a row, and when to show it."""

    title: str
    read: Callable[[Row], str]
    wide: bool = False
    """Only with `-o wide`."""
    state: bool = False
    """Coloured by its word."""


def field(title: str, name: str, *, wide: bool = False, state: bool = False) -> Column:
    """Return a column that shows a field as it is."""
    return Column(title, lambda row: str(row.get(name, "")), wide, state)


def print_rows(rows: Sequence[Row], columns: Sequence[Column], output: str, name: Callable[[Row], str]) -> None:
    """Print rows in one of the formats; the structured ones hold `{"items": [...]}`."""
    if output == "name":
        for row in rows:
            click.echo(clean(name(row)))
    elif output in ("json", "yaml"):
        print_value({"items": list(rows)}, output)
    else:
        print_table(rows, [column for column in columns if output == "wide" or not column.wide])


def print_value(value: Any, output: str) -> None:
    """Print a value as JSON or YAML."""
    click.echo(
        json.dumps(value, indent=2, ensure_ascii=False) if output == "json" else format_yaml(value), nl=output == "json"
    )


def print_table(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Print a table; nothing at all for no rows. The last column is the one that may be long."""
    if not rows:
        return
    cells = [[clean(column.read(row)).strip() or "-" for column in columns] for row in rows]
    if sys.stdout.isatty():
        _print_rich(cells, columns)
        return
    for line in align([[column.title for column in columns], *cells]):
        click.echo(line)


def align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Pad cells to columns, two spaces apart; line breaks inside cells become spaces.

    >>> align([["A", "B"], ["long", "x"]])
    ['A     B', 'long  x']
    """
    flat = [[" ".join(cell.split()) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*flat, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in flat]


def clean(text: str) -> str:
    """Make characters visible that would control a terminal.

    >>> clean("a" + chr(27) + "[2Jb")
    'a\ufffd[2Jb'
    """
    return _CONTROL.sub("\ufffd", text)


def paint(word: str) -> str:
    """Colour a state's word where stdout is a terminal that wants colour."""
    return paint_line(word, word)


def paint_line(text: str, word: str) -> str:
    """Colour a line as a state's word, where stdout is a terminal that wants colour."""
    from os import environ

    style = _STYLES.get(word)
    return click.style(text, fg=style) if style and sys.stdout.isatty() and not environ.get("NO_COLOR") else text


def style_of(word: str) -> str:
    """Return the colour of a state's word; empty for none."""
    return _STYLES.get(word, "")


def heading(text: str) -> None:
    """Print a section's title after an empty line."""
    click.echo(f"\n{text}")


def format_yaml(value: Any) -> str:
    """Return YAML that kubectl reads as the same value: long texts as blocks, ambiguous ones quoted."""
    import yaml

    from fleet.scalar import resolve_plain

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=_choose_style(text, resolve_plain))

    Dumper.add_representer(str, represent)
    dumped: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1 << 20)
    return dumped


def _choose_style(text: str, resolve_plain: Callable[[str], Any]) -> str | None:
    if _FOLDED.search(text):
        return '"'
    if "\n" in text:
        return "|"
    return None if isinstance(resolve_plain(text), str) else "'"


_FOLDED = re.compile(r"[\r\x85\u2028\u2029]")
"""Line breaks to YAML: outside double quotes they would be read as other ones."""


LEAST_ROOM = 32
"""Places that the last cell needs beside the others on a terminal; with fewer it goes below them."""


def _print_rich(cells: Sequence[Sequence[str]], columns: Sequence[Column]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    lines = [[Text(" ".join(cell.split()), style) for cell, style in _style(line, columns)] for line in cells]
    titles = [Text(column.title, "bold") for column in columns]
    *widths, longest = [max(text.cell_len for text in column) for column in zip(titles, *lines, strict=True)]
    if console.width - sum(widths) - 2 * len(widths) >= min(LEAST_ROOM, longest):
        table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        for width in widths:
            table.add_column(min_width=width, no_wrap=True)
        for line in [titles, *lines]:
            table.add_row(*line)
        console.print(table)
        return
    for line in [titles, *lines]:
        console.print(_join(line[:-1], widths), overflow="fold")
        if line[-1].plain != "-":
            console.print(Padding(line[-1], (0, 0, 0, 4)))


def _join(cells: "Sequence[Text]", widths: Sequence[int]) -> "Text":
    from rich.text import Text

    for cell, width in zip(cells, widths, strict=True):
        cell.pad_right(width - cell.cell_len)
    return Text("  ").join(cells)


def _style(line: Sequence[str], columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Pair cells with the colour of their word."""
    return [(cell, _STYLES.get(cell, "") if column.state else "") for cell, column in zip(line, columns, strict=True)]
