"""`fleet validate`: every fault of an inventory directory, for people and for CI."""

import json
import sys
from pathlib import Path

import click


def run(directory: Path, output: str) -> tuple[str, int]:
    """Return what to print and the exit code: 0 if the inventory is right, 2 if not."""
    from fleet.errors import InventoryError
    from fleet.inventory.load import load_inventory

    try:
        inventory = load_inventory(directory)
    except InventoryError as error:
        problems = [{"file": str(directory), "line": 0, "column": 0, "field": "", "message": error.message}]
        text = json.dumps({"valid": False, "problems": problems}, indent=2) if output == "json" else str(error)
        return text, 2
    code = 2 if inventory.problems else 0
    counts = {
        "repository": len(inventory.repositories),
        "environment": len(inventory.environments),
        "app": len(inventory.apps),
        "cluster": len(inventory.clusters),
        "target": len(inventory.targets),
    }
    if output == "json":
        listed = [problem._asdict() for problem in inventory.problems]
        return json.dumps({"valid": not listed, "problems": listed, "counts": counts}, indent=2), code
    if inventory.problems:
        return "\n".join([*map(str, inventory.problems), _count(len(inventory.problems), "problem")]), code
    return f"{directory} is valid: {', '.join(_count(number, noun) for noun, number in counts.items())}", code


def _count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


@click.command(name="validate")
@click.argument(
    "directory", type=click.Path(path_type=Path), default="clusters.d", envvar="FLEET_INVENTORY", metavar="[DIR]"
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Output format.")
def command(directory: Path, output: str) -> None:
    """Check the inventory files in DIR and print every problem as FILE:LINE:COLUMN.

    DIR is clusters.d, or what FLEET_INVENTORY says, unless given. Exits with 2 if there is any problem.
    """
    text, code = run(directory, output)
    click.echo(text)
    sys.exit(code)
