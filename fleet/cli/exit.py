"""How commands end: the exit codes, and the failures that carry them."""

from enum import IntEnum
from typing import IO, Any

import click

from fleet.cli.table import clean


class Exit(IntEnum):
    """What the exit code of every command means to a script."""

    OK = 0
    DIFFERS = 1
    """It differs, or is not ready."""
    ERROR = 2
    """Wrong usage, or an error."""
    UNREACHABLE = 3
    DENIED = 4
    TIMEOUT = 124
    INTERRUPTED = 130


class Failure(click.ClickException):
    """Ends the command with a message on stderr and an exit code."""

    def __init__(self, message: str, code: Exit = Exit.ERROR) -> None:
        super().__init__(message)
        self.exit_code = int(code)  # type: ignore[misc]  # click reads it from the instance too

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to stderr, without click's usage text."""
        click.echo(f"fleet: {clean(self.format_message())}", file=file, err=file is None)
