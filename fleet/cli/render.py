"""`fleet render`: what a target renders to."""

import json
from typing import Any

import click

from fleet.cli.client import Client
from fleet.cli.option import connected, find_target, output
from fleet.cli.table import Row, clean, format_yaml, print_value


@click.command(name="render")
@click.argument("name", metavar="APP | CLUSTER/APP")
@click.option("--cluster", default="", metavar="NAME", help="The cluster; may be left out if the app goes to one only.")
@click.option("--revision", default="", metavar="COMMIT", help="Another commit than the one that is desired now.")
@click.option("--explain", is_flag=True, help="Say where each variable comes from, as comments before the manifests.")
@output("yaml", "json", "name")
@connected
def command(client: Client, *, name: str, cluster: str, revision: str, explain: bool, output: str) -> None:
    """Print the manifests of an app on a cluster, as they would be applied.

    The values of Secrets are masked: compare with this output, do not apply it.
    """
    cluster, app = find_target(client, name, cluster)
    rendering = client.get("targets", cluster, app, "render", query={"revision": revision})
    if output == "json":
        print_value(_decode(rendering), output)
    elif output == "name":
        for row in rendering["manifests"]:
            click.echo(clean(_name(json.loads(row["manifest"]))))
    else:
        click.echo(
            "".join(([_explain(rendering)] if explain else []) + [_document(r) for r in rendering["manifests"]]),
            nl=False,
        )


def _decode(rendering: Row) -> dict[str, Any]:
    manifests = [{**row, "manifest": json.loads(row["manifest"])} for row in rendering["manifests"]]
    return {**rendering, "manifests": manifests}


def _name(manifest: Row) -> str:
    namespace = manifest["metadata"].get("namespace", "")
    return f"{namespace + ' ' if namespace else ''}{manifest['kind']}/{manifest['metadata']['name']}"


def _document(row: Row) -> str:
    source = _comment(row["file"]) if row["file"] else ""
    return f"---\n{source}{format_yaml(json.loads(row['manifest']))}"


def _explain(rendering: Row) -> str:
    lines = [f"{rendering['cluster']}/{rendering['app']} at {rendering['revision']}"]
    if not rendering["variables"]:
        lines.append("no variables")
    for name, value in sorted(rendering["variables"].items()):
        lines.append(
            f"{name} = {json.dumps(value, ensure_ascii=False)}  from {rendering['origins'].get(name, 'unknown')}"
        )
    return "".join(map(_comment, lines))


def _comment(text: str) -> str:
    return f"# {' '.join(clean(text).split(chr(10)))}\n"
