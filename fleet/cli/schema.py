"""`fleet schema`: the JSON Schema of inventory documents."""

import json

import click

_KINDS = ("Repository", "Environment", "App", "Cluster")


def run(kind: str | None, output: str) -> str:
    """Return the schema of one kind, or of all; `output` is `json` or `markdown`."""
    if output == "markdown":
        from fleet.inventory.reference import write_reference

        return write_reference(kind)
    from fleet.inventory.schema import build_schema

    return json.dumps(build_schema(kind), indent=2)


@click.command(name="schema")
@click.argument("kind", type=click.Choice(_KINDS, case_sensitive=False), required=False)
@click.option("-o", "--output", type=click.Choice(["json", "markdown"]), default="json", help="Output format.")
def command(kind: str | None, output: str) -> None:
    """Print the JSON Schema of inventory documents: of KIND, or of all kinds.

    Editors that speak the YAML language server check and complete inventory files with it.
    """
    click.echo(run(kind, output))
