"""`fleet validate`: every fault of an inventory directory, for people and for CI."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fleet.errors import Problem


def run(directory: Path, output: str, secrets: Sequence[str] = ()) -> tuple[str, int]:
    """Return what to print and the exit code: 0 if the inventory is right, and nothing wrong in `secrets`; 2 if not."""
    from fleet.errors import InventoryError
    from fleet.inventory.load import load_inventory

    try:
        inventory = load_inventory(directory)
    except InventoryError as error:
        listed = [{"file": str(directory), "line": 0, "column": 0, "field": "", "message": error.message}]
        text = json.dumps({"valid": False, "problems": listed}, indent=2) if output == "json" else str(error)
        return text, 2
    problems = [*inventory.problems, *_find_secrets(secrets)]
    code = 2 if problems else 0
    counts = {
        "repository": len(inventory.repositories),
        "environment": len(inventory.environments),
        "app": len(inventory.apps),
        "cluster": len(inventory.clusters),
        "target": len(inventory.targets),
    }
    if output == "json":
        rows = [problem._asdict() for problem in problems]
        return json.dumps({"valid": not rows, "problems": rows, "counts": counts}, indent=2), code
    if problems:
        return "\n".join([*map(str, problems), _count(len(problems), "problem")]), code
    return f"{directory} is valid: {', '.join(_count(number, noun) for noun, number in counts.items())}", code


def _find_secrets(paths: Sequence[str]) -> "Sequence[Problem]":
    if not paths:
        return ()
    from fleet.cli.seal_check import list_faults

    return list_faults(paths)


def _count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


@click.command(name="validate")
@click.argument(
    "directory", type=click.Path(path_type=Path), default="clusters.d", envvar="FLEET_INVENTORY", metavar="[DIR]"
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Output format.")
@click.option(
    "--secrets",
    multiple=True,
    metavar="PATH",
    help="Also look for Secrets in the clear and stale recipients here; repeat.",
)
def command(directory: Path, output: str, secrets: tuple[str, ...]) -> None:
    """Check the inventory files in DIR and print every problem as FILE:LINE:COLUMN.

    DIR is clusters.d, or what FLEET_INVENTORY says, unless given. Exits with 2 if there is any problem. With --secrets
    the files of a Git checkout are looked through as by fleet seal check.
    """
    text, code = run(directory, output, secrets)
    click.echo(text)
    sys.exit(code)
